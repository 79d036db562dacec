#include <cstddef>

#include "longhand/text.h"

namespace longhand {
namespace {

// The Unicode standard's table of well-formed sequences (3-7): how many bytes a sequence has by its first byte, and
// the range of its second byte, which excludes overlong forms, surrogates and what lies above U+10FFFF.
struct Lead {
  int length = 0;  // 0: no sequence starts with this byte
  unsigned char low = 0x80, high = 0xbf;
};

Lead lead(unsigned char c) {
  if (c < 0x80) return {1};
  if (c < 0xc2) return {};
  if (c < 0xe0) return {2};
  if (c == 0xe0) return {3, 0xa0, 0xbf};
  if (c == 0xed) return {3, 0x80, 0x9f};
  if (c < 0xf0) return {3};
  if (c == 0xf0) return {4, 0x90, 0xbf};
  if (c < 0xf4) return {4};
  if (c == 0xf4) return {4, 0x80, 0x8f};
  return {};
}

// The longest valid beginning of a character at `at`: `bytes` of it are there and right (at least 1 where `broken`).
struct Sequence {
  size_t bytes;
  bool complete, broken;  // neither: the text ends within the character
};

Sequence sequence(std::string_view text, size_t at) {
  Lead first = lead(static_cast<unsigned char>(text[at]));
  if (first.length == 0) return {1, false, true};
  for (size_t i = 1; i < static_cast<size_t>(first.length); ++i) {
    if (at + i == text.size()) return {i, false, false};
    auto c = static_cast<unsigned char>(text[at + i]);
    if (c < (i == 1 ? first.low : 0x80) || c > (i == 1 ? first.high : 0xbf)) return {i, false, true};
  }
  return {static_cast<size_t>(first.length), true, false};
}

constexpr std::string_view replacement = "\xEF\xBF\xBD";

}  // namespace

int64_t find_invalid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    Sequence s = sequence(text, at);
    if (!s.complete) return static_cast<int64_t>(at);
    at += s.bytes;
  }
  return -1;
}

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string out;
  size_t at = 0;
  while (at < pending_.size()) {
    Sequence s = sequence(pending_, at);
    if (!s.complete && !s.broken) break;
    if (s.broken)
      out += replacement;
    else
      out.append(pending_, at, s.bytes);
    at += s.bytes;
  }
  pending_.erase(0, at);
  return out;
}

std::string Utf8Stream::finish() {
  std::string out(pending_.empty() ? std::string_view() : replacement);
  pending_.clear();
  return out;
}

}  // namespace longhand
