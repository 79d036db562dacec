// The character n-gram F-score.
#include <algorithm>
#include <string>
#include <unordered_map>

#include "longhand/answers.h"

namespace longhand {
namespace {

/// The code points of valid UTF-8, white space left out; a broken byte stands for itself.
std::u32string characters(std::string_view text) {
  std::u32string out;
  for (size_t at = 0; at < text.size();) {
    auto byte = static_cast<unsigned char>(text[at]);
    size_t length = byte < 0xc0 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    char32_t c = length == 1 ? byte : byte & (0xff >> (length + 1));
    length = std::min(length, text.size() - at);
    for (size_t i = 1; i < length; ++i) c = c << 6 | (static_cast<unsigned char>(text[at + i]) & 0x3f);
    at += length;
    bool blank = c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85 || c == 0xa0 || c == 0x3000 || c == 0x1680 ||
                 (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f;
    if (!blank) out += c;
  }
  return out;
}

std::unordered_map<std::u32string_view, int64_t> ngrams(std::u32string_view text, size_t order) {
  std::unordered_map<std::u32string_view, int64_t> counts;
  for (size_t i = 0; i + order <= text.size(); ++i) ++counts[text.substr(i, order)];
  return counts;
}

}  // namespace

void Chrf::add(std::string_view written, std::string_view wanted) {
  std::u32string a = characters(written), b = characters(wanted);
  for (int order = 0; order < orders; ++order) {
    size_t n = static_cast<size_t>(order) + 1;
    written_[order] += a.size() < n ? 0 : static_cast<int64_t>(a.size() - n + 1);
    wanted_[order] += b.size() < n ? 0 : static_cast<int64_t>(b.size() - n + 1);
    auto have = ngrams(a, n), want = ngrams(b, n);
    for (const auto& [gram, count] : have)
      if (auto found = want.find(gram); found != want.end()) common_[order] += std::min(count, found->second);
  }
}

double Chrf::score() const {
  double precision = 0, recall = 0, used = 0;
  for (int order = 0; order < orders; ++order) {
    if (written_[order] == 0 || wanted_[order] == 0) continue;
    precision += static_cast<double>(common_[order]) / static_cast<double>(written_[order]);
    recall += static_cast<double>(common_[order]) / static_cast<double>(wanted_[order]);
    ++used;
  }
  if (precision + recall == 0) return 0;
  precision /= used, recall /= used;
  constexpr double beta2 = 4;
  return 100 * (1 + beta2) * precision * recall / (beta2 * precision + recall);
}

double Answer::chrf() const {
  Chrf chrf;
  chrf.add(written, wanted);
  return chrf.score();
}

}  // namespace longhand
