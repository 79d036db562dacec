// Attention alone, over rings that no cache holds.
#include <algorithm>
#include <ctime>

#include "longhand/bench.h"
#include "src/generate/rings.h"

namespace longhand {
namespace {

constexpr int64_t page = 64, call_rows = 64;

/// One thread is timed by its processor time, which other programs on the machine disturb less.
double now(const Device& device) {
  timespec time;
  clock_gettime(device.threads() == 1 && device.name() == "cpu" ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Rings of one type, full of random rows, and what a query needs besides.
class FullRings {
 public:
  FullRings(Device& device, const ModelConfig& config, Dtype ring, int64_t window)
      : device_(device),
        config_(config),
        weights_("weights", config, Dtype::fp32),
        // With pages laid out, any choice of keys can be asked for.
        rings_(config, {.window = window, .ring = ring, .choice = KeyChoice{2 * page, TopkMode::block}}, Dtype::fp32,
               window, call_rows) {
    weights_.commit(device);
    lay_out();
    for (Arena* arena : {&ring_arena_, &table_arena_, &row_arena_}) arena->commit(device);
    lay_out();
    fill(weights_.layers[0].content_bias), fill(weights_.layers[0].position_bias), fill(rows_), fill(out_);
    for (const LayerTensors& layer : weights_.layers) fill(layer.position);
    rings_.build_tables(device, weights_);
    for (int64_t first = 0; first < window + page; first += call_rows) {
      place(first, call_rows);
      for (int64_t l = 0; l < config.n_layer; ++l) rings_.store(device, l, rows_, out_, position_, sequence_);
    }
    place(window + page - 1, 1);
  }

  void attend(const KeyChoice& choice) {
    for (int64_t l = 0; l < config_.n_layer; ++l) {
      AttentionDecode call = rings_.complete(l, {.out = out_.rows(0, 1),
                                                 .q = rows_.rows(l % call_rows, 1),
                                                 .u = weights_.layers[0].content_bias,
                                                 .v = weights_.layers[0].position_bias,
                                                 .position = position_.rows(0, 1),
                                                 .sequence = sequence_.rows(0, 1)});
      call.topk = choice.topk, call.topk_mode = choice.mode;
      device_.attention_decode(call);
    }
    device_.synchronize();
  }

 private:
  void lay_out() {
    rings_.lay_out(ring_arena_, table_arena_);
    Shape shape{call_rows, config_.n_head, config_.d_head};
    rows_ = row_arena_.take(Dtype::fp32, shape), out_ = row_arena_.take(Dtype::fp32, shape);
    position_ = row_arena_.take(Dtype::i64, {call_rows}), sequence_ = row_arena_.take(Dtype::i32, {call_rows});
  }
  void fill(const Tensor& tensor) {
    RandomStream random{.seed = 1, .step = filled_++, .use = RandomUse::initialization};
    std::vector<float> values(tensor.elements());
    for (size_t i = 0; i < values.size(); ++i) values[i] = 2 * uniform(random.bits(i)) - 1;
    device_.upload(tensor, values.data());
  }
  void place(int64_t first, int64_t count) {
    std::vector<int64_t> position(call_rows, first);
    for (int64_t i = 0; i < count; ++i) position[i] = first + i;
    std::vector<int32_t> sequence(call_rows, 0);
    device_.upload(position_, position.data()), device_.upload(sequence_, sequence.data());
  }

  Device& device_;
  ModelConfig config_;
  ParameterSet weights_;
  Rings rings_;
  Arena ring_arena_{"ring"}, table_arena_{"tables"}, row_arena_{"rows"};
  Tensor rows_, out_, position_, sequence_;
  uint64_t filled_ = 0;
};

}  // namespace

double attention_bytes(const ModelConfig& config, int64_t window, int64_t sequences, Dtype ring,
                       const KeyChoice& choice) {
  double row = static_cast<double>(config.d_head * dtype_bytes(ring) + (ring == Dtype::i8 ? 4 : 0));
  double keys = static_cast<double>(window), kept = choice.topk ? static_cast<double>(choice.topk) : keys, bounds = 0;
  kept = std::min(kept, keys);
  if (choice.topk && choice.mode == TopkMode::block) {
    bounds = keys / page * 2 * 4 * static_cast<double>(config.d_head);
    keys = std::min<double>(keys, page * ((kept + page - 1) / page));
    kept = keys;
  }
  // Keys, values and bounds of every sequence; R and its bounds once.
  double all = static_cast<double>(sequences) * ((keys + kept) * row + bounds) + keys * row + bounds;
  return static_cast<double>(config.n_layer * config.n_head) * all;
}

void measure_attention(Device& device, const ModelConfig& config, int64_t window, int64_t rounds,
                       std::vector<AttentionSpeed>& lines) {
  ModelConfig small = config;  // attention alone: the other weights are only as large as they must be
  small.d_model = 64, small.d_ff = 64, small.vocab_size = 64, small.clamp_len = 0, small.same_length = false;
  std::vector<std::pair<Dtype, std::unique_ptr<FullRings>>> rings;
  auto rings_of = [&](Dtype type) -> FullRings& {
    for (auto& [of, full] : rings)
      if (of == type) return *full;
    return *rings.emplace_back(type, std::make_unique<FullRings>(device, small, type, window)).second;
  };
  std::vector<std::vector<double>> seconds(lines.size());
  for (AttentionSpeed& line : lines) {
    line.bytes = attention_bytes(config, window, 1, line.ring, line.choice);
    rings_of(line.ring).attend(line.choice);
  }
  for (int64_t round = 0; round < rounds; ++round)
    for (size_t i = 0; i < lines.size(); ++i) {
      double start = now(device);
      rings_of(lines[i].ring).attend(lines[i].choice);
      seconds[i].push_back(now(device) - start);
    }
  for (size_t i = 0; i < lines.size(); ++i) {
    std::nth_element(seconds[i].begin(), seconds[i].begin() + seconds[i].size() / 2, seconds[i].end());
    lines[i].seconds = seconds[i][seconds[i].size() / 2];
  }
}

}  // namespace longhand
