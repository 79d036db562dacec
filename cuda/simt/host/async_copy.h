// cp.async on the host. A copy lands when it is waited for (late, the default), when it is issued (early) or at one of
// the two by chance; between issue and wait its destination holds NaN.
#pragma once
#include "place.h"

namespace simt {

void copy_async(void* to, const void* from, int bytes, int given, Place place);
void copy_async_commit();
void copy_async_wait(int groups_left);

}  // namespace simt
