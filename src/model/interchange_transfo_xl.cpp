// Hugging Face Transfo-XL: post-norm (or pre_lnorm without a final norm), ReLU, embedding times sqrt(D), and a softmax
// with bias over the tied embedding; or, read only, adaptive input and softmax (cutoffs, div_val > 1), whose clusters
// of embeddings are multiplied out to one matrix.
#include <cmath>

#include "src/model/interchange_layout.h"

namespace longhand::interchange {
namespace {

ModelConfig read_settings(const Json& json, const std::string& where, const ImportOptions& options) {
  auto number = [&](const char* key, int64_t otherwise) { return setting<int64_t>(json, where, key, otherwise); };
  auto flag = [&](const char* key, bool otherwise) { return setting<bool>(json, where, key, otherwise); };
  auto cutoffs = setting<std::vector<int64_t>>(json, where, "cutoffs", {20000, 40000, 200000});
  int64_t div_val = number("div_val", 4), d_embed = number("d_embed", 1024);
  if (!cutoffs.empty() && div_val < 2)
    fail("{}: an adaptive softmax (cutoffs {}) with div_val {}: it is read where div_val is 2 or more", where,
         Json(cutoffs).dump(), div_val);
  ModelConfig c;
  c.cutoffs = cutoffs;
  for (int64_t width = d_embed / std::max<int64_t>(div_val, 1); c.tail_widths.size() < cutoffs.size(); width /= div_val)
    c.tail_widths.push_back(width);
  c.vocab_size = number("vocab_size", 267735);
  c.d_model = number("d_model", 1024), c.n_layer = number("n_layer", 18);
  c.n_head = number("n_head", 16), c.d_head = number("d_head", 64), c.d_ff = number("d_inner", 4096);
  if (cutoffs.empty() && (div_val != 1 || d_embed != c.d_model))
    fail(
        "{}: a projected embedding (div_val {}, d_embed {}, d_model {}) without cutoffs: only \"div_val\": 1 and "
        "d_embed "
        "= d_model are read",
        where, div_val, d_embed, c.d_model);
  if (number("attn_type", 0) != 0)
    fail("{}: attn_type {}: only 0, Transformer-XL's own relative attention, is read", where, number("attn_type", 0));
  c.mem_len = options.mem_len >= 0 ? options.mem_len : number("mem_len", 1600);
  c.clamp_len = std::max<int64_t>(number("clamp_len", 1000), 0);
  c.same_length = flag("same_length", true);
  c.scale_embedding = true, c.output_bias = true;
  c.norm = flag("pre_lnorm", false) ? NormPlacement::pre : NormPlacement::post;
  c.final_norm = false;
  c.activation = Activation::relu;
  c.norm_eps = setting<float>(json, where, "layer_norm_epsilon", 1e-5f);
  return c;
}

std::string obstacle(const ModelConfig& c) {
  if (c.activation != Activation::relu) return "its activation is gelu, not relu";
  if (c.final_norm) return "it has a final norm";
  if (!c.scale_embedding) return "its embedding is not scaled";
  if (c.segments) return "it has a segment term";
  if (c.topk) return "it has top-k attention";
  if (!c.cutoffs.empty()) return "it has an adaptive softmax";
  return "";
}

Json write_settings(const ModelConfig& c) {
  return {{"model_type", "transfo-xl"},
          {"architectures", {"TransfoXLLMHeadModel"}},
          {"vocab_size", c.vocab_size},
          {"cutoffs", Json::array()},
          {"div_val", 1},
          {"adaptive", true},
          {"tie_projs", {false}},
          {"d_model", c.d_model},
          {"d_embed", c.d_model},
          {"n_layer", c.n_layer},
          {"n_head", c.n_head},
          {"d_head", c.d_head},
          {"d_inner", c.d_ff},
          {"mem_len", c.mem_len},
          {"clamp_len", c.clamp_len ? c.clamp_len : -1},
          {"same_length", c.same_length},
          {"pre_lnorm", c.norm == NormPlacement::pre},
          {"attn_type", 0},
          {"untie_r", true},
          {"sample_softmax", -1},
          {"dropout", 0.0},
          {"dropatt", 0.0},
          {"layer_norm_epsilon", Json::parse(fmt::format("{}", c.norm_eps))},
          {"torch_dtype", "float32"}};
}

// Cluster 0, the frequent words, is as wide as d_embed; its projections differ in and out and are multiplied out. The
// tails' are tied, as a rule, so that the file need not hold them again.
void adaptive_pieces(const ModelConfig& c, std::vector<Piece>& list) {
  int64_t width = c.d_model, tails = static_cast<int64_t>(c.cutoffs.size());
  for (int64_t n = 0; n <= tails; ++n) {
    int64_t first = n == 0 ? 0 : c.cutoffs[n - 1], words = (n < tails ? c.cutoffs[n] : c.vocab_size) - first;
    int64_t narrow = n == 0 ? 0 : c.tail_widths[n - 1];
    std::string embedding = fmt::format("transformer.word_emb.emb_layers.{}.weight", n);
    std::string projection = fmt::format("transformer.word_emb.emb_projs.{}", n);
    std::string layer = fmt::format("crit.out_layers.{}.", n), cluster = fmt::format("output.cluster.{}.", n);
    list.push_back({.theirs = embedding,
                    .shape = {words, narrow},
                    .ours = "embedding.weight",
                    .first = first,
                    .rows = words,
                    .columns = width,
                    .projection = projection});
    list.push_back({.theirs = layer + "bias",
                    .shape = {words},
                    .ours = "output.bias",
                    .first = first,
                    .rows = words,
                    .columns = 1});
    list.push_back({.theirs = layer + "weight",
                    .shape = {words, narrow},
                    .ours = cluster + "weight",
                    .rows = words,
                    .columns = n == 0 ? width : narrow,
                    .tied = embedding,
                    .projection = n == 0 ? "crit.out_projs.0" : ""});
    if (n > 0)
      list.push_back({.theirs = fmt::format("crit.out_projs.{}", n),
                      .shape = {width, narrow},
                      .ours = cluster + "projection",
                      .rows = narrow,
                      .columns = width,
                      .transposed = true,
                      .tied = projection});
  }
  list.push_back({.theirs = "crit.cluster_weight",
                  .shape = {tails, 0},
                  .ours = "output.cluster.weight",
                  .rows = tails,
                  .columns = width,
                  .projection = "crit.out_projs.0"});
  list.push_back(
      {.theirs = "crit.cluster_bias", .shape = {tails}, .ours = "output.cluster.bias", .rows = 1, .columns = tails});
}

std::vector<Piece> pieces(const ModelConfig& c) {
  int64_t width = c.d_model, heads = c.n_head * c.d_head, inner = c.d_ff;
  std::vector<Piece> list;
  auto matrix = [&](const std::string& theirs, const std::string& ours, int64_t rows, int64_t columns) {
    list.push_back({.theirs = theirs, .shape = {rows, columns}, .ours = ours, .rows = rows, .columns = columns});
  };
  auto vector = [&](const std::string& theirs, const std::string& ours, int64_t size) {
    list.push_back({.theirs = theirs, .shape = {size}, .ours = ours, .rows = 1, .columns = size});
  };
  std::vector<float> frequencies;
  for (int64_t m = 0; m < width; m += 2)
    frequencies.push_back(static_cast<float>(std::pow(10000.0, -static_cast<double>(m) / static_cast<double>(width))));
  list.push_back({.theirs = "transformer.pos_emb.inv_freq", .shape = {width / 2}, .ours = "", .constant = frequencies});
  if (c.cutoffs.empty()) {
    matrix(transfo_xl.embedding, "embedding.weight", c.vocab_size, width);
    vector("crit.out_layers.0.bias", c.output_bias ? "output.bias" : "", c.vocab_size);
  } else {
    adaptive_pieces(c, list);
  }
  for (int64_t l = 0; l < c.n_layer; ++l) {
    std::string a = fmt::format("transformer.layers.{}.dec_attn.", l),
                f = fmt::format("transformer.layers.{}.pos_ff.", l);
    std::string attention = fmt::format("layers.{}.attention.", l), ff = fmt::format("layers.{}.feedforward.", l);
    vector(a + "layer_norm.weight", attention + "norm.weight", width);
    vector(a + "layer_norm.bias", attention + "norm.bias", width);
    matrix(a + "qkv_net.weight", attention + "qkv.weight", 3 * heads, width);
    matrix(a + "r_net.weight", attention + "position.weight", heads, width);
    matrix(a + "o_net.weight", attention + "output.weight", width, heads);
    matrix(a + "r_w_bias", attention + "content_bias", c.n_head, c.d_head);
    matrix(a + "r_r_bias", attention + "position_bias", c.n_head, c.d_head);
    vector(f + "layer_norm.weight", ff + "norm.weight", width);
    vector(f + "layer_norm.bias", ff + "norm.bias", width);
    matrix(f + "CoreNet.0.weight", ff + "up.weight", inner, width);
    vector(f + "CoreNet.0.bias", ff + "up.bias", inner);
    matrix(f + "CoreNet.3.weight", ff + "down.weight", width, inner);
    vector(f + "CoreNet.3.bias", ff + "down.bias", width);
  }
  return list;
}

}  // namespace

const Format transfo_xl{"transfo-xl",
                        read_settings,
                        obstacle,
                        write_settings,
                        pieces,
                        "crit.out_layers.0.weight",
                        "transformer.word_emb.emb_layers.0.weight"};

}  // namespace longhand::interchange
