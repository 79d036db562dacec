#include <doctest/doctest.h>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "longhand/augment.h"
#include "longhand/safetensors.h"

using namespace longhand;

namespace {

struct Written {
  std::string path;
  explicit Written(const std::string& text)
      : path((std::filesystem::temp_directory_path() / fmt::format("longhand-augment-{}", getpid())).string()) {
    std::ofstream(path, std::ios::binary) << text;
  }
  ~Written() { std::filesystem::remove(path); }
};

Thesaurus thesaurus(const std::string& text) {
  Written file(text);
  Thesaurus t;
  t.add(file.path);
  return t;
}

Augmenter augmenter(const std::string& entries, AugmentOptions options = {}) {
  Written file(entries);
  options.thesauri = {file.path};
  return Augmenter(options);
}

/// The forms of a text over many draws, put together.
std::set<std::string> words_of_forms(const Augmenter& a, const std::string& text, const std::string& kept = "",
                                     const std::string& language = "en") {
  std::set<std::string> words;
  for (uint64_t draw = 0; draw < 200; ++draw) {
    std::istringstream in(a.text(text, kept, language, draw));
    for (std::string word; in >> word;) words.insert(word);
  }
  return words;
}

const AugmentOptions synonyms_alone{.synonyms = 1, .insertions = 0, .shuffles = 0};
const std::string small = "quick: fast, rapid\nhouse: building\nparis: city\nsave: store, keep\n";

}  // namespace

TEST_CASE("a thesaurus is read as mythes writes it and as a plain list; antonyms are no synonyms") {
  Thesaurus mythes =
      thesaurus("UTF-8\nquick|2\n(adj)|fast|rapid (similar term)|slow (antonym)\n(adj)|prompt\nhouse|1\n-|home\n");
  REQUIRE(mythes.find("Quick"));
  CHECK(*mythes.find("Quick") == std::vector<std::string>{"fast", "rapid", "prompt"});
  CHECK(*mythes.find("house") == std::vector<std::string>{"home"});
  CHECK(mythes.find("slow") == nullptr);
  CHECK(thesaurus("UTF-8\n|1\n-|year\nhouse|1\n-|home\n").size() == 1);  // an entry of no word is left out
  Thesaurus plain = thesaurus("# words\nschön: hübsch, wunderschön\r\n");
  CHECK(*plain.find("SCHÖN") == std::vector<std::string>{"hübsch", "wunderschön"});
}

TEST_CASE("a thesaurus in another encoding, or with what is no entry, is refused by its line") {
  CHECK_THROWS_WITH_AS(thesaurus("ISO8859-1\nsch\xf6n|1\n-|h\xfc"
                                 "bsch\n"),
                       doctest::Contains("it is in ISO8859-1"), Error);
  CHECK_THROWS_WITH_AS(thesaurus("sch\xf6n: nett\n"), doctest::Contains("byte 3 is not valid UTF-8"), Error);
  CHECK_THROWS_WITH_AS(thesaurus("good: fine\nbad\n"), doctest::Contains(":2: an entry was expected"), Error);
  CHECK_THROWS_WITH_AS(thesaurus("UTF-8\ngood|1\nfine\n"), doctest::Contains(":3: synonyms were expected"), Error);
  CHECK_THROWS_WITH_AS(thesaurus("\n"), doctest::Contains("holds no synonyms"), Error);
}

TEST_CASE("synonyms take the case of their word; the same draw gives the same text") {
  Augmenter a = augmenter(small, synonyms_alone);
  std::set<std::string> words = words_of_forms(a, "Quick and quick.");
  CHECK(words == std::set<std::string>{"Fast", "Rapid", "and", "fast.", "rapid."});
  CHECK(a.text("a quick house", "", "en", 7) == a.text("a quick house", "", "en", 7));
}

TEST_CASE("numbers, names, placeholders, code and the words of an answer stay where they are") {
  AugmentOptions all{.synonyms = 1, .insertions = 1, .shuffles = 1};
  Augmenter a = augmenter(small, all);
  for (uint64_t draw = 0; draw < 100; ++draw) {
    for (const char* fixed : {"{quick house}", "$quick", "/house/quick", "<house>", "quick_house", "quick2", "%quick",
                              "house@quick.org", "NASA"})
      CHECK(a.text(fixed, "", "en", draw) == fixed);
    std::string out = a.text("I saw 1,250 in Paris yesterday.", "", "en", draw);
    CHECK(out.find("1,250") != std::string::npos);
    CHECK(out.find("Paris") != std::string::npos);
    CHECK(a.text("quick house", "The quick house.", "en", draw) == "quick house");
    CHECK(a.text("Paris is big. We love Paris.", "", "en", draw).starts_with("Paris "));
  }
}

TEST_CASE("capitalised nouns of German may change, of English they may not") {
  Augmenter a = augmenter("haus: Gebäude\n", synonyms_alone);
  CHECK(a.text("Das alte Haus steht.", "", "de", 1) == "Das alte Gebäude steht.");
  CHECK(a.text("Das alte Haus steht.", "", "en", 1) == "Das alte Haus steht.");
}

TEST_CASE("the shares are those asked for") {
  std::string text = "start";
  for (int i = 0; i < 4000; ++i) text += " quick";
  auto count = [](const std::string& out, const std::string& word) {
    int64_t found = 0;
    for (size_t at = out.find(word); at != std::string::npos; at = out.find(word, at + 1)) ++found;
    return static_cast<double>(found);
  };
  Augmenter synonyms = augmenter("quick: fast\n", {.synonyms = 0.2, .insertions = 0, .shuffles = 0});
  CHECK(count(synonyms.text(text, "", "en", 1), "fast") == doctest::Approx(800).epsilon(0.1));
  Augmenter insertions = augmenter("start: begin\n", {.synonyms = 0, .insertions = 0.1, .shuffles = 0});
  CHECK(count(insertions.text(text, "", "en", 1), " ") == doctest::Approx(4400).epsilon(0.03));
  std::string numbered;
  for (int i = 0; i < 2000; ++i)
    numbered += fmt::format("{}{}{} ", char('a' + i / 400), char('a' + i / 20 % 20), char('a' + i % 20));
  Augmenter shuffles = augmenter("x: y\n", {.synonyms = 0, .insertions = 0, .shuffles = 0.05});
  std::istringstream before(numbered), after(shuffles.text(numbered, "", "en", 1));
  int64_t moved = 0;
  for (std::string a, b; before >> a && after >> b;) moved += a != b;
  CHECK(static_cast<double>(moved) == doctest::Approx(200).epsilon(0.25));
}

TEST_CASE("Chinese is cut into words, and what is inserted brings no blank") {
  Augmenter a = augmenter("快速: 迅速\n", {.synonyms = 1, .insertions = 0.5, .shuffles = 0});
  for (uint64_t draw = 0; draw < 20; ++draw) {
    std::string out = a.text("我们快速保存文件。", "", "zh", draw);
    CHECK(out.find("迅速") != std::string::npos);
    CHECK(out.find(' ') == std::string::npos);
  }
}

TEST_CASE("of an example the input changes, never its instruction or its answer unless asked") {
  InstructionExample example;
  example.fields = {{"instruction", "Be quick."}, {"input", "a quick house"}};
  example.answer = "save it quick";
  Augmenter a = augmenter(small, synonyms_alone);
  InstructionExample other = a.example(example, 1);
  CHECK(other.fields["instruction"] == "Be quick.");
  CHECK(other.fields["input"] == "a quick building");
  CHECK(other.answer == example.answer);
  AugmentOptions asked = synonyms_alone;
  asked.answers = true;
  CHECK(augmenter(small, asked).example(example, 1).answer != example.answer);
  InstructionExample bare;
  bare.fields = {{"instruction", "a house"}}, bare.answer = "yes";
  CHECK(a.example(bare, 1).fields["instruction"] == "a building");
  InstructionExample chat;
  chat.messages = {{"user", "a house"}, {"assistant", "a quick one"}};
  CHECK(a.example(chat, 1).messages[0].text == "a building");
  CHECK(a.example(chat, 1).messages[1].text == "a quick one");
  CHECK(example_json(other) == R"({"instruction":"Be quick.","input":"a quick building","output":"save it quick"})");
}

TEST_CASE("a batch sees another form of an example each time, and a row never overflows") {
  SafetensorsFile file("weights/tiny.safetensors");
  ConstTensor model = file.tensor("tokenizer.model");
  Tokenizer tokenizer({static_cast<const char*>(model.data()), static_cast<size_t>(model.bytes())});
  InstructionFile examples;
  for (int i = 0; i < 40; ++i) {
    InstructionExample e;
    e.fields = {{"instruction", "Answer."}, {"input", fmt::format("the quick house of number {} and the house", i)}};
    e.answer = "yes";
    examples.examples.push_back(e);
  }
  EncodeOptions options{.segment = 100, .validation = 0};
  AugmentOptions all{.synonyms = 0.5, .insertions = 0.5, .shuffles = 0.5};
  options.augmenter = std::make_shared<Augmenter>(augmenter(small, all));
  EncodedInstructions encoded = encode_instructions(tokenizer, examples, nullptr, options);
  TokenFile data(std::move(encoded.streams), tokenizer.vocab_size(), "");
  ExampleOptions loading{.lanes = 4, .segment = 100, .seed = 1};
  ExampleLoader loader(data.train(), loading), again(data.train(), loading);
  std::set<std::string> seen;
  int64_t answers = 0;
  for (int64_t b = 0; b < 2 * loader.batches_per_epoch(); ++b) {
    bool fresh = false;
    Batch batch = loader.next(0, fresh), same = again.next(0, fresh);
    for (int64_t i = 0; i < batch.targets.elements(); ++i) {
      answers += batch.targets.as<const int32_t>()[i] >= 0;
      CHECK(batch.tokens.as<const int32_t>()[i] == same.tokens.as<const int32_t>()[i]);
    }
    seen.insert(std::string(static_cast<const char*>(batch.tokens.data()), batch.tokens.bytes()));
  }
  CHECK(static_cast<int64_t>(seen.size()) == 2 * loader.batches_per_epoch());
  CHECK(answers == 80 * static_cast<int64_t>(tokenizer.encode("yes").size() + 1));
}
