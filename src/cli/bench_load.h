#pragma once

#include "src/cli/command.h"
#include "src/serve/load_generator.h"

namespace longhand::cli {

void declare_load(CLI::App& command, serve::LoadOptions& load);

/// Prints what the clients lived through; fails when a request did.
void run_load(serve::LoadOptions load, const Common& common);

}  // namespace longhand::cli
