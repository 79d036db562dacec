#include "longhand/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "longhand/nearest.h"
#include "src/base/json.h"

namespace longhand {
namespace {

using Json = nlohmann::ordered_json;

struct Word {
  const char* word;
  int value;
};
constexpr Word topk_words[] = {{"exact", int(TopkMode::exact)}, {"block", int(TopkMode::block)}};
constexpr Word norm_words[] = {{"pre", int(NormPlacement::pre)}, {"post", int(NormPlacement::post)}};
constexpr Word activation_words[] = {{"gelu", int(Activation::gelu)}, {"relu", int(Activation::relu)}};

constexpr Word head_words[] = {
    {"label", int(HeadKind::label)}, {"state", int(HeadKind::state)}, {"tags", int(HeadKind::tags)}};

/// Visits every setting in the order in which it is written. The visitor gets (key, value) for numbers and booleans and
/// (key, value, words) for settings written as words.
template <class Config, class Visitor>
void visit(Config& c, Visitor&& on) {
  on("vocab_size", c.vocab_size), on("d_model", c.d_model), on("n_layer", c.n_layer), on("n_head", c.n_head);
  on("d_head", c.d_head), on("d_ff", c.d_ff), on("mem_len", c.mem_len), on("segment", c.segment);
  on("clamp_len", c.clamp_len), on("topk", c.topk), on("topk_mode", c.topk_mode, topk_words);
  on("same_length", c.same_length), on("scale_embedding", c.scale_embedding), on("segments", c.segments);
  on("norm", c.norm, norm_words), on("final_norm", c.final_norm), on("output_bias", c.output_bias);
  on("activation", c.activation, activation_words), on("norm_eps", c.norm_eps);
  on("cutoffs", c.cutoffs), on("tail_widths", c.tail_widths);
  on("lora_rank", c.lora_rank), on("lora_alpha", c.lora_alpha), on("lora_sites", c.lora_sites);
  on("adapter_width", c.adapter_width), on("adapter_sites", c.adapter_sites);
  on("heads", c.heads);
}

/// The settings of a head, in the order in which they are written.
template <class Head, class Visitor>
void visit_head(Head& h, Visitor&& on) {
  on("name", h.name), on("kind", h.kind, head_words), on("crf", h.crf), on("lookahead", h.lookahead);
  on("labels", h.labels);
}

struct Reader {
  const Json& json;
  std::string_view where;

  [[noreturn]] void wrong(const char* key, const char* wanted) const {
    fail("{}: \"{}\" is {}, it takes {}", where, key, json.at(key).dump(), wanted);
  }
  void operator()(const char* key, int64_t& value) const {
    if (!json.contains(key)) return;
    if (!json.at(key).is_number_integer()) wrong(key, "an integer");
    value = json.at(key).get<int64_t>();
  }
  void operator()(const char* key, bool& value) const {
    if (!json.contains(key)) return;
    if (!json.at(key).is_boolean()) wrong(key, "true or false");
    value = json.at(key).get<bool>();
  }
  void operator()(const char* key, float& value) const {
    if (!json.contains(key)) return;
    if (!json.at(key).is_number()) wrong(key, "a number");
    value = json.at(key).get<float>();
  }
  void operator()(const char* key, std::string& value) const {
    if (!json.contains(key)) return;
    if (!json.at(key).is_string()) wrong(key, "a text");
    value = json.at(key).get<std::string>();
  }
  void operator()(const char* key, std::vector<int64_t>& values) const {
    if (!json.contains(key)) return;
    const Json& list = json.at(key);
    bool integers = list.is_array() &&
                    std::all_of(list.begin(), list.end(), [](const Json& entry) { return entry.is_number_integer(); });
    if (!integers) wrong(key, "a list of integers");
    values = list.get<std::vector<int64_t>>();
  }
  void operator()(const char* key, std::vector<std::string>& values) const {
    if (!json.contains(key)) return;
    const Json& list = json.at(key);
    bool texts =
        list.is_array() && std::all_of(list.begin(), list.end(), [](const Json& entry) { return entry.is_string(); });
    if (!texts) wrong(key, "a list of texts");
    values = list.get<std::vector<std::string>>();
  }
  void operator()(const char* key, std::vector<HeadConfig>& heads) const {
    if (!json.contains(key)) return;
    const Json& list = json.at(key);
    bool objects =
        list.is_array() && std::all_of(list.begin(), list.end(), [](const Json& entry) { return entry.is_object(); });
    if (!objects) wrong(key, "a list of objects");
    for (const Json& entry : list) visit_head(heads.emplace_back(), Reader{entry, where});
  }
  template <class Enum, size_t N>
  void operator()(const char* key, Enum& value, const Word (&words)[N]) const {
    if (!json.contains(key)) return;
    std::string choices;
    for (const Word& w : words) {
      if (json.at(key) == w.word) {
        value = static_cast<Enum>(w.value);
        return;
      }
      choices += (choices.empty() ? "\"" : " or \"") + std::string(w.word) + "\"";
    }
    wrong(key, choices.c_str());
  }
};

struct Writer {
  Json& json;
  template <class T>
  void operator()(const char* key, const T& value) const {
    json[key] = value;
  }
  void operator()(const char* key, const float& value) const {
    json[key] = Json::parse(fmt::format("{}", value));  // the shortest form: 1e-05, not 9.999999747378752e-06
  }
  void operator()(const char* key, const std::vector<int64_t>& values) const {
    if (!values.empty()) json[key] = values;
  }
  void operator()(const char* key, const std::vector<HeadConfig>& heads) const {
    for (const HeadConfig& head : heads) {
      Json entry;
      visit_head(head, Writer{entry});
      json[key].push_back(std::move(entry));
    }
  }
  template <class Enum, size_t N>
  void operator()(const char* key, const Enum& value, const Word (&words)[N]) const {
    for (const Word& w : words)
      if (w.value == static_cast<int>(value)) json[key] = w.word;
  }
};

}  // namespace

ModelConfig parse_config(std::string_view text, std::string_view where) {
  Json json = parse_json<Json>(text);
  if (!json.is_object()) fail("{}: the configuration is not a JSON object", where);
  ModelConfig config;
  std::vector<std::string> known;
  visit(config, [&](const char* key, auto&&...) { known.emplace_back(key); });
  for (const auto& [key, value] : json.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      fail("{}: unknown setting \"{}\"{}", where, key, did_you_mean(key, known));
  if (json.contains("norm")) config.final_norm = json.at("norm") == "pre";
  visit(config, Reader{json, where});
  config.check();
  return config;
}

std::string ModelConfig::json() const {
  Json json;
  visit(*this, Writer{json});
  if (lora_rank == 0)
    for (const char* key : {"lora_rank", "lora_alpha", "lora_sites"}) json.erase(key);
  if (adapter_width == 0)
    for (const char* key : {"adapter_width", "adapter_sites"}) json.erase(key);
  return json.dump();
}

static void check_tails(const ModelConfig& c) {
  if (c.cutoffs.size() != c.tail_widths.size())
    fail_usage("{} cutoffs and {} tail_widths: an adaptive softmax has one of each for every tail", c.cutoffs.size(),
               c.tail_widths.size());
  int64_t least = 0;
  for (size_t i = 0; i < c.cutoffs.size(); ++i) {
    if (c.cutoffs[i] <= least || c.cutoffs[i] >= c.vocab_size)
      fail_usage("cutoff {}: cutoffs ascend between 0 and the vocabulary of {}", c.cutoffs[i], c.vocab_size);
    if (c.tail_widths[i] < 1 || c.tail_widths[i] > 65536)
      fail_usage("tail width {}: it is from 1 to 65536", c.tail_widths[i]);
    least = c.cutoffs[i];
  }
  if (!c.cutoffs.empty() && !c.output_bias) fail_usage("an adaptive softmax (cutoffs) has a bias: set output_bias");
}

/// Calls on(name) for every entry of a list separated by commas.
template <class Visitor>
static void each_site(const std::string& list, Visitor&& on) {
  for (size_t first = 0; first <= list.size();) {
    size_t end = std::min(list.find(',', first), list.size());
    on(list.substr(first, end - first));
    first = end + 1;
  }
}

static bool names_site(const std::string& list, std::string_view site) {
  bool found = false;
  each_site(list, [&](const std::string& name) { found = found || name == site; });
  return found;
}

bool ModelConfig::lora_on(LoraSite site) const {
  return lora_rank > 0 && names_site(lora_sites, lora_site_names[static_cast<size_t>(site)]);
}

bool ModelConfig::adapter_on(AdapterSite site) const {
  return adapter_width > 0 &&
         (adapter_sites.empty() || names_site(adapter_sites, adapter_site_names[static_cast<size_t>(site)]));
}

ModelConfig ModelConfig::without_lora() const {
  ModelConfig config = *this;
  config.lora_rank = 0, config.lora_alpha = ModelConfig().lora_alpha, config.lora_sites.clear();
  return config;
}

ModelConfig ModelConfig::plain() const {
  ModelConfig config = without_lora();
  config.adapter_width = 0, config.adapter_sites.clear(), config.heads.clear();
  return config;
}

static void check_lora(const ModelConfig& c) {
  if (c.lora_rank == 0) return;
  if (c.lora_rank > std::min(c.d_model, c.n_head * c.d_head))
    fail_usage("lora_rank {}: it is at most the narrowest matrix, {}", c.lora_rank,
               std::min(c.d_model, c.n_head * c.d_head));
  if (!(c.lora_alpha > 0)) fail_usage("lora_alpha {}: it must be positive", c.lora_alpha);
  each_site(c.lora_sites, [](const std::string& name) {
    if (std::find(lora_site_names.begin(), lora_site_names.end(), name) == lora_site_names.end())
      fail_usage("\"{}\" has no low-rank update: a list of q, k, v, position, output, up and down was expected", name);
  });
}

static void check_adapters(const ModelConfig& c) {
  if (c.adapter_width == 0 || c.adapter_sites.empty()) return;
  each_site(c.adapter_sites, [](const std::string& name) {
    if (std::find(adapter_site_names.begin(), adapter_site_names.end(), name) == adapter_site_names.end())
      fail_usage("\"{}\" has no adapter: attention, feedforward or both were expected", name);
  });
}

const char* head_kind_name(HeadKind kind) { return head_words[static_cast<size_t>(kind)].word; }

int32_t HeadConfig::find(std::string_view label) const {
  auto found = std::find(labels.begin(), labels.end(), label);
  return found == labels.end() ? -1 : static_cast<int32_t>(found - labels.begin());
}

static void check_head(const HeadConfig& head) {
  constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
  constexpr size_t most_tags = 256, most_labels = 65536;  // CrfDecode's limit
  bool tags = head.kind == HeadKind::tags;
  if (head.name.empty() || head.name.find_first_not_of(letters) != std::string::npos)
    fail_usage("head \"{}\": a name is made of letters, digits, _ and -", head.name);
  size_t most = tags ? most_tags : most_labels;
  if (head.labels.size() < 2 || head.labels.size() > most)
    fail_usage("head {} has {} labels: from 2 to {} are possible", head.name, head.labels.size(), most);
  for (const std::string& label : head.labels) {
    if (std::count(head.labels.begin(), head.labels.end(), label) > 1)
      fail_usage("head {}: the label \"{}\" stands there twice", head.name, label);
    bool tag = label == "O" || ((label.starts_with("B-") || label.starts_with("I-")) && label.size() > 2);
    if (label.empty() || (tags && !tag))
      fail_usage("head {}: \"{}\" is no {}", head.name, label, tags ? "tag: O, B-x or I-x was expected" : "label");
  }
  if ((head.crf || head.lookahead) && !tags) fail_usage("head {}: crf and lookahead are for tags", head.name);
  if (head.lookahead < 0 || head.lookahead > 64)
    fail_usage("head {}: a lookahead of {} tokens is not in 0 to 64", head.name, head.lookahead);
}

static void check_heads(const ModelConfig& c) {
  for (const HeadConfig& head : c.heads) {
    check_head(head);
    if (std::count_if(c.heads.begin(), c.heads.end(), [&](const HeadConfig& h) { return h.name == head.name; }) > 1)
      fail_usage("two heads have the name {}", head.name);
  }
}

void ModelConfig::check() const {
  constexpr int64_t limit = int64_t{1} << 31;
  visit(*this, [&](const char* key, const auto& value, auto&&...) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, int64_t>)
      if (value < 0 || value >= limit) fail_usage("{} is {}: it must be from 0 to {}", key, value, limit - 1);
  });
  auto positive = [](const char* key, int64_t value) {
    if (value == 0) fail_usage("{} is 0: a model needs at least 1", key);
  };
  positive("vocab_size", vocab_size), positive("d_model", d_model), positive("n_layer", n_layer);
  positive("n_head", n_head), positive("d_head", d_head), positive("d_ff", d_ff);
  if (d_model % 2) fail_usage("d_model is {}: the position encoding needs an even width", d_model);
  if (n_layer > 65535) fail_usage("n_layer is {}: at most 65535 layers can be told apart", n_layer);
  if (same_length && mem_len == 0)
    fail_usage("same_length with mem_len 0 leaves no visible key: set mem_len to the number of keys that a query sees");
  check_tails(*this), check_lora(*this), check_adapters(*this), check_heads(*this);
  if (!(norm_eps > 0)) fail_usage("norm_eps is {}: it must be positive", norm_eps);
}

int64_t ModelConfig::matrix_parameters() const {
  int64_t output = 0;  // beyond the embedding
  for (size_t i = 0; i < cutoffs.size(); ++i)
    output +=
        (tail(i).second - tail(i).first + d_model) * tail_widths[i] + (i == 0 ? cutoffs[0] : 0) * d_model + d_model;
  for (const HeadConfig& head : heads) output += static_cast<int64_t>(head.labels.size()) * d_model;
  return output + vocab_size * d_model + n_layer * (5 * n_head * d_head * d_model + 2 * d_model * d_ff);
}

int64_t ModelConfig::parameters() const {
  int64_t heads = n_head * d_head;
  int64_t layer = 2 * heads + 4 * d_model + d_ff + d_model + (segments ? 3 * heads : 0), beside = 0;
  for (const HeadConfig& head : this->heads) {
    auto labels = static_cast<int64_t>(head.labels.size());
    beside += labels + (head.crf ? (labels + 2) * labels : 0);
  }
  return matrix_parameters() + n_layer * layer + (final_norm ? 2 * d_model : 0) + (output_bias ? vocab_size : 0) +
         static_cast<int64_t>(cutoffs.size()) + beside;
}

double training_flops_per_token(const ModelConfig& c, int64_t lanes, int64_t segment, int64_t memory) {
  double heads = static_cast<double>(c.n_head) * c.d_head, width = static_cast<double>(c.d_model);
  double dense = static_cast<double>(c.vocab_size) * width + c.n_layer * (4 * heads * width + 2 * width * c.d_ff);
  double positions = c.n_layer * heads * width * (segment + memory) / (static_cast<double>(lanes) * segment);
  double pairs = 0;  // visible keys of all queries of a segment
  for (int64_t i = 0; i < segment; ++i)
    pairs += static_cast<double>(c.same_length ? std::min(memory + i + 1, c.mem_len) : memory + i + 1);
  return 6 * (dense + positions) + 18 * heads * c.n_layer * pairs / static_cast<double>(segment);
}

}  // namespace longhand
