// The reader of safetensors files: refuses with one line, or serves every tensor inside the file's bounds.
#include "longhand/safetensors.h"

#include "longhand/error.h"
#include "tests/fuzz/memory_file.h"

namespace {

void read(const longhand::fuzz::MemoryFile& memory) {
  try {
    longhand::SafetensorsFile file(memory.path());
    uint32_t touched = 0;
    for (const std::string& name : file.names()) {
      longhand::ConstTensor tensor = file.tensor(name);
      int64_t elements = 1;
      for (int64_t size : file.full_shape(name)) elements *= size;
      if (elements != tensor.elements()) std::abort();
      touched ^= longhand::crc32c(tensor.data(), tensor.bytes());
    }
    static volatile uint32_t sink;
    sink = touched;
    file.verify();
  } catch (const longhand::Error& error) {
    longhand::fuzz::check_message(error.what());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  read({input, size});
  read(longhand::fuzz::MemoryFile(longhand::fuzz::safetensors_of_parts(input, size)));
  return 0;
}
