#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "longhand/corpus.h"
#include "longhand/data.h"
#include "longhand/error.h"
#include "longhand/text.h"

using namespace longhand;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path;
  Folder() : path(fs::temp_directory_path() / ("longhand_corpus_" + std::to_string(getpid()))) {
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~Folder() { fs::remove_all(path); }
  std::string write(const std::string& name, std::string_view content) const {
    fs::path file = path / name;
    fs::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << content;
    return file.string();
  }
  std::string operator/(const std::string& name) const { return (path / name).string(); }
};

std::string page(const std::string& body) {
  return "<html><p id=\"early\">navigation</p><div id=\"DisplayArea\" class=\"x\">" + body + "</div></html>";
}

std::string sentence(int i) {
  const char* words[] = {"cells", "format", "the", "menu", "select", "dialog", "table", "value", "insert", "page"};
  std::string text;
  for (int k = 0; k < 12; ++k) text += std::string(k ? " " : "") + words[(i * 7 + k * k * (i % 5 + 1)) % 10];
  return text + " " + std::to_string(i);
}

Corpus numbered(const std::string& language, int documents) {
  Corpus corpus{language, {}};
  for (int i = 0; i < documents; ++i)
    corpus.documents.push_back({"shared/" + std::to_string(i) + ".html", language + " " + sentence(i)});
  return corpus;
}

std::set<std::string> paths(const Corpus& corpus) {
  std::set<std::string> names;
  for (const Document& d : corpus.documents) names.insert(d.path);
  return names;
}

PrepareOptions help(const Folder& folder, const std::string& output) {
  PrepareOptions options;
  options.help_directory = folder / "help";
  options.languages = {"en", "zh"};
  options.vocabulary.size = 315;
  options.split.validation = 0.1;
  options.output = folder / output;
  options.threads = 2;
  return options;
}

void write_help(const Folder& folder, int pages) {
  for (int i = 0; i < pages; ++i) {
    std::string name = "text/shared/" + std::to_string(i) + ".html", number = std::to_string(i);
    folder.write("help/en-US/" + name,
                 page("<h1 id=\"a\">Title " + number + "</h1><p id=\"b\">" + sentence(i) + "</p>"));
    folder.write("help/zh-CN/" + name, page("<h1 id=\"a\">标题" + number + "</h1><p id=\"b\">选择单元格" + number +
                                            "，然后选择菜单命令。</p><p id=\"c\">LibreOffice</p>"));
  }
}

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

}  // namespace

TEST_CASE("a help page gives its paragraphs, without tags, entities and loose blanks") {
  auto paragraphs =
      parse_help_page(page("<h1 dir=\"auto\" id=\"hd_1\">Auto<b>Correct</b> &amp; more</h1>\n"
                           "<p id=\"par_1\" class=\"x\">  a&lt;b\n\t c&#233;&#x4e2d;&nbsp;d<br/>e </p>"
                           "<p class=\"no id\">skipped</p><p id=\"empty\"> <br/> </p>"
                           "<table><td id=\"t1\">cell</td><th id=\"t2\">head</th></table>"
                           "<pre id=\"code\">no</pre><p data-id=\"x\">no</p><p id=\"par_2\">x &unknown; &</p>"));
  std::vector<std::pair<std::string, std::string>> expected = {{"hd_1", "AutoCorrect & more"},
                                                               {"par_1", "a<b cé中 d e"},
                                                               {"t1", "cell"},
                                                               {"t2", "head"},
                                                               {"par_2", "x &unknown; &"}};
  REQUIRE(paragraphs.size() == expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    CHECK(paragraphs[i].id == expected[i].first);
    CHECK(paragraphs[i].text == expected[i].second);
  }
  CHECK(parse_help_page("<p id=\"a\">no display area</p>").empty());
  CHECK(parse_help_page("id=\"DisplayArea\"<p id=\"a\">not closed").empty());
  CHECK(parse_help_page("id=\"DisplayArea\"<p id=\"a").empty());
  CHECK(parse_help_page("id=\"DisplayArea\"<").empty());
}

TEST_CASE("what equals the English text, and what was there before, is dropped") {
  Folder folder;
  folder.write("help/en-US/text/a.html", page("<p id=\"1\">One</p><p id=\"2\">Two</p><p id=\"3\">One</p>"));
  folder.write("help/de/text/a.html", page("<p id=\"1\">Eins</p><p id=\"2\">Two</p><p id=\"3\">Eins</p>"));
  folder.write("help/en-US/text/b.html", page("<p id=\"1\">One</p>"));
  folder.write("help/de/text/b.html", page("<p id=\"1\">Zwei</p><p id=\"9\">Two</p>"));
  auto corpora = read_help_corpora(folder / "help", {"en", "de"});
  REQUIRE(corpora.size() == 2);
  REQUIRE(corpora[0].documents.size() == 1);
  CHECK(corpora[0].documents[0].path == "a.html");
  CHECK(corpora[0].documents[0].text == "One\nTwo");
  REQUIRE(corpora[1].documents.size() == 2);
  CHECK(corpora[1].documents[0].text == "Eins");
  CHECK(corpora[1].documents[1].text == "Zwei\nTwo");
  CHECK_THROWS_WITH_AS(read_help_corpora(folder / "help", {"xx"}),
                       doctest::Contains("no help pages in language \"xx\""), UsageError);
  CHECK_THROWS_WITH_AS(read_help_corpora(folder / "nowhere", {"en"}), doctest::Contains("scripts/fetch_corpus.sh"),
                       Error);
}

TEST_CASE("broken UTF-8 is refused with file and byte") {
  Folder folder;
  std::string path = folder.write("bad.txt", "good \xC3\xA9 bad \xC3 end");
  CHECK_THROWS_WITH_AS(read_text_corpus("text", {path}, false),
                       doctest::Contains("bad.txt: byte 12 (0xc3) is not UTF-8"), Error);
  folder.write("help/en-US/text/a.html", page("<p id=\"1\">caf\xE9</p>"));
  CHECK_THROWS_WITH_AS(read_help_corpora(folder / "help", {"en"}), doctest::Contains("a.html: byte"), Error);
}

TEST_CASE("text files are documents, or their lines are") {
  Folder folder;
  std::string one = folder.write("texts/b/one.txt",
                                 "\xEF\xBB\xBF"
                                 "first\n\nsecond\r\nthird");
  folder.write("texts/a.txt", "alone");
  folder.write("texts/empty.txt", "");
  Corpus files = read_text_corpus("text", {folder / "texts"}, false);
  REQUIRE(files.documents.size() == 2);
  CHECK(files.documents[0].path == "a.txt");
  CHECK(files.documents[1].path == "b/one.txt");
  CHECK(files.documents[1].text == "first\n\nsecond\r\nthird");
  Corpus lines = read_text_corpus("text", {one}, true);
  REQUIRE(lines.documents.size() == 3);
  CHECK(lines.documents[1].path == "one.txt:3");
  CHECK(lines.documents[1].text == "second");
  CHECK(lines.documents[2].text == "third");
  CHECK_THROWS_WITH_AS(read_text_corpus("text", {folder / "none"}, false), doctest::Contains("none: no such file"),
                       Error);
}

TEST_CASE("no file crosses from training into validation in any language") {
  std::vector<Corpus> corpora = {numbered("en", 3000), numbered("zh", 2500), numbered("de", 2000)};
  auto splits = split_corpora(corpora, {.validation = 0.02, .largest = 1 << 30, .seed = 7});
  std::set<std::string> train, validation;
  for (size_t s = 0; s < splits.size(); ++s) {
    auto t = paths(splits[s].train), v = paths(splits[s].validation);
    CHECK(t.size() + v.size() == corpora[s].documents.size());
    CHECK(v.size() > corpora[s].documents.size() / 100);
    CHECK(v.size() < corpora[s].documents.size() / 30);
    train.insert(t.begin(), t.end());
    validation.insert(v.begin(), v.end());
  }
  for (const std::string& path : validation) CHECK(train.count(path) == 0);
  auto other = split_corpora(corpora, {.validation = 0.02, .largest = 1 << 30, .seed = 8});
  CHECK(paths(other[0].validation) != paths(splits[0].validation));
}

TEST_CASE("validation stays small in a big corpus and can be left out") {
  std::vector<Corpus> corpora = {numbered("en", 4000)};
  auto capped = split_corpora(corpora, {.validation = 0.5, .largest = 5000});
  CHECK(capped[0].validation.bytes() < 10000);
  CHECK(capped[0].validation.bytes() > 1000);
  auto none = split_corpora(corpora, {.validation = 0});
  CHECK(none[0].validation.documents.empty());
  CHECK(none[0].train.documents.size() == 4000);
}

TEST_CASE("a few long documents give their ends, cut between lines or characters") {
  std::string lines, solid;
  for (int i = 0; i < 1000; ++i) lines += sentence(i) + "\n", solid += "汉字";
  auto splits = split_corpora({{"text", {{"a", lines}, {"b", solid}}}}, {.validation = 0.1});
  REQUIRE(splits[0].validation.documents.size() == 2);
  for (size_t d = 0; d < 2; ++d) {
    const std::string &kept = splits[0].train.documents[d].text, &end = splits[0].validation.documents[d].text;
    CHECK(kept + end == (d == 0 ? lines : solid));
    CHECK(find_invalid_utf8(kept) == -1);
    CHECK(static_cast<double>(end.size()) == doctest::Approx(0.1 * (kept.size() + end.size())).epsilon(0.02));
  }
  CHECK(splits[0].train.documents[0].text.back() == '\n');
}

TEST_CASE("a vocabulary is the same each time; one that the text does not give is refused in one line") {
  Corpus en = numbered("en", 300), de = numbered("de", 100);
  std::string model = train_vocabulary({&en, &de}, {.size = 295});
  CHECK(train_vocabulary({&en, &de}, {.size = 295}) == model);
  CHECK(Tokenizer(model).vocab_size() == 295);
  CHECK_THROWS_WITH_AS(train_vocabulary({&en}, {.size = 32768}), doctest::Contains("the text gives at most"), Error);
  CHECK_THROWS_WITH_AS(train_vocabulary({&en}, {.size = 200}), doctest::Contains("bytes and symbols alone take"),
                       UsageError);
  Corpus empty{"en", {}};
  CHECK_THROWS_WITH_AS(train_vocabulary({&empty}, {.size = 295}), doctest::Contains("holds no text"), Error);
}

TEST_CASE("a vocabulary without blanks in its text gives blanks back") {
  Corpus zh{"zh", {}};
  for (int i = 0; i < 50; ++i)
    zh.documents.push_back({std::to_string(i), "选择要设置格式的单元格，然后选择菜单命令。"});
  Tokenizer tokenizer(train_vocabulary({&zh}, {.size = 285}));
  for (std::string text : {"选择 单元", " ", "a  b ", "\xE2\x96\x81 "})
    CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
}

TEST_CASE("prepare writes every document once, each followed by its end, languages mixed") {
  Folder folder;
  write_help(folder, 200);
  PrepareReport report = prepare(help(folder, "new/tokens.safetensors"));
  TokenFile file(folder / "new/tokens.safetensors");
  Tokenizer tokenizer(file.tokenizer_model());
  CHECK(file.vocab_size() == 315);
  REQUIRE(file.validation().size() == 2);
  CHECK(file.validation()[0].name == "en");
  CHECK(file.validation()[1].name == "zh");

  std::multiset<std::string> expected, found;
  for (const Corpus& corpus : read_help_corpora(folder / "help", {"en", "zh"}))
    for (const Document& d : corpus.documents) expected.insert(d.text);
  std::vector<TokenStream> streams = file.validation();
  streams.push_back(file.train());
  int64_t chinese_in_first_half = 0, chinese = 0, tokens = 0;
  for (const TokenStream& stream : streams) {
    int64_t bytes = 0, documents = stream.documents.elements();
    tokens += stream.size();
    for (int64_t d = 0; d < documents; ++d) {
      const int64_t* start = stream.documents.as<const int64_t>() + d;
      int64_t end = d + 1 < documents ? start[1] : stream.size();
      std::vector<int32_t> ids;
      for (int64_t i = start[0]; i < end; ++i) ids.push_back(stream.at(i));
      REQUIRE(ids.back() == tokenizer.end_of_document());
      std::string text = tokenizer.decode(ids);
      bytes += static_cast<int64_t>(text.size());
      found.insert(text);
      bool is_chinese = text.starts_with("标题");
      if (stream.name == "zh") CHECK(is_chinese);
      if (stream.name == "train" && is_chinese) ++chinese, chinese_in_first_half += 2 * d < documents;
    }
    CHECK(stream.bytes == bytes);
  }
  CHECK(found == expected);
  CHECK(chinese_in_first_half > chinese / 3);
  CHECK(chinese_in_first_half < chinese * 2 / 3);
  CHECK(report.rows[0].tokens + report.rows[1].tokens == tokens);
  CHECK(report.rows[0].documents == 200);
}

TEST_CASE("prepare is reproducible, whatever the threads, and takes a vocabulary that is there") {
  Folder folder;
  write_help(folder, 120);
  prepare(help(folder, "a.safetensors"));
  PrepareOptions options = help(folder, "b.safetensors");
  options.threads = 1;
  prepare(options);
  CHECK(content(folder / "a.safetensors") == content(folder / "b.safetensors"));
  options.output = folder / "c.safetensors";
  options.tokenizer = folder / "a.safetensors";
  options.vocabulary.size = 5000;
  CHECK(prepare(options).vocab_size == 315);
  CHECK(content(folder / "a.safetensors") == content(folder / "c.safetensors"));
  options.tokenizer = folder.write("not.model", "junk");
  CHECK_THROWS_WITH_AS(prepare(options), doctest::Contains("no SentencePiece model"), Error);
}

TEST_CASE("own texts are named streams; an empty corpus is refused") {
  Folder folder;
  std::string text;
  for (int i = 0; i < 400; ++i) text += sentence(i) + "\n";
  PrepareOptions options;
  options.texts = {{"english", folder.write("one.txt", text)}};
  options.vocabulary.size = 298;
  options.output = folder / "tokens.safetensors";
  prepare(options);
  TokenFile file(options.output);
  REQUIRE(file.validation().size() == 1);
  CHECK(file.validation()[0].name == "english");
  CHECK(file.validation()[0].bytes + file.train().bytes == static_cast<int64_t>(text.size()));
  options.validation_texts = {{"english", folder.write("more.txt", "one more cell")}, {"held", folder / "more.txt"}};
  options.split.validation = 0;
  PrepareReport report = prepare(options);
  TokenFile held(options.output);
  REQUIRE(held.validation().size() == 2);
  CHECK(held.validation()[0].bytes == 13);
  CHECK(held.validation()[1].name == "held");
  CHECK(held.train().bytes == static_cast<int64_t>(text.size()));
  CHECK(report.rows[0].documents == 2);
  CHECK(report.rows[1].bytes == 13);
  options.texts = {{"english", folder.write("empty.txt", "")}};
  CHECK_THROWS_WITH_AS(prepare(options), doctest::Contains("there is no text in it"), Error);
  options.texts.clear();
  CHECK_THROWS_AS(prepare(options), UsageError);
}
