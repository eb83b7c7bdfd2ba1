//! Which addresses belong to hosts that everyone can reach: the special-purpose registries of
//! IANA, read as what is left when they are taken out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address that leads to the open internet, and not to this machine, its network, its
/// provider's or a group.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => v6(ip),
    }
}

fn v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !matches!(
        (a, b, c),
        // This network, private, loopback, link-local (and cloud metadata).
        (0 | 10 | 127, _, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            // Shared by a provider's customers (RFC 6598).
            | (100, 64..=127, _)
            // Protocol assignments, the old 6to4 relays, benchmarks.
            | (192, 0, 0)
            | (192, 88, 99)
            | (198, 18..=19, _)
            // Documentation.
            | (192, 0, 2)
            | (198, 51, 100)
            | (203, 0, 113)
            // Multicast, reserved, broadcast.
            | (224.., _, _)
    )
}

/// Only 2000::/3 is given out to hosts. Mapped and translated IPv4 addresses, loopback, unique
/// local, link-local and multicast ones all lie outside of it.
fn v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let special = match a {
        // Teredo, which wraps IPv4 addresses, and other protocol assignments: 2001::/23.
        0x2001 => b < 0x0200 || b == 0x0db8,
        // 6to4 wraps IPv4 addresses.
        0x2002 => true,
        // Documentation: 3fff::/20.
        0x3fff => b < 0x1000,
        _ => false,
    };
    a & 0xe000 == 0x2000 && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_the_open_internet_are_public() {
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.0.3.0",
            "192.167.1.1",
            "192.169.0.0",
            "198.17.1.1",
            "198.20.0.0",
            "223.255.255.255",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "2003::1",
            "3ffe::1",
            "2001:200::1",
        ] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "::ffff:127.0.0.1",
            "::8.8.8.8",
            "::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }
}
