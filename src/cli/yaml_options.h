// Configuration files: YAML whose keys are the names of flags. Nested maps are groups whose names are free, so
// `training: {batch_size: 32}` is --batch-size 32; '-' and '_' are alike.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace longhand::cli {

struct YamlOption {
  std::string flag;                 // without dashes in front, '_' replaced by '-'
  std::vector<std::string> values;  // one, or the entries of a list
  bool list = false;
  int line = 0;  // from 1
};

/// The settings of a text, in their order. `where` names the file in messages. Fails (UsageError, with the line) on
/// text that is no YAML, anchors and aliases, lists of anything but plain values, keys without a value or given twice,
/// more than one document and more than 1 MiB of text. Which flags exist is not known here.
std::vector<YamlOption> read_yaml_options(std::string_view text, std::string_view where);

}  // namespace longhand::cli
