// Starting a kernel: when its turn on the stream has come, its blocks are spread over the threads of the host.
#pragma once
#include <cstddef>
#include <memory>
#include <tuple>
#include <utility>

#include "runtime_api.h"
#include "streams.h"
#include "vector_types.h"

namespace simt {

/// A launch with its kernel's type forgotten.
struct Launch {
  const void* kernel;  // its address, which has a name (symbols.h)
  dim3 grid, block;
  size_t shared;                  // dynamic, bytes
  void (*call)(const Launch&);    // one thread's run of the kernel
  const void* const* parameters;  // the addresses of the arguments, a null pointer after the last
};

/// Runs every block, or hands the launch to the interceptor.
cudaError_t start(const Launch& launch);
/// Runs every block.
cudaError_t run_grid(const Launch& launch);

/// What a test puts in a launch's way; null in ordinary programs.
extern cudaError_t (*launch_interceptor)(const Launch&);

template <class... Parameters, class... Arguments>
inline cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                          Arguments&&... arguments) {
  struct Call : Launch {
    void (*function)(Parameters...);
    std::tuple<Parameters...> values;
  };
  auto call_one = [](const Launch& launch) {
    auto& call = static_cast<const Call&>(launch);
    std::apply(call.function, call.values);
  };
  const void* address = reinterpret_cast<const void*>(kernel);
  auto call = std::make_shared<Call>(
      Call{{address, grid, block, shared, call_one, nullptr},
           kernel,
           std::tuple<Parameters...>(static_cast<Parameters>(std::forward<Arguments>(arguments))...)});
  return put(stream, {address, [call] {
                        return std::apply(
                            [&](auto&... values) {
                              const void* const addresses[] = {static_cast<const void*>(&values)..., nullptr};
                              call->parameters = addresses;
                              return start(*call);
                            },
                            call->values);
                      }});
}

}  // namespace simt
