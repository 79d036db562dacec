// The chat page is the file src/serve/chat.html, taken into the program as it stands.
#include "src/serve/page.h"

asm(".section .rodata\n.global longhand_chat_page\nlonghand_chat_page:\n.incbin \"src/serve/chat.html\"\n"
    ".global longhand_chat_page_end\nlonghand_chat_page_end:\n.byte 0\n.previous\n");
extern "C" const char longhand_chat_page[], longhand_chat_page_end[];

namespace longhand::serve {

std::string_view chat_page() {
  return {longhand_chat_page, static_cast<size_t>(longhand_chat_page_end - longhand_chat_page)};
}

}  // namespace longhand::serve
