// The program: a table of commands, and what an error becomes at the end of it.
#include <cstdio>
#include <new>

#include "longhand/error.h"
#include "src/cli/command.h"
#include "src/cli/parse.h"

namespace {

using namespace longhand;
using namespace longhand::cli;

struct Entry {
  const char* group;
  void (*add)(CLI::App& app, Common& common);
};

// In the order of the help.
constexpr Entry commands[] = {
    {"Make", add_prepare},    {"Make", add_train},      {"Make", add_finetune},   {"Make", add_merge},
    {"Make", add_lexicon},    {"Make", add_data},       {"Make", add_plan},       {"Make", add_quantize},
    {"Write", add_generate},  {"Write", add_chat},      {"Write", add_serve},     {"Inspect", add_score},
    {"Inspect", add_eval},    {"Inspect", add_extract}, {"Inspect", add_info},    {"Inspect", add_report},
    {"Inspect", add_compare}, {"Inspect", add_bench},   {"Exchange", add_import}, {"Exchange", add_export},
};

int complain(const char* message, int code) {
  std::fflush(stdout);
  std::fprintf(stderr, "longhand: %s\n", message);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    CLI::App app;
    Common common;
    describe(app);
    for (const Entry& entry : commands) {
      size_t before = app.get_subcommands([](const CLI::App*) { return true; }).size();
      entry.add(app, common);
      app.get_subcommands([](CLI::App*) { return true; }).at(before)->group(entry.group);
    }
    parse_and_run(app, common, {argv + 1, argv + argc});
    if (std::fflush(stdout) != 0 || std::ferror(stdout)) return complain("the output could not be written", 1);
    return 0;
  } catch (const UsageError& error) {
    return complain(error.what(), 2);
  } catch (const std::bad_alloc&) {
    return complain("there is not enough memory for this; longhand plan shows what a model needs", 1);
  } catch (const std::exception& error) {
    return complain(error.what(), 1);
  }
}
