// Numbers, dates and amounts of money written out: the answers are ICU's, so they can be checked to the letter.
#include <unicode/datefmt.h>
#include <unicode/gregocal.h>
#include <unicode/plurrule.h>
#include <unicode/rbnf.h>
#include <unicode/ucurr.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <set>

#include "src/data/instructions/build_parts.h"

namespace longhand {
namespace {

void check(UErrorCode status, const std::string& language) {
  if (U_FAILURE(status)) fail_usage("--languages {}: ICU: {}", language, u_errorName(status));
}

/// UTF-8, without the soft hyphens that ICU puts between the parts of a word, with plain blanks.
std::string plain(icu::UnicodeString text) {
  text.findAndReplace(icu::UnicodeString(UChar32(0xad)), icu::UnicodeString());
  for (UChar32 blank : {0xa0, 0x202f}) text.findAndReplace(icu::UnicodeString(blank), icu::UnicodeString(UChar32(' ')));
  std::string out;
  return text.toUTF8String(out);
}

/// One language's way to write.
class Speller {
 public:
  explicit Speller(const std::string& language) : language_(language), locale_(language.c_str()) {
    UErrorCode status = U_ZERO_ERROR;
    if (language.empty() || !known(language)) fail_usage("--languages {}: ICU spells no numbers there", language);
    words_ = std::make_unique<icu::RuleBasedNumberFormat>(icu::URBNF_SPELLOUT, locale_, status);
    plural_.reset(icu::PluralRules::forLocale(locale_, status));
    check(status, language);
    date_.reset(icu::DateFormat::createDateInstance(icu::DateFormat::kLong, locale_));
    if (!date_) fail_usage("--languages {}: ICU has no dates there", language);
    date_->setTimeZone(*icu::TimeZone::getGMT());
  }

  std::string number(int64_t value) const {
    icu::UnicodeString text;
    return plain(words_->format(value, text));
  }

  /// `days` after 1 January 1970.
  std::string date(int64_t days) const {
    icu::UnicodeString text;
    return plain(date_->format(static_cast<double>(days) * 86'400'000, text));
  }

  /// The number in the form that stands before a masculine noun, and the name of the currency in the number's form.
  std::string amount(int64_t value, const char* currency) const {
    UErrorCode status = U_ZERO_ERROR;
    icu::UnicodeString number, code(currency), masculine("%spellout-cardinal-masculine");
    icu::FieldPosition position;
    words_->format(value, masculine, number, position, status);
    if (U_FAILURE(status)) status = U_ZERO_ERROR, number.remove(), words_->format(value, number);
    std::string form;
    plural_->select(static_cast<double>(value)).toUTF8String(form);
    int32_t length = 0;
    const UChar* name =
        ucurr_getPluralName(code.getTerminatedBuffer(), locale_.getName(), nullptr, form.c_str(), &length, &status);
    check(status, language_);
    bool joined = language_ == "zh" || language_ == "ja";
    return plain(number) + (joined ? "" : " ") + plain(icu::UnicodeString(name, length));
  }

 private:
  static bool known(const std::string& language) {
    int32_t count = 0;
    const icu::Locale* list = icu::NumberFormat::getAvailableLocales(count);
    return std::any_of(list, list + count, [&](const icu::Locale& l) { return language == l.getName(); });
  }

  std::string language_;
  icu::Locale locale_;
  std::unique_ptr<icu::RuleBasedNumberFormat> words_;
  std::unique_ptr<icu::PluralRules> plural_;
  std::unique_ptr<icu::DateFormat> date_;
};

/// Days since 1970 -> "2024-03-17" (Hinnant, "chrono-compatible low-level date algorithms").
std::string iso_date(int64_t days) {
  int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, day_of_era = z - era * 146097;
  int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  int64_t shifted = (5 * day_of_year + 2) / 153, day = day_of_year - (153 * shifted + 2) / 5 + 1;
  int64_t month = shifted < 10 ? shifted + 3 : shifted - 9, year = year_of_era + era * 400 + (month <= 2);
  return fmt::format("{:04}-{:02}-{:02}", year, month, day);
}

/// `count` of the values [first, last], each once, in an order drawn from the seed.
std::vector<int64_t> draw(int64_t first, int64_t last, int64_t count, uint64_t seed, uint64_t step) {
  int64_t all = last - first + 1;
  std::vector<int64_t> values;
  if (count * 2 >= all) {
    for (int64_t value = first; value <= last; ++value) values.push_back(value);
    shuffle(values, seed, step);
    values.resize(std::min(count, all));
    return values;
  }
  RandomStream random{.seed = seed, .step = step, .use = RandomUse::shuffle};
  std::set<int64_t> seen;
  for (uint64_t i = 0; static_cast<int64_t>(values.size()) < count; i += 2) {
    uint64_t bits = static_cast<uint64_t>(random.bits(i)) << 32 | random.bits(i + 1);
    int64_t value = first + static_cast<int64_t>(bits % static_cast<uint64_t>(all));
    if (seen.insert(value).second) values.push_back(value);
  }
  return values;
}

}  // namespace

std::string spell_number(const std::string& language, int64_t value) { return Speller(language).number(value); }
std::string spell_amount(const std::string& language, int64_t value, const std::string& currency) {
  return Speller(language).amount(value, currency.c_str());
}
std::string spell_date(const std::string& language, int64_t days) { return Speller(language).date(days); }

std::string build_spelled(const BuildOptions& options) {
  constexpr int64_t first_day = -25567, last_day = 47481;  // 1900-01-01 to 2099-12-31
  if (options.greatest < 1) fail_usage("--greatest {}: at least 1", options.greatest);
  bool dates = options.task == "dates", amounts = options.task == "amounts";
  int64_t languages = static_cast<int64_t>(options.languages.size());
  std::string lines;
  for (int64_t l = 0; l < languages; ++l) {
    const std::string& language = options.languages[l];
    Speller speller(language);
    std::string name = language_name(language), task = options.task + "-" + language;
    for (int64_t value : draw(dates ? first_day : 0, dates ? last_day : options.greatest,
                              share_of(options.examples, l, languages), options.seed, static_cast<uint64_t>(l))) {
      std::string digits = dates ? iso_date(value) : std::to_string(value);
      if (dates) {
        lines += example_line(fmt::format("Write the date in {}.", name), digits, speller.date(value), task, digits);
      } else if (amounts) {
        const char* currency = value % 2 ? "EUR" : "USD";
        lines += example_line(fmt::format("Write the amount in {} words.", name), digits + " " + currency,
                              speller.amount(value, currency), task, digits);
      } else {
        lines += example_line(fmt::format("Write the number in {} words.", name), digits, speller.number(value), task,
                              digits);
      }
    }
  }
  return lines;
}

}  // namespace longhand
