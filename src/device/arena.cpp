#include "longhand/arena.h"

#include <algorithm>
#include <utility>

namespace longhand {

Arena::Arena(Arena&& other) noexcept
    : name_(std::move(other.name_)),
      device_(std::exchange(other.device_, nullptr)),
      base_(std::exchange(other.base_, nullptr)),
      used_(std::exchange(other.used_, 0)),
      extent_(std::exchange(other.extent_, 0)) {}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(name_, other.name_);
  std::swap(device_, other.device_);
  std::swap(base_, other.base_);
  std::swap(used_, other.used_);
  std::swap(extent_, other.extent_);
  return *this;
}

Arena::~Arena() {
  if (base_) device_->release(base_);
}

Tensor Arena::take(Dtype type, const Shape& shape) {
  int64_t bytes = (shape.elements() * dtype_bytes(type) + 63) / 64 * 64;
  if (base_ && used_ + bytes > extent_)
    fail("arena {}: {} bytes more than the {} that were planned", name_, used_ + bytes - extent_, extent_);
  Tensor tensor(base_ ? base_ + used_ : nullptr, type, shape);
  used_ += bytes;
  extent_ = std::max(extent_, used_);
  return tensor;
}

void Arena::commit(Device& device) {
  if (base_) fail("arena {} is committed twice", name_);
  device_ = &device;
  base_ = static_cast<char*>(device.allocate(extent_));
  used_ = 0;
}

}  // namespace longhand
