// The model's parameters: their names and shapes (fixed, see weights/README.md), and sets of tensors laid out by them:
// weights, gradients, master weights, moments.
#pragma once

#include <array>
#include <functional>
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

struct NormTensors {
  Tensor gain, bias;  // [D]
};
/// W x + (alpha / r) B A x.
struct LoraTensors {
  Tensor a, b;  // [r, in], [out, r]
};
struct LayerTensors {
  NormTensors attention_norm;
  Tensor qkv;                              // [3 H dh, D]
  Tensor position;                         // [H dh, D], W_r
  Tensor output;                           // [D, H dh]
  Tensor content_bias, position_bias;      // [H, dh], u and v
  Tensor segment_bias, segment_embedding;  // [H, dh], [2, H, dh]; with `segments`
  NormTensors feedforward_norm;
  Tensor up, up_bias;                                    // [F, D], [F]
  Tensor down, down_bias;                                // [D, F], [D]
  std::array<LoraTensors, lora_site_names.size()> lora;  // by LoraSite; empty where the configuration has none
  const LoraTensors& low_rank(LoraSite site) const { return lora[static_cast<size_t>(site)]; }
};

/// One tail of an adaptive softmax: n words of width d.
struct TailTensors {
  Tensor weight, projection;  // [n, d], [d, D]
};

/// One tensor for every parameter, in one arena; by position, by name, and by its place in the model.
class ParameterSet {
 public:
  using Wanted = std::function<bool(const std::string& name)>;
  /// Counts only; `commit` allocates. Parameters that are not `wanted` get no memory: their tensors are empty.
  ParameterSet(std::string arena_name, const ModelConfig& config, Dtype type, Wanted wanted = {});
  void commit(Device& device);
  /// Shows the tensors of these names alone; the others are empty until they are shown, their memory stays.
  void show(Wanted shown);

  int64_t bytes() const { return arena_.bytes(); }
  Dtype type() const { return type_; }
  const std::vector<ParameterInfo>& list() const { return list_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Tensor& tensor(const std::string& name) const;

  Tensor embedding;  // [V, D], the output layer too where there are no cutoffs
  std::vector<LayerTensors> layers;
  NormTensors final_norm;  // with `final_norm`
  Tensor output_bias;      // [V], with `output_bias`
  // With `cutoffs`, the output layer: frequent words, one row and bias for each tail, the tails.
  Tensor head, tail_weight, tail_bias;  // [cutoffs[0], D], [tails, D], [tails]
  std::vector<TailTensors> tails;

 private:
  void lay_out();
  ModelConfig config_;
  Dtype type_;
  Wanted wanted_, shown_;
  Arena arena_;
  std::vector<ParameterInfo> list_;
  std::vector<Tensor> tensors_;
};

/// Whether a name is that of a low-rank update: "layers.0.attention.q.lora_a".
bool is_lora(std::string_view name);

/// N(0, 0.02) for matrices, u and v; gains N(1, 0.02); biases 0; A uniform in +-sqrt(1 / in), B 0; drawn per parameter
/// from (seed, index).
void initialize(Device& device, const ParameterSet& weights, uint64_t seed);

/// Fills `weights` from a file, converting types; `prefix` picks e.g. "master." tensors of a checkpoint. Every
/// parameter must be there with its shape; a tensor of the file that the model does not have is an error unless
/// `others` allows it. Low-rank updates that the file does not have stay as they are. With `or_plain` a tensor that is
/// not there with the prefix is taken without it.
void load_parameters(Device& device, const ParameterSet& weights, const SafetensorsFile& file,
                     const std::string& prefix = "", bool or_plain = false);

/// Adds every low-rank update of `updates`, made with `config`, to its matrix of `weights`: W += (alpha / rank) B A,
/// summed in fp32.
void merge_lora(Device& device, const ModelConfig& config, const ParameterSet& weights, const ParameterSet& updates);

/// Tensors on the host for write_safetensors; `storage` owns the bytes on devices whose memory is not the host's.
std::vector<NamedTensor> host_tensors(Device& device, const ParameterSet& set, const std::string& prefix,
                                      std::vector<std::vector<char>>& storage);

/// Names the weights of a file: the checksum of its first layer's qkv matrix as it stands in the metadata; an adapter
/// carries it as `longhand.base`. Empty where the file has none.
std::string base_checksum(const SafetensorsFile& file);

/// The configuration in a weight file's metadata.
ModelConfig read_config(const SafetensorsFile& file);

}  // namespace longhand
