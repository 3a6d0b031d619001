# One non-recursive Makefile. 'make help' lists the targets.
#
# Objects go to $(BUILD) (build/, or build-<sanitizers>/ under SAN=). Sources are found by folder: a
# new .c file in a known folder is built without touching this file.

SAN ?=
CC ?= gcc
BUILD ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(filter clang%,$(notdir $(CC))),-clang)
comma := ,
V ?=
Q := $(if $(V),,@)
JOBS := $(shell nproc)

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
	-Wswitch-enum -Wvla -Wformat=2 -Wundef -Wpointer-arith -Wwrite-strings -Wno-unused-parameter
WERROR ?= -Werror
OPT ?= -O2
CFLAGS_ALL := -std=c11 -D_GNU_SOURCE $(OPT) -g $(WARN) $(WERROR) -fno-common -fstack-protector-strong \
	-fno-omit-frame-pointer -pthread -I. -I$(BUILD) \
	$(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -DSANITIZED=1,-D_FORTIFY_SOURCE=2) $(CFLAGS)
LDFLAGS_ALL := -pthread $(if $(SAN),-fsanitize=$(SAN)) -rdynamic $(LDFLAGS)

# --- libraries: one archive a folder group, in the order of design §3 -------------------------------
base_SRC    := $(wildcard rpc/base/*.c)
wire_SRC    := $(wildcard rpc/wire/*.c)
http_SRC    := $(wildcard rpc/http/*.c)
idlc_SRC    := $(filter-out db/idlc/main.c,$(wildcard db/idlc/*.c))
db_SRC      := $(wildcard db/*.c)
xenops_SRC  := $(wildcard xenops/*.c xenops/sim/*.c xenops/stream/*.c)
nbd_SRC     := $(wildcard rpc/nbd/*.c)
image_SRC   := $(wildcard storage/image/*.c)
tapd_SRC    := $(filter-out storage/tapd/main.c,$(wildcard storage/tapd/*.c))
storage_SRC := $(wildcard storage/*.c storage/drivers/*.c)
xapi_SRC    := $(filter-out xapi/core/main.c,$(wildcard xapi/core/*.c xapi/api/*.c xapi/pool/*.c xapi/metadata/*.c xapi/migrate/*.c xapi/transfer/*.c xapi/cli/*.c))
testlib_SRC := $(wildcard tests/lib/*.c)

LIBS := base wire http nbd idlc db xenops image tapd storage xapi testlib
obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
$(foreach l,$(LIBS),$(eval $(l)_OBJ := $(call obj,$($(l)_SRC))))
db_OBJ   += $(BUILD)/obj/gen/model_tables.o
xapi_OBJ += $(BUILD)/obj/gen/api_table.o
lib = $(patsubst %,$(BUILD)/lib/lib%.a,$(1))

EXT_base := -lcrypto
EXT_wire := $(shell xmlrpc-c-config --libs 2>/dev/null) -lcjson
EXT_http := -lssl -lcrypto
EXT_db   := -lsqlite3
EXT_xenops := -lzstd
EXT_tapd := $(if $(wildcard /usr/include/liburing.h),-luring) -lssl -lcrypto -lxxhash
EXT_storage := -lxxhash
EXT_xapi := -lpam -lcrypt -lzstd -lxxhash

# --- programs ---------------------------------------------------------------------------------------
PROGRAMS := xapi xapi-ctl xapi-guest tapd idlc
xapi_MAIN := xapi/core/main.c
xapi_LIBS := xapi storage tapd image nbd xenops db http wire base
xapi-ctl_MAIN := $(wildcard xapi/ctl/*.c)
xapi-ctl_LIBS := xapi storage tapd image nbd xenops db http wire base
xapi-guest_MAIN := $(wildcard xenops/sim/guest/*.c)
xapi-guest_LIBS := nbd base
tapd_MAIN := storage/tapd/main.c
tapd_LIBS := tapd image nbd base
idlc_MAIN := db/idlc/main.c
idlc_LIBS := idlc base
ext_for = $(foreach l,$(1),$(EXT_$(l))) -lm -ldl

.DEFAULT_GOAL := all
.PHONY: all
all: $(patsubst %,$(BUILD)/%,$(PROGRAMS)) ## build every program into build/

define program
$(BUILD)/$(1): $$(call obj,$$($(1)_MAIN)) $$(call lib,$$($(1)_LIBS))
	@mkdir -p $$(@D)
	@echo "  LINK $$@"
	$$(Q)$$(CC) $$(LDFLAGS_ALL) -o $$@ $$(call obj,$$($(1)_MAIN)) -Wl,--start-group $$(call lib,$$($(1)_LIBS)) -Wl,--end-group $$(call ext_for,$$($(1)_LIBS))
endef
$(foreach p,$(PROGRAMS),$(eval $(call program,$(p))))

define archive
$(BUILD)/lib/lib$(1).a: $$($(1)_OBJ)
	@mkdir -p $$(@D)
	@rm -f $$@
	$$(Q)ar rcs $$@ $$($(1)_OBJ)
endef
$(foreach l,$(LIBS),$(eval $(call archive,$(l))))

# --- generated code ---------------------------------------------------------------------------------
MODEL := $(wildcard db/model/*.idl)
GEN := $(BUILD)/gen/.stamp
$(GEN): $(BUILD)/idlc $(MODEL)
	@mkdir -p $(BUILD)/gen
	$(Q)$(BUILD)/idlc --out $(BUILD)/gen db/model
	@touch $@
$(BUILD)/gen/%.c: $(GEN) ;

# level 0 and the generator itself are built before anything is generated
$(BUILD)/obj/rpc/base/%.o: rpc/base/%.c
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<
$(BUILD)/obj/db/idlc/%.o: db/idlc/%.c
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<
$(BUILD)/obj/gen/%.o: $(BUILD)/gen/%.c $(GEN)
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) $(CFLAGS_ALL) -Wno-overlength-strings -MMD -MP -c -o $@ $<
$(BUILD)/obj/%.o: %.c $(GEN)
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

-include $(shell test -d $(BUILD)/obj && find $(BUILD)/obj -name '*.d')

# --- tests ------------------------------------------------------------------------------------------
# tests/unit/<library>/test_*.c links with that library and what stands below it, nothing above:
# linking proves the layering.
below_base := base
below_wire := wire base
below_http := http base
below_idlc := idlc base
below_db := db base
below_xenops := xenops base
below_nbd := nbd base
below_image := image base
below_tapd := tapd image nbd base
below_storage := storage tapd image nbd base
below_xapi := xapi storage tapd image nbd xenops db http wire base
UNIT_SRC := $(wildcard tests/unit/*/test_*.c)
TREE_SRC := $(wildcard tests/contract/test_*.c tests/component/test_*.c)
UNIT_BIN := $(patsubst tests/%.c,$(BUILD)/tests/%,$(UNIT_SRC))
TREE_BIN := $(patsubst tests/%.c,$(BUILD)/tests/%,$(TREE_SRC))
unit_libs = testlib $(below_$(notdir $(patsubst %/,%,$(dir $(1)))))

define unit_test
$(BUILD)/tests/$(1): $(BUILD)/obj/tests/$(1).o $$(call lib,$$(call unit_libs,$(1)))
	@mkdir -p $$(@D)
	$$(Q)$$(CC) $$(LDFLAGS_ALL) -o $$@ $$< -Wl,--start-group $$(call lib,$$(call unit_libs,$(1))) -Wl,--end-group -lcmocka $$(call ext_for,$$(call unit_libs,$(1)))
endef
$(foreach t,$(patsubst tests/%.c,%,$(UNIT_SRC)),$(eval $(call unit_test,$(t))))
define tree_test
$(BUILD)/tests/$(1): $(BUILD)/obj/tests/$(1).o $$(call lib,testlib $$(below_xapi))
	@mkdir -p $$(@D)
	$$(Q)$$(CC) $$(LDFLAGS_ALL) -o $$@ $$< -Wl,--start-group $$(call lib,testlib $$(below_xapi)) -Wl,--end-group -lcmocka $$(call ext_for,$$(below_xapi))
endef
$(foreach t,$(patsubst tests/%.c,%,$(TREE_SRC)),$(eval $(call tree_test,$(t))))

SYSTEM_TESTS := $(wildcard tests/system/test_*.py tests/system/test_*.sh)
LONG_TESTS := $(wildcard tests/long/test_*.py)
RUNNER := BUILD=$(BUILD) python3 tests/runner.py --log-dir $(BUILD)/test-logs

.PHONY: sweep sweep-disk sweep-migrate check check-unit check-system check-long check-one tests lint golden deps deps-test san ci
deps:
	@etc/install-deps build
deps-test:
	@etc/install-deps test
tests: $(UNIT_BIN) $(TREE_BIN)
check: deps-test ## install what is missing, build, and run every test that needs no Xen
	@$(MAKE) --no-print-directory -j$(JOBS) all tests
	@$(MAKE) --no-print-directory lint golden
	@$(RUNNER) --jobs $(JOBS) $(UNIT_BIN) $(TREE_BIN) $(SYSTEM_TESTS)
check-unit: all tests ## unit, contract and component tests only
	@$(RUNNER) --jobs $(JOBS) $(UNIT_BIN) $(TREE_BIN)
check-system: all ## the tests that run whole daemons
	@$(RUNNER) --jobs $(JOBS) $(SYSTEM_TESTS)
check-one: all ## one test: T=unit/base/test_value, T=component/test_vm or T=system/test_login.py
	@case "$(T)" in *.py) BUILD=$(BUILD) python3 tests/$(T);; \
	 *) $(MAKE) --no-print-directory $(BUILD)/tests/$(T) && $(if $(SAN),setarch -R) $(BUILD)/tests/$(T);; esac
check-long: deps-test ## everything under both sanitizers, and each fuzz target for 60 s
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory SAN=address,undefined -j$(JOBS) all tests
	@$(MAKE) --no-print-directory SAN=address,undefined check-unit check-system
	@$(MAKE) --no-print-directory SAN=thread -j$(JOBS) all tests
	@$(MAKE) --no-print-directory SAN=thread check-unit check-system
	@$(if $(LONG_TESTS),$(RUNNER) --timeout 3600 $(LONG_TESTS),true)
	@$(MAKE) --no-print-directory fuzz-all SECONDS=60
sweep: sweep-disk sweep-migrate ## every fault at every step of what is done with a disk, and of a migration: an hour
sweep-disk: all ## the disks' part of it: minutes; WORDS="move/ xapi" picks cells
	@BUILD=$(BUILD) python3 tests/sweep/disk_sweep.py $(WORDS)
sweep-migrate: all ## the migrations' part of it; WORDS="pool-to-pool kill-source" picks cells
	@BUILD=$(BUILD) python3 tests/sweep/migrate_sweep.py $(WORDS)
lint: $(GEN) ## layers, headers alone, banned calls, sizes
	@BUILD=$(BUILD) tests/lint/run
golden: $(BUILD)/idlc ## the API as declared against tests/golden/api.txt
	@$(BUILD)/idlc --dump db/model | diff -u tests/golden/api.txt - || \
	 { echo "the API changed: if that is meant, run: $(BUILD)/idlc --dump db/model > tests/golden/api.txt"; exit 1; }
todo: $(BUILD)/idlc ## messages without code, by class
	@$(BUILD)/idlc --todo db/model
docs: $(BUILD)/idlc ## the API reference, into build/api.md
	@$(BUILD)/idlc --doc db/model > $(BUILD)/api.md && echo $(BUILD)/api.md

# --- fuzzing: libFuzzer with clang, or the corpus replayed with any compiler -------------------------
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,%,$(FUZZ_SRC))
SECONDS ?= 60
MAKEFLAGS += --no-builtin-rules
.PRECIOUS: $(BUILD)/gen/%.c
FUZZ_LIBS := xapi storage tapd image nbd xenops idlc db http wire base
define fuzzer
build-fuzz/fuzz_$(1): tests/fuzz/fuzz_$(1).c fuzz-libs
	@echo "  FUZZ $$@"
	@clang $$(filter-out -Werror,$$(CFLAGS_ALL)) -Ibuild-fuzz -fsanitize=fuzzer,address,undefined -o $$@ $$< -Wl,--start-group $$(addprefix build-fuzz/lib/,$$(patsubst %,lib%.a,$$(FUZZ_LIBS))) -Wl,--end-group $$(call ext_for,$$(FUZZ_LIBS))
endef
.PHONY: fuzz-libs
fuzz-libs:
	@$(MAKE) --no-print-directory CC=clang BUILD=build-fuzz SAN=address,undefined CFLAGS="-fsanitize=fuzzer-no-link $(CFLAGS)" OPT=-O1 -j$(JOBS) $(addprefix build-fuzz/lib/,$(patsubst %,lib%.a,$(FUZZ_LIBS)))
$(foreach f,$(FUZZERS),$(eval $(call fuzzer,$(f))))
.PHONY: fuzz fuzz-all fuzz-corpora
fuzz: deps-test ## fuzz one parser: T=xmlrpc SECONDS=60
	@$(MAKE) --no-print-directory build-fuzz/fuzz_$(T)
	@mkdir -p build-fuzz/new-$(T) && cd build-fuzz && ./fuzz_$(T) -max_total_time=$(SECONDS) -rss_limit_mb=3000 -timeout=20 -print_final_stats=0 -verbosity=0 new-$(T) ../tests/fuzz/corpus/$(T)
	@echo "fuzz_$(T): clean"
fuzz-all:
	@set -e; for t in $(FUZZERS); do $(MAKE) --no-print-directory fuzz T=$$t SECONDS=$(SECONDS); done
fuzz-corpora: $(patsubst %,build-fuzz/fuzz_%,$(FUZZERS)) ## replay the corpora once
	@set -e; cd build-fuzz; for t in $(FUZZERS); do ./fuzz_$$t -runs=0 -verbosity=0 ../tests/fuzz/corpus/$$t 2>fuzz_$$t.log || { cat fuzz_$$t.log; exit 1; }; echo "fuzz_$$t: corpus clean"; done

# --- running it ---------------------------------------------------------------------------------------
.PHONY: demo run bench bench-disk bench-mem analyze coverage todo docs install
HOSTS ?= 3
DIR ?= /tmp/xapi-pool
demo: deps-demo ## three hosts, live migrations, a verified table; FAULT=flip-page|stale-page, ISOLATED=1
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@BUILD=$(BUILD) FAULT=$(FAULT) ISOLATED=$(ISOLATED) python3 tests/demo/demo.py
.PHONY: deps-demo
deps-demo:
	@etc/install-deps demo
run: all ## a simulated pool in the foreground: HOSTS=3 DIR=/tmp/xapi-pool
	@BUILD=$(BUILD) exec python3 tests/demo/run.py --hosts $(HOSTS) --dir $(DIR)
bench: deps-test ## the speed table, ratios against peers
	@etc/install-deps bench
	@$(MAKE) --no-print-directory -j$(JOBS) all $(BENCH_BIN)
	@BUILD=$(BUILD) python3 tests/bench/bench.py
bench-disk: deps-test ## the speed table of the datapath: copies and mirrors against peers
	@etc/install-deps bench
	@$(MAKE) --no-print-directory -j$(JOBS) $(BUILD)/tapd $(BUILD)/tests/bench/bench_mkdisk $(BUILD)/tests/bench/bench_clone
	@BUILD=$(BUILD) python3 tests/bench/bench_disk.py
bench-mem: deps-test ## the speed table of live migration: streams and blackouts against QEMU, stunnel and a bare copy
	@etc/install-deps bench
	@$(MAKE) --no-print-directory -j$(JOBS) all $(BUILD)/tests/bench/bench_memory $(BUILD)/tests/bench/bench_heartbeat
	@BUILD=$(BUILD) python3 tests/bench/bench_mem.py

BENCH_SRC := $(wildcard tests/bench/bench_*.c)
BENCH_BIN := $(patsubst tests/%.c,$(BUILD)/tests/%,$(BENCH_SRC))
define bench_program
$(BUILD)/tests/$(1): $(BUILD)/obj/tests/$(1).o $$(call lib,$$(below_xapi))
	@mkdir -p $$(@D)
	$$(Q)$$(CC) $$(LDFLAGS_ALL) -o $$@ $$< -Wl,--start-group $$(call lib,$$(below_xapi)) -Wl,--end-group $$(call ext_for,$$(below_xapi))
endef
$(foreach t,$(patsubst tests/%.c,%,$(BENCH_SRC)),$(eval $(call bench_program,$(t))))

ALL_SRC = $(foreach l,$(filter-out testlib,$(LIBS)),$($(l)_SRC)) $(tapd_MAIN) $(xapi_MAIN) $(xapi-ctl_MAIN) $(xapi-guest_MAIN)
analyze: $(GEN) ## clang thread-safety warnings and clang-tidy over the tree
	@$(MAKE) --no-print-directory CC=clang CFLAGS=-Wthread-safety -j$(JOBS) all
	@clang-tidy --quiet $(ALL_SRC) -- -std=c11 -D_GNU_SOURCE -I. -I$(BUILD)
coverage: ## line coverage of the unit and component tests, into build-coverage/
	@$(MAKE) --no-print-directory BUILD=build-coverage OPT=-O0 CFLAGS=--coverage LDFLAGS=--coverage check-unit
	@find build-coverage/obj -name '*.gcda' | xargs gcov -n 2>/dev/null | awk '/^File/{f=$$2} /^Lines executed/{split($$2,a,":"); print a[2], $$4, f}' | sort -n | tail -n 400
install: all ## install into DESTDIR
	install -D -m 755 -t $(DESTDIR)/usr/sbin $(BUILD)/xapi
	install -D -m 755 -t $(DESTDIR)/usr/bin $(BUILD)/xapi-ctl
	install -D -m 755 -t $(DESTDIR)/usr/sbin $(BUILD)/xapi-guest
	install -D -m 755 -t $(DESTDIR)/usr/sbin $(BUILD)/tapd
	install -D -m 644 etc/xapi.conf $(DESTDIR)/etc/xapi.conf
	install -D -m 644 etc/pam.d-xapi $(DESTDIR)/etc/pam.d/xapi
	install -D -m 644 etc/xapi.service $(DESTDIR)/usr/lib/systemd/system/xapi.service

.PHONY: help clean where
help: ## print this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
clean: ## remove everything built
	rm -rf build build-*
where: ## where M=Class.message stands: its declaration and its code
	@c=$${M%%.*}; m=$${M#*.}; grep -n "^message $$m\b" db/model/$$c.idl | sed "s|^|db/model/$$c.idl:|"; \
	 grep -rn "api_$${c}_$$m(" xapi --include=*.c | head -n 1
