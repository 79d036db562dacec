// longhand report RUN: the curves of a run as one page.
#include "longhand/report.h"

#include <filesystem>

#include "longhand/files.h"
#include "src/cli/command.h"

namespace longhand::cli {

namespace {

void write_report(const std::string& run, std::string output) {
  namespace fs = std::filesystem;
  fs::path log = fs::is_directory(run) ? fs::path(run) / "log.jsonl" : fs::path(run);
  if (!fs::exists(log)) fail("{}: there is no log here; name the directory that `longhand train --output` wrote", run);
  fs::path folder = log.has_parent_path() ? log.parent_path() : fs::path(".");
  if (output.empty()) output = (folder / "report.html").string();
  std::string name = fs::weakly_canonical(folder).filename().string();
  std::string answers = (folder / "answers.jsonl").string();
  write_file(output, report_page(read_file(log.string()), name,
                                 fs::exists(answers) ? read_answers(answers) : std::vector<Answer>{}));
  fmt::print("{}\n", output);
}

}  // namespace

void add_report(CLI::App& app, Common& common) {
  struct Flags {
    std::string run, output;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = add_command(app, common, "report", "Draw the curves of a run as one HTML page");
  command->add_option("run", flags->run, "run directory, or its log.jsonl")->required();
  command->add_option("--output", flags->output, "file to write (default: RUN/report.html)");
  command->callback([flags, &common] { common.run = [flags] { write_report(flags->run, flags->output); }; });
}

}  // namespace longhand::cli
