#include "src/cli/parse.h"

#include <algorithm>
#include <iostream>
#include <set>

#include "longhand/files.h"
#include "longhand/nearest.h"
#include "src/cli/help.h"
#include "src/cli/yaml_options.h"

namespace longhand::cli {
namespace {

CLI::App* find_command(CLI::App& app, const std::string& name) {
  for (CLI::App* command : app.get_subcommands([](CLI::App*) { return true; }))
    if (command->get_name() == name) return command;
  return nullptr;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

std::vector<std::string> flag_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

// CLI11's message as the rest of a sentence that begins with "longhand: <command>: ".
std::string explain(const CLI::ParseError& error) {
  std::string text = error.what();
  std::string name = text.substr(0, text.find(':'));
  if (size_t equals = text.find(" = "); text.starts_with("Could not convert: ") && equals != std::string::npos)
    return fmt::format("{} cannot be \"{}\"", text.substr(19, equals - 19), printable(text.substr(equals + 3)));
  if (text.ends_with(" missing")) return name + " needs a value";
  if (text.find("At Most 1 ") != std::string::npos) return name + " is given more than once";
  if (size_t colon = text.find("expected: "); text.starts_with("The following") && colon != std::string::npos)
    return fmt::format("\"{}\" is not expected", printable(text.substr(colon + 10)));
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

// Checks the names of all flags before any value is read, and returns those that were given.
std::set<const CLI::Option*> given_flags(const CLI::App& command, const std::vector<std::string>& words,
                                         std::string& config) {
  std::set<const CLI::Option*> given;
  for (size_t i = 0; i < words.size() && words[i] != "--"; ++i) {
    if (!words[i].starts_with("--")) continue;
    size_t equals = words[i].find('=');
    std::string name = words[i].substr(0, equals);
    const CLI::Option* option = command.get_option_no_throw(name);
    if (!option)
      fail_usage("{} has no flag {}{}", command.get_name(), printable(name), did_you_mean(name, flag_names(command)));
    given.insert(option);
    bool has_value = option->get_items_expected_min() > 0;
    if (name == "--config")
      config = equals != std::string::npos ? words[i].substr(equals + 1) : i + 1 < words.size() ? words[i + 1] : "";
    if (has_value && equals == std::string::npos) i += option->get_items_expected_min();
  }
  return given;
}

std::string switch_value(const std::string& text) {
  for (const char* yes : {"true", "yes", "on", "1"})
    if (text == yes) return "true";
  for (const char* no : {"false", "no", "off", "0"})
    if (text == no) return "false";
  return {};
}

void set_option(CLI::Option& option, const YamlOption& setting, const std::string& where) {
  if (option.get_items_expected_max() == 0) {
    std::string value = setting.values.size() == 1 ? switch_value(setting.values[0]) : "";
    if (value.empty()) fail_usage("{}: \"{}\" is true or false", where, setting.flag);
    option.add_result(option.get_flag_value(setting.flag, value));
  } else {
    bool many = option.get_items_expected_max() > 1;
    if (setting.list && !many) fail_usage("{}: \"{}\" takes one value, not a list", where, setting.flag);
    for (const std::string& value : setting.values) option.add_result(value);
  }
  try {
    option.run_callback();
  } catch (const CLI::ParseError& error) {
    fail_usage("{}: {}", where, explain(error));
  }
}

void apply_config(CLI::App& command, const std::string& path, const std::set<const CLI::Option*>& given) {
  std::vector<YamlOption> settings;
  try {
    settings = read_yaml_options(read_file(path, int64_t{1} << 20), path);
  } catch (const UsageError&) {
    throw;
  } catch (const Error& error) {
    fail_usage("--config: {}", error.what());
  }
  std::set<const CLI::Option*> seen;
  for (const YamlOption& setting : settings) {
    std::string where = fmt::format("{}:{}", path, setting.line);
    CLI::Option* option = command.get_option_no_throw("--" + setting.flag);
    if (!option || setting.flag == "config" || setting.flag == "help") {
      std::vector<std::string> names;
      for (const std::string& name : flag_names(command)) names.push_back(name.substr(2));
      fail_usage("{}: {} has no flag for \"{}\"{}", where, command.get_name(), printable(setting.flag),
                 did_you_mean(setting.flag, names));
    }
    if (!seen.insert(option).second) fail_usage("{}: \"{}\" is given under another name before", where, setting.flag);
    if (!given.contains(option)) set_option(*option, setting, where);
  }
}

}  // namespace

void describe(CLI::App& app) {
  app.name("longhand");
  app.require_subcommand(0, 1);  // a word after the command is its own, not a second command
  app.description("Longhand trains, runs and inspects segment-recurrent Transformers.");
  app.footer("`longhand COMMAND --help` lists the flags of a command.");
  app.formatter(std::make_shared<HelpFormatter>());
  app.set_version_flag("--version", "longhand 0.1.0", "print the version");
  app.get_help_ptr()->description("print this help");
}

void parse_and_run(CLI::App& app, Common& common, std::vector<std::string> words) {
  if (words.empty()) fail_usage("a command is missing; longhand --help lists them");
  if (words[0] == "help") words = {words.size() > 1 ? words[1] : "--help", "--help"};
  const std::string name = words[0];
  CLI::App* command = find_command(app, name);
  if (command) {
    std::string config;
    auto given = given_flags(*command, {words.begin() + 1, words.end()}, config);
    if (!config.empty() && !given.contains(command->get_help_ptr())) apply_config(*command, config, given);
  } else if (!app.get_option_no_throw(name)) {
    if (name.starts_with("-"))
      fail_usage("a command comes before its flags, and {} is no command; longhand --help lists them", printable(name));
    fail_usage("there is no command \"{}\"{}", printable(name), did_you_mean(name, command_names(app)));
  }
  try {
    std::reverse(words.begin(), words.end());  // the order in which CLI11 takes them
    app.parse(words);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0)
      fail_usage("{}: {}; see longhand {} --help", name, explain(error), command ? name : "");
    app.exit(error);
    return;
  }
  if (common.run) common.run();
}

}  // namespace longhand::cli
