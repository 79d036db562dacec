#pragma once

#include <string>
#include <string_view>

namespace longhand {

/// A word in the form in which words are compared whatever their case (Unicode's case folding).
std::string folded(std::string_view word);

}  // namespace longhand
