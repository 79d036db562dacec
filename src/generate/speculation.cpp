#include "longhand/speculation.h"

#include <algorithm>

namespace longhand {

std::vector<int32_t> find_draft(std::span<const int32_t> text, int64_t count) {
  constexpr int64_t shortest = 2, longest = 16;
  int64_t size = static_cast<int64_t>(text.size()), best = shortest - 1, from = -1;
  // A match is the end of text[0, end); it may overlap the text's own end.
  for (int64_t end = size - 1; end >= shortest && best < longest; --end) {
    if (text[end - 1] != text[size - 1]) continue;
    int64_t length = 1;
    while (length < std::min(end, longest) && text[end - 1 - length] == text[size - 1 - length]) ++length;
    if (length > best) best = length, from = end;
  }
  std::vector<int32_t> draft;
  if (from < 0) return draft;
  for (int64_t i = from; i < from + count; ++i) draft.push_back(i < size ? text[i] : draft[i - size]);
  return draft;
}

void Speculation::learn(int64_t drafted_now, int64_t accepted_now) {
  drafted += drafted_now, accepted += accepted_now;
  if (drafted_now == 0) return;
  bool whole = accepted_now == drafted_now;
  int64_t wanted = whole ? std::min(2 * depth + 1, limit) : accepted_now;
  for (depth = 1; depth < wanted;) depth = 2 * depth + 1;
}

}  // namespace longhand
