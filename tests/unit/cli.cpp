// The command line and configuration files, without the program around them.
#include <doctest/doctest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "longhand/error.h"
#include "longhand/files.h"
#include "src/cli/options.h"
#include "src/cli/parse.h"
#include "src/cli/yaml_options.h"
#include "src/generate/piece_stream.h"

using namespace longhand;
using namespace longhand::cli;

namespace {

std::string read(const std::string& text) {
  std::string all;
  for (const YamlOption& option : read_yaml_options(text, "f"))
    all += fmt::format("{}:{}={}{} ", option.line, option.flag, fmt::join(option.values, "+"), option.list ? "*" : "");
  return all;
}

std::string refusal(const std::string& text) {
  try {
    read_yaml_options(text, "f");
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

// What a command with a few flags of every kind got.
struct Parsed {
  Common common;
  int64_t count = 1;
  double rate = 0.5;
  bool echo = true;
  std::vector<std::string> words;
  std::string file;
  bool ran = false;
};

Parsed parse(const std::vector<std::string>& line, const std::string& yaml = "") {
  Parsed parsed;
  CLI::App app;
  describe(app);
  CLI::App* command = add_command(app, parsed.common, "work", "does the work");
  command->add_option("--count", parsed.count, "how many");
  command->add_option("--learning-rate,--lr", parsed.rate, "how fast");
  command->add_flag("--echo,!--no-echo", parsed.echo, "say it");
  command->add_option("--word", parsed.words, "words")->allow_extra_args(false);
  command->add_option("FILE", parsed.file, "a file");
  command->callback([&] { parsed.common.run = [&] { parsed.ran = true; }; });
  std::vector<std::string> words = line;
  std::string path = "build/cli_test.yaml";
  if (!yaml.empty()) {
    write_file(path, yaml);
    words.insert(words.end(), {"--config", path});
  }
  parse_and_run(app, parsed.common, words);
  std::remove(path.c_str());
  return parsed;
}

std::string complaint(const std::vector<std::string>& line, const std::string& yaml = "") {
  try {
    parse(line, yaml);
  } catch (const UsageError& error) {
    std::remove("build/cli_test.yaml");
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("a configuration file is a list of flags, groups are free") {
  CHECK(read("") == "");
  CHECK(read("# nothing\n") == "");
  CHECK(read("batch_size: 32\nlr: 3e-4\n") == "1:batch-size=32 2:lr=3e-4 ");
  CHECK(read("training:\n  batch-size: 32\n  deeper: {json: true}\nseed: 1\n") ==
        "2:batch-size=32 3:json=true 4:seed=1 ");
  CHECK(read("stop: [a, 'b: c']\nlist:\n  - x\n  - y\n") == "1:stop=a+b: c* 2:list=x+y* ");
  CHECK(read("stop: ''\nempty: []\n") == "1:stop= 2:empty=* ");
}

TEST_CASE("a configuration file that cannot be meant is refused with its line") {
  CHECK(refusal("a: 1\nb:\n") == "f:2: \"b\" has no value");
  CHECK(refusal("a_b: 1\na-b: 2\n") == "f:2: \"a-b\" was given before, in line 1");
  CHECK(refusal("a: &x 1\n") == "f:1: anchors (&name) are not read here");
  CHECK(refusal("a: *x\n").starts_with("f:1: this is not YAML"));
  CHECK(refusal("a: [1, [2]]\n") == "f:1: the list of \"a\" holds a list; it takes plain values");
  CHECK(refusal("a: [1, {b: 2}]\n") == "f:1: the list of \"a\" holds a group; it takes plain values");
  CHECK(refusal("? [a]\n: 1\n") == "f:1: a list cannot be a key");
  CHECK(refusal("? {a: 1}\n: 1\n") == "f:1: a group cannot be a key");
  CHECK(refusal("just words\n") == "f:1: lines \"flag: value\" are expected, not \"just words\"");
  CHECK(refusal("- a\n") == "f:1: lines \"flag: value\" are expected, not a list");
  CHECK(refusal("a: 1\n---\nb: 1\n").find("a second document") != std::string::npos);
  CHECK(refusal("a: {b: 1\n").find("this is not YAML") != std::string::npos);
  CHECK(refusal(std::string(2 << 20, '#')).find("more than a configuration file may have") != std::string::npos);
  std::string deep = "1";
  for (int i = 0; i < 20; ++i) deep = "{a: " + deep + "}";
  CHECK(refusal(deep).find("nested more than 16 deep") != std::string::npos);
  CHECK(refusal(std::string(100000, '[')) != "accepted");
}

TEST_CASE("flags come from the line, then from the file, then from their defaults") {
  Parsed parsed = parse({"work", "--count", "3", "in.txt"}, "group:\n  count: 9\n  lr: 2\necho: off\nword: [a, b]\n");
  CHECK(parsed.ran);
  CHECK(parsed.count == 3);
  CHECK(parsed.rate == 2);
  CHECK_FALSE(parsed.echo);
  CHECK(parsed.words == std::vector<std::string>{"a", "b"});
  CHECK(parsed.file == "in.txt");
  CHECK(parse({"work", "--lr=4"}, "learning_rate: 2\n").rate == 4);
  CHECK(parse({"work", "--word", "x", "--word", "y", "file"}, "word: [a]\n").words ==
        std::vector<std::string>{"x", "y"});
  CHECK_FALSE(parse({"work"}, "no_echo: true\n").echo);
  CHECK(parse({"work"}, "no_echo: false\n").echo);
  CHECK(parse({"work"}, "word: a\n").words == std::vector<std::string>{"a"});
  CHECK(parse({"work", "--word", "--count"}).words == std::vector<std::string>{"--count"});
}

TEST_CASE("wrong usage names what is wrong and the nearest right word") {
  CHECK(complaint({}).starts_with("a command is missing"));
  CHECK(complaint({"wrok"}) == "there is no command \"wrok\" (did you mean \"work\"?)");
  CHECK(complaint({"work", "--cuont", "3"}) == "work has no flag --cuont (did you mean \"--count\"?)");
  CHECK(complaint({"work", "--cuont=3"}) == "work has no flag --cuont (did you mean \"--count\"?)");
  CHECK(complaint({"work", "--count", "x"}) == "work: --count cannot be \"x\"; see longhand work --help");
  CHECK(complaint({"work", "--count", "1.5"}) == "work: --count cannot be \"1.5\"; see longhand work --help");
  CHECK(complaint({"work", "--count"}) == "work: --count needs a value; see longhand work --help");
  CHECK(complaint({"work", "--count", "1", "--count", "2"}) ==
        "work: --count is given more than once; see longhand work --help");
  CHECK(complaint({"work", "a", "b"}) == "work: \"b\" is not expected; see longhand work --help");
  CHECK(complaint({"work"}, "a: 1\ncuont: 2\n").starts_with("build/cli_test.yaml:1: work has no flag for \"a\""));
  CHECK(complaint({"work"}, "cuont: 2\n") ==
        "build/cli_test.yaml:1: work has no flag for \"cuont\" (did you mean \"count\"?)");
  CHECK(complaint({"work"}, "\ncount: x\n") == "build/cli_test.yaml:2: --count cannot be \"x\"");
  CHECK(complaint({"work"}, "echo: 3\n") == "build/cli_test.yaml:1: \"echo\" is true or false");
  CHECK(complaint({"work"}, "count: [1, 2]\n") == "build/cli_test.yaml:1: \"count\" takes one value, not a list");
  CHECK(complaint({"work"}, "lr: 1\nlearning_rate: 2\n") ==
        "build/cli_test.yaml:2: \"learning-rate\" is given under another name before");
  CHECK(complaint({"work"}, "config: other.yaml\n").find("no flag for \"config\"") != std::string::npos);
  CHECK(complaint({"work", "--config", "absent.yaml"}).starts_with("--config: "));
}

TEST_CASE("token ids are read or refused by name") {
  CHECK(parse_ids("1,2 3\n4", 5) == std::vector<int32_t>{1, 2, 3, 4});
  CHECK_THROWS_WITH_AS(parse_ids("1,5", 5), "--ids: token 5 is outside the model's vocabulary of 5", UsageError);
  CHECK_THROWS_AS(parse_ids("1,x", 5), UsageError);
  CHECK_THROWS_AS(parse_ids("-1", 5), UsageError);
}
