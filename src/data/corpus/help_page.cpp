#include <charconv>
#include <optional>

#include "src/data/corpus/help_page.h"

#include "longhand/corpus.h"

namespace longhand {
namespace {

void append_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xe0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3f));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  }
}

// The character that "&name;" stands for, 0 when the name is not known. Pages in UTF-8 need few names.
uint32_t entity(std::string_view name) {
  static constexpr struct {
    std::string_view name;
    uint32_t code;
  } known[] = {{"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}, {"nbsp", 0xa0}};
  for (auto& k : known)
    if (k.name == name) return k.code;
  if (name.size() < 2 || name[0] != '#') return 0;
  bool hexadecimal = name[1] == 'x' || name[1] == 'X';
  const char* first = name.data() + (hexadecimal ? 2 : 1);
  const char* last = name.data() + name.size();
  uint32_t code = 0;
  auto [end, error] = std::from_chars(first, last, code, hexadecimal ? 16 : 10);
  bool character = code < 0x110000 && (code < 0xd800 || code > 0xdfff);
  return error == std::errc() && end == last && character ? code : 0;
}

std::string strip(std::string_view html) {
  std::string out;
  for (size_t i = 0; i < html.size();) {
    if (html[i] == '<') {
      size_t end = html.find('>', i);
      if (html.substr(i, 3) == "<br") out += ' ';
      i = end == std::string_view::npos ? html.size() : end + 1;
    } else if (size_t end = html[i] == '&' ? html.find(';', i) : std::string_view::npos;
               end != std::string_view::npos) {
      uint32_t code = entity(html.substr(i + 1, end - i - 1));
      if (code)
        append_utf8(out, code), i = end + 1;
      else
        out += html[i++];
    } else {
      out += html[i++];
    }
  }
  return out;
}

// Bytes of the white space at `at` (Unicode's White_Space property), 0 when it is none.
size_t blank_at(std::string_view text, size_t at) {
  auto c = static_cast<unsigned char>(text[at]);
  if (c == ' ' || (c >= 9 && c <= 13)) return 1;
  if (c == 0xc2 && at + 1 < text.size()) {
    auto d = static_cast<unsigned char>(text[at + 1]);
    return d == 0x85 || d == 0xa0 ? 2 : 0;
  }
  if (c < 0xe1 || c > 0xe3 || at + 2 >= text.size()) return 0;
  uint32_t code = (c & 0x0fu) << 12 | (text[at + 1] & 0x3fu) << 6 | (text[at + 2] & 0x3fu);
  bool blank = code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 ||
               code == 0x202f || code == 0x205f || code == 0x3000;
  return blank ? 3 : 0;
}

std::string fold_blanks(std::string_view text) {
  std::string out;
  bool owed = false;
  for (size_t i = 0; i < text.size();) {
    if (size_t n = blank_at(text, i)) {
      owed = !out.empty();
      i += n;
      continue;
    }
    if (owed) out += ' ', owed = false;
    out += text[i++];
  }
  return out;
}

// "h3", "p", "td" or "th" where `tag` ("<h3 id=...") opens one of them, else nothing.
std::string_view paragraph_name(std::string_view tag) {
  size_t end = tag.find_first_of(" \t\r\n>", 1);
  if (end == std::string_view::npos) return {};
  std::string_view name = tag.substr(1, end - 1);
  bool heading = name.size() == 2 && name[0] == 'h' && name[1] >= '1' && name[1] <= '6';
  return heading || name == "p" || name == "td" || name == "th" ? name : std::string_view();
}

std::string_view attribute_id(std::string_view tag) {
  constexpr std::string_view key = "id=\"";
  for (size_t at = 0; (at = tag.find(key, at)) != std::string_view::npos; ++at) {
    if (at == 0 || (tag[at - 1] != ' ' && tag[at - 1] != '\n' && tag[at - 1] != '\t')) continue;
    size_t first = at + key.size();
    size_t end = tag.find('"', first);
    return end == std::string_view::npos ? std::string_view() : tag.substr(first, end - first);
  }
  return {};
}

}  // namespace

std::string help_text(std::string_view html) { return fold_blanks(strip(html)); }

void each_help_paragraph(std::string_view html,
                         const std::function<void(std::string_view id, std::string_view inside)>& on) {
  size_t area = html.find("id=\"DisplayArea\"");
  if (area == std::string_view::npos) return;
  html.remove_prefix(area);
  for (size_t at = 0; (at = html.find('<', at)) != std::string_view::npos;) {
    size_t tag_end = html.find('>', at);
    if (tag_end == std::string_view::npos) break;
    std::string_view tag = html.substr(at, tag_end - at + 1);
    std::string_view name = paragraph_name(tag), id = attribute_id(tag);
    at = tag_end + 1;
    if (name.empty() || id.empty()) continue;
    size_t close = html.find("</" + std::string(name) + ">", at);
    if (close == std::string_view::npos) continue;
    on(id, html.substr(at, close - at));
    at = close;
  }
}

std::vector<Paragraph> parse_help_page(std::string_view html) {
  std::vector<Paragraph> paragraphs;
  each_help_paragraph(html, [&](std::string_view id, std::string_view inside) {
    if (std::string text = help_text(inside); !text.empty()) paragraphs.push_back({std::string(id), std::move(text)});
  });
  return paragraphs;
}

}  // namespace longhand
