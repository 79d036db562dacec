// Files: read whole, mapped, or written so that a reader finds the old content or the new, never a half.
// Every failure is an Error with the path, the system's reason and what to do.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace longhand {

/// The whole file; fails when it holds more than `limit` bytes (negative: no limit).
std::string read_file(const std::string& path, int64_t limit = -1);

/// Writes `content` by way of FileWriter.
void write_file(const std::string& path, std::string_view content);

/// A file mapped for reading. Empty files have no mapping: data() is null and size() 0. Not copied, not moved.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const char* data() const { return data_; }
  int64_t size() const { return size_; }
  /// These bytes need not stay in memory; they are read again where they are asked for.
  void forget(int64_t first, int64_t bytes) const;

 private:
  const char* data_ = nullptr;
  int64_t size_ = 0;
};

/// Writes `<path>.part`; commit() syncs it, renames it to `path` and syncs the folder. Without commit() the part is
/// removed and `path` is as it was. A part that a killed process left behind is overwritten.
class FileWriter {
 public:
  explicit FileWriter(std::string path);
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter();

  void write(const void* data, int64_t bytes);
  void write(std::string_view text) { write(text.data(), static_cast<int64_t>(text.size())); }
  void commit();

 private:
  [[noreturn]] void give_up(const char* what, const std::string& path, int code);
  std::string path_, part_;
  int file_ = -1;
};

/// A name from a file as it may stand in a message: control characters replaced, cut at 100 bytes.
std::string printable(std::string_view name);

}  // namespace longhand
