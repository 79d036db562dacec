# Fuzz targets for the readers of files from outside, with libFuzzer: `make fuzz SECONDS=20` runs each for 20 seconds.
# Needs clang++ and its run-time library (Debian: clang, libclang-rt-14-dev).
FUZZ_CXX ?= clang++
SECONDS  ?= 20
FUZZ_FLAGS := -std=c++20 -Iinclude -I. -O1 -g -MMD -MP \
              -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -pthread
FUZZERS := $(patsubst tests/fuzz/%.cpp,%,$(wildcard tests/fuzz/*.cpp))

FUZZ_SRC := $(wildcard src/base/*.cpp)
FUZZ_SRC_instructions := src/data/instructions/read.cpp src/data/instructions/check.cpp src/text/utf8.cpp src/text/words.cpp
FUZZ_LIBS_instructions := -licuuc -licui18n
FUZZ_SRC_token_file := src/data/token_file.cpp
FUZZ_SRC_yaml := src/cli/yaml_options.cpp
FUZZ_SRC_request := src/serve/request.cpp src/serve/refusal.cpp
FUZZ_LIBS_yaml := -lyaml-cpp

# Options that a target needs beyond the common ones.
FUZZ_RUN := -rss_limit_mb=1024 -timeout=10 -max_len=4096 -print_final_stats=0 -verbosity=0

.PHONY: fuzz
fuzz: $(FUZZERS:%=$(BUILD)/fuzz/%)  ## the fuzz targets of tests/fuzz, SECONDS each
	@for target in $(FUZZERS); do \
	  mkdir -p $(BUILD)/fuzz/found/$$target; \
	  dictionary=tests/fuzz/$$target.dict; [ -e $$dictionary ] && dictionary=-dict=$$dictionary || dictionary=; \
	  $(BUILD)/fuzz/$$target $(FUZZ_RUN) -max_total_time=$(SECONDS) $$dictionary \
	    -artifact_prefix=$(BUILD)/fuzz/$$target- $(BUILD)/fuzz/found/$$target tests/fuzz/seeds/$$target \
	    && echo "ok fuzz $$target" || { echo "not ok fuzz $$target"; exit 1; }; \
	done

fuzz_object = $(1:%.cpp=$(BUILD)/fuzz/obj/%.o)
$(BUILD)/fuzz/obj/%.o: %.cpp
	@mkdir -p $(@D)
	$(FUZZ_CXX) $(FUZZ_FLAGS) -c $< -o $@

define fuzz_rule
$(BUILD)/fuzz/$(1): $(call fuzz_object,tests/fuzz/$(1).cpp $(FUZZ_SRC) $(FUZZ_SRC_$(1)))
	$$(FUZZ_CXX) $$(FUZZ_FLAGS) $$^ $$(FUZZ_LIBS_$(1)) -o $$@
endef
$(foreach target,$(FUZZERS),$(eval $(call fuzz_rule,$(target))))

-include $(shell find $(BUILD)/fuzz -name '*.d' 2>/dev/null)
