// Answers: what a model writes for examples, beside what was wanted, and figures of how near it came.
//
//   questions (from validation streams) -> greedy answers, many at once -> exact match, chrF, nats; results of two runs
//   over the same questions -> the difference with a confidence interval
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/data.h"
#include "longhand/parameters.h"
#include "longhand/text.h"

namespace longhand {

/// The character n-gram F-score (Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015):
/// n-grams of 1 to 6 characters without white space, matched up to their counts; with P and R the means of precision
/// and recall over the n that both texts have,
///   F = (1 + b^2) P R / (b^2 P + R),  b = 2.
/// Counts add up over the texts of a set, as sacrebleu's chrF2 does.
class Chrf {
 public:
  void add(std::string_view written, std::string_view wanted);  // UTF-8
  double score() const;                                         // 0 to 100

 private:
  static constexpr int orders = 6;
  int64_t written_[orders] = {}, wanted_[orders] = {}, common_[orders] = {};
};

/// An example cut before its last answer.
struct Question {
  std::string task;
  std::vector<int32_t> tokens;  // the whole example
  int64_t prompt = 0;           // the tokens before the answer; the rest are its, the token that ends it included
};

/// At most `limit` examples of the streams (0 = all), the same share of each, at equal distances.
std::vector<Question> questions_of(const std::vector<TokenStream>& streams, int64_t limit);

struct Answer {
  std::string task, prompt, wanted, written;
  std::optional<std::string> before;  // what was written by the weights that a run began with
  double nats = 0;                    // of the wanted answer, all its tokens together
  int64_t tokens = 0;                 // of the wanted answer
  bool exact() const { return written == wanted; }
  double chrf() const;
};

struct AnswerOptions {
  int64_t rows = 32;      // texts that are written side by side
  int64_t tokens = 0;     // of an answer at most; 0 = twice the wanted one's and 16
  int64_t speculate = 0;  // tokens of a draft at most (longhand/speculation.h); the answers are the same
};

/// Greedy answers, in the order of the questions. A text's answer does not depend on the others beside it.
std::vector<Answer> write_answers(Device& device, const ModelConfig& config, const ParameterSet& weights,
                                  const Tokenizer& tokenizer, const std::vector<Question>& questions,
                                  const AnswerOptions& options);

/// Figures of one task, or of all.
struct AnswerScore {
  std::string task;
  int64_t examples = 0, exact = 0;
  double chrf = 0;  // of the set
  double nats = 0;  // mean a token
};
/// One a task, in the order of their names, and "mean", the mean over the tasks (its examples are their sum).
std::vector<AnswerScore> score_answers(const std::vector<Answer>& answers);

/// One JSON object a line: "task", "prompt", "wanted", "written", "exact", "chrf", "nats" (mean a token), "tokens"
/// and, where it is known, "before".
std::string answers_text(const std::vector<Answer>& answers);
/// Fails with `path` and line at what is no answer.
std::vector<Answer> read_answers(const std::string& path);

/// The mean of a difference over examples, and the bounds that 95% of resampled sets lie in (paired bootstrap: Efron
/// 1979; Koehn, "Statistical significance tests for machine translation evaluation", EMNLP 2004).
struct Interval {
  double mean = 0, low = 0, high = 0;
};
Interval bootstrap(const std::vector<double>& differences, uint64_t seed, int64_t samples = 2000);

}  // namespace longhand
