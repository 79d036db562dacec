// The model's parameters: their names and shapes (fixed, see weights/README.md), and sets of tensors laid out by them:
// weights, gradients, master weights, moments.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/arena.h"
#include "longhand/config.h"
#include "longhand/safetensors.h"

namespace longhand {

struct ParameterInfo {
  std::string name;
  Shape shape;
  bool matrix;  // weight decay applies
};

/// Every parameter of a configuration, in the order in which files and arenas hold them.
std::vector<ParameterInfo> parameter_list(const ModelConfig& config);

/// How a matrix of weights is held: fp32, bf16, fp16, or integers of 8 bits (i8) or 4 (u8), see Quantize in device.h.
/// Their scales are fp32, one a row, or fp16, one for every 64 neighbours.
struct MatrixFormat {
  Dtype type = Dtype::fp32;
  bool grouped = false;

  bool integers() const { return type == Dtype::i8 || type == Dtype::u8; }
  bool packed() const { return integers() || type == Dtype::fp16; }  // read, not trained: matmul alone reads floats
  Dtype scale_type() const { return grouped ? Dtype::fp16 : Dtype::fp32; }
  Shape stored(const Shape& shape) const;  // of [out, in]: with 4 bits [out, in / 2]
  Shape scales(const Shape& shape) const;  // [out] or [out, in / 64]; rank 0 for floats
};

/// How a set of weights is held: the matrices named here each in its own way, everything else in `type`. An
/// "output.weight" among them is an output layer of its own, beside the embedding.
struct WeightFormats {
  Dtype type = Dtype::fp32;  // fp32 | bf16
  std::map<std::string, MatrixFormat> matrices;
};

/// A matrix of weights [out, in], or interleaved (see Interleaving in device.h); integers have scales.
struct Matrix : Tensor {
  Tensor scales;
  bool int8_activations = false;  // products round them, see QuantizedMatmul
  bool packed() const { return scales || type() == Dtype::fp16 || rank() == 4; }  // for inference, as MatrixFormat
  Matrix rows(int64_t first, int64_t count) const;
};

struct NormTensors {
  Tensor gain, bias;  // [D]
};
/// W x + (alpha / r) B A x.
struct LoraTensors {
  Tensor a, b;  // [r, in], [out, r]
};
/// y + W_up act(W_down y + b_down) + b_up, b wide.
struct AdapterTensors {
  Matrix down, up;            // [b, D], [D, b]
  Tensor down_bias, up_bias;  // [b], [D]
};
struct LayerTensors {
  NormTensors attention_norm;
  Matrix qkv;                              // [3 H dh, D]
  Matrix position;                         // [H dh, D], W_r
  Matrix output;                           // [D, H dh]
  Tensor content_bias, position_bias;      // [H, dh], u and v
  Tensor segment_bias, segment_embedding;  // [H, dh], [2, H, dh]; with `segments`
  NormTensors feedforward_norm;
  Matrix up, down;            // [F, D], [D, F]
  Tensor up_bias, down_bias;  // [F], [D]
  // By site; empty where the configuration has none.
  std::array<LoraTensors, lora_site_names.size()> lora;
  std::array<AdapterTensors, adapter_site_names.size()> adapters;
  const LoraTensors& low_rank(LoraSite site) const { return lora[static_cast<size_t>(site)]; }
  const AdapterTensors& adapter(AdapterSite site) const { return adapters[static_cast<size_t>(site)]; }
};

/// See HeadConfig.
struct HeadTensors {
  Tensor weight, bias, transitions;
};

/// One tail of an adaptive softmax: n words of width d.
struct TailTensors {
  Matrix weight, projection;  // [n, d], [d, D]
};

/// One tensor for every parameter, in one arena; by position, by name, and by its place in the model.
class ParameterSet {
 public:
  using Wanted = std::function<bool(const std::string& name)>;
  /// Counts only; `commit` allocates. Parameters that are not `wanted` get no memory: their tensors are empty.
  ParameterSet(std::string arena_name, const ModelConfig& config, Dtype type, Wanted wanted = {});
  ParameterSet(std::string arena_name, const ModelConfig& config, WeightFormats formats, Wanted wanted = {});
  void commit(Device& device);
  /// Shows the tensors of these names alone; the others are empty until they are shown, their memory stays.
  void show(Wanted shown);
  /// Once loaded: matrices lie as the device reads them fastest. They are for inference alone from then on:
  /// neither stored again nor trained beside.
  void interleave(Device& device);
  /// Products with matrices of int8 with a scale a row round activations to int8 from now on; how many such there are.
  int quantize_activations();

  int64_t bytes() const { return arena_.bytes(); }
  Dtype type() const { return formats_.type; }
  const WeightFormats& formats() const { return formats_; }
  const std::vector<ParameterInfo>& list() const { return list_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const std::vector<Tensor>& scales() const { return scales_; }  // empty where the tensor holds floats
  MatrixFormat format(const ParameterInfo& info) const;
  const Tensor& tensor(const std::string& name) const;

  Matrix embedding;  // [V, D]
  Matrix output;     // [V, D], without cutoffs: the embedding, or a matrix of its own
  std::vector<LayerTensors> layers;
  NormTensors final_norm;  // with `final_norm`
  Tensor output_bias;      // [V], with `output_bias`
  // With `cutoffs`, the output layer: frequent words, one row and bias for each tail, the tails.
  Matrix head, tail_weight;  // [cutoffs[0], D], [tails, D]
  Tensor tail_bias;          // [tails]
  std::vector<TailTensors> tails;
  std::vector<HeadTensors> heads;  // in the configuration's order

 private:
  void lay_out();
  void visit(const std::function<void(size_t index, Tensor& place, Matrix* matrix)>& each);
  ModelConfig config_;
  WeightFormats formats_;
  Wanted wanted_, shown_;
  Arena arena_;
  std::vector<ParameterInfo> list_;
  std::vector<Tensor> tensors_, scales_;
};

/// Whether a name is that of a low-rank update: "layers.0.attention.q.lora_a".
bool is_lora(std::string_view name);
/// Or of an adapter: "layers.0.attention.adapter.up.weight".
bool is_adapter(std::string_view name);

/// Whether a name is that of a head's tensor: "head.topic.weight"; the head's name, or "".
std::string_view head_of(std::string_view name);

/// Stores a parameter's values as the set holds it: converted to nearest, or quantised.
void store_parameter(Device& device, const ParameterSet& set, size_t index, const std::vector<float>& values);

/// N(0, 0.02) for matrices (packed ones: uniform, of that deviation), u and v; gains N(1, 0.02); biases and transitions
/// 0; A uniform in +-sqrt(1 / in), B 0; W_up of adapters 0; drawn per parameter from (seed, index), where `wanted`.
void initialize(Device& device, const ParameterSet& weights, uint64_t seed, const ParameterSet::Wanted& wanted = {});

/// Fills `weights` from a file, converting floats; integers are taken as they stand, into a set that holds them in the
/// same format. `prefix` picks e.g. "master." tensors of a checkpoint. Every parameter must be there with its shape; a
/// tensor of the file that the model does not have is an error unless `others` allows it. Low-rank updates and
/// adapters that the file does not have stay as they are, and so do heads that its configuration does not name. With
/// `or_plain` a tensor that is not there with the prefix is taken without it.
void load_parameters(Device& device, const ParameterSet& weights, const SafetensorsFile& file,
                     const std::string& prefix = "", bool or_plain = false);

/// Adds every low-rank update of `updates`, made with `config`, to its matrix of `weights`: W += (alpha / rank) B A,
/// summed in fp32.
void merge_lora(Device& device, const ModelConfig& config, const ParameterSet& weights, const ParameterSet& updates);

/// A tensor of a file, fp32, bf16 or fp16, in fp32.
std::vector<float> read_floats(const SafetensorsFile& file, const std::string& name);

/// How the weights of a file are to be held: floats as `type`, but in a file that `longhand quantize` wrote matrices
/// stay as they are. Fails on integers whose scales are missing or do not fit.
WeightFormats read_formats(const SafetensorsFile& file, const ModelConfig& config, Dtype type);

/// Tensors on the host for write_safetensors; `storage` owns the bytes on devices whose memory is not the host's.
std::vector<NamedTensor> host_tensors(Device& device, const ParameterSet& set, const std::string& prefix,
                                      std::vector<std::vector<char>>& storage);

/// Names the weights of a file: the checksum of its first layer's qkv matrix as it stands in the metadata. Adapters
/// made for them and quantised forms of them carry it as `longhand.base`. Empty where the file has none.
std::string base_checksum(const SafetensorsFile& file);

/// The configuration in a weight file's metadata.
ModelConfig read_config(const SafetensorsFile& file);

}  // namespace longhand
