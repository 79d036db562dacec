// Answers as text for people.
#pragma once

#include <string>
#include <vector>

#include "longhand/answers.h"

namespace longhand::cli {

/// `count` of the answers at equal distances: the end of the prompt, what was wanted, what was written, and before.
std::string samples_text(const std::vector<Answer>& answers, int64_t count);

/// One line a task and the mean: examples, exact match, chrF, nats a token.
std::string scores_text(const std::vector<AnswerScore>& scores);

}  // namespace longhand::cli
