// Hugging Face XLNet with attn_type "uni": post-norm, no embedding scale, a segment term, H dh = D. Its q, k, v and r
// are transposed linears [D, H, dh]; its o is [D, H, dh] as it stands.
#include "src/model/interchange_layout.h"

namespace longhand::interchange {
namespace {

ModelConfig read_settings(const Json& json, const std::string& where, const ImportOptions& options) {
  auto number = [&](const char* key, int64_t otherwise) { return setting<int64_t>(json, where, key, otherwise); };
  auto flag = [&](const char* key, bool otherwise) { return setting<bool>(json, where, key, otherwise); };
  auto text = [&](const char* key, const char* otherwise) { return setting<std::string>(json, where, key, otherwise); };
  if (text("attn_type", "bi") != "uni")
    fail("{}: attn_type \"{}\" sees the future: only \"uni\", the causal form, is read", where,
         text("attn_type", "bi"));
  if (flag("bi_data", false)) fail("{}: bi_data reverses half of a batch: only false is read", where);
  // In the library's same_length a query sees the memory as long as it happens to be, here the mem_len nearest keys.
  if (flag("same_length", false)) fail("{}: XLNet's same_length differs from ours: only false is read", where);
  if (json.contains("reuse_len") && !json.at("reuse_len").is_null() && number("reuse_len", 0) > 0)
    fail("{}: reuse_len {}: only null, all of a segment becomes memory, is read", where, number("reuse_len", 0));
  ModelConfig c;
  c.vocab_size = number("vocab_size", 32000);
  c.d_model = number("d_model", 1024), c.n_layer = number("n_layer", 24), c.n_head = number("n_head", 16);
  if (c.n_head < 1 || c.d_model % c.n_head)
    fail("{}: n_head {} does not divide d_model {}", where, c.n_head, c.d_model);
  c.d_head = c.d_model / c.n_head, c.d_ff = number("d_inner", 4096);
  if (options.mem_len >= 0)
    c.mem_len = options.mem_len;
  else if (!json.contains("mem_len") || json.at("mem_len").is_null())
    fail_usage("{}: mem_len is not set, which means a memory without end: say how long with --mem-len", where);
  else
    c.mem_len = number("mem_len", 0);
  c.clamp_len = std::max<int64_t>(number("clamp_len", -1), 0);
  c.scale_embedding = false, c.segments = options.segments, c.output_bias = true;
  c.norm = NormPlacement::post, c.final_norm = false;
  std::string activation = text("ff_activation", "gelu");
  if (activation != "gelu" && activation != "relu")
    fail("{}: ff_activation \"{}\": \"gelu\" (its erf form) and \"relu\" are read", where, activation);
  c.activation = activation == "gelu" ? Activation::gelu : Activation::relu;
  c.norm_eps = setting<float>(json, where, "layer_norm_eps", 1e-12f);
  return c;
}

std::string obstacle(const ModelConfig& c) {
  if (c.norm != NormPlacement::post) return "it is pre-norm";
  if (c.final_norm) return "it has a final norm";
  if (c.scale_embedding) return "its embedding is scaled by sqrt(d_model)";
  if (c.n_head * c.d_head != c.d_model) return "its heads together are not as wide as the model";
  if (c.same_length) return "its same_length differs from XLNet's";
  if (c.topk) return "it has top-k attention";
  if (!c.cutoffs.empty()) return "it has an adaptive softmax";
  return "";
}

Json write_settings(const ModelConfig& c) {
  return {{"model_type", "xlnet"},
          {"architectures", {"XLNetLMHeadModel"}},
          {"vocab_size", c.vocab_size},
          {"d_model", c.d_model},
          {"n_layer", c.n_layer},
          {"n_head", c.n_head},
          {"d_head", c.d_head},
          {"d_inner", c.d_ff},
          {"attn_type", "uni"},
          {"bi_data", false},
          {"same_length", false},
          {"mem_len", c.mem_len},
          {"reuse_len", nullptr},
          {"clamp_len", c.clamp_len ? c.clamp_len : -1},
          {"untie_r", true},
          {"ff_activation", c.activation == Activation::gelu ? "gelu" : "relu"},
          {"dropout", 0.0},
          {"layer_norm_eps", Json::parse(fmt::format("{}", c.norm_eps))},
          {"torch_dtype", "float32"}};
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
  auto turned = [&](const std::string& theirs, const std::string& ours, int64_t first) {
    list.push_back({.theirs = theirs,
                    .shape = {width, c.n_head, c.d_head},
                    .ours = ours,
                    .first = first,
                    .rows = heads,
                    .columns = width,
                    .transposed = true});
  };
  // Trained by permutation, not used by a causal model.
  list.push_back({.theirs = "transformer.mask_emb", .shape = {1, 1, width}, .ours = ""});
  matrix(xlnet.embedding, "embedding.weight", c.vocab_size, width);
  vector("lm_loss.bias", c.output_bias ? "output.bias" : "", c.vocab_size);
  for (int64_t l = 0; l < c.n_layer; ++l) {
    std::string a = fmt::format("transformer.layer.{}.rel_attn.", l), f = fmt::format("transformer.layer.{}.ff.", l);
    std::string attention = fmt::format("layers.{}.attention.", l), ff = fmt::format("layers.{}.feedforward.", l);
    vector(a + "layer_norm.weight", attention + "norm.weight", width);
    vector(a + "layer_norm.bias", attention + "norm.bias", width);
    turned(a + "q", attention + "qkv.weight", 0);
    turned(a + "k", attention + "qkv.weight", heads);
    turned(a + "v", attention + "qkv.weight", 2 * heads);
    turned(a + "r", attention + "position.weight", 0);
    list.push_back({.theirs = a + "o",
                    .shape = {width, c.n_head, c.d_head},
                    .ours = attention + "output.weight",
                    .rows = width,
                    .columns = heads});
    matrix(a + "r_w_bias", attention + "content_bias", c.n_head, c.d_head);
    matrix(a + "r_r_bias", attention + "position_bias", c.n_head, c.d_head);
    matrix(a + "r_s_bias", c.segments ? attention + "segment_bias" : "", c.n_head, c.d_head);
    list.push_back({.theirs = a + "seg_embed",
                    .shape = {2, c.n_head, c.d_head},
                    .ours = c.segments ? attention + "segment_embedding" : "",
                    .rows = 2,
                    .columns = heads});
    vector(f + "layer_norm.weight", ff + "norm.weight", width);
    vector(f + "layer_norm.bias", ff + "norm.bias", width);
    matrix(f + "layer_1.weight", ff + "up.weight", inner, width);
    vector(f + "layer_1.bias", ff + "up.bias", inner);
    matrix(f + "layer_2.weight", ff + "down.weight", width, inner);
    vector(f + "layer_2.bias", ff + "down.bias", width);
  }
  return list;
}

}  // namespace

const Format xlnet{
    "xlnet", read_settings, obstacle, write_settings, pieces, "lm_loss.weight", "transformer.word_embedding.weight"};

}  // namespace longhand::interchange
