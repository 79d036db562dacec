#include "longhand/choices.h"

#include "longhand/error.h"

namespace longhand {

ChoiceTree::ChoiceTree(const std::vector<std::vector<int32_t>>& choices, std::span<const int32_t> ends) : nodes_(1) {
  if (choices.empty()) fail("there is no choice to write");
  for (const std::vector<int32_t>& choice : choices) {
    if (choice.empty()) fail("a choice of no tokens cannot be written");
    int32_t node = root;
    for (int32_t token : choice) node = grow(node, token);
    nodes_[node].end = true;
  }
  int32_t count = static_cast<int32_t>(nodes_.size());
  for (int32_t node = 0; node < count; ++node)
    if (nodes_[node].end && !complete(node))
      for (int32_t end : ends) grow(node, end);
}

int32_t ChoiceTree::grow(int32_t node, int32_t token) {
  auto [entry, added] = nodes_[node].children.try_emplace(token, static_cast<int32_t>(nodes_.size()));
  int32_t child = entry->second;
  if (added) nodes_.emplace_back().parent = node;
  return child;
}

int32_t ChoiceTree::child(int32_t node, int32_t token) const {
  auto found = nodes_[node].children.find(token);
  return found == nodes_[node].children.end() ? -1 : found->second;
}

void ChoiceTree::allow(int32_t node, std::span<uint64_t> words) const {
  for (const auto& [token, child] : nodes_[node].children) words[token / 64] |= uint64_t{1} << token % 64;
}

}  // namespace longhand
