// longhand train: from a token file to weights.
#include "src/cli/train_flags.h"
#include "src/cli/training_run.h"

namespace longhand::cli {
namespace {

struct Train {
  TrainFlags flags;
  TrainingRun training;

  void declare(CLI::App& command) {
    auto add = [&](const char* name, auto& field, const char* help) {
      command.add_option(name, field, help)->default_str("")->type_name("FILE")->group("Run");
    };
    add("--tokens", training.run.tokens, "token file (`longhand prepare` makes one), or text of ids");
    add("--init", training.run.init, "weights or checkpoint to start from");
    training.declare(command);
    flags.declare(command);
  }

  void operator()(const CLI::App& command, const Common& common) {
    const std::string& init = training.run.init;
    training.run.vocabulary_from_data = flags.vocabulary_open(init);
    training.go(flags.options(command, common, init, training.checkpoint()), common);
  }
};

}  // namespace

void add_train(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "train", "train a model from a token file");
  auto train = std::make_shared<Train>();
  train->declare(*command);
  command->callback(
      [command, train, &common] { common.run = [command, train, &common] { (*train)(*command, common); }; });
}

}  // namespace longhand::cli
