// A vocabulary of whole words, as word-level models have one (WikiText-103): text is cut at blanks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace longhand {

class WordVocabulary {
 public:
  /// One word a line, in the order of their ids, <unk> and <eos> among them; fails with the line that is none.
  explicit WordVocabulary(std::string_view list);
  // The index points into the list.
  WordVocabulary(const WordVocabulary&) = delete;
  WordVocabulary& operator=(const WordVocabulary&) = delete;

  /// Words that are not there become <unk>, line breaks <eos>.
  std::vector<int32_t> encode(std::string_view text) const;
  /// Words with a blank between them; <eos> is a line break.
  std::string decode(const std::vector<int32_t>& ids) const;
  /// What a word adds to a text: itself after a blank.
  std::string piece_bytes(int32_t id) const;
  int32_t find(std::string_view word) const;  // -1 when absent
  int64_t size() const { return static_cast<int64_t>(words_.size()); }
  int32_t end_of_line() const { return end_of_line_; }
  std::string_view list() const { return list_; }

 private:
  std::string list_;
  std::vector<std::string_view> words_;
  std::unordered_map<std::string_view, int32_t> index_;
  int32_t unknown_ = -1, end_of_line_ = -1;
};

}  // namespace longhand
