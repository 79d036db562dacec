#include "src/serve/engine_queue.h"

#include <algorithm>

namespace longhand::serve {

void Ticket::Shared::post(Event event) {
  std::lock_guard lock(mutex);
  events.push_back(std::move(event));
  changed.notify_all();
}

std::optional<Event> Ticket::wait(Clock::duration patience) {
  std::unique_lock lock(shared_->mutex);
  if (!shared_->changed.wait_for(lock, patience, [&] { return !shared_->events.empty(); })) return std::nullopt;
  Event event = std::move(shared_->events.front());
  shared_->events.pop_front();
  return event;
}

// The engine looks before every step, and it steps as long as there is a job.
void Ticket::cancel() { shared_->cancelled = true; }

void FairQueue::push(QueuedJob queued) {
  std::deque<QueuedJob>& line = lines_[queued.job.client];
  if (line.empty()) turns_.push_back(queued.job.client);
  line.push_back(std::move(queued));
  ++count_;
}

int64_t FairQueue::size(const std::string& client) const {
  auto line = lines_.find(client);
  return line == lines_.end() ? 0 : static_cast<int64_t>(line->second.size());
}

QueuedJob& FairQueue::front() { return lines_.at(turns_.front()).front(); }

QueuedJob FairQueue::pop() {
  std::string client = std::move(turns_.front());
  turns_.pop_front();
  auto line = lines_.find(client);
  QueuedJob taken = std::move(line->second.front());
  line->second.pop_front();
  --count_;
  if (line->second.empty())
    lines_.erase(line);
  else
    turns_.push_back(std::move(client));
  return taken;
}

void FairQueue::remove(const std::function<bool(const QueuedJob&)>& gone, const std::function<void(QueuedJob&)>& tell) {
  for (auto line = lines_.begin(); line != lines_.end();) {
    std::erase_if(line->second, [&](QueuedJob& queued) {
      if (!gone(queued)) return false;
      tell(queued);
      --count_;
      return true;
    });
    if (line->second.empty()) {
      std::erase(turns_, line->first);
      line = lines_.erase(line);
    } else {
      ++line;
    }
  }
}

}  // namespace longhand::serve
