// One source, three instruction sets. A file in this folder is compiled with LONGHAND_ISA = generic, avx2 and avx512
// and puts everything into namespace longhand::cpu::<isa>; it hands out its functions in a table. The files here
// include no library header with inline functions beyond <cstdint>, <cstddef> and <cstring>: such a function, compiled
// for AVX-512, could be the copy that the linker keeps for everyone (tests check the objects' symbols).
#pragma once

#define LONGHAND_PASTE2(a, b) a##_##b
#define LONGHAND_PASTE(a, b) LONGHAND_PASTE2(a, b)

/// `extern const T name_generic, name_avx2, name_avx512;` and which of them this processor runs.
#define LONGHAND_DECLARE_KERNELS(T, name)                    \
  extern const T name##_generic, name##_avx2, name##_avx512; \
  inline const T& name() { return *pick_kernels(&name##_generic, &name##_avx2, &name##_avx512); }

/// Defines this build's table: LONGHAND_DEFINE_KERNELS(T, name) = {...};
#define LONGHAND_DEFINE_KERNELS(T, name)             \
  extern const T LONGHAND_PASTE(name, LONGHAND_ISA); \
  const T LONGHAND_PASTE(name, LONGHAND_ISA)

namespace longhand::cpu {

enum class Isa { generic, avx2, avx512 };

/// What this processor runs, or what the environment variable LONGHAND_ISA asks for (for tests).
Isa current_isa();

template <class T>
const T* pick_kernels(const T* generic, const T* avx2, const T* avx512) {
  Isa isa = current_isa();
  return isa == Isa::avx512 ? avx512 : isa == Isa::avx2 ? avx2 : generic;
}

}  // namespace longhand::cpu
