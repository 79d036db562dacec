// Constrained writing: a text that must become one of several.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace longhand {

/// The tokens of every choice as a tree: a node is what has been written so far. Each choice is spelled in one way, as
/// the tokenizer cuts it; that is how the model has seen it, and other ways are not allowed. A choice with which
/// another one begins may be ended by one of `ends`, or gone on with.
class ChoiceTree {
 public:
  /// Fails on a choice of no tokens, and when there is none.
  ChoiceTree(const std::vector<std::vector<int32_t>>& choices, std::span<const int32_t> ends);

  static constexpr int32_t root = 0;
  int32_t child(int32_t node, int32_t token) const;  // -1 = the token may not come there
  int32_t parent(int32_t node) const { return nodes_[node].parent; }
  bool complete(int32_t node) const { return nodes_[node].children.empty(); }  // a choice stands there, nothing follows
  /// Sets the bits (token t: bit t % 64 of word t / 64) of the tokens that may come next.
  void allow(int32_t node, std::span<uint64_t> words) const;

 private:
  struct Node {
    int32_t parent = -1;
    bool end = false;                     // of a choice
    std::map<int32_t, int32_t> children;  // by token
  };
  int32_t grow(int32_t node, int32_t token);

  std::vector<Node> nodes_;
};

}  // namespace longhand
