//! `NO_PROXY` as curl and Go read it: which hosts are reached without a proxy.
//!
//! Where the two differ, what one of them excepts is excepted. Names are compared as names and
//! addresses as addresses: nothing is looked up.

use std::net::IpAddr;

use url::{Host, Url};

/// The exceptions of a list such as `.svc,10.0.0.0/8,hub.example:8443`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<Exception>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Exception {
    hosts: Hosts,
    /// Only this port of them.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    All,
    Network {
        address: IpAddr,
        prefix_bits: u8,
    },
    /// Everything below `domain`, and mostly the domain itself.
    Domain {
        name: String,
        itself: bool,
    },
}

impl NoProxy {
    /// Reads a list whose entries are separated by commas or blanks. What is no entry excepts
    /// nothing, as with curl and Go.
    pub fn parse(list: &str) -> Self {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace());
        Self(entries.filter(|entry| !entry.is_empty()).filter_map(Exception::parse).collect())
    }

    /// Whether the host of `url` is reached without a proxy.
    pub fn excepts(&self, url: &Url) -> bool {
        let (Some(host), port) = (url.host(), url.port_or_known_default()) else {
            return false;
        };
        let has_port = |exception: &Exception| exception.port.is_none_or(|it| Some(it) == port);
        self.0.iter().any(|it| has_port(it) && it.hosts.contain(&host))
    }
}

impl Exception {
    fn parse(entry: &str) -> Option<Self> {
        let (hosts, port) = split_port(entry)?;
        Some(Self { hosts: Hosts::parse(hosts)?, port })
    }
}

impl Hosts {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address = address_of(address)?;
            let prefix_bits = bits.parse().ok().filter(|bits| *bits <= width_of(address))?;
            return Some(Self::Network { address, prefix_bits });
        }
        if let Some(address) = address_of(text) {
            return Some(Self::Network { address, prefix_bits: width_of(address) });
        }
        let (name, itself) = match text.strip_prefix('*') {
            Some(below) => (below.strip_prefix('.')?, false),
            None => (text.strip_prefix('.').unwrap_or(text), true),
        };
        let name = name.trim_end_matches('.');
        match Host::parse(name) {
            Ok(Host::Domain(name)) => Some(Self::Domain { name, itself }),
            // Another spelling of an address, such as `0x7f.1`.
            Ok(Host::Ipv4(address)) => {
                Some(Self::Network { address: address.into(), prefix_bits: 32 })
            }
            Ok(Host::Ipv6(_)) | Err(_) => None,
        }
    }

    fn contain(&self, host: &Host<&str>) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::Network { address, prefix_bits }, Host::Ipv4(ip)) => {
                is_within((*ip).into(), *address, *prefix_bits)
            }
            (Self::Network { address, prefix_bits }, Host::Ipv6(ip)) => {
                is_within(ip.to_canonical(), *address, *prefix_bits)
            }
            (Self::Domain { name, itself }, Host::Domain(host)) => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                match host.strip_suffix(name.as_str()) {
                    Some("") => *itself,
                    Some(above) => above.ends_with('.'),
                    None => false,
                }
            }
            _ => false,
        }
    }
}

/// `host:port`, `[address]:port`, or what has no port: a name, an address, a network.
fn split_port(entry: &str) -> Option<(&str, Option<u16>)> {
    let is_bare_v6 = entry.matches(':').count() > 1 && !entry.contains(']');
    match entry.rsplit_once(':') {
        Some((host, port)) if !is_bare_v6 && !port.contains(']') => {
            Some((host, Some(port.parse().ok()?)))
        }
        _ => Some((entry, None)),
    }
}

/// An address, in brackets or without, in the form in which it is compared.
fn address_of(text: &str) -> Option<IpAddr> {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inside.unwrap_or(text).parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn width_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_within(ip: IpAddr, network: IpAddr, prefix_bits: u8) -> bool {
    // A shift by the whole width, which is the network of all addresses, leaves nothing to compare.
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            let differ = ip.to_bits() ^ network.to_bits();
            differ.checked_shr(32 - u32::from(prefix_bits)).unwrap_or(0) == 0
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            let differ = ip.to_bits() ^ network.to_bits();
            differ.checked_shr(128 - u32::from(prefix_bits)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_excepts_what_curl_or_go_would_except() {
        for (list, url, excepted) in [
            ("", "http://a.example/", false),
            ("*", "http://a.example/", true),
            ("*", "http://10.0.0.1/", true),
            ("*", "http://[::1]/", true),
            ("b.example, *", "https://a.example/", true),
            ("*:8080", "http://a.example/", false),
            ("*:8080", "http://a.example:8080/", true),
            // Names.
            ("a.example", "http://a.example/", true),
            ("a.example", "http://b.a.example/", true),
            ("a.example", "http://ba.example/", false),
            ("a.example", "http://example/", false),
            (".a.example", "http://b.a.example/", true),
            (".a.example", "http://a.example/", true),
            (".a.example", "http://ba.example/", false),
            ("*.a.example", "http://b.a.example/", true),
            ("*.a.example", "http://a.example/", false),
            ("*a.example", "http://ba.example/", false),
            ("A.Example", "http://a.eXample/", true),
            ("a.example.", "http://a.example/", true),
            ("a.example", "http://a.example./", true),
            ("müller.example", "http://xn--mller-kva.example/", true),
            ("svc", "http://minio.storage.svc:9000/", true),
            ("localhost", "http://localhost:1/", true),
            ("localhost", "http://127.0.0.1/", false),
            // Ports.
            ("a.example:8443", "https://a.example:8443/", true),
            ("a.example:8443", "https://a.example/", false),
            ("a.example:443", "https://a.example/", true),
            ("a.example:80", "http://a.example/", true),
            ("a.example:443", "http://a.example/", false),
            (".a.example:443", "https://b.a.example/", true),
            ("a.example:x", "http://a.example/", false),
            ("a.example:99999", "http://a.example/", false),
            ("a.example:", "http://a.example/", false),
            // Addresses.
            ("10.0.0.1", "http://10.0.0.1:9000/", true),
            ("10.0.0.1", "http://10.0.0.11/", false),
            ("0.0.1", "http://10.0.0.1/", false),
            ("10.0.0.1:9000", "http://10.0.0.1:9000/", true),
            ("10.0.0.1:9000", "http://10.0.0.1:9001/", false),
            ("::1", "http://[::1]:9000/", true),
            ("[::1]", "http://[::1]:9000/", true),
            ("[::1]:9000", "http://[::1]:9000/", true),
            ("[::1]:9000", "http://[::1]:9001/", false),
            ("::ffff:10.0.0.1", "http://10.0.0.1/", true),
            ("10.0.0.1", "http://[::ffff:10.0.0.1]/", true),
            // Networks.
            ("10.0.0.0/8", "http://10.200.3.4/", true),
            ("10.0.0.0/8", "http://11.0.0.1/", false),
            ("10.1.2.3/8", "http://10.200.3.4/", true),
            ("0.0.0.0/0", "http://10.0.0.1/", true),
            ("0.0.0.0/0", "http://[::1]/", false),
            ("10.0.0.0/8", "http://ten.example/", false),
            ("10.0.0.0/33", "http://10.0.0.1/", false),
            ("10.0.0.0/x", "http://10.0.0.1/", false),
            ("127.0.0.1/32", "http://127.0.0.1/", true),
            ("127.0.0.1/32", "http://127.0.0.2/", false),
            ("fd00::/8", "http://[fd12::1]/", true),
            ("[fd00::]/8", "http://[fd12::1]/", true),
            ("fd00::/8", "http://[fe80::1]/", false),
            ("::/0", "http://[fe80::1]/", true),
            ("10.0.0.0/8", "http://[::ffff:10.0.0.1]/", true),
            // Lists.
            ("x.example,a.example", "http://a.example/", true),
            (" x.example , a.example ", "http://a.example/", true),
            ("x.example a.example", "http://a.example/", true),
            ("x.example\na.example\n", "http://a.example/", true),
            (",,a.example,", "http://a.example/", true),
            ("/,::::,[,],[::1,*.,.", "http://a.example/", false),
        ] {
            let url = Url::parse(url).expect(url);
            assert_eq!(NoProxy::parse(list).excepts(&url), excepted, "`{list}` and {url}");
        }
    }
}
