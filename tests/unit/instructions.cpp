#include <doctest/doctest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "longhand/files.h"
#include "longhand/instructions.h"
#include "longhand/safetensors.h"
#include "src/text/chat_form.h"

using namespace longhand;

namespace {

/// A file that is removed again.
struct TextFile {
  std::string path;
  explicit TextFile(const std::string& text)
      : path((std::filesystem::temp_directory_path() / fmt::format("longhand-instructions-{}", getpid())).string()) {
    std::ofstream(path) << text;
  }
  ~TextFile() { std::filesystem::remove(path); }
};

InstructionFile read(const std::string& text, bool skip_bad = false) {
  return read_instructions(TextFile(text).path, skip_bad);
}

Tokenizer tiny_tokenizer() {
  SafetensorsFile file("weights/tiny.safetensors");
  ConstTensor model = file.tensor("tokenizer.model");
  return Tokenizer({static_cast<const char*>(model.data()), static_cast<size_t>(model.bytes())});
}

/// The text of the tokens that are learnt.
std::string learnt(const Tokenizer& tokenizer, const TokenContent& stream) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < stream.tokens.size(); ++i)
    if (stream.answers[i]) ids.push_back(static_cast<int32_t>(stream.tokens[i]));
  return tokenizer.decode(ids);
}

}  // namespace

TEST_CASE("examples are read from lines and from an array, and a bad one is named by its line") {
  std::string one = R"({"instruction": "Add.", "input": "1 + 1", "output": "2"})";
  CHECK(read(one + "\n\n" + one).examples[1].line == 3);
  CHECK(read("[" + one + "," + one + "]").examples.size() == 2);
  CHECK_THROWS_WITH_AS(read(one + "\n{\"instruction\""), doctest::Contains(":2: this is no JSON"), Error);
  std::string deep = R"({"instruction": "Add.", "output": )" + std::string(300000, '[') + std::string(300000, ']') + "}";
  CHECK_THROWS_WITH_AS(read(deep), doctest::Contains(":1: this is no JSON, or nests deeper"), Error);
  CHECK_THROWS_WITH_AS(read(R"({"question": "Why?"})"), doctest::Contains("\"answer\" is missing"), Error);
  CHECK_THROWS_WITH_AS(read(R"({"instruction": "Add.", "output": ""})"), doctest::Contains("is empty"), Error);
  InstructionFile some = read(one + "\nnot JSON\n" + one, true);
  CHECK(some.examples.size() == 2);
  CHECK(some.bad.size() == 1);
}

TEST_CASE("templates leave out what an example does not have") {
  InstructionFile file = read(R"({"instruction": "Add.", "output": "2"})"
                              "\n"
                              R"({"context": "C", "question": "Q", "answer": "A"})");
  std::string prompt = PromptTemplate("").prompt(file.examples[0]);
  CHECK(prompt.ends_with("### Instruction:\nAdd.\n\n### Response:\n"));
  CHECK(prompt.find("Input") == std::string::npos);
  CHECK(PromptTemplate("").prompt(file.examples[1]) == "Context: C\nQuestion: Q\nAnswer: ");
  CHECK(PromptTemplate("plain").prompt(file.examples[0]) == "Add.\n");
  TextFile own("{colour}?");
  CHECK_THROWS_WITH_AS(PromptTemplate(own.path).prompt(file.examples[0]), doctest::Contains("\"colour\""), Error);
}

TEST_CASE("answers alone are learnt; what is too long loses input, never its answer") {
  Tokenizer tokenizer = tiny_tokenizer();
  EncodeOptions options{.segment = 120, .validation = 0};
  std::string words;
  for (int i = 0; i < 200; ++i) words += "word ";
  InstructionFile file = read(R"({"instruction": "Say.", "input": ")" + words + R"(", "output": "yes"})");
  EncodedInstructions encoded = encode_instructions(tokenizer, file, nullptr, options);
  CHECK(encoded.cut == 1);
  CHECK(encoded.streams[0].tokens.size() <= 121);
  CHECK(learnt(tokenizer, encoded.streams[0]) == "yes");
  options.segment = 8;
  CHECK_THROWS_WITH_AS(encode_instructions(tokenizer, file, nullptr, options), doctest::Contains("--max-seq-length 8"),
                       Error);
}

TEST_CASE("a conversation is learnt as chat writes it, every answer of it") {
  Tokenizer tokenizer = tiny_tokenizer();
  std::string turns;
  for (auto [role, content] : {std::pair("user", "a"), {"assistant", "one"}, {"user", "b"}, {"assistant", "two"}})
    turns += fmt::format(R"({}{{"role": "{}", "content": "{}"}})", turns.empty() ? "" : ", ", role, content);
  InstructionFile file = read(R"({"messages": [)" + turns + "]}");
  EncodedInstructions encoded = encode_instructions(tokenizer, file, nullptr, {.segment = 64, .validation = 0});
  ChatForm chat(tokenizer);
  std::vector<int32_t> wanted = chat.start("");
  for (auto [asked, said] : {std::pair("a", "one"), std::pair("b", "two")})
    for (const std::vector<int32_t>& part : {chat.turn(asked), chat.reply(said)})
      wanted.insert(wanted.end(), part.begin(), part.end());
  if (chat.end() < 0) wanted.push_back(tokenizer.end_of_document());
  CHECK(std::vector<int32_t>(encoded.streams[0].tokens.begin(), encoded.streams[0].tokens.end()) == wanted);
}

TEST_CASE("a source stays on one side of the split, and tasks are validated apart") {
  Tokenizer tokenizer = tiny_tokenizer();
  std::string lines;
  for (int i = 0; i < 300; ++i)
    lines += fmt::format(R"({{"instruction": "n {0}", "output": "{1}", "source": "p{1}", "task": "t{2}"}})", i, i / 3,
                         i % 2) +
             "\n";
  EncodedInstructions encoded =
      encode_instructions(tokenizer, read(lines), nullptr, {.segment = 256, .validation = 0.2, .seed = 3});
  CHECK(encoded.validation > 30);
  CHECK(encoded.validation % 3 == 0);
  CHECK(encoded.train + encoded.validation == 300);
  CHECK(encoded.streams.size() == 3);
  CHECK(encoded.streams[1].name == "t0");
}

TEST_CASE("solved examples stand before a prompt: of its task, of another source, as many as fit") {
  std::string lines;
  for (int i = 0; i < 30; ++i)
    lines += fmt::format("{{\"instruction\": \"{} {}\", \"output\": \"{}\", \"task\": \"{}\", \"source\": \"s{}\"}}\n",
                         i % 2 ? "twice" : "half", i, i % 2 ? 2 * i : i / 2, i % 2 ? "twice" : "half", i / 4);
  InstructionFile file = read(lines);
  Tokenizer tokenizer = tiny_tokenizer();
  EncodeOptions options{.template_path = "plain", .segment = 200, .shots = 3, .validation = 0.3};
  auto first_text = [&](const TokenContent& stream) {
    std::vector<int32_t> ids(stream.tokens.begin() + 1, stream.tokens.begin() + stream.documents.at(1) - 1);
    return tokenizer.decode(ids);
  };
  EncodedInstructions encoded = encode_instructions(tokenizer, file, nullptr, options);
  for (const TokenContent& stream : encoded.streams) {
    std::string text = first_text(stream), word = text.substr(0, text.find(' '));
    CHECK(std::count(text.begin(), text.end(), '\n') == 3 * 3 + 1);
    size_t questions = 0;
    for (size_t at = 0; (at = text.find(word, at)) != std::string::npos; ++at) ++questions;
    CHECK(questions == 4);
  }
  // Answers of examples that stand before another are read, not learnt; validation examples stand before none.
  EncodeOptions alone = options;
  alone.shots = 0;
  EncodedInstructions plain = encode_instructions(tokenizer, file, nullptr, alone);
  REQUIRE(plain.streams.size() == encoded.streams.size());
  for (size_t i = 0; i < plain.streams.size(); ++i)
    CHECK(learnt(tokenizer, plain.streams[i]) == learnt(tokenizer, encoded.streams[i]));
  for (const InstructionExample& example : file.examples) {
    auto holds = [&](const TokenContent& stream) {
      std::vector<int32_t> ids(stream.tokens.begin(), stream.tokens.end());
      return tokenizer.decode(ids).find(example.fields.at("instruction") + "\n") != std::string::npos;
    };
    bool held_back = !holds(plain.streams[0]);
    CHECK(held_back == !holds(encoded.streams[0]));
  }
  options.segment = 24;
  EncodedInstructions short_of_room = encode_instructions(tokenizer, file, nullptr, options);
  CHECK(short_of_room.train == encoded.train);
  CHECK(encode_instructions(tokenizer, file, nullptr, options).streams[0].tokens == short_of_room.streams[0].tokens);
}

TEST_CASE("data check finds what is planted") {
  std::string lines = R"({"instruction": "Is it?", "output": "no"})"
                      "\n"
                      R"({"instruction": "Is it?", "output": "no"})"
                      "\n"
                      R"({"instruction": "is it", "output": "No"})"
                      "\n"
                      R"({"instruction": "Is it?", "output": "perhaps,"})"
                      "\n"
                      R"({"instruction": "Что это?", "output": "Это книга."})"
                      "\n";
  InstructionFile file = read(lines);
  InstructionCheck check = check_instructions(file, &file);
  CHECK(check.examples == 5);
  CHECK(check.negative == 3);
  CHECK(check.duplicates == 1);
  CHECK(check.near_duplicates == 1);
  CHECK(check.conflicts == 1);
  CHECK(check.cut_off == 1);
  CHECK(check.leaked == 5);
  CHECK(check.scripts.at("Cyrillic") == 1);
  CHECK(check.warnings.size() == 7);
}
