// Files taken into the program as they stand, with a zero byte after them.
#pragma once

#define LONGHAND_EMBED(symbol, path)                    \
  asm(".section .rodata\n.global " #symbol "\n" #symbol \
      ":\n"                                             \
      ".incbin \"" path "\"\n.byte 0\n.previous\n");    \
  extern "C" const char symbol[];
