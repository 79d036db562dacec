// Examples as tokens.
#include <algorithm>

#include "longhand/augment.h"
#include "longhand/files.h"
#include "longhand/instructions.h"
#include "longhand/random.h"
#include "longhand/safetensors.h"
#include "src/data/instructions/shots.h"
#include "src/data/instructions/tagged_words.h"
#include "src/text/chat_form.h"

namespace longhand {
namespace {

struct Encoded {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> answers;
  std::vector<ExampleLabel> labels;
  int64_t bytes = 0;  // of the answers

  void add(const std::vector<int32_t>& more, bool learnt) {
    tokens.insert(tokens.end(), more.begin(), more.end());
    answers.insert(answers.end(), more.size(), learnt);
  }
};

class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, const EncodeOptions& options, std::shared_ptr<const Shots> shots)
      : tokenizer_(tokenizer),
        shots_(std::move(shots)),
        form_(options.template_path),
        own_template_(!options.template_path.empty()),
        chat_(tokenizer),
        segment_(options.segment),
        heads_(options.heads),
        head_(find(options.head)) {}

  Encoded encode(const InstructionExample& example) {
    Encoded out = !example.words.empty()     ? tagged(example)
                  : example.messages.empty() ? by_template(example)
                                             : conversation(example);
    add_state(example, out);
    if (static_cast<int64_t>(out.tokens.size()) > segment_ + 1)
      fail("it has {} tokens without its input, --max-seq-length {} takes {}", out.tokens.size(), segment_,
           segment_ + 1);
    return out;
  }
  int64_t cut() const { return cut_; }

 private:
  /// Solved examples, each with its answer and an empty line behind it.
  std::string solved(const std::vector<const InstructionExample*>& examples) const {
    std::string text;
    for (const InstructionExample* example : examples) text += form_.prompt(*example) + example->answer + "\n\n";
    return text;
  }

  Encoded joined(const InstructionExample& example, const std::string& before = "") const {
    Encoded out;
    out.add({tokenizer_.end_of_document()}, false);
    auto text = example.fields.find("text");
    bool plain = !example.label.empty() && !own_template_ && text != example.fields.end();
    out.add(tokenizer_.encode(before + (plain ? text->second : form_.prompt(example))), false);
    if (!example.label.empty()) {  // the first </s> behind the text is read, the second never
      out.labels.push_back({head_, static_cast<int32_t>(out.tokens.size()), label(head_, example.label)});
      out.add({tokenizer_.end_of_document(), tokenizer_.end_of_document()}, false);
      return out;
    }
    out.add(tokenizer_.encode(example.answer), true);
    out.add({tokenizer_.end_of_document()}, true);
    out.bytes = static_cast<int64_t>(example.answer.size());
    return out;
  }

  // What is too long loses the examples before it, one by one, then the end of its input (or context), token by token of
  // that field; the answer stays whole.
  Encoded by_template(const InstructionExample& example) {
    for (auto before = shots_->before(example); !before.empty(); before.erase(before.begin())) {
      Encoded out = joined(example, solved(before));
      if (static_cast<int64_t>(out.tokens.size()) <= segment_ + 1) return out;
    }
    Encoded out = joined(example);
    int64_t over = static_cast<int64_t>(out.tokens.size()) - segment_ - 1;
    if (over <= 0) return out;
    bool text = !example.label.empty() && example.fields.contains("text");
    std::string name = text ? "text" : example.fields.contains("input") ? "input" : "context";
    auto field = example.fields.find(name);
    if (field == example.fields.end()) return out;
    InstructionExample shorter = example;
    for (std::vector<int32_t> kept = tokenizer_.encode(field->second); over > 0 && !kept.empty();) {
      kept.resize(std::max<int64_t>(0, static_cast<int64_t>(kept.size()) - over));
      std::string text = tokenizer_.decode(kept);
      if (int64_t broken = find_invalid_utf8(text); broken >= 0) text.resize(broken);
      shorter.fields[name] = text;
      if (text.empty() && form_.text().find('{' + name + '}') != std::string::npos) shorter.fields[name].assign(1, ' ');
      out = joined(shorter);
      over = static_cast<int64_t>(out.tokens.size()) - segment_ - 1;
    }
    cut_ += over <= 0;
    return out;
  }

  Encoded conversation(const InstructionExample& example) const {
    Encoded out;
    bool system = example.messages[0].role == "system";
    out.add(chat_.start(system ? example.messages[0].text : ""), false);
    for (const auto& message : example.messages) {
      if (message.role == "user") out.add(chat_.turn(message.text), false);
      if (message.role != "assistant") continue;
      out.add(chat_.reply(message.text), true);
      out.bytes += static_cast<int64_t>(message.text.size());
    }
    if (chat_.end() < 0) out.add({tokenizer_.end_of_document()}, true);
    return out;
  }

  Encoded tagged(const InstructionExample& example) {
    const HeadConfig& head = heads_[head_];
    TaggedWords words = encode_words(tokenizer_, example.words, head.lookahead, segment_);
    Encoded out;
    out.add(words.tokens, false);
    for (size_t i = 0; i < words.places.size(); ++i)
      out.labels.push_back({head_, words.places[i], label(head_, example.tags[i])});
    cut_ += words.places.size() < example.words.size();
    return out;
  }

  /// The state stands where the last answer begins: after the last token before it.
  void add_state(const InstructionExample& example, Encoded& out) const {
    if (example.state.empty() || example.answer.empty() == example.messages.empty()) return;
    auto at = static_cast<int32_t>(out.tokens.size());
    while (at > 0 && !out.answers[at - 1]) --at;
    while (at > 0 && out.answers[at - 1]) --at;
    for (const auto& [slot, text] : example.state) {
      int32_t head = find(slot);
      out.labels.push_back({head, at - 1, label(head, text)});
    }
  }

  int32_t find(const std::string& name) const {
    auto found = std::find_if(heads_.begin(), heads_.end(), [&](const HeadConfig& head) { return head.name == name; });
    return found == heads_.end() ? -1 : static_cast<int32_t>(found - heads_.begin());
  }
  int32_t label(int32_t head, const std::string& text) const {
    if (head < 0) fail("no head is there to say \"{}\"", printable(text));
    int32_t index = heads_[head].find(text);
    if (index < 0)
      fail("head {} has no label \"{}\": it has {}", heads_[head].name, printable(text),
           fmt::join(heads_[head].labels, ", "));
    return index;
  }

  const Tokenizer& tokenizer_;
  std::shared_ptr<const Shots> shots_;
  PromptTemplate form_;
  bool own_template_;
  ChatForm chat_;
  int64_t segment_, cut_ = 0;
  std::vector<HeadConfig> heads_;
  int32_t head_;
};

/// What keeps examples on one side of the split: their source, or their whole prompt.
bool validates(const InstructionExample& example, const EncodeOptions& options) {
  std::string key = example.source;
  if (key.empty())
    for (const auto& [name, text] : example.fields) key += text + '\0';
  if (key.empty())
    for (const auto& message : example.messages)
      if (message.role != "assistant") key += message.text + '\0';
  for (const std::string& word : example.words) key += example.source.empty() ? word + '\0' : "";
  uint32_t hash = crc32c(key.data(), static_cast<int64_t>(key.size()), static_cast<uint32_t>(options.seed));
  return philox(options.seed, hash, 0, 0, 0).word[0] < options.validation * 4294967296.0;
}

/// The examples of a stream in the forms that an augmenter gives them.
class AugmentedExamples : public ExampleVariants {
 public:
  AugmentedExamples(const Tokenizer& tokenizer, const EncodeOptions& options, std::shared_ptr<const Shots> shots)
      : tokenizer_(tokenizer), options_(options), encoder_(tokenizer_, options_, std::move(shots)) {}
  void add(const InstructionExample& example) { examples_.push_back(example); }

  Variant make(int64_t index, int64_t step) const override {
    uint64_t draw = static_cast<uint64_t>(step) << 26 | static_cast<uint64_t>(index);
    try {
      Encoded encoded = encoder_.encode(options_.augmenter->example(examples_[index], draw));
      return {std::move(encoded.tokens), std::move(encoded.answers), std::move(encoded.labels)};
    } catch (const Error&) {
      return {};  // it does not fit
    }
  }
  uint32_t checksum() const override { return options_.augmenter->checksum(); }

 private:
  Tokenizer tokenizer_;
  EncodeOptions options_;
  mutable Encoder encoder_;  // counts what it cuts
  std::vector<InstructionExample> examples_;
};

void append(TokenContent& stream, const Encoded& example) {
  stream.documents.push_back(static_cast<int64_t>(stream.tokens.size()));
  stream.tokens.insert(stream.tokens.end(), example.tokens.begin(), example.tokens.end());
  stream.answers.insert(stream.answers.end(), example.answers.begin(), example.answers.end());
  stream.labels.push_back(example.labels);
  stream.bytes += example.bytes;
}

void add_task(TokenContent& stream, const std::string& name) {
  auto found = std::find(stream.task_names.begin(), stream.task_names.end(), name);
  stream.tasks.push_back(static_cast<int32_t>(found - stream.task_names.begin()));
  if (found == stream.task_names.end()) stream.task_names.push_back(name);
}

}  // namespace

EncodedInstructions encode_instructions(const Tokenizer& tokenizer, const InstructionFile& file,
                                        const InstructionFile* validation_file, const EncodeOptions& options) {
  EncodedInstructions result;
  auto shots = std::make_shared<Shots>(options.shots, options.seed);
  for (const InstructionExample& example : file.examples)
    if (validation_file || !validates(example, options)) shots->add(example);
  Encoder encoder(tokenizer, options, shots);
  TokenContent train{.name = "train"};
  std::map<std::string, TokenContent> validation;
  std::shared_ptr<AugmentedExamples> variants;
  if (options.augmenter) variants = std::make_shared<AugmentedExamples>(tokenizer, options, shots);
  auto add = [&](const InstructionFile& from, bool to_validation) {
    for (const InstructionExample& example : from.examples) {
      try {
        Encoded encoded = encoder.encode(example);
        bool answers = example.label.empty() && example.words.empty();
        std::string name = !example.task.empty() ? example.task : answers ? "answers" : options.head;
        bool aside = to_validation || (!validation_file && validates(example, options));
        append(aside ? validation[name] : train, encoded);
        if (!aside) add_task(train, name);
        if (!aside && variants) variants->add(example);
        ++(aside ? result.validation : result.train);
      } catch (const Error& error) {
        std::string message = fmt::format("{}:{}: {}", example.path, example.line, error.what());
        if (!options.skip_bad) fail("{}; --skip-bad leaves such examples out", message);
        result.bad.push_back(message);
      }
    }
  };
  add(file, false);
  if (validation_file) add(*validation_file, true);
  if (result.train == 0) fail("{}: no example is left to train on", file.path);
  train.variants = variants;
  if (options.heads.empty()) train.labels.clear();
  result.streams.push_back(std::move(train));
  for (auto& [name, stream] : validation) {
    stream.name = name;
    result.streams.push_back(std::move(stream));
  }
  result.cut = encoder.cut();
  return result;
}

}  // namespace longhand
