#include "symbols.h"

#include <cxxabi.h>
#include <elf.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <vector>

namespace simt {
namespace {

/// What the program's addresses are moved by: 0 unless it is position independent.
uintptr_t load_offset() {
  static const uintptr_t offset = [] {
    uintptr_t found = 0;
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* out) {
          *static_cast<uintptr_t*>(out) = info->dlpi_addr;  // the program itself comes first
          return 1;
        },
        &found);
    return found;
  }();
  return offset;
}

std::map<uintptr_t, std::string> read_functions() {
  std::map<uintptr_t, std::string> functions;
  std::ifstream file("/proc/self/exe", std::ios::binary);
  std::vector<char> image((std::istreambuf_iterator<char>(file)), {});
  if (image.size() < sizeof(Elf64_Ehdr) || std::memcmp(image.data(), ELFMAG, SELFMAG)) return functions;
  auto* header = reinterpret_cast<const Elf64_Ehdr*>(image.data());
  auto* sections = reinterpret_cast<const Elf64_Shdr*>(image.data() + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    auto* symbols = reinterpret_cast<const Elf64_Sym*>(image.data() + sections[i].sh_offset);
    const char* names = image.data() + sections[sections[i].sh_link].sh_offset;
    for (size_t s = 0; s < sections[i].sh_size / sizeof(Elf64_Sym); ++s)
      if (ELF64_ST_TYPE(symbols[s].st_info) == STT_FUNC && symbols[s].st_value)
        functions.emplace(symbols[s].st_value, names + symbols[s].st_name);
  }
  return functions;
}

std::string hexadecimal(uintptr_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%zx", static_cast<size_t>(value));
  return text;
}

}  // namespace

std::string demangle(const std::string& mangled) {
  int status = 0;
  std::unique_ptr<char, void (*)(void*)> name(abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status),
                                              std::free);
  return name ? name.get() : mangled;
}

std::string function_name(const void* address) {
  static const std::map<uintptr_t, std::string> functions = read_functions();
  const uintptr_t at = reinterpret_cast<uintptr_t>(address) - load_offset();
  auto found = functions.find(at);
  return found == functions.end() ? hexadecimal(at) : demangle(found->second);
}

std::string kernel_name(const std::string& demangled) {
  std::string name = demangled;
  for (const char* anonymous : {"(anonymous namespace)", "_GLOBAL__N_", "_INTERNAL_"})
    for (size_t at; (at = name.find(anonymous)) != std::string::npos;) {
      const size_t end = name.find("::", at);
      if (end == std::string::npos) break;
      name.erase(at, end + 2 - at);
    }
  return name;
}

std::string code_place(const void* address) {
  const std::string at = hexadecimal(reinterpret_cast<uintptr_t>(address) - load_offset());
  const std::string command = "addr2line -e /proc/" + std::to_string(getpid()) + "/exe " + at + " 2>/dev/null";
  std::string line;
  if (FILE* pipe = popen(command.c_str(), "r")) {
    char text[512];
    if (std::fgets(text, sizeof text, pipe)) line = text;
    pclose(pipe);
  }
  line.erase(std::min(line.find_last_not_of("\r\n") + 1, line.size()));
  return line.empty() || line[0] == '?' ? "code " + at : line;
}

}  // namespace simt
