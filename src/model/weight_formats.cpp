// How weights are held: their formats, how values get into them, and what a file says about its own.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "longhand/parameters.h"
#include "longhand/threads.h"

namespace longhand {

Shape MatrixFormat::stored(const Shape& shape) const {
  Shape stored = shape;
  if (type == Dtype::u8) stored.size[shape.rank - 1] /= 2;
  return stored;
}

Shape MatrixFormat::scales(const Shape& shape) const {
  if (!integers()) return {};
  return grouped ? Shape{shape[0], shape[1] / 64} : Shape{shape[0]};
}

Matrix Matrix::rows(int64_t first, int64_t count) const {
  if (rank() == 4) {
    int64_t together = size(2);
    if (first % together != 0 || count % together != 0)
      fail("rows [{}, {}) of a matrix that lies interleaved by {}", first, first + count, together);
    int64_t tile = first / together, tiles = count / together;
    Tensor of_scales = scales.rank() > 1 ? scales.rows(tile, tiles) : scales ? scales.rows(first, count) : Tensor();
    return {Tensor::rows(tile, tiles), of_scales, int8_activations};
  }
  return {Tensor::rows(first, count), scales ? scales.rows(first, count) : Tensor(), int8_activations};
}

/// Entries of `bytes` each, those of `rows` successive rows side by side.
static void interleave_rows(Device& device, Tensor& tensor, int64_t rows, int64_t bytes, const Shape& shape) {
  std::vector<char> from(tensor.bytes()), to(tensor.bytes());
  device.download(from.data(), tensor);
  int64_t tile = tensor.bytes() / tensor.size(0) * rows, entries = tile / rows / bytes;
  ThreadPool(device.threads()).parallel_for(tensor.bytes() / tile, [&](int64_t index, int) {
    const char* source = from.data() + index * tile;
    char* target = to.data() + index * tile;
    for (int64_t e = 0; e < entries; ++e)
      for (int64_t r = 0; r < rows; ++r, target += bytes)
        std::memcpy(target, source + (r * entries + e) * bytes, bytes);
  });
  tensor = tensor.reshape(shape);
  device.upload(tensor, to.data());
}

void ParameterSet::interleave(Device& device) {
  visit([&](size_t index, Tensor& place, Matrix* matrix) {
    Tensor &weight = tensors_[index], &scales = scales_[index];
    auto [rows, bytes] = device.interleaving(weight.type(), formats_.type);
    if (!matrix || rows == 0 || weight.rank() != 2 || weight.size(0) % rows != 0) return;
    int64_t tiles = weight.size(0) / rows, run = bytes / dtype_bytes(weight.type());
    if (weight.size(1) * dtype_bytes(weight.type()) % 64 != 0) return;
    interleave_rows(device, weight, rows, bytes, {tiles, weight.size(1) / run, rows, run});
    if (scales.rank() == 2)
      interleave_rows(device, scales, rows, dtype_bytes(scales.type()), {tiles, scales.size(1), rows});
    place = weight, matrix->scales = scales;
  });
}

int ParameterSet::quantize_activations() {
  int count = 0;
  visit([&](size_t, Tensor&, Matrix* matrix) {
    if (!matrix || matrix->type() != Dtype::i8 || matrix->scales.rank() != 1) return;
    matrix->int8_activations = true;
    ++count;
  });
  return count;
}

void store_parameter(Device& device, const ParameterSet& set, size_t index, const std::vector<float>& values) {
  const Tensor &to = set.tensors()[index], &scales = set.scales()[index];
  if (to.rank() == 4) fail("{} lies interleaved: weights are stored before", set.list()[index].name);
  if (to.type() == Dtype::fp32) return device.upload(to, values.data());
  // Some rows at a time: a matrix of the largest models takes a gigabyte in fp32.
  constexpr int64_t elements_at_once = 1 << 24;
  const Shape& shape = set.list()[index].shape;
  int64_t width = shape[shape.rank - 1], rows = shape.elements() / width;
  int64_t at_once = std::clamp<int64_t>(elements_at_once / width, 1, rows);
  Arena staging("staging");
  staging.take(Dtype::fp32, {at_once, width});
  staging.commit(device);
  Tensor wide = staging.take(Dtype::fp32, {at_once, width}), held = to.reshape({rows, to.elements() / rows});
  for (int64_t first = 0; first < rows; first += at_once) {
    int64_t count = std::min(at_once, rows - first);
    Tensor part = wide.rows(0, count);
    device.upload(part, values.data() + first * width);
    if (scales)
      device.quantize({.out = held.rows(first, count), .scales = scales.rows(first, count), .x = part});
    else
      device.cast({.out = held.rows(first, count), .x = part});
  }
  device.synchronize();
}

std::vector<float> read_floats(const SafetensorsFile& file, const std::string& name) {
  ConstTensor from = file.tensor(name);
  std::vector<float> values(from.elements());
  auto device = make_device("cpu", {.threads = 1});
  if (from.type() == Dtype::fp32)
    std::memcpy(values.data(), from.data(), from.bytes());
  else
    device->cast({.out = Tensor(values.data(), Dtype::fp32, from.shape()), .x = from});
  return values;
}

/// The format of a matrix of integers, checked with its scales against the shape [out, in] of the configuration.
static MatrixFormat integer_format(const SafetensorsFile& file, const ParameterInfo& info) {
  ConstTensor integers = file.tensor(info.name);
  std::string name = info.name + ".scales";
  if (!file.has(name)) fail("{}: tensor {} holds integers, and there is no {}", file.path(), info.name, name);
  ConstTensor scales = file.tensor(name);
  MatrixFormat format{integers.type(), scales.rank() == 2};
  if (scales.type() != format.scale_type() || scales.shape() != format.scales(info.shape) ||
      (format.grouped && info.shape[1] % 64 != 0))
    fail("{}: tensor {} is {} {}, which does not fit a matrix {}: fp32 [{}], or fp16 [{}, {} / 64]", file.path(), name,
         dtype_name(scales.type()), scales.shape().text(), info.shape.text(), info.shape[0], info.shape[0],
         info.shape[1]);
  if (integers.shape() != format.stored(info.shape) || (format.type == Dtype::u8 && info.shape[1] % 2 != 0))
    fail("{}: tensor {} is {} {}, the model's configuration needs integers for {}", file.path(), info.name,
         dtype_name(integers.type()), integers.shape().text(), info.shape.text());
  std::vector<float> values = read_floats(file, name);
  for (size_t i = 0; i < values.size(); ++i)
    if (!(values[i] >= 0 && std::isfinite(values[i])))
      fail("{}: tensor {} has {} at {}: a scale is finite and not negative", file.path(), name, values[i], i);
  return format;
}

WeightFormats read_formats(const SafetensorsFile& file, const ModelConfig& config, Dtype type) {
  WeightFormats formats{type, {}};
  bool quantized = file.metadata().contains("longhand.quantization");
  std::vector<ParameterInfo> list = parameter_list(config);
  if (file.has("output.weight")) list.push_back({"output.weight", {config.vocab_size, config.d_model}, true});
  for (const ParameterInfo& info : list) {
    if (!info.matrix || !file.has(info.name)) continue;
    Dtype stored = file.tensor(info.name).type();
    if (stored == Dtype::i8 || stored == Dtype::u8)
      formats.matrices[info.name] = integer_format(file, info);
    else if (stored != Dtype::fp32 && stored != Dtype::bf16 && stored != Dtype::fp16)
      fail("{}: tensor {} is {}: weights are floats, i8 or u8", file.path(), info.name, dtype_name(stored));
    else if (quantized || info.name == "output.weight")
      formats.matrices[info.name] = {stored};
  }
  return formats;
}

}  // namespace longhand
