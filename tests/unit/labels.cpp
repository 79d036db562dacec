#include <doctest/doctest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "longhand/corpus.h"
#include "longhand/heads.h"
#include "longhand/instructions.h"
#include "longhand/safetensors.h"
#include "src/data/instructions/tagged_words.h"

using namespace longhand;

namespace {

InstructionFile read(const std::string& text, bool skip_bad = false) {
  std::string path = (std::filesystem::temp_directory_path() / fmt::format("longhand-labels-{}", getpid())).string();
  std::ofstream(path) << text;
  InstructionFile file;
  try {
    file = read_instructions(path, skip_bad);
  } catch (...) {
    std::filesystem::remove(path);
    throw;
  }
  std::filesystem::remove(path);
  return file;
}

Tokenizer tiny_tokenizer() {
  SafetensorsFile file("weights/tiny.safetensors");
  ConstTensor model = file.tensor("tokenizer.model");
  return Tokenizer({static_cast<const char*>(model.data()), static_cast<size_t>(model.bytes())});
}

const std::string good = R"({"text": "It works.", "label": "good"})", bad = R"({"text": "It broke.", "label": "bad"})";

}  // namespace

TEST_CASE("labels and tags are read, and a line that has no sense is named") {
  InstructionFile file = read(good + "\n" + R"({"tokens": ["Press", "F5"], "tags": ["O", "B-KEY"]})" + "\n" +
                              R"({"instruction": "Judge.", "input": "Well.", "label": 3})");
  CHECK(file.examples[0].label == "good");
  CHECK(file.examples[1].tags == std::vector<std::string>{"O", "B-KEY"});
  CHECK(file.examples[2].label == "3");
  auto refused = [](const std::string& line, const char* why) {
    CHECK_THROWS_WITH_AS(read(good + "\n" + line), doctest::Contains(why), Error);
  };
  refused(R"({"tokens": ["a", "b"], "tags": ["O"]})", ":2: 1 tags for 2 tokens");
  refused(R"({"tokens": ["a"], "tags": ["I-X"]})", ":2: tag 1 is I-X behind nothing");
  refused(R"({"tokens": ["a", "b"], "tags": ["B-Y", "I-X"]})", ":2: tag 2 is I-X behind B-Y");
  refused(R"({"tokens": ["a"], "tags": ["X"]})", "O, B-x or I-x was expected");
  refused(R"({"tokens": ["a"]})", "\"tokens\" without \"tags\"");
  refused(R"({"tokens": [" "], "tags": ["O"]})", "token 1 is empty");
  refused(R"({"text": "a", "label": ""})", "a label was expected");
  refused(R"({"text": "a", "label": {}})", "a label was expected");
  refused(R"({"text": "a"})", "is missing");
  refused(R"({"instruction": "a", "output": "b", "state": {}})", "no slot");
  CHECK(read(good + "\n" + R"({"tokens": ["a"], "tags": ["I-X"]})", true).bad.size() == 1);
}

TEST_CASE("heads come from the examples, and known ones keep their labels") {
  std::vector<HeadConfig> heads;
  InstructionFile labels = read(good + "\n" + bad), tags = read(R"({"tokens": ["a", "b"], "tags": ["B-Y", "I-Y"]})"),
                  states = read(R"({"instruction": "Hi", "output": "Hello", "state": {"domain": "hotel"}})"
                                "\n"
                                R"({"instruction": "Go", "output": "Bye", "state": {"domain": "train"}})");
  CHECK(find_heads(labels, {.name = "mood"}, heads) == std::vector<std::string>{"mood"});
  CHECK(find_heads(tags, {.name = "names", .crf = true, .lookahead = 2}, heads) == std::vector<std::string>{"names"});
  CHECK(find_heads(states, {}, heads) == std::vector<std::string>{"domain"});
  REQUIRE(heads.size() == 3);
  CHECK(heads[0] == HeadConfig{.name = "mood", .labels = {"bad", "good"}});
  CHECK(heads[1].labels == std::vector<std::string>{"O", "B-Y", "I-Y"});
  CHECK((heads[1].crf && heads[1].lookahead == 2));
  CHECK((heads[2].kind == HeadKind::state && heads[2].labels == std::vector<std::string>{"hotel", "train"}));
  CHECK(find_heads(labels, {.name = "mood"}, heads).size() == 1);
  CHECK(heads.size() == 3);

  auto refused = [&](const InstructionFile& file, const HeadOptions& options, const char* why) {
    CHECK_THROWS_WITH_AS(find_heads(file, options, heads), doctest::Contains(why), Error);
  };
  refused(labels, {}, ":1: the example has a label, for which a head is made or found by --head NAME");
  refused(labels, {.name = "names"}, "the model's head names says tags, not label");
  refused(read(good + "\n" + R"({"text": "Hm.", "label": "so"})"), {.name = "mood"},
          ":2: head mood has no label \"so\"");
  refused(labels, {.name = "mood", .labels = {"good", "bad"}}, "the model's head mood has bad,good");
  refused(labels, {.name = "new", .labels = {"good", "fine"}}, ":2: head new has no label \"bad\"");
  refused(read(good), {.name = "other"}, "there is nothing to tell apart");
  refused(read(good + "\n" + R"({"tokens": ["a"], "tags": ["O"]})"), {.name = "x"}, "give them to two runs");
  refused(read(R"({"instruction": "a", "output": "b"})"), {.name = "x"}, "no example has a label or tags");
}

TEST_CASE("labels stand behind their text, tags at the first token of their word, states where the answer begins") {
  Tokenizer tokenizer = tiny_tokenizer();
  InstructionFile file = read(R"({"text": "Save the file.", "label": "a", "source": "1"})"
                              "\n"
                              R"({"text": "Open it.", "label": "b", "source": "2"})");
  EncodeOptions options{.segment = 64, .validation = 0, .head = "h"};
  find_heads(file, {.name = "h"}, options.heads);
  EncodedInstructions encoded = encode_instructions(tokenizer, file, nullptr, options);
  const TokenContent& train = encoded.streams[0];
  int32_t end = tokenizer.end_of_document();
  std::vector<int32_t> first(train.tokens.begin(), train.tokens.begin() + train.documents[1]);
  REQUIRE(train.labels[0].size() == 1);
  CHECK(train.labels[0][0].token == static_cast<int32_t>(first.size()) - 2);
  CHECK(first[train.labels[0][0].token] == end);
  CHECK(train.labels[1][0].label == 1);
  CHECK(std::count(train.answers.begin(), train.answers.end(), 1) == 0);

  std::vector<std::string> words = {"Choose", "File", "-", "Incomprehensibly", "."};
  for (int64_t lookahead : {0, 3}) {
    TaggedWords read = encode_words(tokenizer, words, lookahead, 64);
    REQUIRE(read.places.size() == words.size());
    for (size_t i = 0; i < words.size(); ++i) {
      std::string piece = tokenizer.piece_bytes(read.tokens[read.places[i] - lookahead]);
      CHECK(words[i].starts_with(piece.substr(piece.starts_with(' '))));
    }
    CHECK(read.places.back() < static_cast<int32_t>(read.tokens.size()) - 1);
    TaggedWords cut = encode_words(tokenizer, words, lookahead, 6 + lookahead);
    CHECK(cut.places.size() < words.size());
    CHECK(cut.tokens.size() <= 7 + static_cast<size_t>(lookahead));
  }

  InstructionFile chat =
      read(R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, )"
           R"({"role": "user", "content": "A room."}, {"role": "assistant", "content": "Where?"}], "state": "hotel"})"
           "\n"
           R"({"instruction": "A seat.", "output": "To where?", "state": "train"})");
  EncodeOptions with_state{.template_path = "plain", .segment = 64, .validation = 0};
  find_heads(chat, {}, with_state.heads);
  encoded = encode_instructions(tokenizer, chat, nullptr, with_state);
  const TokenContent& turns = encoded.streams[0];
  for (size_t e = 0; e < 2; ++e) {
    auto at = static_cast<int64_t>(turns.documents[e]) + turns.labels[e][0].token;
    CHECK(!turns.answers[at]);
    CHECK(turns.answers[at + 1]);
  }
  int64_t last = turns.documents[0] + turns.labels[0][0].token;
  CHECK(std::count(turns.answers.begin(), turns.answers.begin() + last, 1) > 0);  // the first answer lies before it

  InstructionFile aside = read(R"({"text": "No.", "label": "c"})");
  CHECK_THROWS_WITH_AS(encode_instructions(tokenizer, file, &aside, options),
                       doctest::Contains(":1: head h has no label \"c\""), Error);
}

TEST_CASE("words are cut by Unicode's rules") {
  std::string text = "Choose  Édit - Find (F5).";
  std::vector<std::string> words;
  for (const WordRange& range : word_ranges(text)) words.push_back(text.substr(range.begin, range.end - range.begin));
  CHECK(words == std::vector<std::string>{"Choose", "Édit", "-", "Find", "(", "F5", ")", "."});
  CHECK(word_ranges("").empty());
}

TEST_CASE("marks of a help page keep their places, and hidden wording goes") {
  std::string page = R"(<div id="DisplayArea"><p id="par_1">Press <span class="switchinline"><span hidden="true" )"
                     R"(class="MAC">Cmd</span><span><span class="keycode">Ctrl</span></span></span> in  <span )"
                     R"(class="emph">File &amp; <em>Go</em></span>, type <span class="input">=A1</span></p></div>)";
  std::vector<MarkedParagraph> paragraphs = parse_marked_help_page(page);
  REQUIRE(paragraphs.size() == 1);
  const MarkedParagraph& p = paragraphs[0];
  REQUIRE(p.marks.size() == 3);
  auto text = [&](size_t i) { return p.text.substr(p.marks[i].begin, p.marks[i].end - p.marks[i].begin); };
  CHECK(p.text == "Press Ctrl in File & Go, type =A1");
  CHECK((p.marks[0].type == "KEY" && text(0) == "Ctrl"));
  CHECK((p.marks[1].type == "UI" && text(1) == "File & Go"));
  CHECK((p.marks[2].type == "CODE" && text(2) == "=A1"));
}
