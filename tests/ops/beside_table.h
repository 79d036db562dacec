// What devices do with kernels that no operation has.
#pragma once

#include "tests/ops/check.h"

namespace longhand::ops {

/// Copies between views that leave gaps, and the ceilings, which are above 0. A case each.
void check_beside_table(Device& device, Report& report);

}  // namespace longhand::ops
