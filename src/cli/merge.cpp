// longhand merge: low-rank updates into the weights that they were made for, adapters beside them, as one weights file.
#include "src/cli/options.h"

namespace longhand::cli {
namespace {

struct MergeFlags {
  std::string model, output, type;
  std::vector<std::string> adapters;
};

void run_merge(const MergeFlags& flags, const Common& common) {
  if (flags.model.empty() || flags.output.empty() || flags.adapters.empty())
    fail_usage("--model, --adapter and --output are needed");
  std::unique_ptr<Device> device = make_device("cpu", {.threads = common.threads});
  Dtype type =
      flags.type.empty() ? SafetensorsFile(flags.model).tensor("embedding.weight").type() : parse_dtype(flags.type);
  LoadedModel model = load_model(*device, flags.model, type, flags.adapters);
  std::vector<std::vector<char>> storage;
  std::vector<NamedTensor> tensors = host_tensors(*device, model.weights, "", storage);
  auto bytes = [&](const char* name, const std::string& text) {
    if (!text.empty())
      tensors.push_back({name, ConstTensor(text.data(), Dtype::u8, {static_cast<int64_t>(text.size())})});
  };
  bytes("tokenizer.model", model.tokenizer), bytes("tokenizer.words", model.words);
  write_safetensors(flags.output, tensors, {{"longhand.kind", "weights"}, {"longhand.config", model.config.json()}});
  if (!common.json) fmt::print("{}\n", flags.output);
}

}  // namespace

void add_merge(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "merge", "add adapter files to the weights they belong to");
  auto flags = std::make_shared<MergeFlags>();
  command->add_option("--model,--init", flags->model, "weights")->type_name("FILE");
  command->add_option("--adapter", flags->adapters, "adapter file; may be repeated")
      ->type_name("FILE")
      ->allow_extra_args(false);
  command->add_option("--output", flags->output, "weights file to write")->type_name("FILE");
  command->add_option("--dtype", flags->type, "fp32 or bf16 (default: the model's)")->type_name("TYPE");
  command->callback([flags, &common] { common.run = [flags, &common] { run_merge(*flags, common); }; });
}

}  // namespace longhand::cli
