// With SIMT_LAUNCH_LOG=FILE: what every kernel was launched with, how its ldmatrix instructions met the banks, and a
// hash of all that the host got to see, so that runs can be compared bit for bit. The file is written at the program's
// end.
#pragma once
#include "config.h"
#include "launch.h"

namespace simt {

/// Adds a launch to its kernel's line: launches, most threads of a block, most bytes of dynamic shared memory, ldmatrix
/// phases, conflicts, name; tabs between them.
void log_launch(const Launch& launch, const Counters& counted);
/// Adds bytes copied to the host to the hash, which is the first line.
void log_download(const void* bytes, size_t count);
bool launches_are_logged();

}  // namespace simt
