# Each target works on a fresh clone with nothing but Rust installed.
CARGO ?= cargo
prefix ?= /usr/local
DESTDIR ?=

.PHONY: all run test lint install clean

all:
	$(CARGO) build --locked --release

run: all
	target/release/weir

test:
	$(CARGO) test --locked

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

install: all
	install -D -m 755 target/release/weir $(DESTDIR)$(prefix)/bin/weir

clean:
	$(CARGO) clean
