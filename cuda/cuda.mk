# The GPU's sources, built for the host: the simt device. Kernels are CUDA's dialect of C++; a host compiler reads them as C++20.
GPU_SRC   := $(filter-out cuda/product_cublaslt.cu,$(wildcard cuda/*.cu))
SIMT_SRC  := $(wildcard cuda/simt/host/*.cpp)
SIMT_FLAGS := -DLONGHAND_GPU=simt_device -fno-strict-aliasing -Wno-unknown-pragmas
SIMT_OBJ  := $(GPU_SRC:%.cu=$(BUILD)/obj/simt/%.o) $(SIMT_SRC:%.cpp=$(BUILD)/obj/simt/%.o) $(BUILD)/obj/simt/cuda/product_host.o

$(BUILD)/obj/simt/%.o: %.cu
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(SIMT_FLAGS) -x c++ -c $< -o $@
$(BUILD)/obj/simt/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(SIMT_FLAGS) -c $< -o $@
