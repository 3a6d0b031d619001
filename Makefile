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
storage_SRC := $(wildcard storage/*.c storage/drivers/*.c)
xapi_SRC    := $(filter-out xapi/core/main.c,$(wildcard xapi/core/*.c xapi/api/*.c xapi/pool/*.c xapi/migrate/*.c xapi/transfer/*.c xapi/cli/*.c))
testlib_SRC := $(wildcard tests/lib/*.c)

LIBS := base wire http idlc db xenops storage xapi testlib
obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
$(foreach l,$(LIBS),$(eval $(l)_OBJ := $(call obj,$($(l)_SRC))))
db_OBJ   += $(BUILD)/obj/gen/model_tables.o
xapi_OBJ += $(BUILD)/obj/gen/api_table.o
lib = $(patsubst %,$(BUILD)/lib/lib%.a,$(1))

EXT_base := -lcrypto
EXT_wire := $(shell xmlrpc-c-config --libs 2>/dev/null) -lcjson
EXT_http := -lssl -lcrypto
EXT_db   := -lsqlite3
EXT_xapi := -lpam -lcrypt -lzstd -lxxhash

# --- programs ---------------------------------------------------------------------------------------
PROGRAMS := xapi xapi-ctl xapi-guest idlc
xapi_MAIN := xapi/core/main.c
xapi_LIBS := xapi storage xenops db http wire base
xapi-ctl_MAIN := $(wildcard xapi/ctl/*.c)
xapi-ctl_LIBS := http wire db base
xapi-guest_MAIN := $(wildcard xenops/sim/guest/*.c)
xapi-guest_LIBS := base
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
below_storage := storage base
below_xapi := xapi storage xenops db http wire base
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

.PHONY: help clean where
help: ## print this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
clean: ## remove everything built
	rm -rf build build-*
where: ## where M=Class.message stands: its declaration and its code
	@c=$${M%%.*}; m=$${M#*.}; grep -n "^message $$m\b" db/model/$$c.idl | sed "s|^|db/model/$$c.idl:|"; \
	 grep -rn "api_$${c}_$$m(" xapi --include=*.c | head -n 1
