// Streams on the host: each is a queue of work that runs in order. What a stream holds runs when it is put there (now,
// the default), or not before something waits for it (late): a download, an event, a synchronisation, and then no more
// than that needs. Work on two streams that no event orders then runs in the worst order that a card may choose.
//
// While a stream is recorded its work goes into a graph instead, arguments and all, and runs when that is launched.
#pragma once
#include <functional>

#include "runtime_api.h"

namespace simt {

struct Work {
  const void* kind;  // of a kernel its address: graphs of the same kinds have the same shape
  std::function<cudaError_t()> run;
};

/// Null is the stream of those who have none: its work runs at once, whatever other streams hold.
cudaError_t put(cudaStream_t stream, Work work);
bool a_stream_is_recorded();
/// What every stream holds, but those that are recorded; the first error.
cudaError_t run_everything();

}  // namespace simt
