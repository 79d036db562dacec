// A request that is not served: the HTTP status and the words of the answer.
#pragma once

#include <stdexcept>
#include <string>

namespace longhand::serve {

struct Refusal : std::runtime_error {
  Refusal(int status, const std::string& message, std::string param = {})
      : std::runtime_error(message), status(status), param(std::move(param)) {}

  int status;         // 400, 401, 404, 408, 409, 413, 415, 429, 500, 503
  std::string param;  // the request's field that is at fault, where it is one
};

const char* status_name(int status);  // "Not Found"

/// {"error":{"message":…,"type":…,"param":…,"code":…}} on one line, as OpenAI's clients expect it.
std::string error_body(const Refusal& refusal);

}  // namespace longhand::serve
