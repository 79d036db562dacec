#include "src/train/validate.h"

#include <algorithm>
#include <numbers>

namespace longhand {
namespace {

/// The part of a stream that one lane reads: inputs [first, first + count).
struct Part {
  int64_t first, count;
};

std::vector<Part> cut(int64_t size, int64_t lanes, int64_t cap) {
  std::vector<Part> parts;
  int64_t predicted = size - 1, most = (cap + lanes - 1) / lanes;
  for (int64_t b = 0; b < lanes; ++b) {
    int64_t first = predicted * b / lanes, end = predicted * (b + 1) / lanes;
    parts.push_back({first, std::min(end - first, most)});
  }
  return parts;
}

/// Start of the document that holds `position`.
int64_t document_of(const ConstTensor& documents, int64_t position) {
  const int64_t* begin = documents.as<int64_t>();
  return *(std::upper_bound(begin, begin + documents.elements(), position) - 1);
}

}  // namespace

ValidationRow mean_of(const std::vector<ValidationRow>& rows) {
  ValidationRow mean{.name = "mean"};
  double with_bytes = 0;
  for (const ValidationRow& row : rows) {
    mean.nats += row.nats / static_cast<double>(rows.size());
    mean.bits_per_byte += row.bits_per_byte, with_bytes += row.bits_per_byte > 0;
    mean.tokens += row.tokens;
  }
  if (with_bytes > 0) mean.bits_per_byte /= with_bytes;
  return mean;
}

Validator::Validator(Device& device, const TrainOptions& options, const ParameterSet& weights, int64_t cap)
    : options_(options),
      shape_(options.validation_shape()),
      pass_(device, options.config, weights, nullptr, shape_, options.type),
      cap_(cap) {
  if (!options.config.heads.empty())
    heads_.emplace(device, options.config, weights, nullptr, shape_.lanes * shape_.segment, options.type);
}

std::vector<ValidationRow> Validator::run(const std::vector<TokenStream>& streams) {
  std::vector<ValidationRow> rows;
  for (const TokenStream& stream : streams)
    if (stream.size() > 1) rows.push_back(stream.answers ? run_examples(stream) : run(stream));
  return rows;
}

void Validator::score_heads(const Batch& batch, std::vector<HeadScore>& scores) {
  const std::vector<HeadConfig>& heads = options_.config.heads;
  scores.resize(heads.size());
  for (size_t h = 0; h < heads.size(); ++h) {
    scores[h].name = heads[h].name, scores[h].kind = heads[h].kind;
    scores[h].nats += heads_->loss(h, pass_.hidden(), {}, batch.heads, {});
    std::vector<int32_t> said = heads_->say(h, pass_.hidden(), batch.heads).labels, wanted;
    for (size_t i = 0, at = 0; i < batch.heads.size();) {  // example by example
      const HeadTarget& first = batch.heads[i];
      wanted.clear();
      for (; i < batch.heads.size() && batch.heads[i].lane == first.lane && batch.heads[i].example == first.example;
           ++i)
        if (batch.heads[i].head == static_cast<int32_t>(h)) wanted.push_back(batch.heads[i].label);
      scores[h].add(heads[h], wanted, std::span(said).subspan(at, wanted.size()));
      at += wanted.size();
    }
  }
}

// Of more rows than the cap allows, some at equal distances.
ValidationRow Validator::run_examples(const TokenStream& stream) {
  ExampleRows rows(stream, shape_.segment, options_.pack, options_.seed);
  ExampleRows::Columns columns = rows.columns(shape_.lanes);
  int64_t count = std::clamp<int64_t>(cap_ / shape_.segment, 1, rows.size());
  ValidationRow row{.name = stream.name};
  double nats = 0;
  for (int64_t first = 0; first < count; first += shape_.lanes) {
    for (int64_t lane = 0; lane < shape_.lanes; ++lane) {
      int64_t index = first + lane;
      row.tokens += rows.fill(index < count ? index * rows.size() / count : -1, columns, lane);
    }
    Batch batch = columns.batch(shape_.segment);
    nats += pass_.forward(batch, {}, {}, 0, 0);
    if (heads_) score_heads(batch, row.heads);
  }
  std::erase_if(row.heads, [](const HeadScore& score) { return score.labels == 0; });
  if (row.tokens == 0)  // the heads alone learn from these
    for (const HeadScore& score : row.heads) nats += score.nats, row.tokens += score.labels;
  row.nats = nats / static_cast<double>(std::max<int64_t>(1, row.tokens));
  int64_t answers = 0;
  for (int64_t i = 0; i < stream.size(); ++i) answers += stream.answers.as<const uint8_t>()[i];
  if (stream.bytes > 0)
    row.bits_per_byte = row.nats / std::numbers::ln2 * static_cast<double>(answers) / static_cast<double>(stream.bytes);
  return row;
}

ValidationRow Validator::run(const TokenStream& stream) {
  int64_t lanes = shape_.lanes;
  std::vector<Part> parts = cut(stream.size(), lanes, cap_);
  int64_t longest = 0;
  for (const Part& part : parts) longest = std::max(longest, part.count);
  bool masked = options_.mask_documents && stream.documents;

  ValidationRow row{.name = stream.name};
  double nats = 0;
  pass_.reset_memory();
  for (int64_t done = 0; done < longest; done += shape_.segment) {
    int64_t length = std::min(shape_.segment, longest - done), memory = pass_.memory_length();
    tokens_.assign(length * lanes, 0), targets_.assign(length * lanes, -1), starts_.assign(length * lanes, 0);
    for (int64_t i = 0; i < length; ++i)
      for (int64_t b = 0; b < lanes; ++b) {
        if (done + i >= parts[b].count) continue;  // this lane is through: padding without targets
        int64_t position = parts[b].first + done + i, first_key = parts[b].first + done - memory;
        tokens_[i * lanes + b] = stream.at(position);
        targets_[i * lanes + b] = stream.at(position + 1);
        ++row.tokens;
        if (masked)
          starts_[i * lanes + b] =
              static_cast<int32_t>(std::max<int64_t>(0, document_of(stream.documents, position) - first_key));
      }
    Shape shape{length, lanes};
    Batch batch;
    batch.tokens = ConstTensor(tokens_.data(), Dtype::i32, shape);
    batch.targets = ConstTensor(targets_.data(), Dtype::i32, shape);
    if (masked) batch.document_start = ConstTensor(starts_.data(), Dtype::i32, shape);
    nats += pass_.forward(batch, {}, {}, 0, 0);
  }
  row.nats = nats / static_cast<double>(std::max<int64_t>(1, row.tokens));
  if (stream.bytes > 0)
    row.bits_per_byte =
        row.nats / std::numbers::ln2 * static_cast<double>(stream.size()) / static_cast<double>(stream.bytes);
  return row;
}

}  // namespace longhand
