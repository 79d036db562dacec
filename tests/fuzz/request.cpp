// Requests of the server: any bytes are read or refused with a 4xx and one line of JSON.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "src/serve/refusal.h"
#include "src/serve/request.h"

using namespace longhand::serve;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    switch (data[0] % 5) {
      case 0:
        parse_text_request(body, false, {});
        break;
      case 1:
        parse_text_request(body, true, {});
        break;
      case 2:
        parse_tokenize_request(body);
        break;
      case 3:
        parse_embedding_request(body, {});
        break;
      default:
        parse_feedback(body);
    }
  } catch (const Refusal& refusal) {
    std::string line = error_body(refusal);
    if (refusal.status != 400 || line.find('\n') != line.size() - 1) std::abort();
    if (!nlohmann::json::accept(line)) std::abort();
  }
  return 0;
}
