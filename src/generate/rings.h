// What a decoder attends to: every layer's ring of keys and values, and its tables of R.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "longhand/generate.h"

namespace longhand {

class Rings {
 public:
  /// type: of the activations. window, and rows at most in one call, as in DecoderShape. Of R there are several tables
  /// where adapters change it.
  Rings(const ModelConfig& config, const DecoderShape& shape, Dtype type, int64_t window, int64_t rows,
        size_t tables = 1);
  void lay_out(Arena& ring_arena, Arena& table_arena);
  /// What makes a table other than the first from the first's R [distances, H dh].
  using Update = std::function<void(size_t table, int64_t layer, const Tensor& r, const ConstTensor& encoding)>;
  void build_tables(Device& device, const ParameterSet& weights, const Update& update = {});

  /// Stores new rows of one layer, k and value [N, H, dh].
  void store(Device& device, int64_t layer, const ConstTensor& k, const ConstTensor& value, const ConstTensor& position,
             const ConstTensor& sequence);
  /// A call of attention_decode completed by what this layer remembers.
  AttentionDecode complete(int64_t layer, AttentionDecode call, size_t table = 0) const;

  void copy(Device& device, int32_t to, int32_t from);
  /// Keys, values and, of i8, their scales, of every layer in turn: [slots, H, dh], [slots, H].
  std::vector<Tensor> of(int32_t sequence) const;
  /// After those of a sequence were filled from elsewhere.
  void refill(Device& device, int32_t sequence);
  /// How many of `position` rows are still needed.
  int64_t needed(int64_t position) const;

  Dtype type() const { return ring_type_; }
  int64_t distances() const { return distances_; }  // rows of R
  std::string attention() const;                    // "dense", "topk 64", "pages 16"

 private:
  bool pages() const { return choice_.topk > 0 && choice_.mode == TopkMode::block; }

  struct Ring {
    Tensor keys, values, key_scales, value_scales, key_bounds;
  };
  struct Table {
    Tensor r, scales, bounds;
  };
  ModelConfig config_;
  Dtype type_, ring_type_;
  KeyChoice choice_;
  int64_t sequences_, window_, slots_, distances_;
  std::vector<Ring> rings_;
  size_t table_count_;
  std::vector<Table> tables_;  // of every layer; those of the first table, then of the next
  Tensor encoding_, wide_;     // [distances, D]; R before it is rounded
};

}  // namespace longhand
