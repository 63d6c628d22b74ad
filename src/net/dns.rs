//! Looking up host names, each on a thread that nobody has to wait for: the resolver of the system
//! blocks, for many seconds where no name server answers, and cannot be called off.
//!
//! A host with several addresses is connected to at each of them in turn. Who connects takes the
//! first address that answers, and the resolver of the system gives everybody the same order.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::connecting;
use super::peers::Peers;

#[derive(Clone, Debug)]
pub struct Lookup(pub Peers);

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let Self(peers) = self.clone();
        Box::pin(async move {
            let host: Arc<str> = name.as_str().into();
            let mut found = look_up(&host).await?;
            peers.order(&host, &mut found);
            connecting::may_use(found.iter().map(SocketAddr::ip));
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// The addresses of `host`, as a connection to it would find them.
pub async fn addresses_of(host: &str) -> std::io::Result<Vec<IpAddr>> {
    let found = look_up(&host.into()).await?;
    Ok(found.iter().map(SocketAddr::ip).collect())
}

async fn look_up(host: &Arc<str>) -> std::io::Result<Vec<SocketAddr>> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let of_thread = host.clone();
    let thread = std::thread::Builder::new().name("resolve".into()).spawn(move || {
        let _ = tell.send(addresses(&of_thread));
    });
    match thread {
        Ok(_) => told.await.map_err(std::io::Error::other)?,
        // No more threads: this one has to wait itself.
        Err(_) => addresses(host),
    }
}

fn addresses(host: &str) -> std::io::Result<Vec<SocketAddr>> {
    Ok((host, 0).to_socket_addrs()?.collect())
}
