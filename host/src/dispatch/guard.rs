//! The address guard: which addresses a name may lead to.
//!
//! A host *name* in a destination's URL may resolve only to globally routable addresses, or to networks the operator
//! lists in `destination.allow`. So a vendor that points its name at a database of ours, or at a cloud's metadata
//! service, gains nothing. `localhost` and addresses written in the URL itself are what the operator named, and are
//! allowed; redirects are never followed, so no other URL comes up.
//!
//! The check sits in the resolver, between the look-up and the connection: there is no second look-up whose answer
//! could differ.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// IPv4 networks that are not globally routable (IANA's special-purpose registry, multicast and the reserved rest).
const NOT_GLOBAL_V4: [Ipv4Net; 16] = [
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 31, 196, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 88, 99, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
    Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// All that is global in IPv6, apart from what [`NOT_GLOBAL_V6`] takes out again.
const GLOBAL_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Within [`GLOBAL_V6`]: protocol assignments (Teredo among them), documentation, and 6to4, which embeds any IPv4.
const NOT_GLOBAL_V6: [Ipv6Net; 4] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    Ipv6Net::new_assert(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// NAT64 (RFC 6052): the last four bytes are an IPv4 address, and it is that one which is reached.
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Whether `address` is one that anybody on the Internet could name: not loopback, private, link-local, shared,
/// multicast, reserved, or one of these wrapped in IPv6.
pub fn is_global(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !NOT_GLOBAL_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) if NAT64.contains(&address) => {
            let [.., a, b, c, d] = address.octets();
            is_global(Ipv4Addr::new(a, b, c, d).into())
        }
        IpAddr::V6(address) => GLOBAL_V6.contains(&address) && !NOT_GLOBAL_V6.iter().any(|net| net.contains(&address)),
    }
}

/// Whether `name` may lead to `address`.
fn admits(name: &str, address: IpAddr, allow: &[IpNet]) -> bool {
    let address = address.to_canonical();
    is_global(address)
        || allow.iter().any(|net| net.contains(&address))
        || (is_localhost(name) && address.is_loopback())
}

/// Whether `name` is one that means this machine (RFC 6761 §6.3), so that the operator who wrote it knew it.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// A name that led to no address it may lead to.
#[derive(Debug)]
pub(super) struct Refused {
    name: String,
    address: IpAddr,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, address } = self;
        let network = suggestion(*address);
        write!(
            f,
            "{name} resolved to {address}, which destination.allow does not list: add `allow: [{network}]` if that is \
             intended"
        )
    }
}

impl std::error::Error for Refused {}

/// The network an operator most likely means by `address`: its private block, else the address alone.
fn suggestion(address: IpAddr) -> IpNet {
    match address.to_canonical() {
        IpAddr::V4(v4) if v4.is_private() || v4.is_loopback() => NOT_GLOBAL_V4
            .iter()
            .find(|net| net.contains(&v4))
            .map_or_else(|| Ipv4Net::from(v4).into(), |net| IpNet::V4(*net)),
        address => address.into(),
    }
}

/// A name that has no address.
#[derive(Debug, thiserror::Error)]
#[error("{name} could not be resolved")]
pub(super) struct Unresolved {
    name: String,
    #[source]
    source: io::Error,
}

/// Where names are looked up: `lookup` asks the operating system; tests bring their own.
#[async_trait]
pub(super) trait Names: Send + Sync + 'static {
    /// The addresses of `name`.
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the clients that serve destinations with one and the same `allow`.
pub(super) struct Guard {
    names: Arc<dyn Names>,
    allow: Arc<[IpNet]>,
}

impl Guard {
    pub(super) fn new(names: Arc<dyn Names>, allow: &[IpNet]) -> Self {
        Self { names, allow: allow.into() }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, allow) = (Arc::clone(&self.names), Arc::clone(&self.allow));
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found = names.addresses(&name).await.and_then(|found| match found.is_empty() {
                true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
                false => Ok(found),
            });
            let found = match found {
                Ok(found) => found,
                Err(source) => return Err(Unresolved { name, source }.into()),
            };
            Ok(admitted(name, found, &allow)?)
        })
    }
}

/// Those of the addresses `found` that `name` may lead to.
fn admitted(name: String, found: Vec<IpAddr>, allow: &[IpNet]) -> Result<Addrs, Refused> {
    let (good, bad): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| admits(&name, *address, allow));
    match bad.first() {
        Some(address) if good.is_empty() => Err(Refused { name, address: *address }),
        // Port 0 is replaced by the URL's.
        _ => Ok(Box::new(good.into_iter().map(|address| SocketAddr::new(address, 0)))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_inside_are_not_global() {
        for inside in [
            "0.0.0.0",
            "10.0.0.5",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.5",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::",
            "3fff::1",
            "64:ff9b::a00:5",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "5f00::1",
            "4000::1",
        ] {
            assert!(!is_global(ip(inside)), "{inside}");
        }
    }

    #[test]
    fn addresses_outside_are_global() {
        for outside in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "64:ff9b::101:101",
            "::ffff:1.1.1.1",
            "2a00::1",
        ] {
            assert!(is_global(ip(outside)), "{outside}");
        }
    }

    #[test]
    fn localhost_may_lead_home_and_other_names_may_not() {
        assert!(admits("localhost", ip("127.0.0.1"), &[]));
        assert!(admits("LOCALHOST.", ip("::1"), &[]));
        assert!(admits("vendor.localhost", ip("::1"), &[]));
        assert!(!admits("localhost", ip("10.0.0.1"), &[]));
        assert!(!admits("notlocalhost", ip("127.0.0.1"), &[]));
        assert!(!admits("localhost.evil.test", ip("127.0.0.1"), &[]));
    }

    #[test]
    fn a_listed_network_is_allowed_even_when_mapped_into_ipv6() {
        let allow = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        assert!(admits("vendor.test", ip("10.1.2.3"), &allow));
        assert!(admits("vendor.test", ip("::ffff:10.1.2.3"), &allow));
        assert!(admits("vendor.test", ip("fd12::1"), &allow));
        assert!(!admits("vendor.test", ip("192.168.0.1"), &allow));
    }

    #[test]
    fn a_refusal_says_what_to_write() {
        let refused = admitted("vendor.test".into(), vec![ip("10.0.0.5")], &[]).err().unwrap();
        let text = refused.to_string();
        assert!(text.starts_with("vendor.test resolved to 10.0.0.5, which destination.allow does not list"), "{text}");
        assert!(text.contains("`allow: [10.0.0.0/8]`"), "{text}");
        assert_eq!(suggestion(ip("169.254.169.254")).to_string(), "169.254.169.254/32");
        assert_eq!(suggestion(ip("::ffff:192.168.7.7")).to_string(), "192.168.0.0/16");
        assert_eq!(suggestion(ip("fd00::1")).to_string(), "fd00::1/128");
    }

    #[test]
    fn of_several_addresses_only_the_good_ones_are_used() {
        let kept = admitted("vendor.test".into(), vec![ip("10.0.0.5"), ip("1.1.1.1")], &[]).unwrap();
        assert_eq!(kept.map(|addr| addr.ip()).collect::<Vec<_>>(), [ip("1.1.1.1")]);
    }

    proptest! {
        #[test]
        fn wrapping_in_ipv6_changes_nothing(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let [a, b, c, d] = v4.octets();
            let nat64 = Ipv6Addr::from_octets([0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]);
            prop_assert_eq!(is_global(v4.into()), is_global(v4.to_ipv6_mapped().into()));
            prop_assert_eq!(is_global(v4.into()), is_global(nat64.into()));
        }

        #[test]
        fn what_the_standard_library_calls_special_is_never_global(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            if v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()
                || v4.is_documentation() || v4.is_unspecified()
            {
                prop_assert!(!is_global(v4.into()));
            }
        }

        #[test]
        fn nor_in_ipv6(bits in any::<u128>(), prefix in prop_oneof![
            Just(0xfc00u16), Just(0xfd00), Just(0xfe80), Just(0xff02), Just(0xfec0), Just(0x2002), Just(0)
        ]) {
            let v6 = Ipv6Addr::from_bits((bits >> 16) | (u128::from(prefix) << 112));
            let embeds = NAT64.contains(&v6) || v6.to_ipv4_mapped().is_some();
            prop_assert!(embeds || !is_global(v6.into()));
        }

        #[test]
        fn an_address_is_admitted_just_when_it_is_global_or_listed(bits in any::<u32>(), net in any::<u32>(), len in 0u8..=32) {
            let (address, net) = (Ipv4Addr::from_bits(bits), Ipv4Net::new(Ipv4Addr::from_bits(net), len).unwrap());
            let expected = is_global(address.into()) || net.contains(&address);
            prop_assert_eq!(admits("vendor.test", address.into(), &[net.into()]), expected);
        }
    }
}
