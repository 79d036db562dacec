// From the words of the command line, and the configuration file that they may name, to the flags of a command.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "src/cli/command.h"

namespace longhand::cli {

/// Sets up `app`: its description, its formatter and --version.
void describe(CLI::App& app);

/// Parses `words` (without the program's name) and runs what the chosen command set as `common.run`. Wrong usage is a
/// UsageError; an unknown command, flag or YAML key names the nearest known one. --help and --version print and return.
void parse_and_run(CLI::App& app, Common& common, std::vector<std::string> words);

}  // namespace longhand::cli
