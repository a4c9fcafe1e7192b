# make build     the library, target/release/liblkfk.so
# make install   as lkfk.so into INST_LIBDIR, where LuaJIT looks; that file is all there is
# make rock      a source rock for luarocks of what is committed, in target/rock
# make test      all checks and tests; installs the Debian packages they need
# make lint      only what needs no running
# make docs      docs/configuration.md and docs/statistics.md from the code, and the Rust documentation
# make bench     the numbers of the manual, measured here
# make pairs     OLD=DIR NEW=DIR: two builds of lkfk measured in turn, and the ratios of their figures
# make demo      nginx and Kafka with a load, and what became of it; KEEP=1 leaves it up
# make million   1,000,000 messages at 50,000/s, read back and judged
# make outage    a broker away for OUTAGE=60 seconds under load, and what became of every message
# make chaos     everything goes wrong for MINUTES=10, and a judge of what became of every message; the
#                other options are in dev/chaos.sh
# make clusters  two producers in one process, one of their clusters down, and adoption by name
# make matrix    a round trip and a broker's death with each of nine Kafka versions, 0.8.2.2 to 4.4.0
# make debian13  the demo and the specs on a Debian 13 of their own, made by debootstrap; SPECS='spec/log_spec.lua ...'
#                for some of them. Takes root
# make sim       SEEDS=1000000 runs of the producer against a model cluster; SEED=n repeats one and tells
# make sanitize  real nginx with lkfk under valgrind and AddressSanitizer
# make fuzz      each fuzz target for FUZZ_SECONDS
# make clean

FUZZ_SECONDS ?= 60
SEEDS ?= 1000000
INST_LIBDIR ?= /usr/local/lib/lua/5.1
CARGO ?= cargo

LIBRARY := $(or $(CARGO_TARGET_DIR),target)/release/liblkfk.so
SOURCES := $(shell find src lua -type f) $(wildcard Cargo.toml Cargo.lock build.rs)

build: $(LIBRARY)

# Touched, since cargo leaves the file alone when a source changed in date only.
$(LIBRARY): $(SOURCES)
	@CARGO='$(CARGO)' dev/cargo.sh
	$(CARGO) build --release
	@touch $@

# `install` replaces the file and never writes into it: a running nginx keeps the one it has mapped.
install: $(LIBRARY)
	install -d "$(DESTDIR)$(INST_LIBDIR)"
	install -m 755 "$(LIBRARY)" "$(DESTDIR)$(INST_LIBDIR)/lkfk.so"

rock:
	dev/rock.sh

test:
	dev/test.sh

lint:
	dev/install.sh
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	luacheck --quiet lua spec dev examples
	shellcheck dev/*.sh dev/*/*.sh .ci/run
	luarocks lint lkfk-*.rockspec

docs:
	@CARGO='$(CARGO)' dev/cargo.sh
	$(CARGO) run --quiet --no-default-features --example manual
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --document-private-items

bench:
	dev/bench.sh

pairs:
	dev/pairs.sh "$(OLD)" "$(NEW)"

million:
	dev/million.sh

outage:
	dev/outage.sh

chaos:
	dev/chaos.sh

clusters:
	dev/clusters.sh

matrix:
	dev/matrix.sh

debian13:
	dev/debian13.sh $(SPECS)

demo:
	dev/demo.sh

sim:
	@CARGO='$(CARGO)' dev/cargo.sh
	LKFK_SIM_SEEDS=$(SEEDS) LKFK_SIM_SEED=$(SEED) $(CARGO) test --no-default-features --lib \
	  producer::tests::sim::every -- --nocapture

sanitize:
	dev/sanitize.sh

fuzz:
	@CARGO='$(CARGO)' dev/cargo.sh
	$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	set -e; for target in $$($(CARGO) +nightly fuzz list); do \
	  mkdir -p fuzz/corpus/$$target fuzz/seeds/$$target; \
	  $(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target \
	    -- -max_total_time=$(FUZZ_SECONDS); \
	done

clean:
	$(CARGO) clean

.PHONY: build install rock test lint docs bench pairs million outage chaos clusters matrix debian13 demo sim sanitize fuzz clean
