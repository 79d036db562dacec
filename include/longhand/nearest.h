// The known word nearest to a mistyped one, for error messages.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace longhand {

/// The candidate at the smallest edit distance (insert, delete, replace, swap of neighbours), the first among equals;
/// empty when even that one is further away than half of the word.
std::string nearest(std::string_view word, std::span<const std::string> candidates);

/// " (did you mean \"x\"?)" or nothing: the end of a message about an unknown word.
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

}  // namespace longhand
