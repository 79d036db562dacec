#include "src/data/instructions/shots.h"

#include <algorithm>

#include "longhand/random.h"
#include "longhand/safetensors.h"

namespace longhand {

void Shots::add(const InstructionExample& example) {
  if (count_ > 0 && !example.answer.empty()) by_task_[example.task].push_back(example);
}

static bool related(const InstructionExample& a, const InstructionExample& b) {
  if (a.path == b.path && a.line == b.line) return true;
  return a.source.empty() ? a.fields == b.fields : a.source == b.source;
}

std::vector<const InstructionExample*> Shots::before(const InstructionExample& example) const {
  std::vector<const InstructionExample*> chosen;
  auto found = by_task_.find(example.task);
  if (found == by_task_.end() || example.answer.empty()) return chosen;
  const std::vector<InstructionExample>& pool = found->second;
  std::string place = fmt::format("{}:{}", example.path, example.line);
  uint32_t hash = crc32c(place.data(), static_cast<int64_t>(place.size()), static_cast<uint32_t>(seed_));
  auto tries = static_cast<uint32_t>(8 * count_ + 32);
  for (uint32_t i = 0; i < tries && static_cast<int64_t>(chosen.size()) < count_; ++i) {
    const InstructionExample* other = &pool[philox(seed_, hash, i, 1, 0).word[0] % pool.size()];
    if (!related(*other, example) && std::find(chosen.begin(), chosen.end(), other) == chosen.end())
      chosen.push_back(other);
  }
  return chosen;
}

}  // namespace longhand
