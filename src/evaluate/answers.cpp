// Questions from examples, and the answers that a model writes.
#include "longhand/answers.h"

#include <algorithm>

#include "longhand/generate.h"
#include "longhand/model.h"
#include "src/text/chat_form.h"

namespace longhand {
namespace {

/// The example of the tokens [first, end) of a stream, cut before the last run of learnt tokens.
Question question_of(const TokenStream& stream, int64_t first, int64_t end) {
  Question question{.task = stream.name};
  const uint8_t* learnt = stream.answers.as<uint8_t>();
  for (int64_t i = first; i < end; ++i) question.tokens.push_back(stream.at(i));
  int64_t cut = end;
  while (cut > first && !learnt[cut - 1]) --cut;
  question.tokens.resize(cut - first);
  while (cut > first && learnt[cut - 1]) --cut;
  question.prompt = cut - first;
  return question;
}

int64_t longest(const std::vector<Question>& questions) {
  int64_t most = 1;
  for (const Question& question : questions) most = std::max(most, static_cast<int64_t>(question.tokens.size()));
  return most;
}

/// Sums of the losses over the wanted answers, `lanes` of them at a time.
class AnswerLoss {
 public:
  AnswerLoss(Device& device, const ModelConfig& config, const ParameterSet& weights, int64_t lanes, int64_t segment)
      : device_(device),
        segments_(config.segments),
        lanes_(lanes),
        pass_(device, config, weights, nullptr, {.lanes = lanes, .segment = segment, .training = false},
              weights.type()) {}

  void run(const std::vector<Question>& questions, size_t first, std::vector<Answer>& answers) {
    size_t count = std::min<size_t>(lanes_, questions.size() - first);
    int64_t length = 1;
    for (size_t lane = 0; lane < count; ++lane)
      length = std::max(length, static_cast<int64_t>(questions[first + lane].tokens.size()) - 1);
    std::vector<int32_t> tokens(length * lanes_, 0), targets(length * lanes_, -1);
    for (size_t lane = 0; lane < count; ++lane) {
      const Question& q = questions[first + lane];
      for (int64_t i = 0; i + 1 < static_cast<int64_t>(q.tokens.size()); ++i) {
        tokens[i * lanes_ + lane] = q.tokens[i];
        if (i + 1 >= q.prompt) targets[i * lanes_ + lane] = q.tokens[i + 1];
      }
    }
    std::vector<uint8_t> segments(segments_ ? length * lanes_ : 0, 0);
    Shape shape{length, lanes_};
    Batch batch;
    batch.tokens = ConstTensor(tokens.data(), Dtype::i32, shape);
    batch.targets = ConstTensor(targets.data(), Dtype::i32, shape);
    if (segments_) batch.segment_ids = ConstTensor(segments.data(), Dtype::u8, shape);
    pass_.forward(batch, {}, {}, 0, 0);
    std::vector<float> losses(length * lanes_);
    device_.download(losses.data(), pass_.losses());
    for (size_t i = 0; i < losses.size(); ++i)
      if (targets[i] >= 0) {
        Answer& answer = answers[first + i % lanes_];
        answer.nats += losses[i], ++answer.tokens;
      }
  }

 private:
  Device& device_;
  bool segments_;
  int64_t lanes_;
  Pass pass_;
};

void measure(Device& device, const ModelConfig& config, const ParameterSet& weights,
             const std::vector<Question>& questions, std::vector<Answer>& answers) {
  constexpr int64_t tokens_at_a_time = 4096;
  int64_t segment = std::max<int64_t>(1, longest(questions) - 1);
  int64_t lanes = std::clamp<int64_t>(tokens_at_a_time / segment, 1, static_cast<int64_t>(questions.size()));
  AnswerLoss loss(device, config, weights, lanes, segment);
  for (size_t first = 0; first < questions.size(); first += lanes) loss.run(questions, first, answers);
}

/// Keeps every row of the decoder busy: where an answer ends, the next question begins.
class AnswerWriter {
 public:
  AnswerWriter(Device& device, const ModelConfig& config, const ParameterSet& weights, const Tokenizer& tokenizer,
               const std::vector<Question>& questions, const AnswerOptions& options)
      : tokenizer_(tokenizer),
        chat_(tokenizer),
        questions_(questions),
        options_(options),
        rows_(std::clamp<int64_t>(options.rows, 1, static_cast<int64_t>(questions.size()))),
        decoder_(device, config, weights, {.sequences = rows_, .window = most_tokens(), .chunk = 256}),
        writer_(device, decoder_) {}

  void run(std::vector<Answer>& answers) {
    std::vector<Row> rows(rows_);
    for (int64_t i = 0; i < rows_; ++i) rows[i].text.sequence = static_cast<int32_t>(i);
    for (;;) {
      std::vector<WrittenText*> texts;
      std::vector<Row*> active;
      for (Row& row : rows) {
        if (row.question < 0) begin(row);
        if (row.question >= 0) texts.push_back(&row.text), active.push_back(&row);
      }
      if (active.empty()) return;
      std::vector<std::vector<Writer::Drawn>> drawn = writer_.next(texts);
      for (size_t i = 0; i < active.size(); ++i) take(*active[i], drawn[i], answers);
    }
  }

 private:
  struct Row {
    WrittenText text;
    int64_t question = -1;
    std::vector<int32_t> written;
  };

  int64_t most_of(const Question& q) const {
    return options_.tokens > 0 ? options_.tokens : 2 * (static_cast<int64_t>(q.tokens.size()) - q.prompt) + 16;
  }
  int64_t most_tokens() const {
    int64_t most = 1;
    for (const Question& q : questions_) most = std::max(most, q.prompt + most_of(q));
    return most;
  }

  void begin(Row& row) {
    if (next_ == questions_.size()) return;
    row.question = static_cast<int64_t>(next_);
    const Question& q = questions_[next_++];
    decoder_.reset(row.text.sequence);
    row.text.tokens.assign(q.tokens.begin(), q.tokens.begin() + q.prompt);
    row.text.rules.temperature = 0;
    row.text.speculation = {.most = options_.speculate};
    row.written.clear();
  }

  void take(Row& row, const std::vector<Writer::Drawn>& drawn, std::vector<Answer>& answers) {
    bool ended = false;
    for (size_t i = 0; i < drawn.size() && !ended; ++i) {
      bool end = chat_.ends(drawn[i].token);
      if (!end) row.written.push_back(drawn[i].token);
      ended = end || static_cast<int64_t>(row.written.size()) == most_of(questions_[row.question]);
    }
    if (!ended) return;
    answers[row.question].written = text_of(row.written);
    row.question = -1;
  }

  std::string text_of(const std::vector<int32_t>& tokens) const {
    Utf8Stream stream;
    std::string text = stream.push(tokenizer_.decode(tokens));
    return text + stream.finish();
  }

  const Tokenizer& tokenizer_;
  ChatForm chat_;
  const std::vector<Question>& questions_;
  AnswerOptions options_;
  int64_t rows_;
  Decoder decoder_;
  Writer writer_;
  size_t next_ = 0;
};

}  // namespace

std::vector<Question> questions_of(const std::vector<TokenStream>& streams, int64_t limit) {
  std::vector<Question> questions;
  int64_t count = static_cast<int64_t>(streams.size());
  for (int64_t s = 0; s < count; ++s) {
    const TokenStream& stream = streams[s];
    if (!stream.answers || !stream.documents) continue;
    const int64_t* starts = stream.documents.as<int64_t>();
    int64_t all = stream.documents.elements();
    int64_t wanted = limit > 0 ? std::min(all, limit * (s + 1) / count - limit * s / count) : all;
    for (int64_t i = 0; i < wanted; ++i) {
      int64_t index = i * all / wanted;
      Question question = question_of(stream, starts[index], index + 1 < all ? starts[index + 1] : stream.size());
      if (!question.tokens.empty()) questions.push_back(std::move(question));  // others are for heads alone
    }
  }
  return questions;
}

std::vector<Answer> write_answers(Device& device, const ModelConfig& config, const ParameterSet& weights,
                                  const Tokenizer& tokenizer, const std::vector<Question>& questions,
                                  const AnswerOptions& options) {
  std::vector<Answer> answers(questions.size());
  if (questions.empty()) return answers;
  ChatForm chat(tokenizer);
  for (size_t i = 0; i < questions.size(); ++i) {
    const Question& q = questions[i];
    std::vector<int32_t> prompt(q.tokens.begin(), q.tokens.begin() + q.prompt),
        wanted(q.tokens.begin() + q.prompt, q.tokens.end());
    while (!wanted.empty() && chat.ends(wanted.back())) wanted.pop_back();
    answers[i].task = q.task, answers[i].prompt = tokenizer.decode(prompt),
    answers[i].wanted = tokenizer.decode(wanted);
  }
  measure(device, config, weights, questions, answers);
  AnswerWriter(device, config, weights, tokenizer, questions, options).run(answers);
  return answers;
}

}  // namespace longhand
