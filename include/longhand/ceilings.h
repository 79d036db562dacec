// What a processor or a card can do at most, measured: the denominators of "% of the speed of light".
#pragma once

#include <memory>
#include <string>

namespace longhand {

/// Over `threads` threads together: fused multiply-adds on fp32 and bf16 products (fp32's rate where the processor has
/// no bf16 dot product), in operations a second, two a multiply-add; bytes a second read from main memory.
struct Ceilings {
  double fma_fp32 = 0, dot_bf16 = 0, read_bytes = 0;
  int threads = 0;
  std::string processor;
};

/// Main memory as it is at this moment. Where a machine is shared its speed changes within seconds, even from one
/// process to the next, so what is to be held against it wants passes right beside it.
class ReadProbe {
 public:
  explicit ReadProbe(int threads);  // 0 = every core; takes half a gigabyte
  ~ReadProbe();
  /// Bytes a second that all threads together read in one pass, about a hundredth of a second.
  double pass();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Measures for about a second. threads = 0: every core.
Ceilings measure_ceilings(int threads);

/// The same, kept in $XDG_CACHE_HOME/longhand/ceilings.txt (~/.cache/longhand/ceilings.txt) for each processor and
/// number of threads. A cache that cannot be read is measured anew; one that cannot be written does no harm.
Ceilings cached_ceilings(int threads);

}  // namespace longhand
