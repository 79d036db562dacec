#include "tests/ops/arrays.h"

#include <cmath>
#include <cstring>
#include <numbers>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, bytes) ((void)(start), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(start, bytes) ((void)(start), (void)(bytes))
#endif

namespace longhand::ops {
namespace {

constexpr int64_t guard = 128;
constexpr char poison = '\xff';  // NaN in every float type

template <class T>
void put(char* to, double x) {
  T value = static_cast<T>(x);
  std::memcpy(to, &value, sizeof(T));
}
template <class T>
double get(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return static_cast<double>(value);
}

void encode(Dtype type, double x, char* to) {
  switch (type) {
    case Dtype::fp32:
      return put<float>(to, x);
    case Dtype::bf16: {
      bf16 value(static_cast<float>(x));
      std::memcpy(to, &value, 2);
      return;
    }
    case Dtype::fp16:
      return put<_Float16>(to, x);
    case Dtype::i32:
      return put<int32_t>(to, x);
    case Dtype::i64:
      return put<int64_t>(to, x);
    case Dtype::u8:
      return put<uint8_t>(to, x);
    case Dtype::i8:
      return put<int8_t>(to, x);
    default:
      fail("the operation table holds no arrays of {}", dtype_name(type));
  }
}

double decode(Dtype type, const char* from) {
  switch (type) {
    case Dtype::fp32:
      return get<float>(from);
    case Dtype::bf16: {
      bf16 value;
      std::memcpy(&value, from, 2);
      return static_cast<float>(value);
    }
    case Dtype::fp16:
      return get<_Float16>(from);
    case Dtype::i32:
      return get<int32_t>(from);
    case Dtype::i64:
      return static_cast<double>(get<int64_t>(from));
    case Dtype::u8:
      return get<uint8_t>(from);
    case Dtype::i8:
      return get<int8_t>(from);
    default:
      fail("the operation table holds no arrays of {}", dtype_name(type));
  }
}

/// How the elements of an array lie in its image: after the guard, rows of `inner` elements, `step` apart.
struct Layout {
  int64_t width, inner, step, rows, bytes;

  explicit Layout(const Array& a) : width(dtype_bytes(a.type)), inner(1), rows(1) {
    for (int axis = 0; axis < a.shape.rank; ++axis)
      (axis < a.shape.rank - a.row_axes ? rows : inner) *= a.shape.size[axis];
    step = inner + a.padding;
    bytes = rows * step * width;
  }
  int64_t at(int64_t element) const { return guard + ((inner ? element / inner * step + element % inner : 0) * width); }
};

std::vector<char> make_image(const Array& a) {
  Layout layout(a);
  std::vector<char> image(layout.bytes + 2 * guard, poison);
  if (a.role == Role::output) return image;
  for (int64_t e = 0; e < a.elements(); ++e) {
    if (a.type == Dtype::u64)
      std::memcpy(image.data() + layout.at(e), &a.words[e], 8);
    else
      encode(a.type, a.value[e], image.data() + layout.at(e));
  }
  return image;
}

}  // namespace

std::string Sizes::text() const {
  std::string text;
  for (auto& [key, value] : list_) text += fmt::format("{}{}={}", text.empty() ? "" : " ", key, value);
  return text;
}

bool is_float(Dtype type) {
  return type == Dtype::fp32 || type == Dtype::bf16 || type == Dtype::fp16 || type == Dtype::fp64;
}

double round_to(Dtype type, double x) {
  if (type == Dtype::fp32) return static_cast<float>(x);
  if (type == Dtype::fp16) return static_cast<double>(static_cast<_Float16>(x));
  if (type != Dtype::bf16 || !std::isfinite(x) || x == 0) return type == Dtype::bf16 && std::isnan(x) ? NAN : x;
  // One rounding, from double to 8 significant bits, ties to even.
  int exponent;
  double fraction = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(fraction, 8)), exponent - 8);
}

Array& Array::round() {
  if (is_float(type))
    for (double& x : value) x = round_to(type, x);
  return *this;
}

const Array& Arrays::operator[](const std::string& name) const {
  static const Array none;
  auto found = all.find(name);
  return found == all.end() ? none : found->second;
}

Array& Arrays::at(const std::string& name) {
  auto found = all.find(name);
  if (found == all.end()) fail("the case has no array {}", name);
  return found->second;
}

double Random::normal() {
  double radius = std::sqrt(-2 * std::log(uniform())), angle = 2 * std::numbers::pi * uniform();
  return radius * std::cos(angle);
}

Dropout Case::dropout(RandomUse use) const {
  if (!sizes["dropout"]) return {};
  return {.rate = 0.25f, .stream = {.seed = 7, .step = 3, .use = use, .layer = 2}};
}

Array& Case::make(const std::string& name, Shape shape, Dtype of, Role role) {
  Array& array = all[name];
  array = {};
  array.shape = shape, array.role = role;
  array.type = type == Dtype::fp64 && is_float(of) ? Dtype::fp64 : of;
  if (of == Dtype::u64)
    array.words.resize(shape.elements());
  else
    array.value.resize(shape.elements());
  return array;
}

Fp64::Fp64(const Case& c, bool plain, const Arrays* device) : type_(c.type), plain_(plain), device_(device) {
  for (auto& [name, array] : c.all)
    if (array.role != Role::input) all[name] = array;
}

const Array& Fp64::device(const std::string& name) const {
  static const Array none;
  return device_ ? (*device_)[name] : none;
}

Bound::~Bound() {
  for (auto& [name, piece] : pieces_) {
    watch(piece, false);
    device_.release(piece.memory);
  }
}

Tensor Bound::operator[](const std::string& name) {
  const Array& array = case_[name];
  if (array.empty()) return {};
  if (!array.alias.empty()) return (*this)[array.alias];
  if (auto found = pieces_.find(name); found != pieces_.end()) return found->second.tensor;
  Piece piece;
  piece.image = make_image(array);
  int64_t bytes = static_cast<int64_t>(piece.image.size());
  piece.memory = static_cast<char*>(device_.allocate(bytes));
  upload(piece);
  Layout layout(array);
  char* start = piece.memory + guard;
  piece.tensor =
      layout.step == layout.inner
          ? Tensor(start, array.type, array.shape)
          : Tensor(start, array.type, {layout.rows, layout.step}).slice(1, 0, layout.inner).reshape(array.shape);
  return pieces_.emplace(name, std::move(piece)).first->second.tensor;
}

void Bound::reset() {
  for (auto& [name, piece] : pieces_) upload(piece);
}

/// Under the address sanitizer the guards of an array in host memory may not even be read.
void Bound::watch(const Piece& piece, bool on) const {
  int64_t bytes = static_cast<int64_t>(piece.image.size());
  if (device_.name() == "cuda") return;
  ASAN_UNPOISON_MEMORY_REGION(piece.memory, bytes);
  if (on) ASAN_POISON_MEMORY_REGION(piece.memory, guard);
  if (on) ASAN_POISON_MEMORY_REGION(piece.memory + bytes - guard, guard);
}

void Bound::upload(const Piece& piece) {
  watch(piece, false);
  device_.upload(Tensor(piece.memory, Dtype::u8, {static_cast<int64_t>(piece.image.size())}), piece.image.data());
  watch(piece, true);
}

std::vector<char> Bound::download(const Piece& piece) const {
  std::vector<char> now(piece.image.size());
  watch(piece, false);
  device_.download(now.data(), Tensor(piece.memory, Dtype::u8, {static_cast<int64_t>(now.size())}));
  watch(piece, true);
  return now;
}

Arrays Bound::results() const {
  Arrays results;
  for (auto& [name, array] : case_.all) {
    auto found = pieces_.find(array.alias.empty() ? name : array.alias);
    if (array.role == Role::input || found == pieces_.end()) continue;
    std::vector<char> now = download(found->second);
    Array& result = results.all[name] = array;
    Layout layout(array);
    for (int64_t e = 0; e < array.elements(); ++e) {
      if (array.type == Dtype::u64)
        std::memcpy(&result.words[e], now.data() + layout.at(e), 8);
      else
        result.value[e] = decode(array.type, now.data() + layout.at(e));
    }
  }
  return results;
}

std::vector<std::string> Bound::damage() const {
  std::vector<std::string> damage;
  std::map<std::string, bool> written;
  for (auto& [name, array] : case_.all) {
    if (array.role == Role::input) continue;
    std::string where = array.alias.empty() ? name : array.alias;
    written[where] = true;
    if (!pieces_.count(where)) damage.push_back(name + " was never given to the device");
  }
  for (auto& [name, piece] : pieces_) {
    const Array& array = case_[name];
    std::vector<char> now = download(piece), before = piece.image;
    if (written[name]) {  // then only what lies around the elements must be as before
      Layout layout(array);
      for (int64_t e = 0; e < array.elements(); ++e)
        std::memcpy(before.data() + layout.at(e), now.data() + layout.at(e), layout.width);
    }
    if (now != before)
      damage.push_back(name + (written[name] ? " was written outside its bounds" : " is an input and was written"));
  }
  return damage;
}

}  // namespace longhand::ops
