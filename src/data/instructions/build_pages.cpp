// Terms with their explanations and texts with a word left out, from the help corpus.
#include <unicode/brkiter.h>
#include <unicode/unistr.h>

#include <set>

#include "longhand/corpus.h"
#include "src/data/instructions/build_parts.h"

namespace longhand {
namespace {

struct Example {
  std::string input, output, source;
};

bool is_heading(const Paragraph& paragraph) { return paragraph.id.starts_with("hd_"); }

/// A heading and the first paragraph below it.
void add_terms(const Page& page, int64_t largest, const std::set<std::string>& untranslated,
               std::set<std::string>& seen, std::vector<Example>& examples) {
  for (size_t i = 0; i + 1 < page.paragraphs.size(); ++i) {
    const Paragraph &term = page.paragraphs[i], &text = page.paragraphs[i + 1];
    bool good = is_heading(term) && !is_heading(text) && term.text != text.text && term.text.size() <= 60 &&
                static_cast<int64_t>(text.text.size()) <= largest && !untranslated.contains(text.text);
    if (good && seen.insert(term.text).second) examples.push_back({term.text, text.text, page.path});
  }
}

/// The words of a text, as pairs of UTF-16 positions, that are worth asking for: four letters or more, in Chinese,
/// Japanese and Korean two.
std::vector<std::pair<int32_t, int32_t>> words_of(const icu::UnicodeString& text, icu::BreakIterator& breaks) {
  std::vector<std::pair<int32_t, int32_t>> words;
  breaks.setText(text);
  for (int32_t begin = breaks.first(), end = breaks.next(); end != icu::BreakIterator::DONE;
       begin = end, end = breaks.next()) {
    int32_t kind = breaks.getRuleStatus(), least = text.char32At(begin) >= 0x1100 ? 2 : 4;
    if (kind >= UBRK_WORD_LETTER && kind < UBRK_WORD_IDEO_LIMIT && end - begin >= least) words.emplace_back(begin, end);
  }
  return words;
}

/// A paragraph with one word replaced by a line.
void add_cloze(const Page& page, const BuildOptions& options, icu::BreakIterator& breaks, std::set<std::string>& seen,
               std::vector<Example>& examples) {
  for (const Paragraph& paragraph : page.paragraphs) {
    if (static_cast<int64_t>(paragraph.text.size()) > options.largest) continue;
    icu::UnicodeString text = icu::UnicodeString::fromUTF8(paragraph.text);
    std::vector<std::pair<int32_t, int32_t>> words = words_of(text, breaks);
    if (words.size() < 3 || !seen.insert(paragraph.text).second) continue;
    RandomStream random{.seed = options.seed, .step = seen.size(), .use = RandomUse::shuffle};
    auto [begin, end] = words[static_cast<uint64_t>(random.bits(0)) * words.size() >> 32];
    Example example{.source = page.path};
    text.tempSubStringBetween(begin, end).toUTF8String(example.output);
    text.replaceBetween(begin, end, "____").toUTF8String(example.input);
    examples.push_back(std::move(example));
  }
}

}  // namespace

std::string build_from_pages(const BuildOptions& options) {
  std::set<std::string> english;  // other languages' pages hold some of it too, where it is not translated yet
  for (const Page& page : read_help_pages(options.directory, "en"))
    for (const Paragraph& paragraph : page.paragraphs) english.insert(paragraph.text);
  bool cloze = options.task == "cloze";
  int64_t languages = static_cast<int64_t>(options.languages.size());
  std::string lines;
  for (int64_t l = 0; l < languages; ++l) {
    const std::string& language = options.languages[l];
    UErrorCode status = U_ZERO_ERROR;
    std::unique_ptr<icu::BreakIterator> breaks(
        icu::BreakIterator::createWordInstance(icu::Locale(language.c_str()), status));
    if (U_FAILURE(status)) fail("ICU has no word breaks: {}", u_errorName(status));
    std::vector<Example> examples;
    const std::set<std::string> untranslated = language == "en" ? std::set<std::string>() : english;
    std::set<std::string> seen = untranslated;
    for (const Page& page : read_help_pages(options.directory, language))
      cloze ? add_cloze(page, options, *breaks, seen, examples)
            : add_terms(page, options.largest, untranslated, seen, examples);
    shuffle(examples, options.seed, static_cast<uint64_t>(l));
    examples.resize(std::min<size_t>(examples.size(), share_of(options.examples, l, languages)));
    std::string instruction =
        cloze ? "Which word is missing?" : fmt::format("Explain the term in {}.", language_name(language));
    for (const Example& e : examples)
      lines += example_line(instruction, e.input, e.output, options.task + "-" + language, e.source);
  }
  if (lines.empty()) fail("{}: nothing there makes an example of --task {}", options.directory, options.task);
  return lines;
}

}  // namespace longhand
