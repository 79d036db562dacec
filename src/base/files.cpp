#include "longhand/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "longhand/error.h"

namespace longhand {
namespace {

// The system's reason and, for the usual ones, what to do.
std::string reason(int code) {
  std::string text = std::strerror(code);
  switch (code) {
    case ENOSPC:
    case EDQUOT:
      return text + "; free some space or write to another disk";
    case EFBIG:
      return text + "; raise the file size limit (ulimit -f)";
    case ENOENT:
      return text + "; check the path";
    case EACCES:
    case EPERM:
    case EROFS:
      return text + "; check the permissions or choose another place";
    default:
      return text;
  }
}

// A file opened for reading, closed when it goes out of sight.
class ReadHandle {
 public:
  explicit ReadHandle(const std::string& path) : file_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file_ < 0) fail("{}: cannot open: {}", path, reason(errno));
    struct stat status;
    if (fstat(file_, &status) != 0) close_and_fail(path, errno);
    if (S_ISDIR(status.st_mode)) close_and_fail(path, EISDIR);
    size = status.st_size;
  }
  ReadHandle(const ReadHandle&) = delete;
  ReadHandle& operator=(const ReadHandle&) = delete;
  ~ReadHandle() { close(file_); }
  int get() const { return file_; }
  int64_t size = 0;

 private:
  [[noreturn]] void close_and_fail(const std::string& path, int code) {
    close(file_);
    fail("{}: cannot read: {}", path, reason(code));
  }
  int file_;
};

void sync_folder(const std::string& path) {
  size_t slash = path.rfind('/');
  std::string folder = slash == std::string::npos ? "." : path.substr(0, std::max<size_t>(slash, 1));
  int handle = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (handle < 0) fail("{}: cannot open the folder: {}", folder, reason(errno));
  // Some file systems have no sync of folders and say EINVAL; there the rename is as safe as it gets.
  int code = fsync(handle) == 0 ? 0 : errno;
  close(handle);
  if (code != 0 && code != EINVAL) fail("{}: cannot sync the folder: {}", folder, reason(code));
}

}  // namespace

std::string read_file(const std::string& path, int64_t limit) {
  ReadHandle file(path);
  // Pipes and the files of /proc have no size of their own: read to the end whatever it says.
  std::string content;
  for (;;) {
    if (limit >= 0 && static_cast<int64_t>(content.size()) > limit)
      fail("{}: more than the {} bytes that are expected here; is it the right file?", path, limit);
    size_t have = content.size();
    size_t room = std::max<int64_t>(file.size - static_cast<int64_t>(have) + 1, 4096);
    content.resize(have + room);
    ssize_t got = read(file.get(), content.data() + have, room);
    content.resize(have + std::max<ssize_t>(got, 0));
    if (got == 0) return content;
    if (got < 0 && errno != EINTR) fail("{}: cannot read: {}", path, reason(errno));
  }
}

void write_file(const std::string& path, std::string_view content) {
  FileWriter writer(path);
  writer.write(content);
  writer.commit();
}

MappedFile::MappedFile(const std::string& path) {
  ReadHandle file(path);
  size_ = file.size;
  if (size_ == 0) return;
  void* memory = mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (memory == MAP_FAILED) fail("{}: cannot map {} bytes: {}", path, size_, reason(errno));
  data_ = static_cast<const char*>(memory);
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<char*>(data_), static_cast<size_t>(size_));
}

void MappedFile::forget(int64_t first, int64_t bytes) const {
  int64_t page = sysconf(_SC_PAGESIZE), begin = (first + page - 1) / page * page, end = (first + bytes) / page * page;
  if (begin < end) madvise(const_cast<char*>(data_) + begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
}

FileWriter::FileWriter(std::string path) : path_(std::move(path)), part_(path_ + ".part") {
  file_ = open(part_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file_ < 0) fail("{}: cannot write: {}", part_, reason(errno));
}

FileWriter::~FileWriter() {
  if (file_ < 0) return;
  close(file_);
  unlink(part_.c_str());
}

void FileWriter::give_up(const char* what, const std::string& path, int code) {
  if (file_ >= 0) close(std::exchange(file_, -1));
  unlink(part_.c_str());
  fail("{}: cannot {}: {}", path, what, reason(code));
}

void FileWriter::write(const void* data, int64_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    ssize_t done = ::write(file_, next, static_cast<size_t>(std::min<int64_t>(bytes, 1 << 30)));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) give_up("write", path_, done < 0 ? errno : ENOSPC);
    next += done, bytes -= done;
  }
}

void FileWriter::commit() {
  if (fsync(file_) != 0 && errno != EINVAL) give_up("sync", path_, errno);
  if (close(std::exchange(file_, -1)) != 0) give_up("close", path_, errno);
  if (rename(part_.c_str(), path_.c_str()) != 0) give_up("rename the finished part to this name", path_, errno);
  sync_folder(path_);
}

std::string printable(std::string_view name) {
  std::string text;
  for (char c : name.substr(0, 100)) text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  if (name.size() <= 100) return text;
  // The cut may have split a UTF-8 sequence: drop its beginning.
  size_t end = text.size(), start = end;
  while (start > 0 && end - start < 3 && (text[start - 1] & 0xc0) == 0x80) --start;
  if (start > 0 && (text[start - 1] & 0x80)) text.resize(start - 1);
  return text + "...";
}

}  // namespace longhand
