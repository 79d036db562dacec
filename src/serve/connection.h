// The server's sockets: cpp-httplib's parser and router over connections that have a guard of their own.
//
//   a request has a deadline as a whole and a size as a whole, however slowly and in whatever pieces it comes;
//   an answer that its reader does not take is given up; a handler can ask whether its client is still there;
//   a connection beyond the limit takes the place of one that asks nothing, or whose request has been arriving for
//   long; where there is none it is answered with 503 at once instead of waiting for a worker.
#pragma once

#include <httplib.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <string>

namespace longhand::serve {

struct ConnectionLimits {
  int connections = 128;                   // served at the same time, one thread each
  int64_t body = 1 << 20;                  // bytes of a request's body; headers may have 64 KiB
  std::chrono::milliseconds read{10000};   // for a whole request to arrive, from its first byte
  std::chrono::milliseconds idle{15000};   // for the first byte of a next request
  std::chrono::milliseconds write{20000};  // without a byte taken by the reader
};

/// One client's socket while it is served.
class Connection : public httplib::Stream {
 public:
  Connection(int socket, const ConnectionLimits& limits);

  /// Of what the client has yet to send: since when it is waited for. None while an answer is being made.
  std::optional<std::chrono::steady_clock::time_point> waiting_since() const;
  bool idle() const { return stage_ == Stage::idle; }
  void evict();  // from any thread: the client is no longer waited for

  bool wait_for_request(const std::atomic<bool>& closing);  // false: close it
  void begin_request();
  void request_arrived() { enter(Stage::answering); }
  double seconds() const;  // since the request began
  bool broken() const { return broken_; }
  bool gone() const;  // the client has hung up
  void close_afterwards() { close_afterwards_ = true; }
  bool closes() const { return close_afterwards_ || broken_; }

  bool is_readable() const override;
  bool is_writable() const override;
  ssize_t read(char* data, size_t size) override;
  ssize_t write(const char* data, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  int socket() const override { return socket_; }

  /// The connection that this thread is serving.
  static Connection* current();

 private:
  ssize_t receive();
  void give_up(int status, const char* message);
  bool send_all(const char* data, size_t size);

  enum class Stage : uint8_t { idle, receiving, answering };
  void enter(Stage stage);

  int socket_;
  const ConnectionLimits& limits_;
  std::atomic<Stage> stage_{Stage::idle};
  std::atomic<std::chrono::steady_clock::time_point> entered_{std::chrono::steady_clock::now()};
  std::atomic<bool> evicted_{false};
  std::chrono::steady_clock::time_point began_, deadline_;
  int64_t left_ = 0;  // bytes that the request may still have
  std::string buffer_;
  size_t at_ = 0;
  bool broken_ = false, close_afterwards_ = false;
};

class GuardedServer : public httplib::Server {
 public:
  explicit GuardedServer(const ConnectionLimits& limits);

  /// Idle connections are closed and no connection is kept after its answer.
  void close_idle() { closing_ = true; }
  int connections() const { return active_; }

 private:
  bool process_and_close_socket(int socket) override;
  bool make_room();

  ConnectionLimits limits_;
  std::mutex mutex_;
  std::set<Connection*> open_;
  std::atomic<bool> closing_{false};
  std::atomic<int> active_{0};
};

}  // namespace longhand::serve
