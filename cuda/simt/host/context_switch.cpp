// Assembly on x86-64 and aarch64: a switch costs a few nanoseconds. ucontext elsewhere, or with -DSIMT_UCONTEXT.
#include "context_switch.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

#if !defined(SIMT_UCONTEXT) && defined(__x86_64__)

// The six registers that a call preserves; kernels do not change the floating-point control words. The jump is not a
// return, which the processor's return predictor would always get wrong.
asm(R"(
.text
.p2align 4
.globl simt_switch
.hidden simt_switch
.type simt_switch,@function
simt_switch:
  .cfi_startproc
  popq %rcx
  .cfi_adjust_cfa_offset -8
  .cfi_register %rip,%rcx
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  pushq %rcx
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %rcx
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  jmp *%rcx
  .cfi_endproc
.size simt_switch,.-simt_switch

.p2align 4
.globl simt_entry
.hidden simt_entry
.type simt_entry,@function
simt_entry:
  .cfi_startproc
  .cfi_undefined %rip
  movq %r12,%rdi
  call *%r13
  ud2
  .cfi_endproc
.size simt_entry,.-simt_entry
)");
extern "C" void simt_entry();

void* simt_make_context(char* top, void (*function)(void*), void* argument) {
  auto* word = reinterpret_cast<uint64_t*>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t(15));
  *--word = 0, *--word = 0;  // the end of the chain for unwinders; keeps the stack 16-byte aligned at the call
  *--word = 0, *--word = 0;  // rbp, rbx
  *--word = reinterpret_cast<uint64_t>(argument);  // r12
  *--word = reinterpret_cast<uint64_t>(function);  // r13
  *--word = 0, *--word = 0;                        // r14, r15
  *--word = reinterpret_cast<uint64_t>(&simt_entry);
  return word;
}

#elif !defined(SIMT_UCONTEXT) && defined(__aarch64__)

// x19 to x30 and the lower halves of v8 to v15.
asm(R"(
.text
.p2align 4
.globl simt_switch
.hidden simt_switch
.type simt_switch,%function
simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8,  d9,  [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8,  d9,  [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  br x30
.globl simt_entry
.hidden simt_entry
.type simt_entry,%function
simt_entry:
  mov x0, x19
  blr x20
  brk #1
)");
extern "C" void simt_entry();

void* simt_make_context(char* top, void (*function)(void*), void* argument) {
  auto* saved = reinterpret_cast<uint64_t*>((reinterpret_cast<uintptr_t>(top) & ~uintptr_t(15)) - 160);
  std::memset(saved, 0, 160);
  saved[0] = reinterpret_cast<uint64_t>(argument);      // x19
  saved[1] = reinterpret_cast<uint64_t>(function);      // x20
  saved[11] = reinterpret_cast<uint64_t>(&simt_entry);  // x30
  return saved;
}

#else
#include <ucontext.h>

// What stands for the stack pointer is the address of a ucontext_t: at first at the stack's top, later in the frame of
// the switch that left it.
extern "C" void simt_switch(void** from, void* to) {
  ucontext_t here;
  *from = &here;
  swapcontext(&here, static_cast<ucontext_t*>(to));
}

namespace {

void* join(unsigned high, unsigned low) { return reinterpret_cast<void*>(static_cast<uint64_t>(high) << 32 | low); }

void enter(unsigned function_high, unsigned function_low, unsigned argument_high, unsigned argument_low) {
  reinterpret_cast<void (*)(void*)>(join(function_high, function_low))(join(argument_high, argument_low));
}

}  // namespace

void* simt_make_context(char* top, void (*function)(void*), void* argument) {
  constexpr size_t stack_bytes = 32 * 1024;  // part of the stack that the caller has
  auto* context =
      reinterpret_cast<ucontext_t*>((reinterpret_cast<uintptr_t>(top) - sizeof(ucontext_t)) & ~uintptr_t(63));
  getcontext(context);
  context->uc_link = nullptr;
  context->uc_stack.ss_sp = reinterpret_cast<char*>(context) - stack_bytes;
  context->uc_stack.ss_size = stack_bytes - 128;
  const auto f = reinterpret_cast<uint64_t>(function), a = reinterpret_cast<uint64_t>(argument);
  makecontext(context, reinterpret_cast<void (*)()>(enter), 4, static_cast<unsigned>(f >> 32), static_cast<unsigned>(f),
              static_cast<unsigned>(a >> 32), static_cast<unsigned>(a));
  return context;
}

#endif
