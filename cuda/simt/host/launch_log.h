// With SIMT_LAUNCH_LOG=FILE: what every kernel was launched with, and how its ldmatrix instructions met the banks.
#pragma once
#include "config.h"
#include "launch.h"

namespace simt {

/// Adds a launch to its kernel's line: launches, most threads of a block, most bytes of dynamic shared memory, ldmatrix
/// phases, conflicts, name; tabs between them. The file is written at the program's end.
void log_launch(const Launch& launch, const Counters& counted);
bool launches_are_logged();

}  // namespace simt
