// Instruction data: from examples as people write them to examples as tokens, in which only the answer is learnt.
//
//   read (JSON lines | JSON array) -> split -> prompt by template, answer -> tokens with their answers marked
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "longhand/data.h"
#include "longhand/text.h"

namespace longhand {

class Augmenter;

/// One example: {"instruction", "input", "output"}, {"context", "question", "answer"}, or a chat,
/// {"messages": [{"role": "system" | "user" | "assistant", "content"}, ...]}; for heads a text with its label,
/// {"text", "label"} or {"instruction", "input", "label"}, or words with their tags, {"tokens": [...], "tags": [...]}.
/// An answer may come with the state of the dialogue before it, "state": "label", or slots, {"domain": "hotel"}.
struct InstructionExample {
  struct Message {
    std::string role, text;
  };
  std::map<std::string, std::string> fields;  // what a template may name: every text of the object but the answer
  std::string answer;                         // "output" or "answer"
  std::vector<Message> messages;              // of a chat, which has neither
  std::string label;                          // of a text, which then has no answer
  std::vector<std::string> words, tags;       // tags: O, or B-x and I-x for the first and the following words of an x
  std::map<std::string, std::string> state;   // slot -> label; one without slots has the name "state"
  std::string task, source;                   // optional keys: names its validation row; keeps it on one side
  bool negative = false;  // "negative": true, "label": 0, or an answer that is "no", "0" or "unanswerable"
  std::string path;       // of its file
  int64_t line = 0;       // in a file of JSON lines; the entry, from 1, of an array
};

struct InstructionFile {
  std::string path;
  std::vector<InstructionExample> examples;
  std::vector<std::string> bad;  // one message each, with `skip_bad`
};

/// Fails with file and line at what is no example; with `skip_bad` it is left out and counted.
InstructionFile read_instructions(const std::string& path, bool skip_bad);

/// Text in which {field} stands for a field of the example and {?field}...{/field} for a part that is left out where
/// the field is absent or empty.
class PromptTemplate {
 public:
  /// "alpaca", "context", "plain" (weights/templates/), or the name of a file. `path` empty: none of its own, see prompt().
  explicit PromptTemplate(const std::string& path);
  /// The text before the answer. Without a template of its own: "context" for an example with a question, else
  /// "alpaca". Fails with the name of a field that the example does not have.
  std::string prompt(const InstructionExample& example) const;
  const std::string& text() const { return text_; }

 private:
  std::string name_, text_;
};

struct EncodeOptions {
  std::string template_path;  // see PromptTemplate
  int64_t segment = 0;        // inputs of an example at most
  int64_t shots = 0;          // solved examples of the same task before each prompt; fewer where they do not fit
  double validation = 0.05;   // share of the examples, by their source or prompt: equal ones stay on one side
  uint64_t seed = 0;
  bool skip_bad = false;                       // leave out what does not fit, and count it
  std::shared_ptr<const Augmenter> augmenter;  // what makes the variants of the examples to train on; may be null
  std::vector<HeadConfig> heads = {};          // of the model
  std::string head = {};                       // the one among them that says labels or tags
};

/// What heads the examples of a run want.
struct HeadOptions {
  std::string name;                 // of the head for labels or tags
  std::vector<std::string> labels;  // empty = those that the examples have
  bool crf = false;
  int64_t lookahead = 0;
};

/// Adds to `heads` (those of the model) what the examples teach and is not there yet, and returns the names of all that
/// they teach: one for labels or tags, and one for each slot of a dialogue's state. Fails with the line of an example
/// whose label the head does not have, and where labels or tags have no name or another kind of head has it.
std::vector<std::string> find_heads(const InstructionFile& file, const HeadOptions& options,
                                    std::vector<HeadConfig>& heads);

struct EncodedInstructions {
  std::vector<TokenContent> streams;  // "train", then one of validation for each task ("answers" where none is named)
  int64_t train = 0, validation = 0;  // examples
  int64_t cut = 0;                    // whose input was shortened to fit; the answer never is
  std::vector<std::string> bad;
};

/// An example is </s>, the prompt, the answer, </s>; answer and last </s> are learnt. `validation_file` may be null.
EncodedInstructions encode_instructions(const Tokenizer& tokenizer, const InstructionFile& file,
                                        const InstructionFile* validation_file, const EncodeOptions& options);

/// What `data check` says of a file. Lengths are words of prompt and answer together, cut at blanks; a Chinese or
/// Japanese character counts as one.
struct InstructionCheck {
  int64_t examples = 0, negative = 0;
  double mean_length = 0, variance = 0;
  int64_t duplicates = 0;                  // examples equal to an earlier one
  int64_t near_duplicates = 0;             // equal but for case, digits, blanks and punctuation
  int64_t conflicts = 0;                   // the same prompt with another answer
  int64_t cut_off = 0;                     // answers that end in the middle: in a comma, a dash, an open bracket
  int64_t leaked = 0;                      // of the validation file, whose prompt stands in this file too
  std::map<std::string, int64_t> scripts;  // examples by the script of most of their letters
  std::vector<std::string> bad;            // lines that are no examples, empty answers among them
  std::vector<std::string> warnings;
};
InstructionCheck check_instructions(const InstructionFile& file, const InstructionFile* validation);

/// What `data build` makes; see build_instructions.
struct BuildOptions {
  std::string task = "translation";
  std::string directory;               // where scripts/fetch_corpus.sh unpacked the help pages
  std::vector<std::string> languages;  // empty = the twelve of the help corpus, of topics and tags English; a
                                       // translation names its own
  int64_t examples = 6000;
  int64_t largest = 200;    // bytes of a paragraph at most
  int64_t greatest = 9999;  // number, or amount of money
  uint64_t seed = 0;
};

/// Examples as JSON lines, "instruction", "input", "output", "task" (the task and its language, or "en-de") and
/// "source", which keeps what belongs together on one side of a split:
///   translation        every ordered pair of the languages, from paragraphs that they share; source: the page
///   numbers, amounts   0 to `greatest`, in words, amounts in euros and dollars; source: the number
///   dates              1900 to 2099, as the language writes them at length; source: the date
///   terms              a heading of the help pages and the paragraph below it; source: the page
///   cloze              a paragraph without one of its words, and the word; source: the page
/// and for heads, "text" with "label" or "tokens" with "tags":
///   topics             a paragraph, the part of the office suite that its page is about; source: the page
///   tags               the words of a paragraph, what is an element of the user interface, a key or code among them;
///                      source: the page
std::string build_instructions(BuildOptions options);

/// The answers of numbers, amounts ("EUR", "USD") and dates (days after 1 January 1970), as ICU's data have them.
std::string spell_number(const std::string& language, int64_t value);
std::string spell_amount(const std::string& language, int64_t value, const std::string& currency);
std::string spell_date(const std::string& language, int64_t days);

}  // namespace longhand
