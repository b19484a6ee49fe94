//! The list of internal addresses that untrusted targets may not reach (`spec/connmgr.md §10.1`,
//! with the forms that the reference forgot: addresses that hold another one, and special ranges).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The usual names of what is refused, for the log; [`is_internal`] has the whole list.
pub const INTERNAL: &str = "127.0.0.0/8, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, \
                            169.254.0.0/16, 100.64.0.0/10, 0.0.0.0/8, ::1/128, fc00::/7, fe80::/10";

/// Whether an address belongs to this machine, to a private network, or to none that can be
/// reached from outside (RFC 6890).
pub fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_internal_v4(v4),
        IpAddr::V6(v6) => is_internal_v6(v6),
    }
}

fn is_internal_v4(v4: Ipv4Addr) -> bool {
    match v4.octets() {
        // This network, private, loopback, link-local.
        [0 | 10 | 127, ..] | [169, 254, ..] | [192, 168, ..] => true,
        [172, b, ..] => b & 0xf0 == 16,
        // Shared address space (RFC 6598).
        [100, b, ..] => b & 0xc0 == 64,
        // Protocol assignments, benchmarks (RFC 2544).
        [192, 0, 0, _] | [198, 18 | 19, ..] => true,
        // Multicast, reserved, broadcast.
        [224..=255, ..] => true,
        _ => false,
    }
}

fn is_internal_v6(v6: Ipv6Addr) -> bool {
    if let Some(v4) = embedded(v6) {
        return is_internal_v4(v4);
    }
    match v6.segments() {
        // Loopback, unspecified and the rest of the old IPv4-compatible block.
        [0, 0, 0, 0, 0, 0, ..] => true,
        // NAT64 for local use (RFC 8215).
        [0x64, 0xff9b, 1, ..] => true,
        // Unique local, link-local, site-local, multicast.
        [first, ..] => {
            first & 0xfe00 == 0xfc00 || first & 0xff80 == 0xfe80 || first & 0xff00 == 0xff00
        }
    }
}

/// The IPv4 address that traffic to this one ends at: mapped (RFC 4291), NAT64 (RFC 6052), 6to4
/// (RFC 3056), Teredo (RFC 4380), ISATAP (RFC 5214).
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(v4(high, low)),
        [0x2001, 0, _, _, _, _, high, low] => Some(v4(!high, !low)),
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_names_is_refused() {
        for range in INTERNAL.split(", ") {
            let address = range.split('/').next().unwrap_or_default();
            assert!(is_internal(address.parse().unwrap()), "{range}");
        }
    }

    #[test]
    fn internal_addresses_in_all_forms() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "::127.0.0.1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "2002:7f00:1::",
            "2002:c0a8:1::1",
            "2001:0:1:2:3:4:f5ff:fffe",
            "2001:db8::5efe:10.0.0.1",
        ] {
            assert!(is_internal(text.parse().unwrap()), "{text}");
        }
        for text in [
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2001:db8::1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:0:1:2:3:4:f7f7:f7f7",
        ] {
            assert!(!is_internal(text.parse().unwrap()), "{text}");
        }
    }
}
