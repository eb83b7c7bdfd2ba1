# Each target works on a fresh clone with nothing but Rust installed, unless its line says more.
CARGO ?= cargo
prefix ?= /usr/local
DESTDIR ?=
# Of `static`: x86_64, aarch64, armv7, riscv64gc or another target of Rust with musl.
TARGET ?= x86_64
# Of `dist`.
TARGETS ?= x86_64 aarch64 armv7 riscv64gc
# The time that everything in a tarball bears: that of the commit.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2> /dev/null || echo 0)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
DIST := target/dist
# Of `fuzz`: for each target; FUZZ_TARGET is the name of one.
FUZZ_SECONDS ?= 60
FUZZ_TARGET ?=

.PHONY: all run test test-clients test-agents test-servers models lint soak crowd million install clean help static dist size \
    bench cost test-static fuzz cost-shapes speed tsan

all:
	$(CARGO) build --locked --release

run: all
	target/release/weir

test:
	$(CARGO) test --locked

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

# Mixed load with faults at random, SOAK_SECONDS long; then 10 000 silent connections for a minute.
SOAK_SECONDS ?= 180
soak:
	SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --locked --test it soak:: -- --nocapture

# Real clients against weir; needs python3 and npm, and installs the clients under target/clients.
test-clients:
	$(CARGO) build --locked
	python3 tests/clients/run.py $(CLIENTS)

# Coding agents against weir; needs node and npm, and installs the agents under target/agents.
test-agents:
	$(CARGO) build --locked
	python3 tests/agents/run.py $(AGENTS)

# Rows of the tables of models that nobody has checked for 90 days; needs python3.
models:
	@$(CARGO) build --quiet --locked
	@python3 tests/clients/models.py old

# Real servers behind weir; needs python3, and installs the servers under target/servers.
test-servers:
	$(CARGO) build --locked
	python3 tests/servers/run.py $(SERVERS)

crowd: all
	WEIR_BIN=$(CURDIR)/target/release/weir \
	$(CARGO) test --locked --test it callers::crowd::ten -- --ignored --nocapture

# A million requests with model names that nobody has; memory and metrics stay as they are.
million: all
	WEIR_BIN=$(CURDIR)/target/release/weir \
	$(CARGO) test --locked --test it million::a_million -- --ignored --nocapture

install: all
	install -D -m 755 target/release/weir $(DESTDIR)$(prefix)/bin/weir

clean:
	$(CARGO) clean

help:
	@echo 'all          build target/release/weir'
	@echo 'run          build it and start it; without a config it is a demo'
	@echo 'test         run all tests'
	@echo 'test-clients run SDKs and tools that people use against it, or only CLIENTS="curl llm";'
	@echo '             needs python3 and npm'
	@echo 'models       print which rows about models were checked more than 90 days ago; needs python3'
	@echo 'test-agents  run coding agents against it, or only AGENTS="codex"; needs node and npm'
	@echo 'test-servers run real servers behind it, or only SERVERS="llama.cpp"; needs python3'
	@echo 'lint         check formatting and clippy'
	@echo 'install      copy it to $$DESTDIR$$prefix/bin ($(prefix)/bin)'
	@echo 'static       build target/static/weir-TARGET, which needs no library; TARGET is $(TARGET) or'
	@echo '             aarch64, armv7, riscv64gc ...; needs musl-gcc, or python3 with pip for zig'
	@echo 'dist         pack static builds of $(TARGETS) into $(DIST), with checksums'
	@echo 'test-static  test the static build: the suite, an empty read-only root, its size, and'
	@echo '             aarch64 under qemu-aarch64-static'
	@echo 'size         show what the binary is made of, by crate; needs nm'
	@echo 'bench        measure weir beside nginx and the direct call; needs python3 and gwbench'
	@echo 'cost         count instructions of a request and a chunk, beside those of the last time'
	@echo 'soak         mixed load with faults for $(SOAK_SECONDS) s; at the end everything is accounted for'
	@echo 'crowd        ten thousand idle connections beside fifty streams'
	@echo 'million      a million requests for models that nobody has; metrics stay bounded'
	@echo 'fuzz         fuzz requests, answers, schemas and configs for $(FUZZ_SECONDS) s each'
	@echo 'tsan         look for data races with ThreadSanitizer; needs the component rust-src'
	@echo 'cost-shapes  measure work and memory by the shape of a body'
	@echo 'speed        measure the translation of events and requests'
	@echo 'clean        remove target'

static:
	CARGO='$(CARGO)' tests/static/build.sh $(TARGET)

# The names, times, owners and order in a tarball and the compression say nothing about the machine
# it was made on: whoever builds the same commit with the same compiler gets the same bytes.
dist:
	rm -rf $(DIST)
	for target in $(TARGETS); do \
	    CARGO='$(CARGO)' tests/static/build.sh $$target || exit 1; \
	    name=weir-$(VERSION)-$$target-linux-musl; \
	    mkdir -p $(DIST)/$$name; \
	    install -m 755 target/static/weir-$${target%%-*} $(DIST)/$$name/weir || exit 1; \
	    for text in README.md LICENSE; do \
	        if [ -e $$text ]; then install -m 644 $$text $(DIST)/$$name || exit 1; fi; \
	    done; \
	    if [ -d src/manual ]; then \
	        install -d $(DIST)/$$name/manual && \
	        install -m 644 src/manual/*.md $(DIST)/$$name/manual || exit 1; \
	    fi; \
	    tar --sort=name --mtime=@$(SOURCE_DATE_EPOCH) --owner=0 --group=0 --numeric-owner \
	        --format=ustar -C $(DIST) -cf $(DIST)/$$name.tar $$name || exit 1; \
	    gzip -n -9 $(DIST)/$$name.tar || exit 1; \
	    rm -r $(DIST)/$$name; \
	done
	cd $(DIST) && sha256sum *.tar.gz > SHA256SUMS && cat SHA256SUMS

# The same build with its symbols left in; what goes into it is not changed by that.
size:
	CARGO_PROFILE_RELEASE_STRIP=none $(CARGO) build --locked --release --target-dir target/size
	@nm --size-sort -S -C target/size/release/weir | awk -f tests/static/size.awk | sort -rn
	@ls -l target/size/release/weir | awk '{ print $$5, "bytes with symbols" }'
	@strip -o target/size/weir target/size/release/weir
	@ls -l target/size/weir | awk '{ print $$5, "bytes without" }'

# Its own profile: fast, with the checks of a debug build. An input may not take gigabytes.
fuzz:
	ulimit -v 6000000 2> /dev/null; FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test --locked \
	    --profile fuzz --bin weir -- --ignored --nocapture fuzz::$(FUZZ_TARGET)

# Work and memory of every shape of body, at two lengths.
cost-shapes:
	@$(CARGO) test --locked --profile fuzz --bin weir -- --ignored --nocapture --exact cost::table

# The release build itself, so that the figures are those of what is shipped.
speed:
	@$(CARGO) test --locked --release --bin weir -- --ignored --nocapture --exact speed::table

# Instructions and switches of a request, which are the same on a busy machine; needs valgrind.
cost: all
	python3 tests/bench/cost.py

bench: all
	CARGO='$(CARGO)' python3 tests/bench/bench.py

# Data races, by ThreadSanitizer: the unit tests of rooms with threads, then the program under some others. It
# wants a standard library built the same way: rustup component add rust-src.
TSAN := $(CURDIR)/target/tsan
TSAN_TARGET ?= x86_64-unknown-linux-gnu
TSAN_TESTS ?= first_mile leases:: streams:: hangup:: heartbeats:: callers::pipelining::pipelined
TSAN_UNITS ?= pool:: watch:: stream:: crew cancel:: server:: limits:: sockets::
TSAN_CARGO = RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=thread $(CARGO)
TSAN_FLAGS = --locked -Z build-std --target $(TSAN_TARGET) --target-dir $(TSAN) --bin weir
tsan:
	rm -rf $(TSAN)/races
	mkdir -p $(TSAN)/races
	TSAN_OPTIONS=log_path=$(TSAN)/races/unit $(TSAN_CARGO) test $(TSAN_FLAGS) -- $(TSAN_UNITS)
	$(TSAN_CARGO) build $(TSAN_FLAGS)
	printf '#!/bin/sh\nTSAN_OPTIONS=log_path=%s exec %s "$$@"\n' $(TSAN)/races/it \
	    $(TSAN)/$(TSAN_TARGET)/debug/weir > $(TSAN)/weir
	chmod +x $(TSAN)/weir
	WEIR_BIN=$(TSAN)/weir $(CARGO) test --locked --test it -- $(TSAN_TESTS)
	@cat $(TSAN)/races/* 2> /dev/null && exit 1 || echo 'no data races'

test-static:
	CARGO='$(CARGO)' tests/static/test.sh
