#include "longhand/vocabulary.h"

#include <algorithm>
#include <cstring>
#include <list>

#include "longhand/parameters.h"

namespace longhand {
namespace {

/// The tensors of a file, some with rows for new words.
class Extension {
 public:
  Extension(const SafetensorsFile& file, const std::vector<std::vector<int32_t>>& pieces)
      : file_(file), config_(read_config(file)), pieces_(pieces), words_(static_cast<int64_t>(pieces.size())) {}

  ModelConfig config() const {
    ModelConfig config = config_;
    config.vocab_size += words_;
    return config;
  }

  /// A matrix [V, D], and its scales where it holds integers.
  void matrix(const std::string& name, const MatrixFormat& format) {
    std::string scales_name = name + ".scales";
    ConstTensor old = file_.tensor(name), old_scales = format.integers() ? file_.tensor(scales_name) : ConstTensor();
    std::vector<float> means = mean_rows(old, old_scales);
    Tensor wide(means.data(), Dtype::fp32, {words_, config_.d_model});
    Tensor rows = room(format.type, format.stored(wide.shape()));
    if (format.integers()) {
      Tensor scales = room(format.scale_type(), format.scales(wide.shape()));
      device_->quantize({.out = rows, .scales = scales, .x = wide});
      join(scales_name, old_scales, scales);
    } else {
      store(rows, wide);
    }
    join(name, old, rows);
  }

  void bias(const std::string& name) {
    std::vector<float> old = read_floats(file_, name), means;
    for (const std::vector<int32_t>& group : pieces_) {
      double sum = 0;
      for (int32_t piece : group) sum += old[piece];
      means.push_back(static_cast<float>(sum / static_cast<double>(group.size())));
    }
    Tensor more = room(file_.tensor(name).type(), {words_});
    store(more, ConstTensor(means.data(), Dtype::fp32, {words_}));
    join(name, file_.tensor(name), more);
  }

  void bytes(const std::string& name, std::string_view content) {
    tensors_.push_back({name, ConstTensor(content.data(), Dtype::u8, {static_cast<int64_t>(content.size())})});
  }

  /// Everything, in the order of the file; what was not extended as it stands.
  std::vector<NamedTensor> tensors() const {
    std::vector<NamedTensor> all;
    for (const std::string& name : file_.names()) {
      auto made = std::find_if(tensors_.begin(), tensors_.end(), [&](const NamedTensor& t) { return t.name == name; });
      all.push_back(made == tensors_.end() ? NamedTensor{name, file_.tensor(name)} : *made);
    }
    return all;
  }

 private:
  std::vector<float> mean_rows(const ConstTensor& weight, const ConstTensor& scales) {
    std::vector<float> means;
    int64_t width = config_.d_model;
    for (const std::vector<int32_t>& group : pieces_) {
      auto count = static_cast<int64_t>(group.size());
      std::vector<float> rows(count * width);
      device_->embedding_forward({.out = Tensor(rows.data(), Dtype::fp32, {count, width}),
                                  .tokens = ConstTensor(group.data(), Dtype::i32, {count}),
                                  .weight = weight,
                                  .scales = scales,
                                  .dropout = {}});
      for (int64_t c = 0; c < width; ++c) {
        double sum = 0;
        for (int64_t r = 0; r < count; ++r) sum += rows[r * width + c];
        means.push_back(static_cast<float>(sum / static_cast<double>(count)));
      }
    }
    return means;
  }

  void store(const Tensor& to, const ConstTensor& from) {
    if (to.type() == from.type())
      device_->copy(to, from);
    else
      device_->cast({.out = to, .x = from, .stream = {}});
  }

  Tensor room(Dtype type, const Shape& shape) {
    return Tensor(storage_.emplace_back(shape.elements() * dtype_bytes(type)).data(), type, shape);
  }

  void join(const std::string& name, const ConstTensor& old, const ConstTensor& more) {
    Shape shape = old.shape();
    shape.size[0] += more.size(0);
    Tensor whole = room(old.type(), shape);
    std::memcpy(whole.data(), old.data(), old.bytes());
    std::memcpy(static_cast<char*>(whole.data()) + old.bytes(), more.data(), more.bytes());
    tensors_.push_back({name, whole});
  }

  const SafetensorsFile& file_;
  ModelConfig config_;
  const std::vector<std::vector<int32_t>>& pieces_;
  int64_t words_;
  std::unique_ptr<Device> device_ = make_device("cpu", {.threads = 1});
  std::list<std::vector<char>> storage_;
  std::vector<NamedTensor> tensors_;
};

void check_extensible(const SafetensorsFile& file) {
  auto kind = file.metadata().find("longhand.kind");
  if (kind != file.metadata().end() && kind->second != "weights")
    fail("{} is no weights file but of kind {}: new words go into a model's weights, model.safetensors of a run",
         file.path(), kind->second);
  if (!file.has("embedding.weight")) fail("{} holds no model: it has no tensor embedding.weight", file.path());
  file.verify();
  if (!read_config(file).cutoffs.empty())
    fail("{} has an adaptive softmax, whose words are ordered by how frequent they are: it takes no new ones",
         file.path());
}

}  // namespace

void extend_vocabulary(const SafetensorsFile& file, const std::string& output,
                       const std::vector<std::vector<int32_t>>& pieces, std::string_view tokenizer) {
  check_extensible(file);
  WeightFormats formats = read_formats(file, read_config(file), Dtype::fp32);
  Extension extension(file, pieces);
  for (const char* name : {"embedding.weight", "output.weight"}) {
    if (!file.has(name)) continue;
    auto held = formats.matrices.find(name);
    extension.matrix(name, held != formats.matrices.end() ? held->second : MatrixFormat{file.tensor(name).type()});
  }
  if (file.has("output.bias")) extension.bias("output.bias");
  if (file.has("tokenizer.model")) extension.bytes("tokenizer.model", tokenizer);
  std::map<std::string, std::string> metadata = file.metadata();
  metadata["longhand.config"] = extension.config().json();
  write_safetensors(output, extension.tensors(), metadata);
}

}  // namespace longhand
