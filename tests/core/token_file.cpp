#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "longhand/data.h"
#include "longhand/random.h"

using namespace longhand;

namespace {

// A file that goes with its test.
struct Temporary {
  std::string path;
  explicit Temporary(const std::string& name)
      : path((std::filesystem::temp_directory_path() / ("longhand_token_file_" + std::to_string(getpid()) + name))) {}
  ~Temporary() { std::remove(path.c_str()); }
  Temporary& write(std::string_view content) {
    std::ofstream(path, std::ios::binary) << content;
    return *this;
  }
};

template <class T>
ConstTensor vector(const std::vector<T>& values) {
  return {values.data(), dtype_of<T>(), {static_cast<int64_t>(values.size())}};
}

std::vector<int32_t> ids(const TokenStream& stream) {
  std::vector<int32_t> values;
  for (int64_t i = 0; i < stream.size(); ++i) values.push_back(stream.at(i));
  return values;
}

void refuses(const std::string& path, const char* words) {
  CAPTURE(words);
  CHECK_THROWS_WITH_AS(TokenFile file(path), doctest::Contains(words), Error);
}

}  // namespace

TEST_CASE("a token file gives back its streams, their documents and the tokenizer") {
  Temporary file(".safetensors");
  std::vector<uint16_t> train = {5, 9, 2, 7, 2}, zh = {1, 2};
  std::vector<uint32_t> en = {9, 8, 2};
  std::vector<int64_t> train_documents = {0, 3}, en_documents = {0};
  std::vector<uint8_t> model = {'m', 'o', 'd'};
  write_safetensors(file.path,
                    std::vector<NamedTensor>{{"train.tokens", vector(train)},
                                             {"train.documents", vector(train_documents)},
                                             {"validation.zh.tokens", vector(zh)},
                                             {"validation.en.tokens", vector(en)},
                                             {"validation.en.documents", vector(en_documents)},
                                             {"tokenizer.model", vector(model)}},
                    {{"vocab_size", "10"}, {"train.bytes", "17"}, {"validation.en.bytes", "8"}});
  TokenFile tokens(file.path);
  CHECK(tokens.vocab_size() == 10);
  CHECK(tokens.tokenizer_model() == "mod");
  CHECK(tokens.train().name == "train");
  CHECK(tokens.train().bytes == 17);
  CHECK(ids(tokens.train()) == std::vector<int32_t>{5, 9, 2, 7, 2});
  CHECK(tokens.train().documents.as<const int64_t>()[1] == 3);
  REQUIRE(tokens.validation().size() == 2);
  CHECK(tokens.validation()[0].name == "en");
  CHECK(tokens.validation()[0].bytes == 8);
  CHECK(ids(tokens.validation()[0]) == std::vector<int32_t>{9, 8, 2});
  CHECK(tokens.validation()[1].name == "zh");
  CHECK(tokens.validation()[1].bytes == 0);
  CHECK(tokens.validation()[1].documents.empty());
}

TEST_CASE("ids in plain text are separated by blanks, line breaks or commas") {
  Temporary file(".txt");
  TokenFile tokens(file.write(" 1, 2,3\n4\t5\r\n2147483647,").path);
  CHECK(ids(tokens.train()) == std::vector<int32_t>{1, 2, 3, 4, 5, 2147483647});
  CHECK(tokens.vocab_size() == 0);
  CHECK(tokens.validation().empty());
  CHECK(tokens.tokenizer_model().empty());
  CHECK(tokens.train().documents.empty());
}

TEST_CASE("junk among ids is refused with its place") {
  Temporary file(".txt");
  refuses(file.write("1 2 x3").path, "'x' at byte 4 (line 1)");
  refuses(file.write("1 2\n3 -4").path, "'-' at byte 6 (line 2)");
  refuses(file.write("1 2\n3.5").path, "'.' at byte 5 (line 2)");
  refuses(file.write(std::string("7 \0", 3)).path, "byte 0x00 at byte 2");
  refuses(file.write("1 2147483648").path, "the id at byte 2 (line 1) is above 2147483647");
  refuses(file.write("99999999999999999999999999").path, "is above");
  refuses(file.write("").path, "holds no token ids");
  refuses(file.write(" ,\n").path, "holds no token ids");
  refuses("no_such_file", "no_such_file: cannot open");
}

TEST_CASE("token files that contradict themselves are refused") {
  Temporary file(".safetensors");
  std::vector<uint16_t> train = {5, 9, 2, 7, 2};
  std::vector<int32_t> other = {5, 9};
  auto with = [&](const ConstTensor& tokens, const std::vector<int64_t>& documents, const std::string& vocab_size) {
    write_safetensors(file.path,
                      std::vector<NamedTensor>{{"train.tokens", tokens}, {"train.documents", vector(documents)}},
                      {{"vocab_size", vocab_size}});
    return file.path;
  };
  refuses(with(vector(train), {0}, "9"), "train.tokens holds id 9 at position 1, the vocabulary has 9");
  refuses(with(vector(train), {0}, "-9"), "metadata vocab_size is \"-9\"");
  refuses(with(vector(train), {0}, "many"), "metadata vocab_size is \"many\"");
  refuses(with(vector(train), {1}, "10"), "train.documents has 1 at position 0");
  refuses(with(vector(train), {0, 3, 3}, "10"), "train.documents has 3 at position 2");
  refuses(with(vector(train), {0, 5}, "10"), "stay below 5");
  refuses(with(vector(other), {0}, "10"), "train.tokens is i32, u16 or u32 was expected");
  write_safetensors(file.path, std::vector<NamedTensor>{{"weights", vector(train)}}, {});
  refuses(file.path, "not a token file, it has no train.tokens");
}

TEST_CASE("no damage to a token file does more than an error") {
  Temporary whole(".safetensors"), damaged(".damaged");
  std::vector<uint16_t> train = {5, 9, 2, 7, 2};
  std::vector<int64_t> documents = {0, 3};
  write_safetensors(whole.path,
                    std::vector<NamedTensor>{{"train.tokens", vector(train)}, {"train.documents", vector(documents)}},
                    {{"vocab_size", "10"}});
  std::ifstream in(whole.path, std::ios::binary);
  std::string content((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  RandomStream random{.seed = 3};
  for (uint64_t round = 0; round < 600; ++round) {
    std::string bytes = content;
    for (uint64_t change = 0; change < 1 + round % 3; ++change)
      bytes[random.bits(8 * round + 2 * change) % bytes.size()] =
          static_cast<char>(random.bits(8 * round + 2 * change + 1));
    if (round % 5 == 0) bytes.resize(random.bits(8 * round + 7) % bytes.size());
    damaged.write(bytes);
    try {
      TokenFile file(damaged.path);
      CHECK(file.train().size() > 0);
    } catch (const Error&) {
    }
  }
}
