// Names of functions by their address, read from the program's own symbol table, so that local functions have one too.
#pragma once
#include <string>

namespace simt {

/// The demangled name of the function that starts at `address`, or its number in hexadecimal when it has none.
std::string function_name(const void* address);
/// The function and line of an address inside it, as addr2line knows it; else its place in the program.
std::string code_place(const void* address);
/// A kernel's name without what the compilers call an anonymous namespace, the same for g++ and nvcc.
std::string kernel_name(const std::string& demangled);
std::string demangle(const std::string& mangled);

}  // namespace simt
