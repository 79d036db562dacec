// What a case of the operation table is made of: named arrays in double, each with the type it has on the device.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/device.h"

namespace longhand::ops {

/// A shape to try: named sizes and switches; a name that is not there reads as 0. {{"rows", 5}, {"D", 33}}
class Sizes {
 public:
  Sizes(std::initializer_list<std::pair<const char*, int64_t>> list) : list_(list.begin(), list.end()) {}
  int64_t operator[](std::string_view name) const {
    for (auto& [key, value] : list_)
      if (key == name) return value;
    return 0;
  }
  std::string text() const;  // "rows=5 D=33"

 private:
  std::vector<std::pair<std::string, int64_t>> list_;
};

/// input: only read. output: only written, and poisoned with NaN before. update: read and written.
enum class Role { input, output, update };

/// `value` holds what the device's array holds, in double; bit masks (u64) stand in `words`.
struct Array {
  Shape shape;
  Dtype type = Dtype::fp32;
  Role role = Role::input;
  std::string alias;    // lies in the memory of this other array
  int64_t padding = 0;  // unused elements between rows (of `row_axes` last axes): the device sees a strided tensor
  int row_axes = 1;
  std::vector<double> value;
  std::vector<uint64_t> words;

  bool empty() const { return shape.rank == 0; }
  int64_t size(int axis) const { return shape[axis]; }
  int64_t elements() const { return shape.elements(); }
  template <class... Index>
  double& operator()(Index... index) {
    return value[offset(index...)];
  }
  template <class... Index>
  double operator()(Index... index) const {
    return value[offset(index...)];
  }
  /// Bit j of the word row at the leading indices.
  template <class... Index>
  bool bit(int64_t j, Index... leading) const {
    return words[offset(leading..., j / 64)] >> (j % 64) & 1;
  }
  template <class... Index>
  void set_bit(int64_t j, Index... leading) {
    words[offset(leading..., j / 64)] |= uint64_t{1} << (j % 64);
  }
  /// Rounds every value to `type`.
  Array& round();

 private:
  template <class... Index>
  int64_t offset(Index... index) const {
    int64_t at = 0;
    int axis = 0;
    ((at = at * shape.size[axis++] + static_cast<int64_t>(index)), ...);
    return at;
  }
};

/// x as the type holds it.
double round_to(Dtype type, double x);
bool is_float(Dtype type);

/// Arrays by name; one that is not there reads as empty.
class Arrays {
 public:
  const Array& operator[](const std::string& name) const;
  Array& at(const std::string& name);
  bool has(const std::string& name) const { return all.count(name) > 0; }
  std::map<std::string, Array> all;
};

/// A reproducible source of inputs.
class Random {
 public:
  explicit Random(uint64_t seed, uint32_t layer) { stream_.seed = seed, stream_.layer = layer; }
  double uniform() { return (stream_.bits(next_++) + 0.5) * 0x1p-32; }
  double normal();
  int64_t below(int64_t n) { return static_cast<int64_t>(uniform() * static_cast<double>(n)); }

 private:
  RandomStream stream_;
  uint64_t next_ = 0;
};

/// One shape in one type with its inputs. Type fp64 is for finite differences: every float array is then fp64, and no
/// device sees the case.
class Case : public Arrays {
 public:
  Case(Sizes sizes, Dtype type) : sizes(std::move(sizes)), type(type) {}

  template <class Draw>
  Array& input(const std::string& name, Shape shape, Draw draw, Dtype of) {
    return fill(make(name, shape, of, Role::input), draw);
  }
  template <class Draw>
  Array& input(const std::string& name, Shape shape, Draw draw) {
    return input(name, shape, draw, type);
  }
  template <class Draw>
  Array& update(const std::string& name, Shape shape, Draw draw, Dtype of) {
    return fill(make(name, shape, of, Role::update), draw);
  }
  template <class Draw>
  Array& update(const std::string& name, Shape shape, Draw draw) {
    return update(name, shape, draw, type);
  }
  Array& output(const std::string& name, Shape shape, Dtype of) { return make(name, shape, of, Role::output); }
  Array& output(const std::string& name, Shape shape) { return output(name, shape, type); }

  int64_t operator()(std::string_view size) const { return sizes[size]; }
  /// Dropout of 1 in 4 where the case has the switch "dropout".
  Dropout dropout(RandomUse use) const;

  Sizes sizes;
  Dtype type;
  bool timing = false;  // the inputs serve for timing alone: what is costly to derive may be left at 0

 private:
  Array& make(const std::string& name, Shape shape, Dtype of, Role role);
  template <class Draw>
  Array& fill(Array& array, Draw draw) {
    for (double& x : array.value) x = draw();
    return array.round();
  }
};

/// Where a reference writes its results: every output and update of the case, the updates with their first contents.
/// `plain` evaluates the same formula as a plain implementation in the case's type would: what such an implementation
/// stores between its steps is passed through store().
class Fp64 : public Arrays {
 public:
  Fp64(const Case& c, bool plain, const Arrays* device);
  double store(double x) const { return plain_ ? round_to(type_, x) : x; }
  /// A result of the device itself, for what a reference takes as given (a selection, a drawn token); empty when the
  /// reference runs without a device.
  const Array& device(const std::string& name) const;
  /// The error of an array is measured against its norm or this one, whichever is larger: the size of the terms where
  /// they cancel.
  void scale(const std::string& name, double norm) { scales[name] = norm; }
  /// The row's own check() judges this array, not its distance.
  void judged_by_row(const std::string& name) { judged.insert(name); }

  std::map<std::string, double> scales;
  std::set<std::string> judged;

 private:
  Dtype type_;
  bool plain_;
  const Arrays* device_;
};

/// The arrays of a case on a device, each uploaded when it is first asked for. Before and after every array lie guard
/// bytes that nobody may write.
class Bound {
 public:
  Bound(Device& device, const Case& c) : device_(device), case_(c) {}
  ~Bound();
  Bound(const Bound&) = delete;
  Bound& operator=(const Bound&) = delete;

  Tensor operator[](const std::string& name);
  void reset();            // everything as it was uploaded
  Arrays results() const;  // outputs and updates
  /// Arrays that were written outside their bounds or though they are inputs, and outputs that were never asked for.
  std::vector<std::string> damage() const;

 private:
  struct Piece {
    char* memory;
    std::vector<char> image;
    Tensor tensor;
  };
  void upload(const Piece& piece);
  std::vector<char> download(const Piece& piece) const;
  void watch(const Piece& piece, bool on) const;

  Device& device_;
  const Case& case_;
  std::map<std::string, Piece> pieces_;
};

}  // namespace longhand::ops
