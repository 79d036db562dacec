// The reader of configuration files: refuses with one line, or gives settings with names and values.
#include "src/cli/yaml_options.h"

#include "longhand/error.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  try {
    auto options = longhand::cli::read_yaml_options({reinterpret_cast<const char*>(input), size}, "fuzz.yaml");
    for (const auto& option : options)
      if (option.flag.empty() || option.line < 1 || (!option.list && option.values.size() != 1)) std::abort();
  } catch (const longhand::Error& error) {
    longhand::fuzz::check_message(error.what());
  }
  return 0;
}
