// Jobs that wait: a line for each client, and the clients take turns.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "src/serve/engine.h"

namespace longhand::serve {

/// What submitter and engine share of a job.
struct Ticket::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Event> events;
  std::atomic<bool> cancelled{false};

  void post(Event event);
};

struct QueuedJob {
  Job job;
  std::shared_ptr<Ticket::Shared> shared;
};

class FairQueue {
 public:
  void push(QueuedJob queued);
  bool empty() const { return count_ == 0; }
  int64_t size() const { return count_; }
  int64_t size(const std::string& client) const;

  QueuedJob& front();  // the first job of the client whose turn it is
  QueuedJob pop();     // takes it; the turn goes to the next client

  /// Takes out every job for which `gone` holds and hands it to `tell`.
  void remove(const std::function<bool(const QueuedJob&)>& gone, const std::function<void(QueuedJob&)>& tell);

 private:
  std::map<std::string, std::deque<QueuedJob>> lines_;
  std::deque<std::string> turns_;  // clients with jobs, the next one first
  int64_t count_ = 0;
};

}  // namespace longhand::serve
