# Longhand. `make help` lists what can be made.
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := all

CXX      ?= g++
BUILD    ?= build
OPTIMIZE ?= -O2 -g1
SANITIZE ?=
CXXFLAGS ?=
# Operations are filled with designated initialisers that leave out what is not wanted: no warning for those.
FLAGS := -std=c++20 -Iinclude -I. $(if $(wildcard staged),-isystem staged/include) -Wall -Wextra -Wno-missing-field-initializers -pthread -ffp-contract=off -MMD -MP \
         $(OPTIMIZE) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer) $(CXXFLAGS)
LINK  := -pthread $(if $(SANITIZE),-fsanitize=$(SANITIZE))

# Devices and kernels, with the operation table that tests and times them, need fmt and doctest alone; the core nlohmann-json too:
# all header-only. The rest brings SentencePiece, ICU, yaml-cpp, CLI11, cpp-httplib.
CORE_DIRS := base device device/cpu model data train generate
REST_DIRS := text data/corpus data/instructions evaluate serve cli
CORE_SRC  := $(wildcard $(CORE_DIRS:%=src/%/*.cpp))
REST_SRC  := $(filter-out src/cli/main.cpp,$(wildcard $(REST_DIRS:%=src/%/*.cpp)))
KERNEL_SRC := $(wildcard src/device/cpu/kernels/*.cpp)
REST_LIBS := -lcpp-httplib -lsentencepiece_train -lsentencepiece -lyaml-cpp -licui18n -licuuc -licudata

HTTP_FLAGS := $(shell pkg-config --cflags cpp-httplib 2>/dev/null)

# Every file of kernels is built once for each instruction set and chosen from at run time.
ISAS := generic avx2 avx512
ISA_generic := -march=x86-64
ISA_avx2    := -march=x86-64-v3
ISA_avx512  := -march=x86-64-v4 -mprefer-vector-width=512
KERNEL_FLAGS := $(if $(SANITIZE),-O1,-O3) -ffp-contract=fast -fno-math-errno -fno-trapping-math

object = $(1:%.cpp=$(BUILD)/obj/%.o)
KERNEL_OBJ := $(foreach isa,$(ISAS),$(KERNEL_SRC:%.cpp=$(BUILD)/obj/%.$(isa).o))
include cuda/cuda.mk
comma := ,
include cuda/nvcc.mk

DEVICE_SRC := $(filter-out src/base/safetensors%,$(filter src/base/% src/device/%,$(CORE_SRC)))
DEVICE_OBJ := $(call object,$(DEVICE_SRC)) $(KERNEL_OBJ) $(SIMT_OBJ) $(CUDA_OBJ)
CORE_OBJ := $(call object,$(filter-out $(DEVICE_SRC),$(CORE_SRC)))
REST_OBJ := $(call object,$(REST_SRC))
DEVICE_LIB := $(BUILD)/liblonghand_device.a
CORE_LIB := $(BUILD)/liblonghand_core.a $(DEVICE_LIB)
REST_LIB := $(BUILD)/liblonghand.a

UNIT_CORE_SRC := $(wildcard tests/core/*.cpp)
UNIT_SRC := $(wildcard tests/unit/*.cpp)
OPS_SRC  := $(wildcard tests/ops/*.cpp)
BENCH_SRC := $(wildcard bench/*.cpp)

.PHONY: all core help demo test test-sanitized test-core bench clean packages check format
.PRECIOUS: $(BUILD)/obj/%.o

all: $(BUILD)/longhand  ## build the program, build/longhand

core: $(CORE_LIB)  ## build the core library alone (fmt, doctest, nlohmann-json)

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) cuda/nvcc.mk tests/fuzz/fuzz.mk | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

demo: packages  ## corpus, training, validation, samples and report in a few minutes
	@$(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc)) all
	@scripts/demo.sh

test: packages  ## every test; the last line counts them
	@scripts/run_tests.sh

test-sanitized: packages  ## every test, sanitizer builds and fuzzers too
	@scripts/run_tests.sh sanitized

test-core: $(BUILD)/tests/ops $(BUILD)/tests/core  ## the tests of the core library alone
	$(BUILD)/tests/ops && $(BUILD)/tests/core

bench: $(BUILD)/bench/ops  ## every operation against this machine's ceilings
	$(BUILD)/bench/ops

packages:  ## install the Debian packages that are missing
	@scripts/install_packages.sh

format:  ## clang-format over the sources
	clang-format -i $(shell git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')

clean:  ## remove build/
	rm -rf $(BUILD)

$(BUILD)/obj/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) -c $< -o $@

define kernel_rule
$(BUILD)/obj/src/device/cpu/kernels/%.$(1).o: src/device/cpu/kernels/%.cpp
	@mkdir -p $$(@D)
	$(CXX) $(FLAGS) $(KERNEL_FLAGS) $(ISA_$(1)) -DLONGHAND_ISA=$(1) -c $$< -o $$@
endef
$(foreach isa,$(ISAS),$(eval $(call kernel_rule,$(isa))))

$(BUILD)/obj/src/model/presets.o: $(wildcard weights/presets/*.json)
$(BUILD)/obj/src/data/instructions/template.o: $(wildcard weights/templates/*.txt)
$(BUILD)/obj/src/serve/page.o: src/serve/chat.html

# cpp-httplib is a compiled library: what its header declares depends on the macros that it was built with.
HTTP_OBJ := $(filter $(BUILD)/obj/src/serve/%,$(REST_OBJ)) $(BUILD)/obj/src/cli/serve.o
$(HTTP_OBJ): FLAGS += $(HTTP_FLAGS)

$(DEVICE_LIB): $(DEVICE_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^
$(BUILD)/liblonghand_core.a: $(CORE_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^
$(REST_LIB): $(REST_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/longhand: $(call object,src/cli/main.cpp) $(REST_LIB) $(CORE_LIB)
	$(CXX) $(LINK) $^ $(REST_LIBS) $(CUDA_LIBS) -o $@
$(BUILD)/tests/ops: $(call object,$(OPS_SRC)) $(DEVICE_LIB)
	@mkdir -p $(@D)
	$(CXX) $(LINK) $^ $(CUDA_LIBS) -o $@
$(BUILD)/tests/core: $(call object,$(UNIT_CORE_SRC)) $(CORE_LIB)
	@mkdir -p $(@D)
	$(CXX) $(LINK) $^ $(CUDA_LIBS) -o $@
$(BUILD)/tests/unit: $(call object,$(UNIT_SRC)) $(REST_LIB) $(CORE_LIB)
	@mkdir -p $(@D)
	$(CXX) $(LINK) $^ $(REST_LIBS) $(CUDA_LIBS) -o $@
# bench/ops shares the operation table with tests/ops; other files of bench/ are programs of their own.
$(BUILD)/bench/ops: $(call object,bench/ops.cpp $(filter-out tests/ops/main.cpp,$(OPS_SRC))) $(DEVICE_LIB)
	@mkdir -p $(@D)
	$(CXX) $(LINK) $^ -ldl $(CUDA_LIBS) -o $@
# The steps of docs/KERNELS.md: on the host, or on a card with CUDA=1.
$(BUILD)/bench/progression: $(patsubst %.cu,$(BUILD)/obj/$(if $(CUDA),cuda,simt)/%.o,$(wildcard bench/progression/*.cu)) $(DEVICE_LIB)
	@mkdir -p $(@D)
	$(CXX) $(LINK) $^ $(CUDA_LIBS) -o $@
$(BUILD)/bench/%: $(BUILD)/obj/bench/%.o $(CORE_LIB)
	@mkdir -p $(@D)
	$(CXX) $(LINK) $^ -ldl $(CUDA_LIBS) -o $@

include tests/simt/simt.mk
include tests/fuzz/fuzz.mk

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
