# Sums the sizes of symbols, as `nm -S -C` prints them, by crate. The crate is the first name in a
# path, also in that of a trait's method: `<ureq::Agent as core::clone::Clone>::clone` is ureq's.
function hex(text,    place, value) {
    value = 0
    for (place = 1; place <= length(text); place++)
        value = value * 16 + index("0123456789abcdef", substr(text, place, 1)) - 1
    return value
}

NF >= 4 && $3 ~ /^[tTrRdDwWvV]$/ {
    size = hex($2)
    name = $0
    sub(/^[^ ]+ [^ ]+ [^ ]+ /, "", name)
    if (name ~ /^ring_core_|^GFp_|^p256_|^x25519_|^bn_|^aes_|^chacha|^sha[0-9]+_|^aesni|^ecp_/)
        crate = "ring, C and assembly"
    else if (name !~ /::/)
        crate = "C runtime and data without a path"
    else {
        gsub(/<|&|\(|\[|\*|mut |const |dyn |impl /, "", name)
        sub(/\[.*/, "", name)
        sub(/::.*/, "", name)
        crate = name
    }
    sum[crate] += size
    all += size
}

END {
    for (crate in sum)
        printf "%8d %5.1f%% %s\n", sum[crate], 100 * sum[crate] / all, crate
    printf "%8d 100.0%% all symbols\n", all
}
