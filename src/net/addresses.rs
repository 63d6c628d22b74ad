//! In which order the addresses of a host are connected to. Pure: time is passed in.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// An address that was bad comes last for this long.
const AVOIDED_FOR: Duration = Duration::from_secs(60);

/// What is known of addresses.
#[derive(Debug, Default)]
pub struct Addresses {
    /// Shuffles them, in each process in another way: pods that start together must not begin with the same.
    shuffled: RandomState,
    turn: u64,
    /// The turn at which each address of a host came first for the last time.
    turns: HashMap<(String, IpAddr), u64>,
    /// Connections to it that are being made.
    pending: HashMap<IpAddr, usize>,
    /// Since when.
    avoided: HashMap<IpAddr, Duration>,
}

impl Addresses {
    /// Puts the addresses of `host` into the order in which they are to be tried; all of them stay.
    ///
    /// Which family comes first stays as the system has it (RFC 6724): it knows whether there is a way to the
    /// other one. Of each family the address comes first that nobody is just connecting to, and that was first
    /// the longest time ago. Whatever is avoided comes last, the one that was bad the longest time ago first.
    pub fn order(&mut self, now: Duration, host: &str, addresses: &mut [SocketAddr]) {
        let Some(prefers_v4) = addresses.first().map(SocketAddr::is_ipv4) else { return };
        self.avoided.retain(|_, since| now < *since + AVOIDED_FOR);
        addresses.sort_by_cached_key(|address| {
            let ip = address.ip();
            let turn = self.turns.get(&(host.to_owned(), ip)).copied();
            (
                self.avoided.get(&ip).copied(),
                address.is_ipv4() != prefers_v4,
                self.pending.contains_key(&ip),
                turn,
                self.shuffled.hash_one(ip),
            )
        });
        let first = addresses[0].ip();
        self.turn += 1;
        self.turns.insert((host.to_owned(), first), self.turn);
    }

    /// A connection is being made for which this address came `first`, until it is `settled`.
    pub fn begun(&mut self, first: IpAddr) {
        *self.pending.entry(first).or_default() += 1;
    }

    /// The connection for which this address came first is made, or given up.
    pub fn settled(&mut self, first: IpAddr) {
        if let Some(count) = self.pending.get_mut(&first) {
            *count -= 1;
            if *count == 0 {
                self.pending.remove(&first);
            }
        }
    }

    /// It did not answer, or was slow.
    pub fn avoid(&mut self, now: Duration, address: IpAddr) {
        self.avoided.insert(address, now);
    }
}

/// Which of `tried`, in this order, have failed where the connection was made to `to`. Both families are tried at
/// the same time, the second a little later, each one address after the other.
pub fn failed(tried: &[IpAddr], to: IpAddr) -> Vec<IpAddr> {
    let Some(first) = tried.first().filter(|_| tried.contains(&to)) else { return Vec::new() };
    let is_before = tried.iter().take_while(|address| **address != to);
    let same = is_before.filter(|address| address.is_ipv4() == to.is_ipv4());
    let other = (first.is_ipv4() != to.is_ipv4()).then_some(first);
    other.into_iter().chain(same).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const START: Duration = Duration::from_secs(1_000);

    fn ip(address: &str) -> IpAddr {
        address.parse().expect("an address")
    }

    fn order(known: &mut Addresses, now: Duration, addresses: &[&str]) -> Vec<String> {
        let mut list: Vec<_> = addresses.iter().map(|it| SocketAddr::new(ip(it), 0)).collect();
        known.order(now, "host", &mut list);
        list.iter().map(|address| address.ip().to_string()).collect()
    }

    fn first(known: &mut Addresses, now: Duration, addresses: &[&str]) -> String {
        order(known, now, addresses).swap_remove(0)
    }

    #[test]
    fn sixteen_connections_to_sixteen_addresses_use_each_once_in_an_order_of_this_process() {
        let host: Vec<String> = (1..=16).map(|n| format!("10.0.0.{n}")).collect();
        let mut host: Vec<&str> = host.iter().map(String::as_str).collect();
        let firsts = |host: &mut Vec<&str>| {
            let mut known = Addresses::default();
            let mut next = |n: usize| {
                // A name server may have a turn of its own.
                host.rotate_left(n % 5);
                first(&mut known, START, host)
            };
            let all: Vec<String> = (0..32).map(&mut next).collect();
            for round in all.chunks(16) {
                assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), 16, "{all:?}");
            }
            all[..16].to_vec()
        };
        assert_ne!(firsts(&mut host), firsts(&mut host));
    }

    #[test]
    fn the_first_family_stays_first_and_no_address_is_left_out() {
        let mut known = Addresses::default();
        let host = ["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2", "10.0.0.3"];
        for _ in 0..9 {
            let order = order(&mut known, START, &host);
            assert!(order[..2].iter().all(|it| it.starts_with("fd00::")), "{order:?}");
            assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 5, "{order:?}");
        }
        assert!(order(&mut known, START, &[]).is_empty());
    }

    #[test]
    fn a_bad_address_comes_last_for_a_minute_and_is_used_all_the_same_if_there_is_no_other() {
        let seconds = |n| START + Duration::from_secs(n);
        let v4 = &["10.0.0.1", "10.0.0.2", "10.0.0.3"][..];
        let both = &["fd00::1", "10.0.0.1", "10.0.0.2"][..];
        // The addresses that were bad and when, and what is last at which second.
        for (name, host, bad, now, last) in &[
            ("one", v4, &[("10.0.0.2", 0)][..], 59, &["10.0.0.2"][..]),
            ("two", v4, &[("10.0.0.2", 9), ("10.0.0.1", 0)], 59, &["10.0.0.1", "10.0.0.2"]),
            ("again", v4, &[("10.0.0.2", 0), ("10.0.0.2", 40)], 99, &["10.0.0.2"]),
            ("one is good again", v4, &[("10.0.0.2", 0), ("10.0.0.1", 30)], 60, &["10.0.0.1"]),
            (
                "all",
                v4,
                &[("10.0.0.2", 0), ("10.0.0.3", 2), ("10.0.0.1", 1)],
                50,
                &["10.0.0.2", "10.0.0.1", "10.0.0.3"],
            ),
            ("a whole family", both, &[("fd00::1", 0)], 59, &["fd00::1"]),
            (
                "both families",
                both,
                &[("fd00::1", 3), ("10.0.0.1", 2)],
                59,
                &["10.0.0.1", "fd00::1"],
            ),
        ] {
            let mut known = Addresses::default();
            for (address, at) in *bad {
                known.avoid(seconds(*at), ip(address));
            }
            for _ in 0..4 {
                let order = order(&mut known, seconds(*now), host);
                assert_eq!(order[3 - last.len()..], **last, "{name}");
                assert_eq!(order.len(), 3, "{name}");
            }
        }
        // When the time is over it has its turn as before.
        let mut known = Addresses::default();
        known.avoid(START, ip("10.0.0.2"));
        let firsts: BTreeSet<_> = (0..3).map(|_| first(&mut known, seconds(60), v4)).collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn an_address_that_somebody_still_waits_for_is_not_taken_if_there_is_another() {
        let mut known = Addresses::default();
        let list = |known: &mut Addresses| {
            let mut list = ["10.0.0.1", "10.0.0.2"].map(|it| SocketAddr::new(ip(it), 0));
            known.order(START, "host", &mut list);
            known.begun(list[0].ip());
            list[0].ip()
        };
        let hangs = list(&mut known);
        for _ in 0..5 {
            let other = list(&mut known);
            assert_ne!(other, hangs);
            known.settled(other);
        }
        // Both hang: the one that was first longer ago.
        let other = list(&mut known);
        assert_eq!((list(&mut known), other == hangs), (hangs, false));
        for address in [hangs, hangs, other] {
            known.settled(address);
        }
        assert!(known.pending.is_empty());
    }

    #[test]
    fn what_was_tried_before_the_one_that_answered_has_failed() {
        for (tried, to, expected) in [
            (&["10.0.0.1", "10.0.0.2", "10.0.0.3"][..], "10.0.0.1", &[][..]),
            (&["10.0.0.1", "10.0.0.2", "10.0.0.3"], "10.0.0.3", &["10.0.0.1", "10.0.0.2"]),
            (&["fd00::1", "fd00::2", "10.0.0.1"], "10.0.0.1", &["fd00::1"]),
            (&["fd00::1", "10.0.0.1", "10.0.0.2"], "10.0.0.2", &["fd00::1", "10.0.0.1"]),
            (&["10.0.0.1", "fd00::1", "10.0.0.2"], "10.0.0.2", &["10.0.0.1"]),
            // Through a proxy that looks names up itself, say.
            (&["10.0.0.1", "10.0.0.2"], "10.9.9.9", &[]),
            (&[], "10.9.9.9", &[]),
        ] {
            let tried: Vec<IpAddr> = tried.iter().copied().map(ip).collect();
            let expected: Vec<IpAddr> = expected.iter().copied().map(ip).collect();
            assert_eq!(failed(&tried, ip(to)), expected, "{tried:?} {to}");
        }
    }
}
