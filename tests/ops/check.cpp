#include "tests/ops/check.h"

#include <cmath>
#include <cstring>

namespace longhand::ops {
namespace {

double distance(const Array& a, const Array& b) {
  double sum = 0;
  for (size_t e = 0; e < a.value.size(); ++e) {
    double x = a.value[e], y = b.value[e];
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    sum += std::isfinite(x) && std::isfinite(y) ? (x - y) * (x - y) : INFINITY;
  }
  return std::sqrt(sum);
}

double norm(const Array& a) {
  double sum = 0;
  for (double x : a.value)
    if (std::isfinite(x)) sum += x * x;
  return std::sqrt(sum);
}

double size_of(const Fp64& f, const std::string& name) {
  double size = norm(f[name]);
  auto floor = f.scales.find(name);
  return floor == f.scales.end() ? size : std::max(size, floor->second);
}

bool same_bits(const Array& a, const Array& b) {
  return a.words == b.words &&
         (a.value.empty() || std::memcmp(a.value.data(), b.value.data(), a.value.size() * sizeof(double)) == 0);
}

}  // namespace

void Report::complain(const std::string& what, double error, double limit) {
  bad_ = true;
  fmt::print("{}: {}: error {:.3g}, limit {:.3g}\n", label_, what, error, limit);
}

void Report::finish() {
  if (open_) ++(bad_ ? failed : passed);
  open_ = false;
}

Case make_case(const Operation& row, const Sizes& sizes, Dtype type, uint64_t seed, uint32_t place) {
  Case c(sizes, type);
  Random random(seed, place);
  row.inputs(c, random);
  return c;
}

void compare(const Operation& row, const Case& c, const Arrays& result, const Complaint& complain, Fp64& exact,
             Fp64* plain) {
  for (auto& [name, reference] : exact.all) {
    const Array& got = result[name];
    if (got.empty() || got.type == Dtype::u64 || exact.judged.count(name)) continue;
    if (row.exact() || !is_float(got.type)) {
      int64_t wrong = 0;
      for (int64_t e = 0; e < got.elements(); ++e) wrong += got.value[e] != round_to(got.type, reference.value[e]);
      if (wrong) complain(name + " differs in elements", static_cast<double>(wrong), 0);
      continue;
    }
    double size = size_of(exact, name), limit = row.limit();
    if (plain) {
      (*plain).at(name).round();
      limit = std::max(limit, size > 0 ? 2 * distance((*plain)[name], reference) / size : 0);
    } else if (got.type == Dtype::bf16 && c.type == Dtype::fp32) {
      limit = std::max(limit, 0x1p-8);
    }
    double error = distance(got, reference) / (size > 0 ? size : 1);
    if (!(error <= limit)) complain(name, error, limit);
  }
}

Arrays check_on_device(const Operation& row, const Case& c, Device& device, const Complaint& complain) {
  Bound d(device, c);
  row.run(device, c, d);
  Arrays result = d.results();
  for (const std::string& line : d.damage()) complain(line, 1, 0);

  d.reset();
  row.run(device, c, d);
  Arrays again = d.results();
  for (auto& [name, array] : result.all)
    if (!same_bits(array, again[name]))
      complain(name + " of a second run has other bits", distance(array, again[name]), 0);

  Fp64 exact(c, false, &result);
  row.reference(c, exact);
  bool low = c.type == Dtype::bf16;
  Fp64 plain(c, true, &result);
  if (low) row.reference(c, plain);
  compare(row, c, result, complain, exact, low ? &plain : nullptr);
  row.check(c, result, exact, complain);
  d.reset();
  row.check_runs(device, c, d, complain);
  return result;
}

void check_agreement(const Operation& row, const Case& c, const Arrays& a, const Arrays& b, const Complaint& complain) {
  if (!row.comparable(c)) return;
  Fp64 exact(c, false, &a), plain(c, true, &a);
  row.reference(c, exact);
  if (c.type == Dtype::bf16) row.reference(c, plain);
  for (auto& [name, array] : a.all) {
    if (!is_float(array.type) || exact.judged.count(name)) continue;
    double size = size_of(exact, name);
    size = size > 0 ? size : 1;
    double limit = 2 * row.limit();
    if (c.type == Dtype::bf16) limit = std::max(limit, 4 * distance(plain.at(name).round(), exact[name]) / size);
    double error = distance(array, b[name]) / size;
    if (!(error <= limit)) complain(name + " between the devices", error, limit);
  }
}

void check_gradients(const Operation& row, Case c, Random& random, const Complaint& complain) {
  for (auto& [name, array] : c.all)
    if (array.role == Role::update && array.alias.empty()) array.value.assign(array.value.size(), 0);
  Fp64 analytic(c, false, nullptr);
  row.reference(c, analytic);
  for (const auto& [input, gradient] : row.gradients(c)) {
    const Array& g = analytic[gradient];
    Array& x = c.at(input);
    const std::vector<double> at = x.value;
    double noise = 1e-4 * std::max(1.0, std::abs(row.objective(c)));  // its rounding, where the gradient is 0
    double size = norm(g) / std::sqrt(std::max<double>(1, static_cast<double>(g.elements())));
    for (int trial = 0; trial < 5; ++trial) {
      std::vector<double> direction(at.size(), 0);
      if (trial < 2)
        for (double& e : direction) e = random.normal();
      else
        direction[random.below(static_cast<int64_t>(at.size()))] = 1;
      auto along = [&](double step) {
        for (size_t e = 0; e < at.size(); ++e) x.value[e] = at[e] + step * direction[e];
        return row.objective(c);
      };
      const double h = 3e-4;  // fourth order: the error is about h^4
      double difference = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h);
      double expected = 0, length = 0;
      for (size_t e = 0; e < at.size(); ++e) expected += g.value[e] * direction[e], length += std::abs(direction[e]);
      double error = std::abs(difference - expected) / (std::abs(expected) + size * std::sqrt(length) + noise);
      if (!(error <= 1e-6)) complain("d objective / d " + input + " against " + gradient, error, 1e-6);
    }
    x.value = at;
  }
}

}  // namespace longhand::ops
