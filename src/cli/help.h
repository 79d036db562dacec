// How --help looks: the usage line, then flags in their groups with type, meaning and default, wrapped to the page.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace longhand::cli {

class HelpFormatter final : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override;
};

}  // namespace longhand::cli
