#include <doctest/doctest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "longhand/corpus.h"
#include "longhand/instructions.h"

using namespace longhand;

namespace {

std::vector<nlohmann::json> lines_of(const std::string& text) {
  std::vector<nlohmann::json> lines;
  for (size_t first = 0; first < text.size(); first = text.find('\n', first) + 1)
    lines.push_back(nlohmann::json::parse(text.substr(first, text.find('\n', first) - first)));
  return lines;
}

}  // namespace

TEST_CASE("numbers are written out as each of the twelve languages does") {
  const std::map<std::string, std::map<int64_t, const char*>> known = {
      {"en", {{0, "zero"}, {21, "twenty-one"}, {4711, "four thousand seven hundred eleven"}}},
      {"zh", {{10, "十"}, {21, "二十一"}, {4711, "四千七百一十一"}}},
      {"de", {{1, "eins"}, {21, "einundzwanzig"}, {4711, "viertausendsiebenhundertelf"}}},
      {"fr", {{71, "soixante-et-onze"}, {80, "quatre-vingts"}, {99, "quatre-vingt-dix-neuf"}}},
      {"es", {{16, "dieciséis"}, {500, "quinientos"}, {1031, "mil treinta y uno"}}},
      {"it", {{23, "ventitré"}, {1000, "mille"}, {2008, "duemilaotto"}}},
      {"pt", {{3, "três"}, {100, "cem"}, {116, "cento e dezesseis"}}},
      {"ru", {{40, "сорок"}, {2001, "две тысячи один"}, {90, "девяносто"}}},
      {"ja", {{10, "十"}, {21, "二十一"}, {4711, "四千七百十一"}}},
      {"ko", {{10, "십"}, {21, "이십일"}, {4711, "사천칠백십일"}}},
      {"nl", {{22, "tweeëntwintig"}, {100, "honderd"}, {18, "achttien"}}},
      {"pl", {{11, "jedenaście"}, {2000, "dwa tysiące"}, {5000, "pięć tysięcy"}}}};
  CHECK(known.size() == help_languages().size());
  for (const auto& [language, numbers] : known)
    for (const auto& [value, words] : numbers) CHECK(spell_number(language, value) == words);
  CHECK_THROWS_WITH_AS(spell_number("xx", 1), doctest::Contains("--languages xx"), UsageError);
}

TEST_CASE("amounts agree with their number, dates are those of the language") {
  CHECK(spell_amount("en", 1, "USD") == "one US dollar");
  CHECK(spell_amount("ru", 2, "USD") == "два доллара США");
  CHECK(spell_amount("ru", 5, "USD") == "пять долларов США");
  CHECK(spell_amount("es", 21, "EUR") == "veintiún euros");
  CHECK(spell_amount("zh", 21, "EUR") == "二十一欧元");
  CHECK(spell_date("en", 0) == "January 1, 1970");
  CHECK(spell_date("de", 19'789) == "7. März 2024");
  CHECK(spell_date("fr", 31) == "1 février 1970");
  CHECK(spell_date("ko", 31) == "1970년 2월 1일");
}

TEST_CASE("a set of numbers has each once a language, its source is the number, and the seed decides it") {
  BuildOptions options{.task = "numbers", .languages = {"de", "ja"}, .examples = 60, .greatest = 99, .seed = 3};
  std::string text = build_instructions(options);
  CHECK(text == build_instructions(options));
  std::set<std::pair<std::string, std::string>> seen;
  for (const nlohmann::json& line : lines_of(text)) {
    CHECK(line.at("source") == line.at("input"));
    bool german = line.at("task") == "numbers-de";
    CHECK(line.at("output") == spell_number(german ? "de" : "ja", std::stoi(line.at("input").get<std::string>())));
    CHECK(seen.emplace(line.at("task").get<std::string>(), line.at("input").get<std::string>()).second);
  }
  CHECK(seen.size() == 60);
  options.seed = 4;
  CHECK(text != build_instructions(options));
  options.examples = 1000;
  CHECK(lines_of(build_instructions(options)).size() == 200);
}

TEST_CASE("a date is asked for in digits and answered at length") {
  for (const nlohmann::json& line :
       lines_of(build_instructions({.task = "dates", .languages = {"en"}, .examples = 50}))) {
    std::string digits = line.at("input"), words = line.at("output");
    CHECK(digits.size() == 10);
    CHECK(words.ends_with(digits.substr(0, 4)));
    CHECK(words.find(std::to_string(std::stoi(digits.substr(8))) + ",") != std::string::npos);
  }
}

TEST_CASE("an unknown task and a set of nothing are refused") {
  CHECK_THROWS_WITH_AS(build_instructions({.task = "poems"}), doctest::Contains("--task poems"), UsageError);
  CHECK_THROWS_WITH_AS(build_instructions({.task = "numbers", .examples = 0}), doctest::Contains("--examples"),
                       UsageError);
  CHECK_THROWS_WITH_AS(build_instructions({.task = "numbers", .greatest = 0}), doctest::Contains("--greatest"),
                       UsageError);
  CHECK_THROWS_WITH_AS(build_instructions({.task = "translation", .languages = {"en"}}),
                       doctest::Contains("two languages"), UsageError);
}
