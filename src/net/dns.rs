//! Looking up host names, each on a thread that nobody has to wait for: the resolver of the system
//! blocks, for many seconds where no name server answers, and cannot be called off.
//!
//! A host with several addresses is connected to at each of them in turn. Who connects takes the
//! first address that answers, and the resolver of the system gives everybody the same order.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::addresses::Addresses;
use super::connecting;

/// Clones share what is known of addresses.
#[derive(Clone, Debug)]
pub struct Lookup {
    started: Instant,
    known: Arc<Mutex<Addresses>>,
}

/// The address that something has come from.
#[derive(Clone, Debug)]
pub struct Peer {
    lookup: Lookup,
    address: IpAddr,
}

impl Default for Lookup {
    fn default() -> Self {
        Self { started: Instant::now(), known: Arc::default() }
    }
}

impl Lookup {
    pub fn peer(&self, address: SocketAddr) -> Peer {
        Peer { lookup: self.clone(), address: address.ip() }
    }

    /// Connects elsewhere for a while, if there is another address.
    pub fn avoid(&self, address: IpAddr) {
        self.known().avoid(self.started.elapsed(), address);
    }

    /// Nobody is just connecting to this address, which came first.
    pub fn settled(&self, first: IpAddr) {
        self.known().settled(first);
    }

    fn order(&self, host: &str, addresses: &mut [SocketAddr]) {
        self.known().order(self.started.elapsed(), host, addresses);
        connecting::may_use(addresses.iter().map(SocketAddr::ip));
    }

    fn known(&self) -> MutexGuard<'_, Addresses> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// It is slow or silent: new connections go elsewhere for a while.
    pub fn avoid(&self) {
        self.lookup.avoid(self.address);
    }
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = self.clone();
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
            lookup.order(&host, &mut found);
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn addresses(host: &str) -> std::io::Result<Vec<SocketAddr>> {
    Ok((host, 0).to_socket_addrs()?.collect())
}
