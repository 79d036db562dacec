// Rings of keys and values as cases have them.
#pragma once

#include <string>
#include <vector>

#include "tests/ops/operation.h"

namespace longhand::ops {

/// N queries over S sequences of positions that differ in length; `chunk` queries of one sequence stand together.
void draw_positions(Case& c, Random& random);

/// The size "ring": what the rings are held in; 0 = as the rows.
Dtype ring_type(const Case& c);
/// An array of a ring's type, with scales where it holds integers.
void draw_ring(Case& c, Random& random, const std::string& name, const std::string& scales, Shape shape, bool update);
/// Entry x of row `row` of a ring or table as a number.
double entry_of(const Case& c, const char* name, const char* scales, int64_t row, int64_t x);
/// Minima and maxima over groups of 64 neighbouring rows of `name` [S, count, H, dh]; a group beyond them holds the
/// last.
std::vector<double> extremes(const Case& c, const char* name, const char* scales, int64_t S, int64_t count,
                             int64_t groups);

}  // namespace longhand::ops
