//! Looking up host names, each on a thread that nobody has to wait for: the resolver of the system
//! blocks, for many seconds where no name server answers, and cannot be called off.

use std::net::ToSocketAddrs;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

#[derive(Debug)]
pub struct Lookup;

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
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
            Ok(Box::new(found?.into_iter()) as Addrs)
        })
    }
}

fn addresses(host: &str) -> std::io::Result<Vec<std::net::SocketAddr>> {
    Ok((host, 0).to_socket_addrs()?.collect())
}
