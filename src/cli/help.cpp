#include "src/cli/help.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

namespace longhand::cli {
namespace {

constexpr size_t name_column = 30, page_width = 110;

std::string entry(const std::string& name, const std::string& text) {
  std::string out = "  " + name;
  size_t column = out.size();
  if (column + 2 > name_column) out += "\n", column = 0;
  out.append(name_column - column, ' ');
  column = name_column;
  std::istringstream words(text);
  bool first = true;
  for (std::string word; words >> word; first = false) {
    if (!first && column + 1 + word.size() > page_width) {
      out += "\n" + std::string(name_column, ' ');
      column = name_column;
    } else if (!first) {
      out += ' ', ++column;
    }
    out += word, column += word.size();
  }
  return out + "\n";
}

// "-h, --help" or "--learning-rate, --lr FLOAT"
std::string flag_name(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) names.push_back("--" + name);
  std::string text = fmt::format("{}", fmt::join(names, ", "));
  if (option.get_type_size() != 0) text += " " + option.get_type_name();
  return text;
}

std::string meaning(const CLI::Option& option) {
  std::string text = option.get_description();
  if (option.get_required())
    text += " (required)";
  else if (option.get_type_size() != 0 && !option.get_default_str().empty() && option.get_default_str() != "[]")
    text += " (default " + option.get_default_str() + ")";
  return text;
}

std::string usage(const CLI::App& app) {
  std::string line = "usage: longhand";
  if (app.get_parent()) line += " " + app.get_name();
  bool commands = !app.get_subcommands([](const CLI::App*) { return true; }).empty();
  line += commands ? " COMMAND [flags]" : " [flags]";
  for (const CLI::Option* option : app.get_options())
    if (option->get_positional()) {
      std::string name = option->get_name(true, false);
      line += option->get_required() ? " " + name : " [" + name + "]";
    }
  return line + "\n";
}

std::string positionals(const CLI::App& app) {
  std::string out;
  for (const CLI::Option* option : app.get_options())
    if (option->get_positional()) out += entry(option->get_name(true, false), meaning(*option));
  return out.empty() ? out : "\n" + out;
}

std::string flags(const CLI::App& app) {
  std::vector<std::string> groups = app.get_groups();
  std::stable_partition(groups.begin(), groups.end(), [](const std::string& group) { return group != "Common"; });
  std::string out;
  for (const std::string& group : groups) {
    std::string body;
    for (const CLI::Option* option : app.get_options())
      if (!group.empty() && option->get_group() == group && option->nonpositional())
        body += entry(flag_name(*option), meaning(*option));
    if (!body.empty()) out += fmt::format("\n{}:\n{}", group == "Options" ? "Flags" : group, body);
  }
  return out;
}

std::string commands(const CLI::App& app) {
  std::string out, group;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (command->get_group() != group) out += fmt::format("\n{}:\n", group = command->get_group());
    out += entry(command->get_name(), command->get_description());
  }
  return out;
}

}  // namespace

std::string HelpFormatter::make_help(const CLI::App* app, std::string, CLI::AppFormatMode) const {
  std::string out = app->get_description() + "\n\n" + usage(*app) + positionals(*app) + commands(*app) + flags(*app);
  if (!app->get_footer().empty()) out += "\n" + app->get_footer() + "\n";
  return out;
}

}  // namespace longhand::cli
