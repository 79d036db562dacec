#include "src/cli/train_flags.h"

#include <nlohmann/json.hpp>

#include "longhand/quantize.h"
#include "src/train/flags.h"

namespace longhand::cli {
namespace {

template <class Enum>
struct Word {
  const char* word;
  Enum value;
};
constexpr Word<Dtype> type_words[] = {{"fp32", Dtype::fp32}, {"bf16", Dtype::bf16}};
constexpr Word<TopkMode> topk_words[] = {{"exact", TopkMode::exact}, {"block", TopkMode::block}};
constexpr Word<NormPlacement> norm_words[] = {{"pre", NormPlacement::pre}, {"post", NormPlacement::post}};
constexpr Word<Activation> activation_words[] = {{"gelu", Activation::gelu}, {"relu", Activation::relu}};
constexpr Word<ScheduleKind> schedule_words[] = {{"cosine", ScheduleKind::cosine},
                                                 {"linear", ScheduleKind::linear},
                                                 {"constant", ScheduleKind::constant},
                                                 {"wsd", ScheduleKind::wsd}};
constexpr Word<Difficulty> difficulty_words[] = {{"none", Difficulty::none},
                                                 {"length", Difficulty::length},
                                                 {"rarity", Difficulty::rarity},
                                                 {"loss", Difficulty::loss}};
constexpr Word<Pacing> pacing_words[] = {{"linear", Pacing::linear}, {"root", Pacing::root}, {"step", Pacing::step}};

/// Declares one flag of the right kind for its field.
struct Declare {
  CLI::App& command;
  const char* group;
  std::map<std::string, CLI::Option*, std::less<>>& declared;

  void keep(const TrainFlag& flag, CLI::Option* option, const char* type) const {
    option->default_str("")->group(group);
    if (*type) option->type_name(type);
    declared[std::string(flag_key(flag))] = option;
  }
  template <class Enum, size_t N>
  void words(const TrainFlag& flag, Enum& field, const Word<Enum> (&known)[N]) const {
    std::string name(flag_key(flag));
    auto set = [&field, &known, name](const std::string& value) {
      std::string choices;
      for (const Word<Enum>& w : known) {
        if (value == w.word) return void(field = w.value);
        choices += (choices.empty() ? "" : ", ") + std::string(w.word);
      }
      fail_usage("--{} {}: it takes {}", name, value, choices);
    };
    keep(flag, command.add_option_function<std::string>(flag.names, set, flag.help), "WORD");
  }
  void operator()(const TrainFlag& f, Dtype& field) const { words(f, field, type_words); }
  void operator()(const TrainFlag& f, TopkMode& field) const { words(f, field, topk_words); }
  void operator()(const TrainFlag& f, NormPlacement& field) const { words(f, field, norm_words); }
  void operator()(const TrainFlag& f, Activation& field) const { words(f, field, activation_words); }
  void operator()(const TrainFlag& f, ScheduleKind& field) const { words(f, field, schedule_words); }
  void operator()(const TrainFlag& f, Difficulty& field) const { words(f, field, difficulty_words); }
  void operator()(const TrainFlag& f, Pacing& field) const { words(f, field, pacing_words); }
  void operator()(const TrainFlag& f, bool& field) const {
    std::string off = fmt::format("!--no-{}", flag_key(f));
    keep(f, command.add_flag(fmt::format("{},{}", f.names, off), field, f.help), "");
  }
  void operator()(const TrainFlag& f, std::string& field) const {
    keep(f, command.add_option(f.names, field, f.help)->join(','), "LIST");
  }
  void operator()(const TrainFlag& f, int64_t& field) const {
    keep(f, command.add_option(f.names, field, f.help), "N");
  }
  template <class Number>
  void operator()(const TrainFlag& f, Number& field) const {
    keep(f, command.add_option(f.names, field, f.help), "NUMBER");
  }
};

template <class Visit, class Object>
void copy_given(const Visit& visit, Object& to, const Object& from,
                const std::function<bool(const TrainFlag&, bool differs)>& wanted) {
  // Both objects are walked in the same order; fields pair up by their place.
  std::vector<const void*> fields;
  visit(from, [&](const TrainFlag&, const auto& field) { fields.push_back(&field); });
  size_t index = 0;
  visit(to, [&](const TrainFlag& flag, auto& field) {
    const auto& other = *static_cast<const std::remove_reference_t<decltype(field)>*>(fields[index++]);
    if (wanted(flag, field != other)) field = other;
  });
}

/// How a file's metadata say that its matrices are held; empty where they are as they were trained.
std::string quantization_of(const SafetensorsFile& file) {
  auto entry = file.metadata().find("longhand.quantization");
  if (entry == file.metadata().end()) return "";
  nlohmann::json json = nlohmann::json::parse(entry->second, nullptr, false);
  return json.is_object() ? json.value("type", "") : "";
}

/// Fills o.held: matrices stay as a quantised file has them; those of other weights that do not train become what
/// --base says.
void hold_matrices(TrainOptions& o, const std::string& source) {
  if (!source.empty()) {
    SafetensorsFile file(source);
    o.held = read_formats(file, o.config, o.type).matrices;
    std::string type = quantization_of(file);
    if (!o.held.empty() && !o.base.empty() && o.base != type)
      fail_usage("--base {}: {} holds its matrices as {} already: leave it out", o.base, source, type);
    if (!o.held.empty()) o.base = type;
    std::erase_if(o.held, [&](const auto& entry) { return !entry.second.packed() && o.trains(entry.first); });
  }
  if (o.base.empty() || !o.held.empty()) return;
  o.held = quantized_formats(o.config, QuantizeOptions::of(parse_weight_type(o.base, "--base")), o.type).matrices;
  std::erase_if(o.held, [&](const auto& entry) { return o.has_gradient(entry.first); });
  if (o.held.empty())
    fail_usage("--base {} is for matrices that do not train, and all of them do: give --lora 8, or --train-only",
               o.base);
}

bool same_shapes(const ModelConfig& a, const ModelConfig& b) {
  return a.d_model == b.d_model && a.n_layer == b.n_layer && a.n_head == b.n_head && a.d_head == b.d_head &&
         a.d_ff == b.d_ff;
}

}  // namespace

void TrainFlags::declare(CLI::App& command) {
  declared_["preset"] =
      command.add_option("--preset", preset_, "tiny, small, base, large or 7b")->type_name("NAME")->group("Model");
  declare_training(command);
}

void TrainFlags::declare_finetuning(CLI::App& command) {
  visit_finetune_flags(parsed_, Declare{command, "Fine-tuning", declared_});
}

void TrainFlags::declare_training(CLI::App& command) {
  visit_config_flags(parsed_.config, Declare{command, "Model", declared_});
  declared_["dropout"] = command.add_option("--dropout", dropout_, "of every site at once (default 0)")
                             ->default_str("")
                             ->type_name("NUMBER")
                             ->group("Training");
  visit_train_flags(parsed_, Declare{command, "Training", declared_});
}

bool TrainFlags::given(std::string_view key) const {
  auto entry = declared_.find(key);
  return entry != declared_.end() && entry->second->count() > 0;
}

bool TrainFlags::vocabulary_open(const std::string& init) const { return init.empty() && !given("vocab-size"); }

ModelConfig TrainFlags::base_config(const std::string& init, const ModelConfig* resumed) const {
  if (!init.empty()) {
    ModelConfig config = read_config(SafetensorsFile(init));
    if (!preset_.empty() && !same_shapes(config, preset(preset_)))
      fail_usage("--preset {} has other shapes than the weights of --init {}: leave --preset out", preset_, init);
    return config;
  }
  if (!preset_.empty()) return preset(preset_);
  if (resumed) return *resumed;
  if (!given("d-model")) fail_usage("which model? Give --preset tiny, small, base, large or 7b, or --init FILE");
  return {};
}

void TrainFlags::override_config(ModelConfig& config, bool weights_given) const {
  auto visit = [](auto& object, auto&& on) { visit_config_flags(object, on); };
  copy_given(visit, config, parsed_.config, [&](const TrainFlag& flag, bool differs) {
    if (!given(flag_key(flag))) return false;
    if (differs && weights_given && flag.later == Later::fixed)
      fail_usage("--{} differs from the weights of --init: it can only be chosen for a new model", flag_key(flag));
    return true;
  });
  if (weights_given) return;
  if (given("norm") && !given("final-norm")) config.final_norm = config.norm == NormPlacement::pre;
  if (given("d-model") && !given("d-ff")) config.d_ff = 4 * config.d_model;
  bool heads = given("d-model") || given("n-head");
  if (heads && !given("d-head") && config.n_head > 0) {
    if (config.d_model % config.n_head)
      fail_usage("--d-model {} cannot be divided among --n-head {}: give --d-head", config.d_model, config.n_head);
    config.d_head = config.d_model / config.n_head;
  }
}

TrainOptions TrainFlags::options(const CLI::App& command, const Common& common, const std::string& init,
                                 const std::string& checkpoint) const {
  TrainOptions options;
  if (checkpoint.empty()) {
    options.config = base_config(init, nullptr);
    options.seed = common.seed;
  } else {
    options = read_train_options(SafetensorsFile(checkpoint));
    options.config = base_config(init, &options.config);
    if (command.get_option("--seed")->count() > 0) options.seed = common.seed;
  }
  override_config(options.config, !init.empty());
  if (given("dropout")) {
    DropoutRates& d = options.dropout;
    d.embedding = d.attention = d.residual = d.activation = d.feedforward = dropout_;
  }
  auto visit = [](auto& object, auto&& on) { visit_train_flags(object, on); };
  copy_given(visit, options, parsed_, [&](const TrainFlag& flag, bool) { return given(flag_key(flag)); });
  auto visit_finetune = [](auto& object, auto&& on) { visit_finetune_flags(object, on); };
  copy_given(visit_finetune, options, parsed_, [&](const TrainFlag& flag, bool) { return given(flag_key(flag)); });
  if (options.config.lora_rank > 0 && options.config.lora_sites.empty()) options.config.lora_sites = "q,v";
  hold_matrices(options, checkpoint.empty() ? init : checkpoint);
  return options;
}

}  // namespace longhand::cli
