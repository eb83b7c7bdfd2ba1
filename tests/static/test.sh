#!/bin/sh
# Tests the static builds: `make test-static`.
#
# On x86_64: the size, a root without any file but weir itself and nothing to write to, and the
# whole test program. On aarch64: that it starts, is well and answers, under qemu.
#
# STATIC_SUITE=no leaves the test program out.
set -eu
cd "$(dirname "$0")/../.."
out=$PWD/target/static
# The goal is 2.5 MiB, which fits a router's flash. It is told, not enforced, while the build is
# beyond it; what is enforced is that it grows no further without a word: Messages for callers, kinds
# of servers and lessons took 0.2 MiB, Responses and Gemini's own API for callers 0.3.
goal=2621440
limit=4194304

say() {
    echo "test-static: $*"
}

tests/static/build.sh x86_64
size=$(wc -c < "$out/weir-x86_64")
say "x86_64 has $size bytes, the goal is $goal, the limit $limit"
if [ "$size" -gt "$limit" ]; then
    say "too large" >&2
    exit 1
fi

# A mount namespace of its own, so that the root can be read-only and nothing has to be undone. Who
# is not root needs a user namespace as well.
root=$out/root
rm -rf "$root"
mkdir -p "$root"
cp "$out/weir-x86_64" "$root/weir"
cat > "$out/in-root.sh" <<IN
#!/bin/sh
mount --bind '$root' '$root' && mount -o remount,bind,ro '$root' || exit 1
touch '$root/written' 2> /dev/null && { echo 'the root can be written to' >&2; exit 1; }
exec chroot '$root' /weir "\$@"
IN
chmod +x "$out/in-root.sh"
space=-m
[ "$(id -u)" = 0 ] || space=-rm
python3 tests/static/smoke.py unshare $space "$out/in-root.sh"
say "x86_64 answers in an empty read-only root"

if command -v qemu-aarch64-static > /dev/null; then
    tests/static/build.sh aarch64
    say "aarch64 has $(wc -c < "$out/weir-aarch64") bytes"
    python3 tests/static/smoke.py qemu-aarch64-static "$out/weir-aarch64"
    say "aarch64 answers under qemu"
else
    say "qemu-aarch64-static is not installed: aarch64 is NOT tested" >&2
fi

if [ "${STATIC_SUITE:-yes}" = yes ]; then
    WEIR_BIN=$out/weir-x86_64 ${CARGO:-cargo} test --locked --test it
    say "x86_64 passes the test program"
fi
