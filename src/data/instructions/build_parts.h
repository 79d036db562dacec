// What the makers of instruction sets share.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "longhand/instructions.h"
#include "longhand/random.h"

namespace longhand {

/// "German" of "de"; the code itself where it is not known.
std::string language_name(const std::string& code);

/// One line of a file of examples. `input` may be empty: it is left out then.
std::string example_line(const std::string& instruction, const std::string& input, const std::string& output,
                         const std::string& task, const std::string& source);

/// The order that (seed, step) gives to a list.
template <class T>
void shuffle(std::vector<T>& list, uint64_t seed, uint64_t step) {
  RandomStream random{.seed = seed, .step = step, .use = RandomUse::shuffle};
  for (size_t i = list.size(); i-- > 1;)
    std::swap(list[i], list[static_cast<uint64_t>(random.bits(i)) * (i + 1) >> 32]);
}

/// Part `index` of `count` parts, as equal as whole numbers allow.
inline int64_t share_of(int64_t whole, int64_t index, int64_t count) {
  return whole * (index + 1) / count - whole * index / count;
}

/// The makers, each of one task or more; see BuildOptions::task.
std::string build_translations(const BuildOptions& options);
std::string build_spelled(const BuildOptions& options);     // numbers, dates, amounts
std::string build_from_pages(const BuildOptions& options);  // terms, cloze
std::string build_labelled(const BuildOptions& options);    // topics, tags

}  // namespace longhand
