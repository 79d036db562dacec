// The reader of instruction data, and what is said of what it read.
#include "longhand/error.h"
#include "longhand/instructions.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  longhand::fuzz::MemoryFile file(input, size);
  for (bool skip_bad : {false, true}) {
    try {
      longhand::InstructionFile examples = longhand::read_instructions(file.path(), skip_bad);
      for (const std::string& message : examples.bad) longhand::fuzz::check_message(message.c_str());
      for (const longhand::InstructionExample& example : examples.examples)
        if (example.messages.empty() && example.answer.empty()) std::abort();
      longhand::check_instructions(examples, nullptr);
    } catch (const longhand::Error& error) {
      longhand::fuzz::check_message(error.what());
    }
  }
  return 0;
}
