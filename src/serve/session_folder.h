// The sessions of a server: one file each, one request at a time. Where clients have keys, each key has sessions of its
// own, in a folder named by a digest of the key.
#pragma once

#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "longhand/session.h"

namespace longhand::serve {

/// Safe from any thread.
class SessionFolder {
 public:
  /// Fails when the folder cannot be made. Without a path no session is kept.
  explicit SessionFolder(std::string path);

  /// A session for as long as a request lasts.
  class Lease {
   public:
    Lease() = default;
    Lease(SessionFolder* folder, std::string id, std::string file)
        : folder_(folder), id_(std::move(id)), file_(std::move(file)) {}
    Lease(Lease&& other) noexcept { *this = std::move(other); }
    Lease& operator=(Lease&& other) noexcept;
    ~Lease();

    /// Null where there is none yet. Throws Refusal: 409 when other weights made it.
    std::shared_ptr<const Session> read(const std::string& model) const;
    void write(const Session& session) const;

   private:
    SessionFolder* folder_ = nullptr;
    std::string id_, file_;
  };

  /// `key` is the client's, empty where none is asked for. Throws Refusal: 400 without a folder, 409 while another
  /// request has the session.
  Lease take(const std::string& id, std::string_view key);

 private:
  std::string path_;
  std::mutex mutex_;
  std::set<std::string> taken_;  // files
};

}  // namespace longhand::serve
