# The GPU's sources, built for the host: the simt device. Kernels are CUDA's dialect of C++; a host compiler reads them as C++20.
GPU_SRC   := $(filter-out cuda/product_cublaslt.cu,$(wildcard cuda/*.cu))
SIMT_SRC  := $(wildcard cuda/simt/host/*.cpp)
SIMT_FLAGS := -DLONGHAND_GPU=simt_device -fno-strict-aliasing -Wno-unknown-pragmas
SIMT_OBJ  := $(GPU_SRC:%.cu=$(BUILD)/obj/simt/%.o) $(SIMT_SRC:%.cpp=$(BUILD)/obj/simt/%.o) $(BUILD)/obj/simt/cuda/product_host.o


$(BUILD)/obj/simt/%.o: %.cu
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(SIMT_FLAGS) $(KERNEL_INSTRUMENT) -x c++ -c $< -o $@
$(BUILD)/obj/simt/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(SIMT_FLAGS) -c $< -o $@

# Tests of what runs the kernels on the host. CUDA's own bf16 header is compared with where it is installed.
SIMT_TEST_SRC := $(filter-out tests/simt/wrong_%,$(wildcard tests/simt/*.cpp tests/simt/*.cu))
SIMT_TEST_OBJ := $(patsubst %,$(BUILD)/obj/simt/%.o,$(basename $(SIMT_TEST_SRC)))
SIMT_RUNTIME  := $(SIMT_SRC:%.cpp=$(BUILD)/obj/simt/%.o)
CUDA_HEADERS  := $(firstword $(wildcard $(addsuffix /cuda_bf16.h,/usr/local/cuda/include /usr/include)))
$(BUILD)/obj/simt/tests/simt/numbers_cuda.o: SIMT_FLAGS += $(if $(CUDA_HEADERS),-isystem $(dir $(CUDA_HEADERS)))

$(BUILD)/tests/simt: $(SIMT_TEST_OBJ) $(SIMT_RUNTIME)
	@mkdir -p $(@D)
	$(CXX) $(LINK) $^ -o $@
