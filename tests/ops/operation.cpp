#include "tests/ops/operation.h"

namespace longhand::ops {

std::vector<Entry> operation_table() {
  std::vector<Entry> table;
#define LONGHAND_ENTER(method, Arguments) table.push_back({#method, method##_row()});
  LONGHAND_OPERATIONS(LONGHAND_ENTER)
#undef LONGHAND_ENTER
  return table;
}

}  // namespace longhand::ops
