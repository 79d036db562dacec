// Paragraphs with what their page marks in them. Marks travel through the stripping of tags as control characters.
#include <vector>

#include "longhand/corpus.h"
#include "src/data/corpus/help_page.h"

namespace longhand {
namespace {

constexpr const char* types[] = {"", "UI", "KEY", "CODE"};
constexpr char closing = 4;  // 1 to 3 open a mark of that type

char type_of(std::string_view tag) {
  struct Class {
    std::string_view attribute;
    char type;
  };
  static constexpr Class classes[] = {{"class=\"emph\"", 1},    {"class=\"menuitem\"", 1}, {"class=\"widget\"", 1},
                                      {"class=\"keycode\"", 2}, {"class=\"literal\"", 3},  {"class=\"input\"", 3}};
  for (const Class& c : classes)
    if (tag.find(c.attribute) != std::string_view::npos) return c.type;
  return 0;
}

/// The HTML with a control character where a mark begins or ends, and without what the page hides: the wording for
/// other systems and modules.
std::string with_marks(std::string_view html) {
  std::string out;
  std::vector<char> open;  // of every span around: its type
  size_t hidden = 0;       // spans open when the hidden one began, and one more
  char marked = 0;
  for (size_t at = 0; at < html.size();) {
    size_t end = html[at] == '<' ? html.find('>', at) : std::string_view::npos;
    if (end == std::string_view::npos) {
      if (!hidden) out += html[at];
      ++at;
      continue;
    }
    std::string_view tag = html.substr(at, end + 1 - at);
    at = end + 1;
    if (tag.starts_with("<span")) {
      char type = marked || hidden ? 0 : type_of(tag);
      if (type) out += marked = type;
      open.push_back(type);
      if (!hidden && tag.find("hidden=") != std::string_view::npos) hidden = open.size();
    } else if (tag.starts_with("</span") && !open.empty()) {
      if (open.back()) out += closing, marked = 0;
      if (hidden == open.size()) hidden = 0;
      open.pop_back();
    } else if (!hidden) {
      out += tag;
    }
  }
  if (marked) out += closing;
  return out;
}

}  // namespace

std::vector<MarkedParagraph> parse_marked_help_page(std::string_view html) {
  std::vector<MarkedParagraph> paragraphs;
  each_help_paragraph(html, [&](std::string_view id, std::string_view inside) {
    MarkedParagraph paragraph{.id = std::string(id), .text = {}, .marks = {}};
    for (char c : help_text(with_marks(inside))) {
      auto here = static_cast<int64_t>(paragraph.text.size());
      if (c > 0 && c < closing)
        paragraph.marks.push_back({here, here, types[static_cast<size_t>(c)]});
      else if (c == closing && !paragraph.marks.empty())
        paragraph.marks.back().end = here;
      else
        paragraph.text += c;
    }
    if (!paragraph.text.empty()) paragraphs.push_back(std::move(paragraph));
  });
  return paragraphs;
}

}  // namespace longhand
