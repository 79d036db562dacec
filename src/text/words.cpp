#include "src/text/words.h"

#include <algorithm>

#include "longhand/error.h"

namespace longhand {

static constexpr std::string_view blanks = " \t\r\f\v";

WordVocabulary::WordVocabulary(std::string_view list) : list_(list) {
  std::string_view rest = list_;
  while (!rest.empty()) {
    size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view word = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (word.ends_with('\r')) word.remove_suffix(1);
    if (word.empty() || word.find_first_of(blanks) != word.npos)
      fail("vocabulary of words: line {} is not one word", words_.size() + 1);
    if (!index_.emplace(word, static_cast<int32_t>(words_.size())).second)
      fail("vocabulary of words: line {} repeats line {}", words_.size() + 1, index_.at(word) + 1);
    words_.push_back(word);
  }
  unknown_ = find("<unk>") >= 0 ? find("<unk>") : find("<UNK>");
  end_of_line_ = find("<eos>");
  if (unknown_ < 0 || end_of_line_ < 0)
    fail("vocabulary of words: it has no {}",
         unknown_ < 0 ? "<unk>, which stands for all other words" : "<eos>, which ends a line");
}

std::vector<int32_t> WordVocabulary::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '\n') {
      ids.push_back(end_of_line_);
      ++i;
      continue;
    }
    if (blanks.find(text[i]) != blanks.npos) {
      ++i;
      continue;
    }
    size_t end = std::min(text.find_first_of(" \t\r\f\v\n", i), text.size());
    int32_t id = find(text.substr(i, end - i));
    ids.push_back(id >= 0 ? id : unknown_);
    i = end;
  }
  return ids;
}

std::string WordVocabulary::decode(const std::vector<int32_t>& ids) const {
  std::string text;
  for (int32_t id : ids) {
    std::string piece = piece_bytes(id);
    bool line_begins = text.empty() || text.back() == '\n';
    text += line_begins && piece.front() == ' ' ? piece.substr(1) : piece;
  }
  return text;
}

std::string WordVocabulary::piece_bytes(int32_t id) const {
  if (id < 0 || id >= size()) fail("tokenizer: id {} is outside the vocabulary of {}", id, size());
  return id == end_of_line_ ? "\n" : " " + std::string(words_[id]);
}

int32_t WordVocabulary::find(std::string_view word) const {
  auto found = index_.find(word);
  return found == index_.end() ? -1 : found->second;
}

}  // namespace longhand
