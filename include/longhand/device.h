// The engine's instruction set: every operation the model needs, forward and backward. A device implements them; the
// model calls them and knows no device.
//
// Symbols: B lanes (sequences side by side), T current tokens, M memory rows, K = M + T keys, D model width, H heads,
// dh head width, F feed-forward width, V vocabulary. Activations are position-major, [T, B, D]: the memory and the
// current rows of all lanes are then one contiguous block, [K, B, D]. `rows` stands for any leading axes taken
// together. Float tensors of one call have one type, fp32 or bf16, unless it is said otherwise; sums accumulate in
// fp32. A result may not overlap an input unless it is said. An empty tensor stands for "not wanted" or "not there".
// Equations and sources: Dai et al. 2019 (Transformer-XL), Yang et al. 2019 (XLNet); the whole model in docs/MODEL.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "longhand/ceilings.h"
#include "longhand/random.h"
#include "longhand/tensor.h"

namespace longhand {

enum class Activation : uint8_t { none, relu, gelu };  // gelu in its erf form: x/2 (1 + erf(x / sqrt 2))
enum class TopkMode : uint8_t { exact, block };

/// out [m, n] = dropout(activation(a' b' + bias)) or, with `accumulate`, out += a' b'.
/// a' = a [m, k], or the transpose of a [k, m]; b' = the transpose of b [n, k] (the layout of weights, the default), or
/// b [k, n]. bias [n]. With `pre_activation` [m, n] the value before the activation is kept for the backward pass.
/// Rows may be strided, the last axis is contiguous. The types of a, b and out may differ (fp32 | bf16 each; fp16
/// weights go through QuantizedMatmul).
struct Matmul {
  Tensor out, pre_activation;
  ConstTensor a, b, bias;
  bool transpose_a = false, transpose_b = true;
  Activation activation = Activation::none;
  Dropout dropout;
  bool accumulate = false;
};

/// Symmetric integers of 8 bits (out i8) or 4 (out u8) for every row of x [rows, k] or every 64 neighbours along k:
///   scale = max|x| / L,   integer = x / scale rounded to nearest, ties to even, in [-L, L];   L = 127, or 7 with 4
///   bits
/// in fp32; the integer follows from the scale as it is stored, and is 0 where the scale is 0. x fp32 | bf16, finite.
/// out [rows, k] i8, or [rows, k / 2] u8: two a byte, the first in the low half, each as integer + 8 (k even).
/// scales fp32 | fp16: [rows], or [rows, k / 64] (k a multiple of 64).
struct Quantize {
  Tensor out, scales;
  ConstTensor x;
};

/// The reverse: out [rows, k] = scale * integer in fp32, then to nearest; integers and scales as Quantize leaves them,
/// out fp32 | bf16, contiguous.
struct Dequantize {
  Tensor out;
  ConstTensor integers, scales;
};

/// An order in which weights of products and embeddings may lie: `rows` side by side by runs of `bytes`, [out / rows,
/// runs, rows, elements of a run] (u8: bytes). Rows of weights are then a multiple of `rows`, of 64 bytes each; scales
/// of groups are fp16 [out / rows, k / 64, rows], scales of rows as before. No rows: weights lie as they are.
struct Interleaving {
  int64_t rows = 0, bytes = 0;
};

/// out [m, n] = activation(a w'^T + bias), w'[j, p] = scale * integer as Quantize leaves them in `weight` and `scales`;
/// or, without scales, w' = weight [n, k] of fp32, bf16 or (finite) fp16; the weights may lie interleaved. a [m, k],
/// bias [n], out: fp32 | bf16 each; leading axes join. Of a at least 15 bits below the largest of 256 neighbours count
/// (bf16: all, where they lie within these). Sums accumulate in integers and fp32; a row's bits depend neither on the
/// number of rows nor on how weights lie. With `quantize_activations` rows of a are first rounded to integers of 8 bits
/// with one scale a row, which is coarser and faster for many rows; weight is then i8 with one scale a row.
struct QuantizedMatmul {
  Tensor out;
  ConstTensor a, weight, scales, bias;
  Activation activation = Activation::none;
  bool quantize_activations = false;
};

/// out = activation(x), each fp32 | bf16, of one size; out may be x. In fp32 the value is to the bit the one that
/// Matmul and QuantizedMatmul give, so a product may be finished in parts.
struct ActivationForward {
  Tensor out;
  ConstTensor x;
  Activation activation = Activation::gelu;
};

/// d_x = d_out * dropout mask * activation'(x), x the value before the activation. [rows, F] each; d_x may be d_out.
struct ActivationBackward {
  Tensor d_x;
  ConstTensor d_out, x;
  Activation activation = Activation::gelu;
  Dropout dropout;
};

/// d_bias [n] += the column sums of d_out [rows, n], in a fixed order.
struct BiasBackward {
  Tensor d_bias;
  ConstTensor d_out;
};

/// out [rows, D] = dropout(scale * weight[token]); tokens [rows] i32 in [0, V). weight [V, D] of out's type; or, for
/// inference, of fp32, bf16 or fp16, or integers with their `scales` as Quantize leaves them, or interleaved.
struct EmbeddingForward {
  Tensor out;
  ConstTensor tokens, weight, scales;
  float scale = 1;
  Dropout dropout;
};

/// d_weight [V, D] += the transpose: rows of the same token add in row order.
struct EmbeddingBackward {
  Tensor d_weight;
  ConstTensor d_out, tokens;
  float scale = 1;
  Dropout dropout;
};

/// Layer normalisation of every row, after dropout and the residual.
///   sum = dropout(x) + residual;   out = (sum - mean) * rstd * gain + bias;   rstd = 1 / sqrt(var + eps)
/// x, residual, sum, out [rows, D]; gain, bias [D]; mean, rstd [rows] fp32, kept for the backward pass. Without
/// `residual`, sum = dropout(x); `sum` may be empty (then x is what the backward pass gets), or be `residual` or x.
/// out may be empty: the operation then is sum = dropout(x) + residual alone.
struct LayerNormForward {
  Tensor out, sum, mean, rstd;
  ConstTensor x, residual, gain, bias;
  float eps = 1e-5f;
  Dropout dropout;
};

/// Gradients of the above: d_sum += J^T d_out (it adds, because the residual stream continues; the gradient of
/// `residual` is d_sum itself); d_x = d_sum * dropout mask, where it is wanted; d_gain, d_bias [D] += sums over rows in
/// a fixed order. Without d_sum only d_gain and d_bias are formed (rows of memory: no gradient flows into them). With
/// d_out empty the operation is d_x = d_sum * dropout mask alone.
struct LayerNormBackward {
  Tensor d_sum, d_x, d_gain, d_bias;
  ConstTensor d_out, sum, mean, rstd, gain;
  Dropout dropout;
};

/// E(d) = [sin(d f) | cos(d f)], f_m = 10000^(-2m/D): out [distances, D], row d is distance d. Built in fp64.
struct PositionEncoding {
  Tensor out;
};

/// What a query may see. Query i stands at key i + M, its distance to key j is d = i + M - j. Key j is visible when
///   0 <= d,   d <= max_distance (when that is not negative),   j >= document_start[i, b] (when given).
/// Every query sees at least one key.
struct AttentionMask {
  int64_t max_distance = -1;   // same_length: mem_len - 1
  ConstTensor document_start;  // [T, B] i32
};

/// The learned term of XLNet's relative segments: (q_i + bias) . embedding[e], e = 0 when query and key lie in the same
/// segment and 1 otherwise. bias [H, dh], embedding [2, H, dh]; ids [T, B] and [K, B] u8.
struct AttentionSegments {
  ConstTensor bias, embedding, query_ids, key_ids;
  explicit operator bool() const { return !bias.empty(); }
};

/// Relative attention with memory.
///   a_ij = ((q_i + u) . k_j + (q_i + v) . r[min(d, distances - 1)] + segment_ij) / sqrt(dh)
///   P = softmax_j(a) over the visible and selected keys;   out_i = sum_j dropout(P)_ij value_j
/// q, out [T, B, H, dh]; k, value [K, B, H, dh]; r [distances, H, dh], distances <= K (fewer: clamp_len + 1);
/// u, v [H, dh]. Strides are free but for the last axis. lse [B, H, T] fp32: log of the sum of exp(a) over the
/// selected. Dropout element of (b, h, i, j): ((b H + h) T + i) * round_up(K, 4) + j.
///
/// topk = 0: dense. Otherwise, exact: each query and head keeps the min(topk, visible) largest a_ij; among equal scores
/// the nearer key wins. `selected` [B, H, T, ceil(K / 64)] u64, bit j % 64 of word j / 64: key j is kept.
/// Block: query tiles of 64 (from query 0) keep their best ceil(topk / 64) pages of 64 keys by an upper bound on a_ij
/// from each page's minimum and maximum of k and r; the page of the tile's last query and the one before it are always
/// kept and count. Pages are aligned to the stream: key j lies in page (first_position + j) / 64 - first_position / 64.
/// `selected` [B, H, ceil(T / 64), ceil(pages / 64)] u64, bit p % 64 of word p / 64: page p is kept;
/// pages = (first_position + K - 1) / 64 - first_position / 64 + 1.
struct AttentionForward {
  Tensor out, lse, selected;
  ConstTensor q, k, value, r, u, v;
  AttentionMask mask;
  AttentionSegments segments;
  int64_t topk = 0;
  TopkMode topk_mode = TopkMode::exact;
  int64_t first_position = 0;  // the stream position of key 0 (block mode)
  Dropout dropout;
};

/// Gradients of the above; the selection is constant. d_q [T, B, H, dh], d_k, d_value [K, B, H, dh] and
/// d_r [distances, H, dh] are written; d_u, d_v [H, dh], d_segment_bias [H, dh] and d_segment_embedding [2, H, dh] are
/// added to. d_r is fp32 or of the common type.
struct AttentionBackward {
  Tensor d_q, d_k, d_value, d_r, d_u, d_v, d_segment_bias, d_segment_embedding;
  ConstTensor d_out, out, lse, selected;
  ConstTensor q, k, value, r, u, v;
  AttentionMask mask;
  AttentionSegments segments;
  int64_t topk = 0;
  TopkMode topk_mode = TopkMode::exact;
  int64_t first_position = 0;
  Dropout dropout;
};

/// The same attention without gradients, over rings: query n stands at position[n] of sequence[n] and sees the keys of
/// that sequence at distance 0 <= d < window. Position p lies in slot p % slots of its ring; the keys of the queries
/// themselves are already there, and slots >= window + (queries of one sequence in this call) - 1.
/// q, out [N, H, dh] and u, v [H, dh] of one type; position [N] i64; sequence [N] i32. keys, values [S, slots, H, dh]
/// and r [distances, H, dh] of one type: fp32, bf16, or i8, an entry then being its integer times key_scales or
/// value_scales [S, slots, H], r_scales [distances, H] fp32. A query's result does not depend on the other queries.
///
/// topk as in AttentionForward. Block: each query is a tile of its own. key_bounds [S, slots / 32, H, dh] and r_bounds
/// [2 groups, H, dh] are PageBounds of keys (whole pages that a query sees) and of r; slots are a multiple of 64, and
/// 63 more, so that no slot of a page in sight has been given to another page.
struct AttentionDecode {
  Tensor out;
  ConstTensor q, keys, values, r, u, v, position, sequence;
  ConstTensor key_scales, value_scales, r_scales;
  ConstTensor key_bounds, r_bounds;
  int64_t window = 0;
  int64_t topk = 0;  // 0 = dense
  TopkMode topk_mode = TopkMode::exact;
};

/// keys, values of N new rows into their rings: keys[sequence[n], position[n] % slots] = k[n]. k, value [N, H, dh] of
/// one type, rings as in AttentionDecode: rounded to nearest; i8 as Quantize does it, with one scale a slot and head.
struct RingStore {
  Tensor keys, values, key_scales, value_scales;
  ConstTensor k, value, position, sequence;
};

/// The extremes of every 64 neighbouring rows, column by column: rows 2 p and 2 p + 1 of bounds [S, 2 pages, H, dh]
/// fp32 are the smallest and the largest entry over rows[s, j], 64 p <= j < 64 p + 64, j not beyond the last row (a
/// page beyond it holds the last row). rows [S, slots, H, dh] as in AttentionDecode, i8 with scales [S, slots, H]. With
/// position and sequence, as RingStore took them, only the pages that these rows complete: position % 64 = 63, slots a
/// multiple of 64.
struct PageBounds {
  Tensor bounds;
  ConstTensor rows, scales, position, sequence;
};

/// Cross-entropy of a softmax over each row, with its gradient in place: logits [rows, V] becomes d_logits.
///   q = (1 - smoothing) onehot(target) + smoothing / V;   ce = -sum_c q_c log p_c
///   loss = weight * (1 - p_target)^gamma * ce             (focal loss, Lin et al. 2017; gamma = 0: plain)
/// loss [rows] fp32 is not scaled, d_logits is the gradient of scale * sum(loss). targets [rows] i32, -1 = ignored
/// (loss and gradient 0); weights [rows] fp32, empty = 1. With `gradient` false the logits are left alone.
struct CrossEntropy {
  Tensor logits, loss;
  ConstTensor targets, weights;
  float smoothing = 0, gamma = 0, scale = 1;
  bool gradient = true;
};

/// logprob [rows] fp32 = log softmax(logits)[row, token[row]]; logits [rows, V], tokens [rows] i32.
struct LogProbability {
  Tensor logprob;
  ConstTensor logits, tokens;
};

/// The loss of a linear-chain conditional random field (Lafferty et al. 2001) over each of S sequences of labels, with
/// its gradients, by the forward-backward recursion on logarithms:
///   score(y) = begin[y_1] + sum_t emission[t, y_t] + sum_t transition[y_t-1, y_t] + end[y_n]
///   loss = weight * (log sum over all y of exp(score(y)) - score(target))
/// emissions [rows, L], L <= 256, becomes d_emissions. Sequence s is rows [starts[s], starts[s + 1]); starts [S + 1]
/// i32 goes from 0 to rows, an empty sequence has loss 0. transitions [L + 2, L]: row i < L from label i, then begin,
/// end. targets [rows] i32 in [0, L); weights [S], empty = 1. loss [S] is not scaled, the gradients are those of scale
/// * sum(loss); d_transitions [L + 2, L] += its part, in a fixed order, where it is wanted. With `gradient` false the
/// emissions are left alone. Floats are finite fp32.
struct CrfLoss {
  Tensor emissions, d_transitions, loss;
  ConstTensor transitions, starts, targets, weights;
  float scale = 1;
  bool gradient = true;
};

/// The labels [rows] i32 of largest score in each sequence (Viterbi 1967), the smaller label where two are equal; score
/// [S] fp32. The other arguments are those of CrfLoss.
struct CrfDecode {
  Tensor labels, score;
  ConstTensor emissions, transitions, starts;
};

/// AdamW (Loshchilov & Hutter 2019) over many tensors, g = gradient_scale * gradient:
///   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
///   w -= lr (m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps) + weight_decay w)
/// With a fp32 `master` the update is made there and `weight` gets its rounding; without one a bf16 `weight` is rounded
/// stochastically. m and v are fp32, or bf16 rounded stochastically. The random element of entry e of parameter p is
/// 4 e (weight), 4 e + 1 (m), 4 e + 2 (v) in `rounding` with layer = p's index. Stochastic rounding adds the upper 16
/// bits of the random word to the fp32 word and cuts off the lower half; an infinity stays one, and so does a NaN.
struct AdamWParameter {
  Tensor weight, master, m, v;
  ConstTensor gradient;
  float weight_decay = 0;
  uint32_t index = 0;
  float learning_rate_scale = 1;
};
struct AdamW {
  std::span<const AdamWParameter> parameters;
  float learning_rate = 0, beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f, gradient_scale = 1;
  int64_t step = 1;  // from 1
  RandomStream rounding;
};

/// norm [1] fp32 = sqrt(sum of squares over all tensors), in a fixed order; NaN or infinite when an entry is.
struct GlobalNorm {
  Tensor norm;
  std::span<const ConstTensor> tensors;
};

/// FGM's step up the gradient (Miyato et al. 2017, "Adversarial Training Methods for Semi-Supervised Text
/// Classification"):
///   x += epsilon * gradient / norm
/// and none where the norm is 0 or not finite. x, gradient of one size, fp32 | bf16 each, x to nearest; norm [1] fp32
/// as GlobalNorm leaves it for that gradient. What takes the step back is a copy() of x from before.
struct FgmStep {
  Tensor x;
  ConstTensor gradient, norm;
  float epsilon = 1;
};

/// out = x in another type (fp32, bf16, fp16), to nearest. With `stochastic`, bf16 is rounded stochastically as in
/// AdamW, entry e by element e of `stream`.
struct Cast {
  Tensor out;
  ConstTensor x;
  bool stochastic = false;
  RandomStream stream;
};

/// out = a + b, elementwise, any shapes of equal size; out may be a or b.
struct Add {
  Tensor out;
  ConstTensor a, b;
};

/// The memory after a segment: the last M' rows of context [K, B, D] go to memory [M', B, D].
struct MemoryRoll {
  Tensor memory;
  ConstTensor context;
};

/// One row's rules for choosing its next token, applied in this order: repetition penalty (Keskar et al. 2019: positive
/// logits divided, negative ones multiplied), temperature, top-k, top-p (Holtzman et al. 2020), min-p (kept: p >= min_p
/// times the largest p). Temperature 0 takes the largest logit, the smaller id among equals.
struct SamplingParameters {
  float temperature = 1;
  int32_t top_k = 0;  // 0 = off
  float top_p = 1, min_p = 0, repetition_penalty = 1;
  RandomStream stream;
  uint64_t element = 0;  // index of the random number in the stream: the token's position
};

/// tokens [rows] i32 are drawn from logits [rows, V]; rules has one entry a row. history [rows, L] i32, padded with -1:
/// the tokens that the repetition penalty counts. allowed [rows, ceil(V / 64)] u64, bit t % 64 of word t / 64: token t
/// may be drawn, at least one of a row; the rules take the logits of the others for -infinite. Empty: all may.
/// logprob [rows] fp32: log softmax of the raw logits at the token.
struct Sample {
  Tensor tokens, logprob;
  ConstTensor logits, history, allowed;
  std::span<const SamplingParameters> rules;
};

struct DeviceOptions {
  int threads = 0;  // cpu: 0 = every core
};

/// A device owns its memory and runs operations in the order in which they are called, transfers among them: an
/// operation sees what was uploaded before it, an upload leaves alone what operations before it still read. The host
/// may change `from` when upload() returns; download() returns when everything called before it is done and `to` is
/// filled, synchronize() when everything is done. An operation's shapes and types are checked where it is called.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string_view name() const = 0;
  virtual int threads() const { return 1; }

  virtual void* allocate(int64_t bytes) = 0;  // 64-byte aligned, zeroed; fails when there is not enough
  virtual void release(void* memory) = 0;
  virtual int64_t memory_bytes() const = 0;                          // what the device has in all
  virtual void upload(const Tensor& to, const void* from) = 0;       // contiguous
  virtual void download(void* to, const ConstTensor& from) = 0;      // contiguous
  virtual void copy(const Tensor& to, const ConstTensor& from) = 0;  // same type and shape, strides free
  virtual void zero(const Tensor& tensor) = 0;                       // contiguous
  virtual void synchronize() {}

  /// How weights of this type lie that products with few rows of these activations read fastest.
  virtual Interleaving interleaving(Dtype /*weights*/, Dtype /*activations*/) const { return {}; }

  /// What this device can do at most, measured (on the cpu once a machine, see ceilings.h).
  virtual Ceilings ceilings() = 0;

  /// Bytes a second that it reads from its memory at this moment, where that changes (see ReadProbe).
  virtual double read_rate() { return ceilings().read_bytes; }

  /// Runs `work`, a stretch of operations: the same ones, of the same shapes, whenever `key` is the same, and with the
  /// same values in their arguments whenever `arguments` is too. A device may record the stretch and replay it as a
  /// whole; `work` is then called for a new value of `arguments` alone, and may be called twice. Transfers to and from
  /// the host, allocations and what the host draws stay outside.
  virtual void repeat(uint64_t /*key*/, uint64_t /*arguments*/, const std::function<void()>& work) { work(); }

  /// For profilers: a name for what follows until the matching end_range() (they nest), and whether to record.
  virtual void begin_range(const char* /*name*/) {}
  virtual void end_range() {}
  virtual void profile(bool /*on*/) {}

  virtual void matmul(const Matmul&) = 0;
  virtual void quantize(const Quantize&) = 0;
  virtual void dequantize(const Dequantize&) = 0;
  virtual void quantized_matmul(const QuantizedMatmul&) = 0;
  virtual void activation_forward(const ActivationForward&) = 0;
  virtual void activation_backward(const ActivationBackward&) = 0;
  virtual void bias_backward(const BiasBackward&) = 0;
  virtual void embedding_forward(const EmbeddingForward&) = 0;
  virtual void embedding_backward(const EmbeddingBackward&) = 0;
  virtual void layernorm_forward(const LayerNormForward&) = 0;
  virtual void layernorm_backward(const LayerNormBackward&) = 0;
  virtual void position_encoding(const PositionEncoding&) = 0;
  virtual void attention_forward(const AttentionForward&) = 0;
  virtual void attention_backward(const AttentionBackward&) = 0;
  virtual void attention_decode(const AttentionDecode&) = 0;
  virtual void ring_store(const RingStore&) = 0;
  virtual void page_bounds(const PageBounds&) = 0;
  virtual void cross_entropy(const CrossEntropy&) = 0;
  virtual void log_probability(const LogProbability&) = 0;
  virtual void crf_loss(const CrfLoss&) = 0;
  virtual void crf_decode(const CrfDecode&) = 0;
  virtual void adamw(const AdamW&) = 0;
  virtual void global_norm(const GlobalNorm&) = 0;
  virtual void fgm_step(const FgmStep&) = 0;
  virtual void cast(const Cast&) = 0;
  virtual void add(const Add&) = 0;
  virtual void memory_roll(const MemoryRoll&) = 0;
  virtual void sample(const Sample&) = 0;
};

/// A range of a device for as long as it lives.
class DeviceRange {
 public:
  DeviceRange(Device& device, const char* name) : device_(device) { device_.begin_range(name); }
  DeviceRange(Device& device, const std::string& name) : DeviceRange(device, name.c_str()) {}
  ~DeviceRange() { device_.end_range(); }
  DeviceRange(const DeviceRange&) = delete;
  DeviceRange& operator=(const DeviceRange&) = delete;

 private:
  Device& device_;
};

/// "cpu", "cuda" or "simt"; "auto" takes cuda where there is one. Fails with the devices that this build has.
std::unique_ptr<Device> make_device(std::string_view name, const DeviceOptions& options = {});

}  // namespace longhand
