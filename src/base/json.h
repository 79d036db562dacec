// JSON from outside. A value is printed, copied and compared by recursion, a stack frame a level: text that nests deeper
// than any file or request has reason to is treated as no JSON at all.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace longhand {

constexpr int deepest_json = 64;  // levels

/// The value of a text; one that is_discarded() where the text is no JSON or nests deeper than deepest_json.
template <class Json = nlohmann::json>
Json parse_json(std::string_view text) {
  bool deep = false;
  auto shallow = [&](int depth, typename Json::parse_event_t, Json&) { return !(deep = deep || depth > deepest_json); };
  Json json = Json::parse(text, shallow, false);
  if (deep) json = Json(Json::value_t::discarded);
  return json;
}

}  // namespace longhand
