// longhand extract: what a model's heads say of texts: labels with their probabilities, entities with their places.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "longhand/heads.h"
#include "src/cli/options.h"
#include "src/data/instructions/tagged_words.h"
#include "src/text/chat_form.h"

namespace longhand::cli {
namespace {

using Json = nlohmann::ordered_json;

struct ExtractFlags {
  ModelFlags model;
  std::string text, file, head;
  int64_t segment = 0;
  bool has_text = false;
};

/// Counts characters up to ascending byte positions of a text.
class Characters {
 public:
  explicit Characters(std::string_view text) : text_(text) {}
  int64_t at(int64_t byte) {
    for (; byte_ < byte; ++byte_) count_ += (static_cast<unsigned char>(text_[byte_]) & 0xc0) != 0x80;
    return count_;
  }

 private:
  std::string_view text_;
  int64_t byte_ = 0, count_ = 0;
};

class Extractor {
 public:
  Extractor(Device& device, const OpenModel& open, int64_t segment)
      : config_(open.model.config),
        tokenizer_(*open.tokenizer),
        segment_(segment),
        pass_(device, config_, open.model.weights, nullptr,
              {.lanes = 1, .segment = segment, .memory = 0, .training = false}, open.model.weights.type()),
        heads_(device, config_, open.model.weights, nullptr, segment, open.model.weights.type()) {}

  Json of(const std::string& text, const std::string& only) {
    Json found = Json::object();
    for (size_t h = 0; h < config_.heads.size(); ++h) {
      const HeadConfig& head = config_.heads[h];
      if (!only.empty() && head.name != only) continue;
      found[head.name] = head.kind == HeadKind::tags ? entities(h, text) : label(h, text);
    }
    return {{"text", text}, {"heads", found}};
  }

 private:
  std::vector<int32_t> label_tokens(const HeadConfig& head, const std::string& text) const {
    std::vector<int32_t> tokens;
    if (head.kind == HeadKind::state) {
      ChatForm chat(tokenizer_);
      tokens = chat.start("");
      for (int32_t token : chat.turn(text)) tokens.push_back(token);
      if (static_cast<int64_t>(tokens.size()) > segment_)
        tokens.erase(tokens.begin(), tokens.end() - segment_);  // the end of a prompt is what it is read by
      return tokens;
    }
    tokens.push_back(tokenizer_.end_of_document());
    for (int32_t token : tokenizer_.encode(text)) tokens.push_back(token);
    tokens.resize(std::min<size_t>(tokens.size(), segment_ - 1));
    tokens.push_back(tokenizer_.end_of_document());
    return tokens;
  }

  Heads::Said say(size_t head, const std::vector<int32_t>& tokens, const std::vector<int32_t>& rows) {
    auto count = static_cast<int64_t>(tokens.size());
    std::vector<uint8_t> segments(config_.segments ? count : 0, 0);
    Batch batch;
    batch.tokens = ConstTensor(tokens.data(), Dtype::i32, {count, 1});
    if (config_.segments) batch.segment_ids = ConstTensor(segments.data(), Dtype::u8, {count, 1});
    pass_.forward(batch, {}, {}, 0, 0);
    std::vector<HeadTarget> places;
    for (int32_t row : rows) places.push_back({static_cast<int32_t>(head), 0, row, 0, 0, 1});
    return heads_.say(head, pass_.hidden(), places);
  }

  Json label(size_t h, const std::string& text) {
    const HeadConfig& head = config_.heads[h];
    std::vector<int32_t> tokens = label_tokens(head, text);
    Heads::Said said = say(h, tokens, {static_cast<int32_t>(tokens.size()) - 1});
    Json probabilities;
    for (size_t i = 0; i < head.labels.size(); ++i) probabilities[head.labels[i]] = said.probabilities[i];
    return {{"label", head.labels[said.labels[0]]}, {"probabilities", probabilities}};
  }

  /// A text that is too long is read in pieces.
  Json entities(size_t h, const std::string& text) {
    const HeadConfig& head = config_.heads[h];
    std::vector<WordRange> ranges = word_ranges(text);
    Characters characters(text);
    Json list = Json::array();
    for (size_t first = 0; first < ranges.size();) {
      std::vector<std::string> words;
      for (size_t i = first; i < std::min(ranges.size(), first + static_cast<size_t>(segment_)); ++i)
        words.push_back(text.substr(ranges[i].begin, ranges[i].end - ranges[i].begin));
      TaggedWords read = encode_words(tokenizer_, words, head.lookahead, segment_);
      if (read.places.empty()) {  // a word longer than a piece
        ++first;
        continue;
      }
      read.tokens.resize(std::min<size_t>(read.tokens.size(), segment_));
      for (const TagSpan& span : tag_spans(head, say(h, read.tokens, read.places).labels)) {
        int64_t begin = ranges[first + span.first].begin, end = ranges[first + span.end - 1].end;
        int64_t start = characters.at(begin);
        list.push_back({{"type", span.type},
                        {"start", start},
                        {"end", characters.at(end)},
                        {"text", text.substr(begin, end - begin)}});
      }
      first += read.places.size();
    }
    return list;
  }

  const ModelConfig& config_;
  const Tokenizer& tokenizer_;
  int64_t segment_;
  Pass pass_;
  Heads heads_;
};

std::vector<std::string> texts_of(const ExtractFlags& flags) {
  if (flags.has_text + !flags.file.empty() != 1) fail_usage("give one of --text and --file");
  if (flags.has_text) {
    check_utf8(flags.text, "--text");
    return {flags.text};
  }
  std::vector<std::string> texts;
  std::string all = read_text(flags.file);
  for (size_t first = 0; first < all.size();) {
    size_t end = std::min(all.find('\n', first), all.size());
    if (end > first) texts.push_back(all.substr(first, end - first));
    first = end + 1;
  }
  return texts;
}

void run_extract(const ExtractFlags& flags, const Common& common) {
  std::vector<std::string> texts = texts_of(flags);
  if (flags.segment < 0 || flags.segment == 1 || flags.segment == 2)
    fail_usage("--segment {}: 3 or more tokens", flags.segment);
  auto device = common.make();
  OpenModel open = open_model(*device, flags.model);
  const ModelConfig& config = open.model.config;
  if (!open.tokenizer) fail("{} has no tokenizer", open.path);
  if (config.heads.empty()) fail("{} has no heads: `longhand finetune --head NAME` makes one", open.path);
  auto named = [&](const HeadConfig& head) { return head.name == flags.head; };
  if (!flags.head.empty() && std::none_of(config.heads.begin(), config.heads.end(), named)) {
    std::vector<std::string> names;
    for (const HeadConfig& head : config.heads) names.push_back(head.name);
    fail_usage("--head {}: {} has {}", flags.head, open.path, fmt::join(names, ", "));
  }
  Extractor extractor(*device, open, flags.segment > 0 ? flags.segment : std::max<int64_t>(256, config.segment));
  for (const std::string& text : texts) fmt::print("{}\n", extractor.of(text, flags.head).dump());
}

}  // namespace

void add_extract(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "extract", "print what the model's heads say of texts, as JSON");
  auto flags = std::make_shared<ExtractFlags>();
  auto* text = command->add_option("--text", flags->text, "the text")->type_name("TEXT")->group("Text");
  command->add_option("--file", flags->file, "a file with a text a line; - is standard input")
      ->type_name("FILE")
      ->group("Text");
  command->add_option("--head", flags->head, "one head alone (default: all)")->type_name("NAME");
  command->add_option("--segment", flags->segment, "tokens read at a time; 0 = as in training")->type_name("N");
  add_model_flags(*command, flags->model);
  command->callback([flags, text, &common] {
    flags->has_text = text->count() > 0;
    common.run = [flags, &common] { run_extract(*flags, common); };
  });
}

}  // namespace longhand::cli
