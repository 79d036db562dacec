// The parts of reading a help page that its readers share.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace longhand {

/// Calls on(id, HTML inside) for every paragraph with an id, as parse_help_page names them.
void each_help_paragraph(std::string_view html,
                         const std::function<void(std::string_view id, std::string_view inside)>& on);

/// The text of a piece of HTML: tags stripped, entities decoded, runs of blanks folded to one space.
std::string help_text(std::string_view html);

}  // namespace longhand
