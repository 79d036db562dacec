#include "longhand/parameters.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <type_traits>

#include "longhand/random.h"
#include "longhand/threads.h"

namespace longhand {
namespace {

/// Calls on(name, shape, matrix, place) for the low-rank updates.
template <class Visitor>
void visit_lora(const ModelConfig& c, Visitor&& on) {
  int64_t width = c.d_model, heads = c.n_head * c.d_head, rank = c.lora_rank;
  for (int64_t l = 0; l < c.n_layer; ++l)
    for (size_t site = 0; site < lora_site_names.size(); ++site) {
      LoraSite which = static_cast<LoraSite>(site);
      if (!c.lora_on(which)) continue;
      bool up = which == LoraSite::up, down = which == LoraSite::down, output = which == LoraSite::output;
      std::string name =
          fmt::format("layers.{}.{}.{}.", l, up || down ? "feedforward" : "attention", lora_site_names[site]);
      int64_t in = down ? c.d_ff : output ? heads : width, out = up ? c.d_ff : down || output ? width : heads;
      on(name + "lora_a", Shape{rank, in}, true,
         [l, site](ParameterSet& s) -> Tensor& { return s.layers[l].lora[site].a; });
      on(name + "lora_b", Shape{out, rank}, true,
         [l, site](ParameterSet& s) -> Tensor& { return s.layers[l].lora[site].b; });
    }
}

/// The same for the adapters.
template <class Visitor>
void visit_adapters(const ModelConfig& c, Visitor&& on) {
  int64_t width = c.d_model, narrow = c.adapter_width;
  for (int64_t l = 0; l < c.n_layer; ++l)
    for (size_t site = 0; site < adapter_site_names.size(); ++site) {
      if (!c.adapter_on(static_cast<AdapterSite>(site))) continue;
      std::string name = fmt::format("layers.{}.{}.adapter.", l, adapter_site_names[site]);
      auto place = [l, site](auto member) {
        return [l, site, member](ParameterSet& s) -> decltype(auto) { return s.layers[l].adapters[site].*member; };
      };
      using A = AdapterTensors;
      on(name + "down.weight", Shape{narrow, width}, true, place(&A::down));
      on(name + "down.bias", Shape{narrow}, false, place(&A::down_bias));
      on(name + "up.weight", Shape{width, narrow}, true, place(&A::up));
      on(name + "up.bias", Shape{width}, false, place(&A::up_bias));
    }
}

/// Calls on(name, shape, matrix, place) for the heads.
template <class Visitor>
void visit_heads(const ModelConfig& c, Visitor&& on) {
  for (size_t h = 0; h < c.heads.size(); ++h) {
    int64_t labels = static_cast<int64_t>(c.heads[h].labels.size());
    auto head = [&](const char* name, Shape shape, bool matrix, Tensor HeadTensors::*member) {
      on(fmt::format("head.{}.{}", c.heads[h].name, name), shape, matrix,
         [h, member](ParameterSet& s) -> Tensor& { return s.heads[h].*member; });
    };
    head("weight", {labels, c.d_model}, true, &HeadTensors::weight);
    head("bias", {labels}, false, &HeadTensors::bias);
    if (c.heads[h].crf) head("transitions", {labels + 2, labels}, false, &HeadTensors::transitions);
  }
}

/// Calls on(name, shape, matrix, place) for every parameter in file order; `place` picks its tensor in a ParameterSet.
template <class Visitor>
void visit_parameters(const ModelConfig& c, Visitor&& on) {
  int64_t width = c.d_model, heads = c.n_head * c.d_head;
  using Set = ParameterSet;
  on("embedding.weight", Shape{c.vocab_size, width}, true, [](Set& s) -> Matrix& { return s.embedding; });
  for (int64_t l = 0; l < c.n_layer; ++l) {
    auto layer = [&](const char* name, Shape shape, bool matrix, auto member) {
      on(fmt::format("layers.{}.{}", l, name), shape, matrix,
         [l, member](Set& s) -> decltype(auto) { return member(s.layers[l]); });
    };
    using L = LayerTensors;
    layer("attention.norm.weight", {width}, false, [](L& t) -> Tensor& { return t.attention_norm.gain; });
    layer("attention.norm.bias", {width}, false, [](L& t) -> Tensor& { return t.attention_norm.bias; });
    layer("attention.qkv.weight", {3 * heads, width}, true, [](L& t) -> Matrix& { return t.qkv; });
    layer("attention.position.weight", {heads, width}, true, [](L& t) -> Matrix& { return t.position; });
    layer("attention.output.weight", {width, heads}, true, [](L& t) -> Matrix& { return t.output; });
    layer("attention.content_bias", {c.n_head, c.d_head}, false, [](L& t) -> Tensor& { return t.content_bias; });
    layer("attention.position_bias", {c.n_head, c.d_head}, false, [](L& t) -> Tensor& { return t.position_bias; });
    if (c.segments) {
      layer("attention.segment_bias", {c.n_head, c.d_head}, false, [](L& t) -> Tensor& { return t.segment_bias; });
      layer("attention.segment_embedding", {2, c.n_head, c.d_head}, false,
            [](L& t) -> Tensor& { return t.segment_embedding; });
    }
    layer("feedforward.norm.weight", {width}, false, [](L& t) -> Tensor& { return t.feedforward_norm.gain; });
    layer("feedforward.norm.bias", {width}, false, [](L& t) -> Tensor& { return t.feedforward_norm.bias; });
    layer("feedforward.up.weight", {c.d_ff, width}, true, [](L& t) -> Matrix& { return t.up; });
    layer("feedforward.up.bias", {c.d_ff}, false, [](L& t) -> Tensor& { return t.up_bias; });
    layer("feedforward.down.weight", {width, c.d_ff}, true, [](L& t) -> Matrix& { return t.down; });
    layer("feedforward.down.bias", {width}, false, [](L& t) -> Tensor& { return t.down_bias; });
  }
  if (c.final_norm) {
    on("norm.weight", Shape{width}, false, [](Set& s) -> Tensor& { return s.final_norm.gain; });
    on("norm.bias", Shape{width}, false, [](Set& s) -> Tensor& { return s.final_norm.bias; });
  }
  if (c.output_bias) on("output.bias", Shape{c.vocab_size}, false, [](Set& s) -> Tensor& { return s.output_bias; });
  visit_lora(c, on), visit_adapters(c, on), visit_heads(c, on);
  if (c.cutoffs.empty()) return;
  int64_t tails = static_cast<int64_t>(c.cutoffs.size());
  on("output.cluster.weight", Shape{tails, width}, true, [](Set& s) -> Matrix& { return s.tail_weight; });
  on("output.cluster.bias", Shape{tails}, false, [](Set& s) -> Tensor& { return s.tail_bias; });
  on("output.cluster.0.weight", Shape{c.cutoffs[0], width}, true, [](Set& s) -> Matrix& { return s.head; });
  for (size_t i = 0; i < c.cutoffs.size(); ++i) {
    auto [first, end] = c.tail(i);
    std::string name = fmt::format("output.cluster.{}.", i + 1);
    on(name + "weight", Shape{end - first, c.tail_widths[i]}, true,
       [i](Set& s) -> Matrix& { return s.tails[i].weight; });
    on(name + "projection", Shape{c.tail_widths[i], width}, true,
       [i](Set& s) -> Matrix& { return s.tails[i].projection; });
  }
}

constexpr auto output_name = "output.weight";  // beside the embedding, where it is held in another format

bool is_float(Dtype type) { return type == Dtype::fp32 || type == Dtype::bf16 || type == Dtype::fp16; }

bool ends_with(const std::string& name, std::string_view end) {
  return name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
}

/// Two normal numbers from two words (Box & Muller 1958).
void normal_pair(uint32_t a, uint32_t b, float out[2]) {
  double radius = std::sqrt(-2 * std::log(static_cast<double>(uniform_positive(a))));
  double angle = 2 * std::numbers::pi * uniform(b);
  out[0] = static_cast<float>(radius * std::cos(angle)), out[1] = static_cast<float>(radius * std::sin(angle));
}

/// Values four by four: draw(words, to).
template <class Draw>
void fill(std::vector<float>& values, const RandomStream& stream, ThreadPool& pool, const Draw& draw) {
  constexpr int64_t chunk = 1 << 14;
  int64_t count = static_cast<int64_t>(values.size());
  pool.parallel_for((count + chunk - 1) / chunk, [&](int64_t index, int) {
    for (int64_t e = index * chunk; e < std::min(count, (index + 1) * chunk); e += 4) {
      PhiloxBlock block = stream.block(static_cast<uint64_t>(e) / 4);
      float four[4];
      draw(block.word, four);
      for (int64_t i = 0; i < 4 && e + i < count; ++i) values[e + i] = four[i];
    }
  });
}

void fill_uniform(std::vector<float>& values, float limit, const RandomStream& stream, ThreadPool& pool) {
  fill(values, stream, pool, [&](const auto& word, float* to) {
    for (int i = 0; i < 4; ++i) to[i] = limit * (2 * uniform(word[i]) - 1);
  });
}

void fill_normal(std::vector<float>& values, float mean, float deviation, const RandomStream& stream,
                 ThreadPool& pool) {
  fill(values, stream, pool, [&](const auto& word, float* to) {
    normal_pair(word[0], word[1], to), normal_pair(word[2], word[3], to + 2);
    for (int i = 0; i < 4; ++i) to[i] = mean + deviation * to[i];
  });
}

}  // namespace

std::vector<ParameterInfo> parameter_list(const ModelConfig& config) {
  std::vector<ParameterInfo> list;
  visit_parameters(config, [&](const std::string& name, const Shape& shape, bool matrix, auto&&) {
    list.push_back({name, shape, matrix});
  });
  return list;
}

bool is_lora(std::string_view name) { return name.ends_with(".lora_a") || name.ends_with(".lora_b"); }
bool is_adapter(std::string_view name) { return name.find(".adapter.") != std::string_view::npos; }

std::string_view head_of(std::string_view name) {
  constexpr std::string_view prefix = "head.";
  return name.starts_with(prefix) ? name.substr(prefix.size(), name.rfind('.') - prefix.size()) : "";
}

ParameterSet::ParameterSet(std::string arena_name, const ModelConfig& config, Dtype type, Wanted wanted)
    : ParameterSet(std::move(arena_name), config, WeightFormats{type, {}}, std::move(wanted)) {}

ParameterSet::ParameterSet(std::string arena_name, const ModelConfig& config, WeightFormats formats, Wanted wanted)
    : layers(config.n_layer),
      tails(config.cutoffs.size()),
      heads(config.heads.size()),
      config_(config),
      formats_(std::move(formats)),
      wanted_(std::move(wanted)),
      arena_(std::move(arena_name)),
      list_(parameter_list(config)) {
  if (formats_.matrices.contains(output_name))
    list_.push_back({output_name, {config.vocab_size, config.d_model}, true});
  lay_out();
}

MatrixFormat ParameterSet::format(const ParameterInfo& info) const {
  auto found = formats_.matrices.find(info.name);
  return found == formats_.matrices.end() ? MatrixFormat{formats_.type} : found->second;
}

void ParameterSet::lay_out() {
  tensors_.clear(), scales_.clear();
  visit([&](size_t index, Tensor& place, Matrix* matrix) {
    const ParameterInfo& info = list_[index];
    MatrixFormat format = this->format(info);
    bool wanted = !wanted_ || wanted_(info.name), shown = !shown_ || shown_(info.name);
    Tensor tensor = wanted ? arena_.take(format.type, format.stored(info.shape)) : Tensor();
    Tensor scales =
        wanted && format.integers() ? arena_.take(format.scale_type(), format.scales(info.shape)) : Tensor();
    tensors_.push_back(shown ? tensor : Tensor()), scales_.push_back(shown ? scales : Tensor());
    place = tensors_.back();
    if (matrix) matrix->scales = scales_.back();
  });
}

/// Every parameter's place in the model, in the order of the list; then the output layer, where it is the embedding.
void ParameterSet::visit(const std::function<void(size_t, Tensor&, Matrix*)>& each) {
  size_t index = 0;
  auto visit_one = [&](auto& to) {
    if constexpr (std::is_same_v<std::decay_t<decltype(to)>, Matrix>)
      each(index++, to, &to);
    else
      each(index++, to, nullptr);
  };
  visit_parameters(config_, [&](const std::string&, const Shape&, bool, auto place) { visit_one(place(*this)); });
  if (index < list_.size())
    visit_one(output);
  else
    output = embedding;
}

void ParameterSet::commit(Device& device) {
  arena_.commit(device);
  lay_out();
}

void ParameterSet::show(Wanted shown) {
  shown_ = std::move(shown);
  arena_.rewind(0);
  lay_out();
}

const Tensor& ParameterSet::tensor(const std::string& name) const {
  for (size_t i = 0; i < list_.size(); ++i)
    if (list_[i].name == name) return tensors_[i];
  fail("the model has no parameter {}", name);
}

void initialize(Device& device, const ParameterSet& weights, uint64_t seed, const ParameterSet::Wanted& wanted) {
  ThreadPool pool(device.threads());
  for (size_t i = 0; i < weights.list().size(); ++i) {
    const ParameterInfo& info = weights.list()[i];
    if (weights.tensors()[i].empty() || (wanted && !wanted(info.name))) continue;
    std::vector<float> values(info.shape.elements(), 0.0f);
    bool norm = info.name.find("norm.") != std::string::npos;
    constexpr std::string_view zeros[] = {".bias", ".lora_b", ".adapter.up.weight", ".transitions"};
    bool zero = std::any_of(std::begin(zeros), std::end(zeros), [&](auto end) { return ends_with(info.name, end); });
    RandomStream stream{.seed = seed, .step = i, .use = RandomUse::initialization};
    if (ends_with(info.name, ".lora_a"))
      fill_uniform(values, std::sqrt(1 / static_cast<float>(info.shape[1])), stream, pool);
    else if (weights.format(info).packed())
      fill_uniform(values, 0.02f * std::sqrt(3.0f), stream, pool);
    else if (!zero)
      fill_normal(values, norm ? 1.0f : 0.0f, 0.02f, stream, pool);
    store_parameter(device, weights, i, values);
  }
}

/// A head that the file's configuration does not know is made by the run that loads it.
static bool is_new_head(const SafetensorsFile& file, const std::string& name) {
  if (head_of(name).empty() || file.has(name) || !file.metadata().contains("longhand.config")) return false;
  std::vector<HeadConfig> known = read_config(file).heads;
  return std::none_of(known.begin(), known.end(), [&](const HeadConfig& head) { return head.name == head_of(name); });
}

void load_parameters(Device& device, const ParameterSet& weights, const SafetensorsFile& file,
                     const std::string& prefix, bool or_plain) {
  for (size_t i = 0; i < weights.list().size(); ++i) {
    const ParameterInfo& info = weights.list()[i];
    const Tensor& to = weights.tensors()[i];
    std::string name = or_plain && !file.has(prefix + info.name) ? info.name : prefix + info.name;
    bool optional = is_lora(name) || is_adapter(name);
    if (to.empty() || (optional && !file.has(name)) || is_new_head(file, name)) continue;
    MatrixFormat format = weights.format(info);
    ConstTensor from = file.tensor(name);
    if (from.type() != to.type() && !is_float(from.type()))
      fail("{}: tensor {} is {}: {}", file.path(), name, dtype_name(from.type()),
           from.type() == Dtype::i8 || from.type() == Dtype::u8
               ? "quantised weights are read, not trained, merged or exported"
               : "weights are fp32, bf16 or fp16");
    Shape expected = is_float(from.type()) ? info.shape : format.stored(info.shape);
    if (from.shape() != expected)
      fail("{}: tensor {} is {}, the model's configuration needs {}", file.path(), name, from.shape().text(),
           expected.text());
    if (from.type() != to.type()) {
      store_parameter(device, weights, i, read_floats(file, name));
    } else {
      device.upload(to, from.data());
      if (format.integers()) device.upload(weights.scales()[i], file.tensor(name + ".scales").data());
    }
    file.forget(name);
  }
}

std::vector<NamedTensor> host_tensors(Device& device, const ParameterSet& set, const std::string& prefix,
                                      std::vector<std::vector<char>>& storage) {
  std::vector<NamedTensor> named;
  bool host = device.name() == "cpu";
  for (size_t i = 0; i < set.list().size(); ++i) {
    auto add = [&](const std::string& name, ConstTensor tensor) {
      if (!host) {
        storage.emplace_back(tensor.bytes());
        device.download(storage.back().data(), tensor);
        tensor = ConstTensor(storage.back().data(), tensor.type(), tensor.shape());
      }
      named.push_back({prefix + name, tensor});
    };
    if (set.tensors()[i].empty()) continue;
    add(set.list()[i].name, set.tensors()[i]);
    if (set.scales()[i]) add(set.list()[i].name + ".scales", set.scales()[i]);
  }
  return named;
}

std::string base_checksum(const SafetensorsFile& file) {
  bool quantized = file.metadata().contains("longhand.quantization");
  auto entry = file.metadata().find(quantized ? "longhand.base" : "checksum.layers.0.attention.qkv.weight");
  return entry == file.metadata().end() ? "" : entry->second;
}

ModelConfig read_config(const SafetensorsFile& file) {
  auto entry = file.metadata().find("longhand.config");
  if (entry == file.metadata().end())
    fail(
        "{}: no model configuration in its metadata (longhand.config): is it a Longhand weights file? `longhand "
        "import` "
        "reads those of others",
        file.path());
  return parse_config(entry->second, file.path());
}

}  // namespace longhand
