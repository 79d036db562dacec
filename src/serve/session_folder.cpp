#include "src/serve/session_folder.h"

#include <filesystem>
#include <utility>

#include "longhand/error.h"
#include "src/base/sha256.h"
#include "src/serve/refusal.h"

namespace longhand::serve {

SessionFolder::SessionFolder(std::string path) : path_(std::move(path)) {
  std::error_code error;
  if (!path_.empty()) std::filesystem::create_directories(path_, error);
  if (error) fail("--sessions {}: {}", path_, error.message());
}

SessionFolder::Lease& SessionFolder::Lease::operator=(Lease&& other) noexcept {
  std::swap(folder_, other.folder_), std::swap(id_, other.id_), std::swap(file_, other.file_);
  return *this;
}

SessionFolder::Lease::~Lease() {
  if (!folder_) return;
  std::lock_guard lock(folder_->mutex_);
  folder_->taken_.erase(file_);
}

std::shared_ptr<const Session> SessionFolder::Lease::read(const std::string& model) const {
  if (!std::filesystem::exists(file_)) return nullptr;
  auto session = std::make_shared<Session>(read_session(file_));
  if (session->model != model)
    throw Refusal(409, fmt::format("session {} was made with other weights", id_), "session");
  return session;
}

void SessionFolder::Lease::write(const Session& session) const { write_session(file_, session); }

SessionFolder::Lease SessionFolder::take(const std::string& id, std::string_view key) {
  if (path_.empty()) throw Refusal(400, "this server keeps no sessions (serve --sessions FOLDER)", "session");
  std::string folder = key.empty() ? path_ : path_ + "/" + sha256(key);
  std::filesystem::create_directories(folder);
  std::string file = folder + "/" + id + ".safetensors";
  std::lock_guard lock(mutex_);
  if (!taken_.insert(file).second)
    throw Refusal(409, fmt::format("session {} is being gone on with by another request", id), "session");
  return Lease(this, id, std::move(file));
}

}  // namespace longhand::serve
