#include "src/cli/bench_attention.h"

#include <nlohmann/json.hpp>

#include "longhand/bench.h"
#include "longhand/ceilings.h"

namespace longhand::cli {
namespace {

const char* ring_name(Dtype type) { return type == Dtype::i8 ? "int8" : dtype_name(type); }

std::string choice_name(const KeyChoice& choice) {
  if (choice.topk == 0) return "dense";
  return choice.mode == TopkMode::exact ? fmt::format("topk {}", choice.topk)
                                        : fmt::format("pages {}", choice.topk / 64);
}

/// Every ring with every choice of keys, dense first.
std::vector<AttentionSpeed> all_lines(int64_t window) {
  std::vector<KeyChoice> choices{{}};
  for (int64_t keys : {64, 256}) choices.push_back({keys, TopkMode::exact});
  for (int64_t pages : {4, 8, 16, 32})
    if (64 * pages < window) choices.push_back({64 * pages, TopkMode::block});
  std::vector<AttentionSpeed> lines;
  for (Dtype ring : {Dtype::fp32, Dtype::bf16, Dtype::i8})
    for (const KeyChoice& choice : choices) lines.push_back({ring, choice});
  return lines;
}

/// Bits a byte of every line, counted where a token sees the whole window; none without a model.
std::vector<double> losses(Device& device, const AttentionBench& bench, const std::vector<AttentionSpeed>& lines) {
  std::vector<double> bits;
  if (bench.model.empty()) return bits;
  LoadedModel model = load_model(device, bench.model, bench.dtype);
  model.weights.interleave(device);
  TokenFile data(bench.data);
  for (const AttentionSpeed& line : lines)
    bits.push_back(bits_per_byte(device, model, data, bench.text_tokens,
                                 {.window = bench.window, .ring = line.ring, .choice = line.choice}, bench.window - 1));
  return bits;
}

void print_line(const AttentionSpeed& line, const AttentionSpeed& dense, const AttentionSpeed& own,
                const std::vector<double>& bits, size_t index, const Common& common) {
  std::string choice = choice_name(line.choice);
  double loss = bits.empty() ? 0 : 100 * (bits[index] / bits[0] - 1);
  if (common.json) {
    nlohmann::ordered_json json = {{"task", "attention"},
                                   {"ring", ring_name(line.ring)},
                                   {"attention", choice},
                                   {"bytes_read", line.bytes},
                                   {"seconds", line.seconds},
                                   {"time_of_dense", line.seconds / own.seconds},
                                   {"bytes_of_fp32_dense", line.bytes / dense.bytes}};
    if (!bits.empty()) json["bits_per_byte"] = bits[index], json["loss_percent"] = loss;
    return fmt::print("{}\n", json.dump());
  }
  fmt::print("| {} | {} | {:.1f} | {:.1f}% | {:.3f} | {:.1f} | {:.2f} | {:.2f} |", ring_name(line.ring), choice,
             line.bytes / 1e6, 100 * line.bytes / dense.bytes, 1e3 * line.seconds, line.bytes / line.seconds / 1e9,
             line.seconds / own.seconds, line.seconds / dense.seconds);
  fmt::print("{}\n", bits.empty() ? " |" : fmt::format(" {:.4f} | {:+.2f}% |", bits[index], loss));
}

}  // namespace

void run_attention(const AttentionBench& bench, const Common& common) {
  if (bench.model.empty() != bench.data.empty())
    fail_usage("bench attention measures the loss with both --model FILE and --data FILE");
  auto device = common.make();
  std::vector<AttentionSpeed> lines = all_lines(bench.window);
  std::vector<double> bits = losses(*device, bench, lines);
  measure_attention(*device, bench.shape, bench.window, bench.rounds, lines);
  if (!common.json) {
    Ceilings limit = device->ceilings();
    fmt::print(
        "{}, {} threads: reads {:.1f} GB/s\n\nattention of one token over {} keys, {} layers of {} heads of {}\n\n"
        "| ring | attention | MB read | of fp32 dense | ms | GB/s | time of its dense | of fp32 dense |{}\n"
        "|---|---|---|---|---|---|---|---|{}\n",
        limit.processor, limit.threads, limit.read_bytes / 1e9, bench.window, bench.shape.n_layer, bench.shape.n_head,
        bench.shape.d_head, bits.empty() ? "" : " bits a byte | |", bits.empty() ? "" : "---|---|");
  }
  const AttentionSpeed* own = &lines[0];
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].choice.topk == 0) own = &lines[i];
    print_line(lines[i], lines[0], *own, bits, i, common);
  }
}

}  // namespace longhand::cli
