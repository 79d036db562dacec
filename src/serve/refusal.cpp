#include "src/serve/refusal.h"

#include <nlohmann/json.hpp>

namespace longhand::serve {

const char* status_name(int status) {
  switch (status) {
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Payload Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 429:
      return "Too Many Requests";
    case 503:
      return "Service Unavailable";
    default:
      return status < 500 ? "Bad Request" : "Internal Server Error";
  }
}

static const char* type_of(int status) {
  if (status == 401) return "authentication_error";
  if (status == 429) return "rate_limit_error";
  if (status == 408) return "timeout_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

std::string error_body(const Refusal& refusal) {
  nlohmann::ordered_json error;
  error["message"] = refusal.what();
  error["type"] = type_of(refusal.status);
  error["param"] = refusal.param.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(refusal.param);
  error["code"] = refusal.status;
  nlohmann::ordered_json body;
  body["error"] = error;
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace longhand::serve
