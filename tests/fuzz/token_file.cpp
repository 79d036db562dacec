// The reader of token files: plain ids, or a safetensors file with streams and documents.
#include "longhand/data.h"
#include "longhand/error.h"
#include "tests/fuzz/memory_file.h"

namespace {

void walk(const longhand::TokenStream& stream) {
  for (int64_t i = 0; i < stream.size(); ++i)
    if (stream.at(i) < 0) std::abort();
  for (int64_t d = 0; d < stream.documents.elements(); ++d) {
    int64_t start = stream.documents.as<const int64_t>()[d];
    if (start < 0 || start >= stream.size()) std::abort();
  }
}

void read(const longhand::fuzz::MemoryFile& memory) {
  try {
    longhand::TokenFile file(memory.path());
    walk(file.train());
    for (const auto& stream : file.validation()) walk(stream);
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
