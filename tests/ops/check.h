// The checks that follow from a row of the operation table.
#pragma once

#include <cstdio>

#include "tests/ops/operation.h"

namespace longhand::ops {

/// Counts cases and prints a line for each thing that is wrong.
class Report {
 public:
  /// Everything complained of until the next begin() belongs to this case.
  void begin(std::string label) { finish(), label_ = std::move(label), open_ = true, bad_ = false; }
  void complain(const std::string& what, double error, double limit);
  void finish();
  int64_t passed = 0, failed = 0;

 private:
  std::string label_;
  bool open_ = false, bad_ = false;
};

/// The case of a row: inputs drawn from (seed, operation's place in the table, shape's place in the row).
Case make_case(const Operation& row, const Sizes& sizes, Dtype type, uint64_t seed, uint32_t place);

/// ||result - reference|| against the limit: row.limit() times the norm, in bf16 at least twice the error of a plain
/// bf16 implementation. Integers and exact rows must be equal.
void compare(const Operation& row, const Case& c, const Arrays& result, const Complaint& complain, Fp64& exact,
             Fp64* plain);

/// One case on one device: closeness, bit equality of a second run, bounds, and the row's own promises. Returns the
/// results.
Arrays check_on_device(const Operation& row, const Case& c, Device& device, const Complaint& complain);

/// Two devices' results of one case, each within its limit of the reference, so within twice the limit of each other.
void check_agreement(const Operation& row, const Case& c, const Arrays& a, const Arrays& b, const Complaint& complain);

/// The backward reference against finite differences of the objective, along random directions and single elements.
void check_gradients(const Operation& row, Case c, Random& random, const Complaint& complain);

}  // namespace longhand::ops
