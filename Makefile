# Each target works on a fresh clone with nothing but Rust installed.
CARGO ?= cargo
prefix ?= /usr/local
DESTDIR ?=

.PHONY: all run test lint soak crowd install clean

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

crowd: all
	WEIR_BIN=$(CURDIR)/target/release/weir \
	$(CARGO) test --locked --test it callers::crowd::ten -- --ignored --nocapture

install: all
	install -D -m 755 target/release/weir $(DESTDIR)$(prefix)/bin/weir

clean:
	$(CARGO) clean
