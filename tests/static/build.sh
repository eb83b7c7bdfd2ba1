#!/bin/sh
# Builds a weir that needs no library: build.sh [x86_64 | aarch64 | armv7 | riscv64gc | a triple].
# It lies then at target/static/weir-ARCH.
#
# Two ways to have a standard library for musl. For x86_64 it is built from source, for size, which
# makes the file 0.5 MiB smaller than with the one that rustup has: by a toolchain of rustup, which
# gets the component rust-src, or else, or with STATIC_WITH=debian, by Debian's compiler and sources
# (rustc-web, cargo-web, rust-web-src, which are of one version). RUSTC_BOOTSTRAP=1 is what lets a
# stable compiler do so. For others it is that of rustup's target, if it can be added.
#
# ring is partly C, so a C compiler for the target is needed as well: musl-gcc on x86_64, for the
# others the zig of PyPI, which has musl's headers and sources for every target.
#
# The output does not depend on where it is built: paths are remapped, and paths of tools are in
# wrappers rather than in flags. It is not position independent, which saves the relocations (about
# 5 % of the file) and the trouble that musl-gcc names an interpreter in what is.
set -eu
cd "$(dirname "$0")/../.."
root=$PWD
cargo=${CARGO:-cargo}

target=${1:-x86_64}
case $target in
    armv7) triple=armv7-unknown-linux-musleabihf ;;
    *-*) triple=$target ;;
    *) triple=$target-unknown-linux-musl ;;
esac
arch=${triple%%-*}
out=$root/target/static
tools=$out/tools/$triple
mkdir -p "$tools"

die() {
    echo "static: $*" >&2
    exit 1
}

# Leaves a program at $tools/NAME that ends by running $2 with its arguments.
tool() {
    printf '#!/bin/sh\n%s\n' "$2" > "$tools/$1"
    chmod +x "$tools/$1"
}

# Sets zig: the command that runs it. Its version is held, so that two builds are alike.
find_zig() {
    zig_venv=$root/target/zig
    if [ ! -x "$zig_venv/bin/python" ]; then
        python3 -m venv "$zig_venv" || die "the C compiler for $triple needs python3 with venv"
    fi
    "$zig_venv/bin/python" -m pip install --quiet ziglang==0.17.1 \
        || die "cannot get the C compiler for $triple"
    zig="'$zig_venv/bin/python' -m ziglang"
}

# Leaves cc and ar for the target in $tools.
find_c_compiler() {
    native=
    if [ "$arch" = x86_64 ] && [ "$(uname -m)" = x86_64 ] && command -v musl-gcc > /dev/null; then
        native=yes
        tool cc 'exec musl-gcc "$@"'
        tool ar 'exec ar "$@"'
        return
    fi
    find_zig
    case $arch in
        armv7) c_target='arm-linux-musleabihf -mcpu=generic+v7a+vfp3-d32+thumb2-neon' ;;
        riscv64gc) c_target=riscv64-linux-musl ;;
        *) c_target=$arch-linux-musl ;;
    esac
    # zig has names of its own for targets; cc's and rustc's are taken out. It checks for undefined
    # behaviour unless it is told not to.
    tool cc "for word do
    shift
    case \$word in
        --target=* | -march=* | -mfpu=* | -mfloat-abi=* | -mabi=* | -mcmodel=*) ;;
        *) set -- \"\$@\" \"\$word\" ;;
    esac
done
exec $zig cc -target $c_target -fno-sanitize=all \"\$@\""
    tool ar "exec $zig ar \"\$@\""
}

add_target() {
    [ "${STATIC_WITH:-rustup}" = rustup ] || return 1
    command -v rustup > /dev/null || return 1
    rustup target list --installed | grep -qx "$triple" && return 0
    # Without a network this fails at once, behind some firewalls never.
    timeout 300 rustup target add "$triple"
}

# Of a target that was added, libunwind is used as well.
add_sources() {
    [ -n "$native" ] || return 1
    rustup component list --installed | grep -qx rust-src && return 0
    timeout 300 rustup component add rust-src
}

# Sets rustc, sources and cargo for a build of the standard library.
find_sources() {
    sysroot=$(rustc --print sysroot 2> /dev/null)
    sources=$sysroot/lib/rustlib/src/rust
    if [ "${STATIC_WITH:-rustup}" = rustup ] && [ -e "$sources/library/Cargo.lock" ]; then
        rustc=rustc
        return
    fi
    sources=/usr/lib/rustlib/src/rust
    if [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && [ -e "$sources/library/Cargo.lock" ]; then
        rustc=/usr/bin/rustc
        cargo=/usr/bin/cargo
        return
    fi
    die "no standard library for $triple, and no sources to build it from. On Debian:
    apt-get install rustc-web cargo-web rust-web-src musl-tools libunwind-14-dev"
}

# LLVM's libunwind, for gcc's calls into glibc: that of rustup's target, or Debian's. The latter was
# compiled against glibc with checks; the one function of these that it calls, to complain before it
# aborts, is made up for here.
find_unwind() {
    unwind=$sysroot/lib/rustlib/$triple/lib/self-contained/libunwind.a
    if [ "$rustc" = rustc ] && [ -e "$unwind" ]; then
        cp "$unwind" "$tools/libunwind.a"
        return
    fi
    unwind=
    for folder in /usr/lib/llvm-*/lib; do
        [ -e "$folder/libunwind.a" ] && unwind=$folder/libunwind.a
    done
    [ -n "$unwind" ] || die "no libunwind.a; on Debian: apt-get install libunwind-14-dev"
    cat > "$tools/fprintf_chk.c" <<'C'
#include <stdarg.h>
#include <stdio.h>
int __fprintf_chk(FILE *file, int flag, const char *format, ...) {
    va_list rest;
    (void)flag;
    va_start(rest, format);
    int count = vfprintf(file, format, rest);
    va_end(rest);
    return count;
}
C
    "$tools/cc" -Os -c -o "$tools/fprintf_chk.o" "$tools/fprintf_chk.c"
    cp "$unwind" "$tools/libunwind.a"
    ar rD "$tools/libunwind.a" "$tools/fprintf_chk.o" 2> /dev/null
}

find_c_compiler
cargo_home=${CARGO_HOME:-$HOME/.cargo}
unit=$(printf '\037')
flags="-Ctarget-feature=+crt-static${unit}-Crelocation-model=static"
flags="$flags${unit}--remap-path-prefix=$root=/weir${unit}--remap-path-prefix=$cargo_home=/cargo"

set -- build --locked --release --target "$triple" --target-dir "$out"
upper=$(echo "$triple" | tr 'a-z-' 'A-Z_')
lower=$(echo "$triple" | tr - _)
if add_target && ! add_sources; then
    echo "static: $triple with rustup's standard library" >&2
    # x86_64 is linked by the machine's own cc with the C runtime of the target; no other's can be.
    if [ -z "$native" ]; then
        export "CARGO_TARGET_${upper}_LINKER=rust-lld"
    fi
else
    find_sources
    echo "static: $triple with a standard library from $sources" >&2
    flags="$flags${unit}-Clink-self-contained=no"
    flags="$flags${unit}--remap-path-prefix=$(readlink -f "$sources")=/rust"
    if [ -n "$native" ]; then
        find_unwind
        # rustup's linker, where there is one, keeps one of the functions that came out alike:
        # 20 KiB. Unlike gold it tells those apart that unwind in different ways.
        lld=$sysroot/lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld
        fold=
        [ "$rustc" = rustc ] && [ -e "$lld/ld.lld" ] && \
            fold="-B'$lld' -fuse-ld=lld -Wl,--icf=all,--no-dynamic-linker"
        tool gcc "exec musl-gcc -L'$tools' $fold \"\$@\""
    else
        # zig has libunwind.
        tool gcc "exec '$tools/cc' \"\$@\""
    fi
    # From the name of a linker rustc tells what flags it takes.
    export "CARGO_TARGET_${upper}_LINKER=$tools/gcc" RUSTC="$rustc" RUSTC_BOOTSTRAP=1
    # Without backtraces, which say nothing in a stripped file: 182 KiB less. With smaller ways of
    # sorting and of printing numbers: 72 KiB less.
    set -- "$@" -Z build-std=std,panic_unwind
    set -- "$@" -Z build-std-features=panic-unwind,optimize_for_size
    # With frame pointers the tables of unwinding need no line for each push and pop: some 50 KiB
    # less, for 2 % more instructions a request. The other flag keeps arguments from being pushed.
    if [ "$arch" = x86_64 ]; then
        flags="$flags${unit}-Cforce-frame-pointers=non-leaf${unit}-Zunstable-options"
        flags="$flags${unit}-Cllvm-args=-no-x86-call-frame-opt"
    fi
fi
export "CC_$lower=$tools/cc" "AR_$lower=$tools/ar" CARGO_ENCODED_RUSTFLAGS="$flags"
export "CFLAGS_$lower=-ffile-prefix-map=$cargo_home=/cargo"
"$cargo" "$@"

binary=$out/weir-$arch
cp "$out/$triple/release/weir" "$binary"
# Truly static: no interpreter is named and no library.
if readelf -lWd "$binary" | grep -E 'INTERP|NEEDED' >&2; then
    die "$binary is not static"
fi
echo "static: target/static/weir-$arch, $(wc -c < "$binary") bytes"
