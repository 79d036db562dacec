#include <algorithm>

#include "longhand/corpus.h"
#include "longhand/random.h"

namespace longhand {
namespace {

// FNV-1a (Fowler, Noll, Vo), then Philox, so that the seed reaches every bit.
double place_of(std::string_view path, uint64_t seed) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : path) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  RandomStream stream{.seed = seed, .step = hash & 0xffffffffffffffu, .use = RandomUse::shuffle};
  return uniform(stream.bits(hash >> 56));
}

// The first line, or else the first character, that starts at `from` or after it.
size_t line_start(std::string_view text, size_t from) {
  if (size_t end = text.find('\n', from); end != std::string_view::npos && end + 1 < text.size()) return end + 1;
  while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xc0) == 0x80) ++from;
  return from;
}

SplitCorpus empty(const Corpus& corpus) {
  return {{corpus.language, {}}, {corpus.language, {}}, static_cast<int64_t>(corpus.documents.size())};
}

SplitCorpus cut_ends(Corpus corpus, double share) {
  SplitCorpus split = empty(corpus);
  for (Document& document : corpus.documents) {
    std::string& text = document.text;
    auto kept = static_cast<size_t>(static_cast<double>(text.size()) * (1 - share));
    size_t at = line_start(text, std::max<size_t>(kept, 1));
    if (at < text.size()) {
      split.validation.documents.push_back({document.path, text.substr(at)});
      text.resize(at);
    }
    split.train.documents.push_back(std::move(document));
  }
  return split;
}

SplitCorpus split_by_path(Corpus corpus, double share, uint64_t seed) {
  SplitCorpus split = empty(corpus);
  for (Document& document : corpus.documents) {
    Corpus& side = place_of(document.path, seed) < share ? split.validation : split.train;
    side.documents.push_back(std::move(document));
  }
  return split;
}

bool both_sides(const Corpus& corpus, double share, uint64_t seed) {
  int64_t documents = static_cast<int64_t>(corpus.documents.size()), validation = 0;
  for (const Document& d : corpus.documents) validation += place_of(d.path, seed) < share;
  return validation > 0 && validation < documents;
}

}  // namespace

std::vector<SplitCorpus> split_corpora(std::vector<Corpus> corpora, const SplitOptions& options) {
  int64_t largest = 1;
  for (const Corpus& corpus : corpora) largest = std::max(largest, corpus.bytes());
  double share = std::min(options.validation, static_cast<double>(options.largest) / static_cast<double>(largest));
  std::vector<SplitCorpus> splits;
  for (Corpus& corpus : corpora) {
    double expected = static_cast<double>(corpus.documents.size()) * share;
    if (share <= 0) {
      splits.push_back(empty(corpus));
      splits.back().train = std::move(corpus);
    } else if (expected < options.fewest_documents || !both_sides(corpus, share, options.seed)) {
      splits.push_back(cut_ends(std::move(corpus), share));
    } else {
      splits.push_back(split_by_path(std::move(corpus), share, options.seed));
    }
  }
  return splits;
}

}  // namespace longhand
