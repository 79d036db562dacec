// SHA-256 (FIPS 180-4): names for what must not be read back out of them.
#pragma once

#include <string>
#include <string_view>

namespace longhand {

/// 64 hexadecimal digits.
std::string sha256(std::string_view bytes);

}  // namespace longhand
