// Terms of a lexicon: found in texts, carried by the tokenizer, read from a list.
#include "longhand/lexicon.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "longhand/corpus.h"
#include "longhand/error.h"
#include "longhand/random.h"
#include "src/text/lexicon.h"

using namespace longhand;

namespace {

const Tokenizer& plain() {
  static const Tokenizer tokenizer = [] {
    Corpus corpus{"mixed", {}};
    for (const char* line :
         {"Select the cells that you want to format, then choose the menu command Format.",
          "Der Befehl öffnet das Dialogfeld, in dem Sie die Einstellungen ändern können.",
          "选择要设置格式的单元格，然后选择菜单命令。", "셀의 서식을 지정하려면 메뉴에서 명령을 선택하고"})
      corpus.documents.push_back({line, line});
    return Tokenizer(train_vocabulary({&corpus}, {.size = 340}));
  }();
  return tokenizer;
}

Tokenizer with(const std::vector<LexiconTerm>& terms) { return Tokenizer(add_lexicon_terms(plain().model(), terms)); }

/// The text with every term found in brackets.
std::string marked(const std::vector<LexiconTerm>& terms, const std::string& text) {
  Lexicon lexicon(terms);
  std::string out;
  size_t at = 0;
  for (Lexicon::Match m = lexicon.find(text, 0); m.bytes > 0; m = lexicon.find(text, at)) {
    out += text.substr(at, m.first - at) + "[" + text.substr(m.first, m.bytes) + "]";
    CHECK(terms[m.term].text == text.substr(m.first, m.bytes));
    at = m.first + m.bytes;
  }
  return out + text.substr(at);
}

}  // namespace

TEST_CASE("the longest term is found, and none within a longer word") {
  std::vector<LexiconTerm> terms{{"Calc"}, {" Calc"}, {"Calc Guide"}, {"Guide to"}, {"cal", true}};
  CHECK(marked(terms, "Calc Guide") == "[Calc Guide]");
  CHECK(marked(terms, "Calc Guides") == "[Calc] Guides");
  CHECK(marked(terms, "open Calc, Calculate, a-Calc Calc_2 Calcä") == "open[ Calc], Calculate, a-[Calc] Calc_2 Calcä");
  CHECK(marked(terms, "in  Calc") == "in [ Calc]");
  CHECK(marked(terms, "local recall") == "lo[cal] re[cal]l");
  CHECK(marked(terms, "Calc") == "[Calc]");
  CHECK(marked(terms, "Cal") == "Cal");
  CHECK(marked(terms, "") == "");
  CHECK(marked({}, "Calc") == "Calc");
}

TEST_CASE("scripts without blanks have terms anywhere, and Korean particles follow a term") {
  std::vector<LexiconTerm> terms{{"单元格"}, {"メニュー"}, {"메뉴"}, {"меню"}, {"naïve"}};
  CHECK(marked(terms, "选择单元格的格式") == "选择[单元格]的格式");
  CHECK(marked(terms, "メニューから") == "[メニュー]から");
  CHECK(marked(terms, "메뉴에서 меню, подменю naïve naïvete") == "[메뉴]에서 [меню], подменю [naïve] naïvete");
}

TEST_CASE("a text without terms keeps its tokens, one with terms comes back as it was") {
  std::vector<LexiconTerm> terms{{" Format"}, {"Dialogfeld"}, {"单元格"}, {"a\tb"}};
  Tokenizer extended = with(terms);
  CHECK(extended.vocab_size() == 344);
  CHECK(extended.terms() == 4);
  CHECK(plain().terms() == 0);
  for (const char* text : {"Select the cells", "Formats  Dialogfelder\n格", "", "\n", "\xE2\x96\x81 <|user|>"})
    CHECK(extended.encode(text) == plain().encode(text));
  for (int32_t id = 0; id < 340; ++id) CHECK(extended.piece_bytes(id) == plain().piece_bytes(id));
  std::string text = "Choose Format, Dialogfeld\nDialogfeld; 选择单元格 Format";
  std::vector<int32_t> ids = extended.encode(text);
  CHECK(extended.decode(ids) == text);
  CHECK(std::count(ids.begin(), ids.end(), 341) == 2);
  CHECK(std::count(ids.begin(), ids.end(), 340) == 2);
  CHECK(std::count(ids.begin(), ids.end(), 342) == 1);
  CHECK(extended.piece_bytes(340) == " Format");
}

TEST_CASE("texts of random pieces come back through a lexicon as they were") {
  const char* parts[] = {"Format", " ", "\n", "单元格", "s", "_", "ä", "Dialogfeld", "\xE2\x96\x81", "龘", "<mask>"};
  Tokenizer extended = with({{"Format"}, {" Format"}, {"Dialogfeld s"}, {"单元格", true}, {"s", true}, {"ä Format"}});
  RandomStream random{.seed = 2};
  for (uint64_t trial = 0; trial < 300; ++trial) {
    std::string text;
    for (uint64_t i = 0; i < random.bits(trial) % 24; ++i) text += parts[random.bits(trial * 64 + i + 1000) % 11];
    CAPTURE(text);
    CHECK(extended.decode(extended.encode(text)) == text);
  }
}

TEST_CASE("terms are added behind those that are there") {
  std::string once = add_lexicon_terms(plain().model(), {{"one"}, {"two", true}});
  std::string twice = add_lexicon_terms(once, {{"three"}});
  std::vector<LexiconTerm> terms = lexicon_terms(twice);
  REQUIRE(terms.size() == 3);
  CHECK(terms[1].text == "two");
  CHECK(terms[1].anywhere);
  CHECK_FALSE(terms[2].anywhere);
  CHECK(Tokenizer(twice).piece_bytes(342) == "three");
  CHECK(lexicon_terms(plain().model()).empty());
  CHECK_THROWS_AS(lexicon_terms("\x0A\x7F"), Error);
  CHECK_THROWS_AS(Tokenizer(once.substr(0, once.size() - 1)), Error);
}

TEST_CASE("a list gives a term with a blank before it and without; scripts without blanks one") {
  auto terms = read_lexicon("Dialogfelder\r\n格式的\nverb\tanywhere", "terms.txt", plain());
  REQUIRE(terms.size() == 5);
  CHECK(terms[0].text == " Dialogfelder");
  CHECK(terms[1].text == "Dialogfelder");
  CHECK(terms[2].text == "格式的");
  CHECK(terms[4].text == "verb");
  CHECK(terms[4].anywhere);
}

TEST_CASE("a term that cannot be one is refused with its line") {
  auto refuses = [](const std::string& list, const char* text) {
    CHECK_THROWS_WITH_AS(read_lexicon(list, "terms.txt", plain()), doctest::Contains(text), Error);
  };
  refuses("Dialogfelder\n\n", "terms.txt:2: the term is empty");
  refuses("\n", "terms.txt:1: the term is empty");
  refuses("Dialogfelder\nMenus\nDialogfelder\n", "terms.txt:3: \"Dialogfelder\" stands in line 1 already");
  refuses("bell\x07\n", "holds the control character U+0007");
  refuses("Dialogfelder\tsomewhere", "it takes anywhere");
  refuses("ab\xFF", "terms.txt:1: the term is not valid UTF-8");
  refuses(std::string(257, 'x'), "has 257 bytes, a term at most 256");
  refuses(" Menus", "begins or ends with a blank");
  refuses("say <|user|>", "holds <|user|>, a symbol");
  for (std::string known : {"单", "格", "择"})
    if (plain().encode(known).size() == 1) refuses(known, "is a token already");
  refuses("", "holds no terms");
}

TEST_CASE("words that would save most tokens are suggested first") {
  auto words = suggest_terms("Kaleidoskop a Kaleidoskop\nthe the Zebra Zebra once", plain(), 5);
  REQUIRE(words.size() >= 2);
  CHECK(words[0] == "Kaleidoskop");
  CHECK(words[1] == "Zebra");
  CHECK(std::find(words.begin(), words.end(), "once") == words.end());
  CHECK(suggest_terms("Kaleidoskop Kaleidoskop Zebra Zebra", plain(), 1).size() == 1);
}
