# The cuda device, with nvcc: `make cuda`, or CUDA=1 with any target that links the core library. CUDA_ARCHS are the
# architectures to build for ("80 90 120"; those that the toolkit does not know are left out).
NVCC       ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME  ?= $(if $(NVCC),$(abspath $(dir $(realpath $(NVCC)))..))
CUDA_ARCHS ?= 80 90 120
CUDA       ?=

NVCC_KNOWN = $(shell $(NVCC) --list-gpu-arch 2>/dev/null)
NVCC_ARCHS = $(foreach a,$(CUDA_ARCHS),$(if $(filter compute_$(a),$(NVCC_KNOWN)),-gencode arch=compute_$(a)$(comma)code=sm_$(a)))
# fmt takes nvcc for a compiler without constexpr functions.
NVCC_FLAGS = -std=c++20 -O3 -lineinfo -Iinclude -I. $(if $(wildcard staged),-isystem staged/include) -DLONGHAND_GPU=cuda_device -DFMT_USE_CONSTEXPR=1 -MMD -MP -Xcompiler -Wall

NVCC_SRC := $(GPU_SRC) cuda/product_cublaslt.cu
NVCC_OBJ := $(NVCC_SRC:%.cu=$(BUILD)/obj/cuda/%.o)

$(BUILD)/obj/cuda/%.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) $(NVCC_ARCHS) -c $< -o $@

# The registry knows the cuda device in a build that has it; a change of CUDA builds it again.
$(BUILD)/obj/src/device/registry.o: FLAGS += $(if $(CUDA),-DLONGHAND_CUDA)
$(BUILD)/obj/src/device/registry.o: $(BUILD)/obj/cuda.setting
$(BUILD)/obj/cuda.setting: always
	@mkdir -p $(@D)
	@echo "cuda: $(CUDA)" | cmp -s - $@ || echo "cuda: $(CUDA)" >$@
.PHONY: always need-nvcc cuda cuda-objects kernels profile

CUDA_OBJ  := $(if $(CUDA),$(NVCC_OBJ))
CUDA_LIBS := $(if $(CUDA),-L$(CUDA_HOME)/lib64 -Wl$(comma)-rpath$(comma)$(CUDA_HOME)/lib64 -lcublasLt -lcudart_static -ldl -lrt)

need-nvcc:
	@if [ -z "$(NVCC)" ]; then \
	  echo "make cuda: nvcc is neither on the PATH nor in /usr/local/cuda/bin. Install NVIDIA's cuda-toolkit packages" \
	       "(12.4 or newer), or PyPI's nvidia-cuda-nvcc, and give its place: make cuda NVCC=/path/to/nvcc" >&2; exit 1; fi

WITH_CUDA = $(MAKE) --no-print-directory CUDA=1 $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))

cuda: need-nvcc  ## build the program with the cuda device (needs the CUDA toolkit, 12.4 or newer)
	+@$(WITH_CUDA) all

cuda-objects: need-nvcc $(NVCC_OBJ)

kernels: need-nvcc  ## the kernels' tests and benchmarks alone (nvcc, fmt, doctest)
	+@$(WITH_CUDA) $(BUILD)/tests/ops $(BUILD)/tests/simt $(BUILD)/bench/ops $(BUILD)/bench/progression
	@scripts/check_core_includes.sh

profile: cuda  ## where a training step's time goes on a card (nsys timeline, ncu table)
	@scripts/profile.sh
