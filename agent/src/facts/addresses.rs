//! The machine's addresses, from what the kernel writes about its routes.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _, UdpSocket},
};

/// The most addresses that are told. Sixteen: a machine has a handful, and one that is a router, or has
/// an address for each of a hundred containers, need not put them all into its record.
const ADDRESSES_MAX: usize = 16;

/// What keeps an IPv6 address from being told (`IFA_F_*`): it changes every day (temporary, 0x01), two
/// have it (0x08), it is being given up (0x20), or it is not known yet whether two have it (0x40).
const PASSING: u8 = 0x01 | 0x08 | 0x20 | 0x40;

/// Returns the addresses at which others can reach the machine, IPv4 before IPv6, ascending: those of
/// `/proc/net/fib_trie` and `/proc/net/if_inet6` that are not for this machine or its link alone.
pub(super) fn global(fib_trie: &str, if_inet6: &str) -> Vec<IpAddr> {
    let mut all: BTreeSet<IpAddr> = own_v4(fib_trie).map(IpAddr::V4).collect();
    all.extend(if_inet6.lines().filter_map(lasting_v6).map(IpAddr::V6));
    all.into_iter().filter(is_global).take(ADDRESSES_MAX).collect()
}

/// Returns the address that this machine uses towards another: a datagram socket is connected,
/// which asks the kernel for a route and sends nothing.
#[must_use]
pub fn address_towards(peer: &str) -> Option<IpAddr> {
    let peer = peer.to_socket_addrs().ok()?.next()?;
    let any: IpAddr = if peer.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

/// Returns the leaves of the trie that are this machine itself: `|-- A`, and below it `/32 host LOCAL`.
fn own_v4(fib_trie: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut leaf = None;
    fib_trie.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        }
        leaf.filter(|_| line == "/32 host LOCAL")
    })
}

/// Reads a line of `if_inet6`: address, interface, prefix, scope (00 is global), flags, name.
fn lasting_v6(line: &str) -> Option<Ipv6Addr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [address, _, _, "00", flags, _] = fields.as_slice() else { return None };
    let address = u128::from_str_radix(address, 16).ok()?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (flags & PASSING == 0).then(|| Ipv6Addr::from_bits(address))
}

fn is_global(address: &IpAddr) -> bool {
    let for_the_link = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !for_the_link && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIE: &str = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/31 1 0 0
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.2
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
Local:
        |-- 192.0.2.2
           /32 host LOCAL
        |-- 169.254.7.7
           /32 host LOCAL
        |-- 10.0.0.9
           /32 host LOCAL
";

    const V6: &str = "\
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000002 04 40 00 82     eth0
20010db8000000000000000000000007 04 40 00 01     eth0
20010db8000000000000000000000008 04 40 00 40     eth0
20010db8000000000000000000000005 04 40 00 80     eth0
not a line
";

    /// fleet's own table of the addresses that it published. Where flotilla does otherwise, the row says why.
    #[test]
    fn fleets_table_of_addresses() {
        const V6: Option<&str> = Some("machines are reached by IPv6 too (#1582)");
        for (address, fleet, otherwise) in [
            ("192.0.2.2", true, None),
            ("10.0.0.9", true, None),
            ("127.0.0.1", false, None),
            ("169.254.7.7", false, None),
            ("224.0.0.1", false, None),
            ("0.0.0.0", false, None),
            ("2001:db8::5", false, V6),
            ("fd00::2", false, V6),
            ("::1", false, None),
            ("fe80::1", false, None),
            ("ff02::1", false, None),
            ("::", false, None),
        ] {
            let ours = is_global(&address.parse().unwrap());
            assert_eq!(ours, fleet != otherwise.is_some(), "{address}: {otherwise:?}");
        }
    }

    #[test]
    fn addresses_that_others_reach_are_told_and_no_others() {
        let told: Vec<String> = global(TRIE, V6).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["10.0.0.9", "192.0.2.2", "2001:db8::5", "fd00::2"]);
        let many: String = (0..=255).map(|n| format!("|-- 10.0.1.{n}\n/32 host LOCAL\n")).collect();
        assert_eq!(global(&many, "").len(), ADDRESSES_MAX);
        assert_eq!(address_towards("127.0.0.1:1"), Some([127, 0, 0, 1].into()));
    }
}
