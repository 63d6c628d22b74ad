//! Looking up host names, each on a thread that nobody has to wait for: the resolver of the system
//! blocks, for many seconds where no name server answers, and cannot be called off.
//!
//! A host with several addresses is connected to at each of them in turn. Who connects takes the
//! first address that answers, and the resolver of the system gives everybody the same order.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Clones share whose turn it is.
#[derive(Clone, Debug, Default)]
pub struct Lookup(Arc<Mutex<HashMap<String, usize>>>);

impl Lookup {
    /// How often `host` has been looked up before, counted from a random number: many pods that start
    /// together must not begin with the same address.
    fn turn(&self, host: &str) -> usize {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry(host.to_owned()).or_insert_with(|| fastrand::usize(..1 << 16));
        *turn = turn.wrapping_add(1);
        *turn
    }
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let turn = self.turn(name.as_str());
        Box::pin(async move {
            let host: Arc<str> = name.as_str().into();
            let (tell, told) = tokio::sync::oneshot::channel();
            let of_thread = host.clone();
            let thread = std::thread::Builder::new().name("resolve".into()).spawn(move || {
                let _ = tell.send(addresses(&of_thread));
            });
            let found = match thread {
                Ok(_) => told.await?,
                // No more threads: this one has to wait itself.
                Err(_) => addresses(&host),
            };
            let mut found = found?;
            rotate(&mut found, turn);
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn addresses(host: &str) -> std::io::Result<Vec<SocketAddr>> {
    Ok((host, 0).to_socket_addrs()?.collect())
}

/// Lets another address of each family come first at each turn. Which family comes first stays as the
/// system has it (RFC 6724): it knows whether there is a way to the other one.
fn rotate(addresses: &mut Vec<SocketAddr>, turn: usize) {
    let Some(first) = addresses.first() else { return };
    let is_v4 = first.is_ipv4();
    let (mut preferred, mut others): (Vec<_>, Vec<_>) =
        addresses.drain(..).partition(|address| address.is_ipv4() == is_v4);
    for family in [&mut preferred, &mut others] {
        if !family.is_empty() {
            let by = turn % family.len();
            family.rotate_left(by);
        }
    }
    addresses.extend(preferred.into_iter().chain(others));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotated(addresses: &[&str], turn: usize) -> Vec<String> {
        let parse = |address: &&str| SocketAddr::new(address.parse().expect("an address"), 0);
        let mut addresses: Vec<_> = addresses.iter().map(parse).collect();
        rotate(&mut addresses, turn);
        addresses.iter().map(|address| address.ip().to_string()).collect()
    }

    #[test]
    fn each_turn_begins_with_another_address_of_the_first_family() {
        let host = ["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2", "10.0.0.3"];
        assert_eq!(rotated(&host, 0), ["fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(rotated(&host, 1), ["fd00::2", "fd00::1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]);
        assert_eq!(rotated(&host, 2), ["fd00::1", "fd00::2", "10.0.0.3", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(rotated(&["10.0.0.1", "fd00::1"], 7), ["10.0.0.1", "fd00::1"]);
        assert!(rotated(&[], 1).is_empty());
    }

    #[test]
    fn turns_are_counted_for_each_host() {
        let lookup = Lookup::default();
        let (one, other) = (lookup.turn("one"), lookup.turn("other"));
        assert_eq!(lookup.clone().turn("one"), one + 1);
        assert_eq!(lookup.turn("other"), other + 1);
    }
}
