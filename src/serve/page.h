#pragma once

#include <string_view>

namespace longhand::serve {

/// The chat page, one HTML file that needs nothing else.
std::string_view chat_page();

}  // namespace longhand::serve
