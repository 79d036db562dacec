# Tests of what runs the kernels on the host. CUDA's own bf16 header is compared with where it is installed.
SIMT_TEST_SRC := $(filter-out tests/simt/wrong_%,$(wildcard tests/simt/*.cpp tests/simt/*.cu))
SIMT_TEST_OBJ := $(patsubst %,$(BUILD)/obj/simt/%.o,$(basename $(SIMT_TEST_SRC)))
CUDA_HEADERS  := $(firstword $(wildcard $(addsuffix /cuda_bf16.h,/usr/local/cuda/include /usr/include)))
$(BUILD)/obj/simt/tests/simt/numbers_cuda.o: SIMT_FLAGS += $(if $(CUDA_HEADERS),-isystem $(dir $(CUDA_HEADERS)))

$(BUILD)/tests/simt: $(SIMT_TEST_OBJ) $(SIMT_SRC:%.cpp=$(BUILD)/obj/simt/%.o)
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
	$$(CXX) $$(LINK) $(5) $$^ -o $$@
$$(BUILD)/tests/wrong_kernels_$(1): $$(BUILD)/obj/$(1)/tests/simt/wrong_kernels.o $$(SIMT_$(1)_RUNTIME)
	@mkdir -p $$(@D)
	$$(CXX) $$(LINK) $(5) $$^ -o $$@
endef
ADDRESS_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
RACE_SRC := $(wildcard cuda/simt/race/*.cpp)
$(eval $(call simt_variant,address,$$(ADDRESS_FLAGS),-O1 $$(ADDRESS_FLAGS),,$$(ADDRESS_FLAGS)))
$(eval $(call simt_variant,race,-fsanitize=thread -Wno-tsan,-O2,$(RACE_SRC),))
