# Tests of what runs the kernels on the host. CUDA's own bf16 header is compared with where it is installed.
SIMT_TEST_SRC := $(filter-out tests/simt/wrong_%,$(wildcard tests/simt/*.cpp tests/simt/*.cu))
SIMT_TEST_OBJ := $(patsubst %,$(BUILD)/obj/simt/%.o,$(basename $(SIMT_TEST_SRC)))
CUDA_HEADERS  := $(firstword $(wildcard $(addsuffix /cuda_bf16.h,/usr/local/cuda/include /usr/include)))
$(BUILD)/obj/simt/tests/simt/numbers_cuda.o: SIMT_FLAGS += $(if $(CUDA_HEADERS),-isystem $(dir $(CUDA_HEADERS)))

$(BUILD)/tests/simt: $(SIMT_TEST_OBJ) $(SIMT_SRC:%.cpp=$(BUILD)/obj/simt/%.o) $(DEVICE_LIB)
	@mkdir -p $(@D)
	$(CXX) $(LINK) $^ -o $@
$(BUILD)/tests/wrong_kernels: $(BUILD)/obj/simt/tests/simt/wrong_kernels.o $(SIMT_SRC:%.cpp=$(BUILD)/obj/simt/%.o)
	@mkdir -p $(@D)
	$(CXX) $(LINK) $^ -o $@

# The same programs with only kernels, and what runs them, built in another way; the rest comes from the library, whose own
# kernels then stay out. `address` has the address and undefined-behaviour sanitizers. `race` has the calls that
# -fsanitize=thread puts before every access of a kernel, and in libtsan's place cuda/simt/race, which they tell.
define simt_variant  # NAME, flags of kernels, flags of what runs them, its further sources, flags of the link
SIMT_$(1)_RUNTIME := $$(patsubst %.cpp,$$(BUILD)/obj/$(1)/%.o,$$(SIMT_SRC) $(4))
$$(BUILD)/obj/$(1)/%.o: %.cu
	@mkdir -p $$(@D)
	$$(CXX) $$(FLAGS) $$(SIMT_FLAGS) -O1 $(2) -x c++ -c $$< -o $$@
$$(BUILD)/obj/$(1)/%.o: %.cpp
	@mkdir -p $$(@D)
	$$(CXX) $$(FLAGS) $$(SIMT_FLAGS) $(3) -c $$< -o $$@
$$(BUILD)/tests/ops_$(1): $$(call object,$$(OPS_SRC)) $$(GPU_SRC:%.cu=$$(BUILD)/obj/$(1)/%.o) $$(SIMT_$(1)_RUNTIME) $$(CORE_LIB)
	@mkdir -p $$(@D)
	$$(CXX) $$(LINK) $(5) $$^ $$(CUDA_LIBS) -o $$@
$$(BUILD)/tests/wrong_kernels_$(1): $$(BUILD)/obj/$(1)/tests/simt/wrong_kernels.o $$(SIMT_$(1)_RUNTIME)
	@mkdir -p $$(@D)
	$$(CXX) $$(LINK) $(5) $$^ $$(CUDA_LIBS) -o $$@
endef
ADDRESS_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
RACE_SRC := $(wildcard cuda/simt/race/*.cpp)
$(eval $(call simt_variant,address,$$(ADDRESS_FLAGS),-O1 $$(ADDRESS_FLAGS),,$$(ADDRESS_FLAGS)))
$(eval $(call simt_variant,race,-fsanitize=thread -Wno-tsan,-O2,$(RACE_SRC),))

# nvcc's PTX of every kernel, and what ptxas says of it: for the budget as it is compiled for use, for the cross-check
# without fused multiply-adds, which the host's build has not. The namespace is the host's, so that names agree.
PTX_ARCHS ?= 80 90 120
PTX_FLAGS = -std=c++20 -O3 -Iinclude -I. -DLONGHAND_GPU=simt_device -DFMT_USE_CONSTEXPR=1 -MD -MF $@.d -ptx
define ptx_rules  # an architecture's number
.PRECIOUS: $$(BUILD)/ptx/sm_$(1)/%.ptx $$(BUILD)/ptx/plain_$(1)/%.ptx
$$(BUILD)/ptx/sm_$(1)/%.ptx: cuda/%.cu
	@mkdir -p $$(@D)
	$$(NVCC) $$(PTX_FLAGS) -arch=sm_$(1) $$< -o $$@
$$(BUILD)/ptx/sm_$(1)/%.usage: $$(BUILD)/ptx/sm_$(1)/%.ptx
	$$(dir $$(NVCC))ptxas -v -arch=sm_$(1) $$< -o /dev/null 2>$$@ || { cat $$@; rm $$@; false; }
$$(BUILD)/ptx/plain_$(1)/%.ptx: cuda/%.cu
	@mkdir -p $$(@D)
	$$(NVCC) $$(PTX_FLAGS) -arch=sm_$(1) --fmad=false $$< -o $$@
endef
$(foreach arch,$(PTX_ARCHS),$(eval $(call ptx_rules,$(arch))))
-include $(wildcard $(BUILD)/ptx/*/*.d)

PTX_KNOWN = $(filter $(patsubst compute_%,%,$(NVCC_KNOWN)),$(PTX_ARCHS))
.PHONY: kernel-usage
kernel-usage: $(if $(filter kernel-usage,$(MAKECMDGOALS)),$(foreach arch,$(PTX_KNOWN),$(GPU_SRC:cuda/%.cu=$(BUILD)/ptx/sm_$(arch)/%.usage)))

# tests/ops with nvcc's PTX beside every kernel (tests/simt/ptx/compare.cpp): build/tests/ops_ptx_80 and its like; _quick
# has those kernels whose PTX the host's compiler takes in little time.
PTX_QUICK := activation bias embedding optimizer position attention_rows attention_pages attention_topk quantize elementwise
PTX_COMPARE := $(BUILD)/obj/simt/tests/simt/ptx/compare.o $(BUILD)/obj/simt/cuda/simt/host/symbols.o
PTX_TRANSLATOR := $(wildcard scripts/ptx/*.py)
PTX_HOST_FLAGS := -O1 -fno-strict-aliasing -Wno-unused-label
define ptx_program  # an architecture's number
.PRECIOUS: $$(BUILD)/ptx/plain_$(1)/%.cpp
$$(BUILD)/ptx/plain_$(1)/%.cpp: $$(BUILD)/ptx/plain_$(1)/%.ptx scripts/ptx_to_cpp.py $$(PTX_TRANSLATOR)
	python3 scripts/ptx_to_cpp.py $$< $$@
$$(BUILD)/ptx/plain_$(1)/%.o: $$(BUILD)/ptx/plain_$(1)/%.cpp tests/simt/ptx/machine.h
	$$(CXX) $$(FLAGS) $$(PTX_HOST_FLAGS) -c $$< -o $$@
$$(BUILD)/tests/ops_ptx_$(1): $$(call object,$$(OPS_SRC)) $$(PTX_COMPARE) $$(GPU_SRC:cuda/%.cu=$$(BUILD)/ptx/plain_$(1)/%.o) $$(CORE_LIB)
	@mkdir -p $$(@D)
	$$(CXX) $$(LINK) $$^ $$(CUDA_LIBS) -o $$@
$$(BUILD)/tests/ops_ptx_quick_$(1): $$(call object,$$(OPS_SRC)) $$(PTX_COMPARE) $$(PTX_QUICK:%=$$(BUILD)/ptx/plain_$(1)/%.o) $$(CORE_LIB)
	@mkdir -p $$(@D)
	$$(CXX) $$(LINK) $$^ $$(CUDA_LIBS) -o $$@
endef
$(foreach arch,$(PTX_ARCHS),$(eval $(call ptx_program,$(arch))))
