//! What a process knows of the addresses that it connects to: shared by all clients, and by the clock.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::addresses::Addresses;

/// Clones share it.
#[derive(Clone, Debug)]
pub struct Peers {
    started: Instant,
    known: Arc<Mutex<Addresses>>,
}

/// The address that something has come from.
#[derive(Clone, Debug)]
pub struct Peer {
    all: Peers,
    address: IpAddr,
}

impl Default for Peers {
    fn default() -> Self {
        Self { started: Instant::now(), known: Arc::default() }
    }
}

impl Peers {
    pub fn peer(&self, address: SocketAddr) -> Peer {
        Peer { all: self.clone(), address: address.ip() }
    }

    /// Puts the addresses of `host` into the order in which they are to be tried.
    pub fn order(&self, host: &str, addresses: &mut [SocketAddr]) {
        self.known().order(self.started.elapsed(), host, addresses);
    }

    /// A connection is being made for which this address came `first`, until it is `settled`.
    pub fn begun(&self, first: IpAddr) {
        self.known().begun(first);
    }

    /// The connection for which this address came first is made, or given up.
    pub fn settled(&self, first: IpAddr) {
        self.known().settled(first);
    }

    /// Connects elsewhere for a while, if there is another address.
    pub fn avoid(&self, address: IpAddr) {
        self.known().avoid(self.started.elapsed(), address);
    }

    fn known(&self) -> MutexGuard<'_, Addresses> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// It is slow or silent: new connections go elsewhere for a while.
    pub fn avoid(&self) {
        self.all.avoid(self.address);
    }
}
