// Augmentation of texts after Wei & Zou 2019, "EDA": synonyms, insertions, neighbours that change places. Numbers,
// names, placeholders and the words of an answer stay as they are.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/instructions.h"
#include "longhand/random.h"

namespace longhand {

/// Words and what may stand for them, in UTF-8. Two formats are read: mythes (th_*.dat: the encoding, then
/// "word|meanings" followed by a line "(kind)|synonym|synonym" for each), and "word: synonym, synonym" a line.
class Thesaurus {
 public:
  /// Adds a file's entries. Fails with what is no entry, and where the file is not in UTF-8.
  void add(const std::string& path);
  /// Synonyms of a word whatever its case, or null.
  const std::vector<std::string>* find(std::string_view word) const;
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }
  uint32_t checksum() const { return checksum_; }  // of the files

 private:
  void add_mythes(const std::string& path, std::string_view text);
  void add_plain(const std::string& path, std::string_view text);
  void put(std::string_view word, std::string_view synonym);

  std::map<std::string, std::vector<std::string>, std::less<>> entries_;  // by folded word
  uint32_t checksum_ = 0;
};

struct AugmentOptions {
  double synonyms = 0.2, insertions = 0.1, shuffles = 0.05;  // of the words that may be touched
  bool answers = false;                                      // answers are texts like others
  std::string language;               // of examples that do not say theirs: in "de" and "lb" nouns are capitalised
  std::vector<std::string> thesauri;  // files, or "de=FILE" for one language alone
  uint64_t seed = 0;
};

class Augmenter {
 public:
  explicit Augmenter(const AugmentOptions& options);

  /// Another form of a text, by (seed, draw). Words of `kept` stay; so do numbers, what looks like a placeholder, a
  /// path or code, words with two capitals, and inside a sentence capitalised words where the language does not write
  /// nouns so.
  std::string text(std::string_view text, std::string_view kept, const std::string& language, uint64_t draw) const;
  /// Another form of an example: of its input, context and question, of its instruction where it has none of these, or
  /// of the user's turns. The answer's words are kept, or the answer is changed too, by the options. The language is
  /// the field "language", or the first of a task like "de-en".
  InstructionExample example(const InstructionExample& example, uint64_t draw) const;
  const AugmentOptions& options() const;
  uint32_t checksum() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// An example as a line of JSON.
std::string example_json(const InstructionExample& example);

}  // namespace longhand
