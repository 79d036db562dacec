#include "src/serve/connection.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "src/serve/refusal.h"

namespace longhand::serve {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t header_bytes = 64 << 10;
// While another client has no place: with one that asks nothing, and with a request that arrives slowly.
constexpr std::chrono::milliseconds idle_patience{500}, patience{2000};
thread_local Connection* serving = nullptr;
thread_local bool refusing = false;

int milliseconds_until(Clock::time_point time) {
  auto left = std::chrono::ceil<std::chrono::milliseconds>(time - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 1 << 30));
}

bool poll_for(int socket, short events, int timeout) {
  pollfd entry{socket, events, 0};
  int ready;
  do ready = poll(&entry, 1, timeout);
  while (ready < 0 && errno == EINTR);
  return ready > 0;
}

std::string whole_answer(int status, const char* message) {
  std::string body = error_body({status, message});
  return fmt::format(
      "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n{}", status,
      status_name(status), body.size(), status == 503 ? "Retry-After: 1\r\n" : "", body);
}

void address_of(const sockaddr_storage& address, std::string& ip, int& port) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
    inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text), port = ntohs(v4->sin_port);
  } else if (address.ss_family == AF_INET6) {
    auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
    inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text), port = ntohs(v6->sin6_port);
  }
  ip = text;
}

// Unread bytes would make the kernel reset the connection and take the answer with it: they are read away, not for
// long.
void close_politely(int socket) {
  shutdown(socket, SHUT_WR);
  char waste[4096];
  auto deadline = Clock::now() + std::chrono::milliseconds(refusing ? 20 : 300);
  while (poll_for(socket, POLLIN, milliseconds_until(deadline)) &&
         recv(socket, waste, sizeof waste, MSG_DONTWAIT) > 0) {
    if (Clock::now() >= deadline) break;
  }
  close(socket);
}

// Answers are made anew for each request: there is nothing to resume, and thousands of ranges would multiply one.
void ignore_ranges(httplib::Request& request) { request.ranges.clear(); }

// Connections within the limit go to a pool, and one beyond it that takes another's place; otherwise the accepting
// thread itself answers.
class BoundedQueue : public httplib::TaskQueue {
 public:
  BoundedQueue(int limit, std::function<bool()> make_room)
      : limit_(limit), make_room_(std::move(make_room)), pool_(limit) {}
  void enqueue(std::function<void()> work) override {
    if (queued_.load() - done_.load() < limit_ || make_room_()) {
      ++queued_;
      pool_.enqueue([this, work = std::move(work)] {
        work();
        ++done_;
      });
      return;
    }
    refusing = true;
    work();
    refusing = false;
  }
  void shutdown() override { pool_.shutdown(); }

 private:
  int limit_;
  std::function<bool()> make_room_;
  std::atomic<int64_t> queued_{0}, done_{0};
  httplib::ThreadPool pool_;
};

}  // namespace

Connection* Connection::current() { return serving; }

Connection::Connection(int socket, const ConnectionLimits& limits) : socket_(socket), limits_(limits) {
  fcntl(socket_, F_SETFL, fcntl(socket_, F_GETFL) | O_NONBLOCK);
}

void Connection::enter(Stage stage) { entered_ = Clock::now(), stage_ = stage; }

std::optional<Clock::time_point> Connection::waiting_since() const {
  if (stage_ == Stage::answering || evicted_) return std::nullopt;
  return entered_.load();
}

// The end of its input wakes the thread that reads.
void Connection::evict() {
  evicted_ = true;
  shutdown(socket_, SHUT_RD);
}

// In short waits, so that a server that shuts down does not wait for clients that ask nothing.
bool Connection::wait_for_request(const std::atomic<bool>& closing) {
  if (at_ < buffer_.size()) return true;
  enter(Stage::idle);
  auto deadline = Clock::now() + limits_.idle;
  while (!closing && !evicted_ && Clock::now() < deadline)
    if (poll_for(socket_, POLLIN, std::min(100, milliseconds_until(deadline)))) return !gone();
  return false;
}

void Connection::begin_request() {
  enter(Stage::receiving);
  began_ = Clock::now(), deadline_ = began_ + limits_.read;
  left_ = limits_.body + header_bytes - static_cast<int64_t>(buffer_.size() - at_);
}

double Connection::seconds() const { return std::chrono::duration<double>(Clock::now() - began_).count(); }

bool Connection::gone() const {
  char byte;
  ssize_t got = recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

bool Connection::is_readable() const { return at_ < buffer_.size() || poll_for(socket_, POLLIN, 0); }

bool Connection::is_writable() const { return !broken_ && !gone(); }

ssize_t Connection::receive() {
  for (;;) {
    if (left_ <= 0) return give_up(413, "the request is too large"), -1;
    if (!poll_for(socket_, POLLIN, milliseconds_until(deadline_)))
      return give_up(408, "the request did not arrive in time"), -1;
    buffer_.resize(16384), at_ = 0;
    ssize_t got = recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    buffer_.resize(std::max<ssize_t>(got, 0));
    if (got > 0) return left_ -= got, got;
    if (evicted_) return give_up(408, "the request did not arrive while others waited for the connection"), -1;
    if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) return broken_ = true, got;
  }
}

ssize_t Connection::read(char* data, size_t size) {
  if (broken_) return -1;
  if (at_ == buffer_.size()) {
    ssize_t got = receive();
    if (got <= 0) return got;
  }
  size_t count = std::min(size, buffer_.size() - at_);
  std::copy_n(buffer_.data() + at_, count, data);
  at_ += count;
  return static_cast<ssize_t>(count);
}

// The answer of the guard itself. What the parser writes afterwards goes nowhere.
void Connection::give_up(int status, const char* message) {
  std::string answer = whole_answer(status, message);
  if (stage_ != Stage::answering) send_all(answer.data(), answer.size());
  broken_ = true;
}

bool Connection::send_all(const char* data, size_t size) {
  auto deadline = Clock::now() + limits_.write;
  while (size > 0) {
    ssize_t sent = send(socket_, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
      data += sent, size -= static_cast<size_t>(sent);
      deadline = Clock::now() + limits_.write;
    } else if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
      return false;
    } else if (!poll_for(socket_, POLLOUT, milliseconds_until(deadline))) {
      return false;
    }
  }
  return true;
}

ssize_t Connection::write(const char* data, size_t size) {
  if (broken_) return -1;
  enter(Stage::answering);
  if (!send_all(data, size)) return broken_ = true, -1;
  return static_cast<ssize_t>(size);
}

void Connection::get_remote_ip_and_port(std::string& ip, int& port) const {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getpeername(socket_, reinterpret_cast<sockaddr*>(&address), &size) == 0) address_of(address, ip, port);
}

void Connection::get_local_ip_and_port(std::string& ip, int& port) const {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size) == 0) address_of(address, ip, port);
}

GuardedServer::GuardedServer(const ConnectionLimits& limits) : limits_(limits) {
  set_payload_max_length(static_cast<size_t>(limits.body));
  // Without SO_REUSEPORT, which cpp-httplib sets: a port that is taken is an error.
  set_socket_options([](int socket) {
    int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  new_task_queue = [this] { return new BoundedQueue(limits_.connections, [this] { return make_room(); }); };
}

// Clients that ask nothing go first, then those whose requests have long been arriving; of each the one that has taken
// longest.
bool GuardedServer::make_room() {
  std::lock_guard lock(mutex_);
  Connection* chosen = nullptr;
  std::pair<bool, Clock::time_point> first;
  for (Connection* one : open_) {
    auto since = one->waiting_since();
    if (!since || Clock::now() - *since < (one->idle() ? idle_patience : patience)) continue;
    std::pair rank{!one->idle(), *since};
    if (!chosen || rank < first) chosen = one, first = rank;
  }
  if (chosen) chosen->evict();
  return chosen != nullptr;
}

bool GuardedServer::process_and_close_socket(int socket) {
  if (refusing) {
    std::string answer = whole_answer(503, "too many connections: try again later");
    (void)!send(socket, answer.data(), answer.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    close_politely(socket);
    return false;
  }
  ++active_;
  Connection connection(socket, limits_);
  serving = &connection;
  {
    std::lock_guard lock(mutex_);
    open_.insert(&connection);
  }
  while (connection.wait_for_request(closing_)) {
    bool closed = false;
    connection.begin_request();
    bool fine = process_request(connection, closing_, closed, ignore_ranges);
    if (!fine || closed || connection.closes() || closing_) break;
  }
  serving = nullptr;
  {
    std::lock_guard lock(mutex_);
    open_.erase(&connection);
  }
  close_politely(socket);
  --active_;
  return true;
}

}  // namespace longhand::serve
