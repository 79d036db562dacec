#include <doctest/doctest.h>

#include "longhand/corpus.h"
#include "longhand/error.h"
#include "longhand/random.h"
#include "longhand/text.h"

using namespace longhand;

namespace {

const char* const lines[] = {
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on until the evening comes.",
    "Select the cells that you want to format, then choose the menu command Format and the entry Cells.",
    "Der Befehl öffnet das Dialogfeld, in dem Sie die Einstellungen für die Zellen ändern können.",
    "Cliquez sur le bouton pour ouvrir la boîte de dialogue et choisissez l'élément à insérer.",
    "选择要设置格式的单元格，然后选择菜单命令。在对话框中输入数值，再单击确定。",
    "セルの書式を設定するには、メニューからコマンドを選択して、ダイアログを開きます。",
    "Чтобы изменить формат ячеек, выберите команду меню и введите новое значение в поле.",
    "셀의 서식을 지정하려면 메뉴에서 명령을 선택하고 대화 상자에 값을 입력합니다."};

// One small vocabulary for all tests: it is the training that takes time.
const Tokenizer& small() {
  static const Tokenizer tokenizer = [] {
    Corpus corpus{"mixed", {}};
    for (const char* line : lines) corpus.documents.push_back({line, line});
    return Tokenizer(train_vocabulary({&corpus}, {.size = 460}));
  }();
  return tokenizer;
}

void append_character(std::string& text, uint32_t code) {
  if (code < 0x80)
    text += static_cast<char>(code);
  else if (code < 0x800)
    text += {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
  else if (code < 0x10000)
    text += {static_cast<char>(0xe0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 63)),
             static_cast<char>(0x80 | (code & 63))};
  else
    text += {static_cast<char>(0xf0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 63)),
             static_cast<char>(0x80 | (code >> 6 & 63)), static_cast<char>(0x80 | (code & 63))};
}

std::string random_text(uint64_t seed) {
  RandomStream random{.seed = seed};
  std::string text;
  uint64_t length = random.bits(0) % 60;
  for (uint64_t i = 1; i <= length; ++i) {
    uint32_t kind = random.bits(2 * i), value = random.bits(2 * i + 1);
    switch (kind % 8) {
      case 0:
        append_character(text, value % 0x20);
        break;  // control characters, NUL too
      case 1:
        text += " ";
        break;
      case 2:
        text += value % 2 ? "\n" : "  ";
        break;
      case 3:
        append_character(text, 0x4e00 + value % 0x5000);
        break;  // ideographs
      case 4:
        append_character(text, 0x1f300 + value % 0x500);
        break;  // emoji
      case 5:
        append_character(text, 0x20 + value % 0x5f);
        break;
      case 6:
        append_character(text, 0x2570 + value % 0x20);
        break;  // around U+2581 and U+2585
      default:
        append_character(text, 0xe000 + value % 0x102000);
        break;  // anything above the surrogates
    }
  }
  return text;
}

}  // namespace

TEST_CASE("any text comes back exactly as it was") {
  for (std::string text : {"",
                           " ",
                           "  ",
                           " a",
                           "a ",
                           "\n",
                           "\n\n",
                           " \n ",
                           "a\r\nb",
                           "\t\ta",
                           "\xE2\x96\x81",
                           "a \xE2\x96\x81 b",
                           "１２３ Ａ",
                           "ﬁ ½ ²",
                           "e\xCC\x81",
                           "\xEF\xBB\xBFx",
                           "👩‍👩‍👧‍👦 🇨🇳",
                           "<s></s><unk><0x41>",
                           "<|user|>hi<|end|>",
                           "<mask>",
                           "１　２",
                           "\xEF\xBF\xBD",
                           "\x7f\x01\x02"}) {
    CAPTURE(text);
    CHECK(small().decode(small().encode(text)) == text);
  }
  for (const char* line : lines) CHECK(small().decode(small().encode(line)) == line);
  std::string zeros("a\0b\0\0", 5);
  CHECK(small().decode(small().encode(zeros)) == zeros);
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    std::string text = random_text(seed);
    REQUIRE(find_invalid_utf8(text) == -1);
    REQUIRE(small().decode(small().encode(text)) == text);
  }
}

TEST_CASE("long lines come back exactly, with blanks and without") {
  std::string words, solid;
  for (int i = 0; i < 20000; ++i) words += "word 词语 ", solid += "词语é";
  CHECK(small().decode(small().encode(words)) == words);
  CHECK(small().decode(small().encode(solid)) == solid);
}

TEST_CASE("digits stand alone, line breaks and symbols are one token") {
  CHECK(small().encode("2024").size() == 4);
  CHECK(small().encode("\n") == std::vector<int32_t>{small().symbol("\n")});
  CHECK(small().encode("\t") == std::vector<int32_t>{small().symbol("\t")});
  for (const std::string& symbol : vocabulary_symbols()) {
    REQUIRE(small().symbol(symbol) >= 0);
    CHECK(small().encode(symbol) == std::vector<int32_t>{small().symbol(symbol)});
  }
  CHECK(small().symbol("<|nothing|>") == -1);
  CHECK(small().vocab_size() == 460);
}

TEST_CASE("a token's bytes are what it adds; control symbols add nothing, bytes a byte") {
  CHECK(small().end_of_document() >= 0);
  CHECK(small().piece_bytes(small().end_of_document()).empty());
  CHECK(small().piece_bytes(small().symbol("<0xE4>")) == "\xE4");
  CHECK(small().piece_bytes(small().symbol("<|user|>")) == "<|user|>");
  std::string text = "The quick 龘 dog\n", joined;
  for (int32_t id : small().encode(text)) joined += small().piece_bytes(id);
  CHECK(joined == text);
  CHECK_THROWS_WITH_AS(small().piece_bytes(460), doctest::Contains("id 460 is outside the vocabulary of 460"), Error);
  CHECK_THROWS_AS(small().decode({-1}), Error);
}

TEST_CASE("the text is cut at line breaks: parts encode to parts") {
  std::string first = "The quick brown\n", second = " fox\n\njumps";
  auto whole = small().encode(first + second), parts = small().encode(first);
  for (int32_t id : small().encode(second)) parts.push_back(id);
  CHECK(whole == parts);
}

TEST_CASE("a tokenizer is its bytes") {
  Tokenizer copy(small().model());
  CHECK(copy.model() == small().model());
  CHECK(copy.encode(lines[4]) == small().encode(lines[4]));
  CHECK_THROWS_WITH_AS(Tokenizer(""), doctest::Contains("no SentencePiece model"), Error);
  CHECK_THROWS_WITH_AS(Tokenizer("nonsense"), doctest::Contains("no SentencePiece model"), Error);
}

TEST_CASE("broken UTF-8 is found where it starts") {
  struct {
    const char* text;
    int64_t at;
  } cases[] = {{"", -1},
               {"abc", -1},
               {"é€😀", -1},
               {"ab\x80", 2},  // continues nothing
               {"ab\xC3", 2},  // ends within
               {"a\xE2\x82", 1},
               {"a\xC0\xAF", 1},          // overlong
               {"a\xE0\x80\x80", 1},      // overlong
               {"a\xF0\x80\x80\x80", 1},  // overlong
               {"\xED\xA0\x80", 0},       // surrogate
               {"\xED\x9F\xBF\xEE\x80\x80", -1},
               {"\xF4\x8F\xBF\xBF", -1},
               {"\xF4\x90\x80\x80", 0},  // above U+10FFFF
               {"é\xFF", 2},
               {"\xF5\x80\x80\x80", 0}};
  for (auto& c : cases) {
    CAPTURE(c.text);
    CHECK(find_invalid_utf8(c.text) == c.at);
  }
}

TEST_CASE("a stream of bytes comes out in whole characters") {
  std::string text = "aé€😀\n语x";
  for (size_t step = 1; step <= text.size(); ++step) {
    Utf8Stream stream;
    std::string out;
    for (size_t i = 0; i < text.size(); i += step) {
      std::string piece = stream.push(std::string_view(text).substr(i, step));
      CHECK(find_invalid_utf8(piece) == -1);
      out += piece;
    }
    out += stream.finish();
    CHECK(out == text);
  }
  Utf8Stream broken;
  CHECK(broken.push("a\xE2\x82") == "a");
  CHECK(broken.push("b") ==
        "\xEF\xBF\xBD"
        "b");
  CHECK(broken.push("\xFFz\xF0\x9F") == "\xEF\xBF\xBDz");
  CHECK(broken.finish() == "\xEF\xBF\xBD");
  CHECK(broken.finish().empty());
}

TEST_CASE("a vocabulary of words cuts a text at blanks; other words are <unk>, line breaks <eos>") {
  Tokenizer words = Tokenizer::of_words("<eos>\nthe\n<unk>\ncat\ncaf\xC3\xA9\n@-@");
  CHECK(words.vocab_size() == 6);
  CHECK(words.end_of_document() == 0);
  CHECK(words.symbol("cat") == 3);
  CHECK(words.symbol("dog") == -1);
  CHECK(words.encode(" the  cat\n\tcaf\xC3\xA9 @-@ dog\r\n") == std::vector<int32_t>{1, 3, 0, 4, 5, 2, 0});
  CHECK(words.encode("").empty());
  CHECK(words.decode({1, 3, 0, 4, 2}) == "the cat\ncaf\xC3\xA9 <unk>");
  CHECK(words.piece_bytes(3) == " cat");
  CHECK(words.piece_bytes(0) == "\n");
  CHECK_THROWS_WITH(words.piece_bytes(6), doctest::Contains("outside the vocabulary of 6"));
}

TEST_CASE("a list that is no vocabulary of words is refused with the line") {
  CHECK_THROWS_WITH(Tokenizer::of_words("<unk>\n<eos>\na b\n"), doctest::Contains("line 3 is not one word"));
  CHECK_THROWS_WITH(Tokenizer::of_words("<unk>\n<eos>\n\n"), doctest::Contains("line 3 is not one word"));
  CHECK_THROWS_WITH(Tokenizer::of_words("<unk>\n<eos>\na\na\n"), doctest::Contains("line 4 repeats line 3"));
  CHECK_THROWS_WITH(Tokenizer::of_words("<eos>\na\n"), doctest::Contains("no <unk>"));
  CHECK_THROWS_WITH(Tokenizer::of_words("<unk>\na\n"), doctest::Contains("no <eos>"));
}
