#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "longhand/files.h"
#include "longhand/safetensors.h"

using namespace longhand;

namespace {

struct Folder {
  std::string path;
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "longhand.XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string operator/(const std::string& name) const { return path + "/" + name; }
};

void put(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
}

std::string file_of(const std::string& header, const std::string& data = "") {
  uint64_t length = header.size();
  std::string content(8, '\0');
  std::memcpy(content.data(), &length, 8);
  return content + header + data;
}

// The message with which a file is refused; "read" when it is not.
std::string refusal(const std::string& content) {
  Folder folder;
  put(folder / "a.safetensors", content);
  try {
    SafetensorsFile file(folder / "a.safetensors");
    return "read";
  } catch (const Error& error) {
    std::string message = error.what();
    CHECK(message.find(folder / "a.safetensors") == 0);
    CHECK(message.find('\n') == std::string::npos);
    return message;
  }
}

std::string tensor_json(const std::string& name, const std::string& type, const std::string& shape,
                        const std::string& offsets) {
  return "\"" + name + R"(":{"dtype":")" + type + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

#define REFUSED(content, words)                                  \
  do {                                                           \
    std::string message = refusal(content);                      \
    CHECK_MESSAGE(message.find(words) != message.npos, message); \
  } while (false)

}  // namespace

TEST_CASE("a written file reads back: names, types, shapes, bytes, metadata") {
  Folder folder;
  std::vector<float> matrix(6 * 16);
  for (size_t i = 0; i < matrix.size(); ++i) matrix[i] = static_cast<float>(i) / 7;
  std::vector<uint8_t> odd = {1, 2, 3};
  std::vector<bf16> half = {bf16(1.5f), bf16(-2.0f), bf16(3.0f)};
  std::vector<int64_t> none(1);
  std::vector<NamedTensor> tensors = {{"odd", {odd.data(), Dtype::u8, {3}}},
                                      {"half", {half.data(), Dtype::bf16, {3, 1}}},
                                      {"matrix", {matrix.data(), Dtype::fp32, {6, 2, 8}}},
                                      {"none", {none.data(), Dtype::i64, {0, 5}}}};
  std::string path = folder / "file.safetensors";
  write_safetensors(path, tensors, {{"key", "value with \"quotes\", \n lines and 文字"}, {"checksum.old", "stale"}});

  SafetensorsFile file(path);
  CHECK(file.metadata().at("key") == "value with \"quotes\", \n lines and 文字");
  CHECK_FALSE(file.metadata().contains("checksum.old"));
  CHECK(file.names().size() == 4);
  for (const auto& [name, tensor] : tensors) {
    ConstTensor read = file.tensor(name);
    CHECK(read.type() == tensor.type());
    CHECK(read.shape() == tensor.shape());
    CHECK(std::memcmp(read.data(), tensor.data(), static_cast<size_t>(tensor.bytes())) == 0);
  }
  CHECK(file.full_shape("matrix") == std::vector<int64_t>{6, 2, 8});
  CHECK(file.verify() == 4);
  CHECK_FALSE(std::filesystem::exists(path + ".part"));
}

TEST_CASE("data lie 64-byte aligned where sizes allow, and always aligned to their type") {
  Folder folder;
  std::vector<char> bytes(4096);
  std::vector<NamedTensor> tensors = {
      {"a", {bytes.data(), Dtype::u8, {7}}},      {"b", {bytes.data(), Dtype::fp32, {3}}},
      {"c", {bytes.data(), Dtype::fp64, {32}}},   {"d", {bytes.data(), Dtype::bf16, {5}}},
      {"e", {bytes.data(), Dtype::i64, {3}}},     {"f", {bytes.data(), Dtype::fp32, {16, 4}}},
      {"g", {bytes.data(), Dtype::u16, {33, 3}}}, {"h", {bytes.data(), Dtype::i8, {64}}}};
  write_safetensors(folder / "a", tensors, {});
  SafetensorsFile file(folder / "a");
  for (const auto& [name, tensor] : tensors) {
    auto at = reinterpret_cast<uintptr_t>(file.tensor(name).data());
    CHECK(at % static_cast<uintptr_t>(dtype_bytes(tensor.type())) == 0);
    if (tensor.bytes() % 64 == 0) CHECK(at % 64 == 0);
  }
}

TEST_CASE("the same content gives the same bytes") {
  Folder folder;
  std::vector<float> values(100, 0.25f);
  std::vector<NamedTensor> tensors = {{"x", {values.data(), Dtype::fp32, {100}}}};
  write_safetensors(folder / "a", tensors, {{"k", "v"}, {"a", "b"}});
  write_safetensors(folder / "b", tensors, {{"a", "b"}, {"k", "v"}});
  CHECK(read_file(folder / "a") == read_file(folder / "b"));
}

TEST_CASE("what the format allows is read") {
  CHECK(refusal(file_of("{}")) == "read");
  CHECK(refusal(file_of("{}   \n ")) == "read");
  CHECK(refusal(file_of(R"({"__metadata__":{}})")) == "read");
  CHECK(refusal(file_of("{" + tensor_json("a", "F32", "[]", "[0,4]") + "}", "1234")) == "read");
  CHECK(refusal(file_of("{" + tensor_json("a", "BOOL", "[2,0,3]", "[0,0]") + "}")) == "read");
  CHECK(refusal(
            file_of("{" + tensor_json("b", "I16", "[2]", "[4,8]") + "," + tensor_json("a", "U8", "[4]", "[0,4]") + "}",
                    "12345678")) == "read");
}

TEST_CASE("every broken rule of the format is named") {
  std::string good = file_of("{" + tensor_json("a", "F32", "[2]", "[0,8]") + "}", "12345678");
  CHECK(refusal(good) == "read");
  REFUSED("", "too few");
  REFUSED("1234567", "too few");
  REFUSED(good.substr(0, 30), "truncated");
  REFUSED(good.substr(0, good.size() - 1), "truncated");
  REFUSED(good + "x", "belong to none");
  REFUSED(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), "the format allows 100000000");
  REFUSED(std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10), "the format allows 100000000");
  REFUSED("version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull");
  REFUSED(std::string("PK\x03\x04\0\0\x08\x08\0\0\0\0", 12), "convert_checkpoint.py");
  REFUSED(file_of(""), "no JSON object");
  REFUSED(file_of("[]"), "no JSON object");
  REFUSED(file_of(" {}"), "no JSON object");
  REFUSED(file_of(std::string("{}\0x", 4)), "no JSON object");
  REFUSED(file_of("{} x"), "no valid JSON");
  REFUSED(file_of(R"({"a":)"), "no valid JSON");
  REFUSED(file_of("{\"\xff\":1}"), "no valid JSON");
  REFUSED(file_of(R"({"a":1})"), "a number where the format has none");
  REFUSED(file_of(R"({"a":null})"), "null where the format has none");
  REFUSED(file_of(R"({"__metadata__":{"k":1}})"), "text alone, k is a number");
  REFUSED(file_of(R"({"__metadata__":{"k":{"x":"y"}}})"), "text alone, k is an object");
  REFUSED(file_of(R"({"__metadata__":"k"})"), "text alone");
  REFUSED(file_of(R"({"__metadata__":{"k":"1","k":"2"}})"), "the key k comes twice");
  REFUSED(
      file_of("{" + tensor_json("a", "U8", "[1]", "[0,1]") + "," + tensor_json("a", "U8", "[1]", "[0,1]") + "}", "1"),
      "the name a comes twice");
  REFUSED(file_of(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "1"), "dtype comes twice");
  REFUSED(file_of(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", "1"), "a has no dtype");
  REFUSED(file_of(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", "1"), "a has no shape");
  REFUSED(file_of(R"({"a":{"dtype":"U8","shape":[1]}})", "1"), "a has no data_offsets");
  REFUSED(file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":"x"}})", "1"), "a field more");
  REFUSED(file_of("{" + tensor_json("a", "F8_E4M3", "[1]", "[0,1]") + "}", "1"), "type F8_E4M3");
  REFUSED(file_of("{" + tensor_json("a", "F31", "[1]", "[0,1]") + "}", "1"), "the unknown type F31");
  REFUSED(file_of("{" + tensor_json("a", "U8", "[-1]", "[0,1]") + "}", "1"), "negative number -1");
  REFUSED(file_of("{" + tensor_json("a", "U8", "[1.5]", "[0,1]") + "}", "1"), "not a whole number");
  REFUSED(file_of("{" + tensor_json("a", "U8", "[18446744073709551615]", "[0,1]") + "}", "1"), "beyond any file");
  REFUSED(file_of("{" + tensor_json("a", "U8", "[4294967296,4294967296]", "[0,1]") + "}", "1"), "overflows");
  REFUSED(file_of("{" + tensor_json("a", "U8", "[4294967296,4294967296,0]", "[0,0]") + "}"), "overflows");
  REFUSED(file_of("{" + tensor_json("a", "F64", "[2305843009213693952]", "[0,0]") + "}"), "overflows");
  REFUSED(file_of("{" + tensor_json("a", "U8", "[[1]]", "[0,1]") + "}", "1"), "a list where the format has none");
  REFUSED(file_of("{" + tensor_json("a", "U8", "[1]", "[0,1,2]") + "}", "1"), "3 data_offsets");
  REFUSED(file_of("{" + tensor_json("a", "U8", "[1]", "[1,0]") + "}", "1"), "its shape needs 1");
  REFUSED(file_of("{" + tensor_json("a", "F32", "[1]", "[0,3]") + "}", "123"), "its shape needs 4");
  REFUSED(
      file_of("{" + tensor_json("a", "U8", "[2]", "[0,2]") + "," + tensor_json("b", "U8", "[2]", "[1,3]") + "}", "123"),
      "overlap");
  REFUSED(
      file_of("{" + tensor_json("a", "U8", "[1]", "[0,1]") + "," + tensor_json("b", "U8", "[1]", "[2,3]") + "}", "123"),
      "a hole");
  REFUSED(file_of("{" + tensor_json("a", "U8", "[1]", "[1,2]") + "}", "12"), "a hole");
  REFUSED(file_of("{" + tensor_json("new\\nline", "X", "[1]", "[0,1]") + "}", "1"), "new?line");
}

TEST_CASE("a deeply nested header is refused, not followed") {
  REFUSED(file_of("{\"a\":" + std::string(1 << 20, '[')), "a list where the format has none");
  REFUSED(file_of(R"({"a":{"shape":{"a":{"a":{)"), "an object where the format has none");
}

TEST_CASE("files of others: scalars, many dimensions and unaligned data are served") {
  Folder folder;
  std::string header = "{" + tensor_json("shift", "U8", "[1]", "[0,1]") + "," +
                       tensor_json("scalar", "F32", "[]", "[1,5]") + "," +
                       tensor_json("six", "F32", "[1,2,1,1,2,1]", "[5,21]") + "}";
  float values[5] = {1, 2, 3, 4, 5};
  put(folder / "a", file_of(header, "x" + std::string(reinterpret_cast<char*>(values), sizeof values)));
  SafetensorsFile file(folder / "a");
  CHECK(file.tensor("scalar").shape() == Shape{1});
  CHECK(file.tensor("scalar").as<float>()[0] == 1);
  CHECK(file.full_shape("scalar").empty());
  ConstTensor six = file.tensor("six");
  CHECK(six.shape() == Shape{2, 1, 2, 1});
  CHECK(file.full_shape("six").size() == 6);
  CHECK(reinterpret_cast<uintptr_t>(six.data()) % 4 == 0);
  for (int i = 0; i < 4; ++i) CHECK(six.as<float>()[i] == static_cast<float>(i + 2));
}

TEST_CASE("a missing tensor is answered with the nearest name") {
  Folder folder;
  float value = 1;
  write_safetensors(folder / "a", std::vector<NamedTensor>{{"embedding.weight", {&value, Dtype::fp32, {1}}}}, {});
  SafetensorsFile file(folder / "a");
  CHECK_THROWS_WITH_AS(file.tensor("embeding.weight"),
                       (folder / "a: no tensor embeding.weight (did you mean \"embedding.weight\"?)").c_str(), Error);
}

TEST_CASE("one flipped bit fails verification with the tensor's name") {
  Folder folder;
  std::vector<float> values(1000, 1.0f);
  write_safetensors(folder / "a",
                    std::vector<NamedTensor>{{"first", {values.data(), Dtype::fp32, {1000}}},
                                             {"second", {values.data(), Dtype::fp32, {1000}}}},
                    {});
  std::string content = read_file(folder / "a");
  content[content.size() - 17] = static_cast<char>(content[content.size() - 17] ^ 4);
  put(folder / "a", content);
  SafetensorsFile file(folder / "a");
  std::string message;
  try {
    file.verify();
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK_MESSAGE(message.find("tensor second is damaged") != message.npos, message);
}

TEST_CASE("CRC-32C has its published check value, by instruction and by tables, whole and in pieces") {
  CHECK(crc32c("123456789", 9) == 0xE3069283u);
  CHECK(crc32c_by_tables("123456789", 9) == 0xE3069283u);
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 37 >> 2);
  for (int64_t bytes : {0, 1, 7, 8, 9, 63, 1000}) {
    uint32_t whole = crc32c(text.data(), bytes);
    CHECK(whole == crc32c_by_tables(text.data(), bytes));
    CHECK(whole == crc32c(text.data() + bytes / 3, bytes - bytes / 3, crc32c(text.data(), bytes / 3)));
  }
}

TEST_CASE("a write that fails leaves the old file and no part") {
  Folder folder;
  std::vector<char> large(1 << 20, 'x');
  std::string path = folder / "a";
  write_file(path, "old");
  struct rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  auto handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = 1 << 16;
  setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  try {
    write_safetensors(path, std::vector<NamedTensor>{{"t", {large.data(), Dtype::u8, {1 << 20}}}}, {});
  } catch (const Error& error) {
    message = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK_MESSAGE(message.find(path + ": cannot write: ") == 0, message);
  CHECK(read_file(path) == "old");
  CHECK_FALSE(std::filesystem::exists(path + ".part"));
}

TEST_CASE("an unwritable or missing place is said with its path") {
  Folder folder;
  CHECK_THROWS_WITH_AS(write_file(folder / "none/a", "x"),
                       (folder / "none/a.part: cannot write: No such file or directory; check the path").c_str(),
                       Error);
  CHECK_THROWS_WITH_AS(SafetensorsFile(folder / "none"),
                       (folder / "none: cannot open: No such file or directory; check the path").c_str(), Error);
  CHECK_THROWS_AS(SafetensorsFile(folder.path), Error);
  CHECK_THROWS_AS(read_file(folder.path), Error);
}

TEST_CASE("what cannot be written as safetensors is refused") {
  Folder folder;
  float values[4] = {};
  ConstTensor tensor(values, Dtype::fp32, {2, 2});
  auto write = [&](std::vector<NamedTensor> tensors, std::map<std::string, std::string> metadata = {}) {
    write_safetensors(folder / "a", tensors, metadata);
  };
  CHECK_THROWS_AS(write({{"a", tensor}, {"a", tensor}}), Error);
  CHECK_THROWS_AS(write({{"__metadata__", tensor}}), Error);
  CHECK_THROWS_AS(write({{"a", tensor.slice(1, 0, 1)}}), Error);
  CHECK_THROWS_AS(write({{"a", ConstTensor()}}), Error);
  CHECK_THROWS_AS(write({{"\xff", tensor}}), Error);
  CHECK_THROWS_AS(write({{"a", tensor}}, {{"k", "\xff"}}), Error);
  CHECK_FALSE(std::filesystem::exists(folder / "a"));
  CHECK_FALSE(std::filesystem::exists(folder / "a.part"));
}

TEST_CASE("read_file keeps its limit") {
  Folder folder;
  write_file(folder / "a", "12345");
  CHECK(read_file(folder / "a", 5) == "12345");
  CHECK_THROWS_AS(read_file(folder / "a", 4), Error);
  CHECK(read_file("/proc/self/status").size() > 100);
}
