//! Watches connections while they are made, and remembers which addresses did not answer.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connection, HttpInfo};
use tower::{Layer, Service};

use super::addresses::failed;
use super::peers::Peers;

/// Where no connection is made within this time, the next ones go elsewhere. The one that waits goes on to the
/// next address only when its part of the time for all is over.
const SLOW: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// The connection that is being made: whoever looks names up does not know for whom.
    static CONNECTING: Arc<Connecting>;
}

/// One connection, and the addresses that it may use.
struct Connecting {
    peers: Peers,
    addresses: OnceLock<Vec<IpAddr>>,
}

/// These addresses, in this order, are for the connection that is being made.
pub fn may_use(addresses: impl Iterator<Item = IpAddr>) {
    // A connection that nobody watches has only itself to look after.
    let _ = CONNECTING.try_with(|connecting| connecting.may_use(addresses.collect()));
}

impl Connecting {
    fn may_use(&self, addresses: Vec<IpAddr>) {
        let first = addresses.first().copied();
        // On the way through a proxy there may be a second lookup, of a name that the proxy is asked for.
        if self.addresses.set(addresses).is_ok()
            && let Some(first) = first
        {
            self.peers.begun(first);
        }
    }

    fn is_slow(&self) {
        if let [first, _, ..] = self.addresses() {
            self.peers.avoid(*first);
        }
    }

    fn is_made_to(&self, address: IpAddr) {
        for address in failed(self.addresses(), address) {
            self.peers.avoid(address);
        }
    }

    fn addresses(&self) -> &[IpAddr] {
        self.addresses.get().map(Vec::as_slice).unwrap_or_default()
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(first) = self.addresses().first() {
            self.peers.settled(*first);
        }
    }
}

/// Puts a watch on all connections of a client.
#[derive(Clone)]
pub struct Watch(pub Peers);

#[derive(Clone)]
pub struct Watched<S> {
    connector: S,
    peers: Peers,
}

impl<S> Layer<S> for Watch {
    type Service = Watched<S>;

    fn layer(&self, connector: S) -> Watched<S> {
        Watched { connector, peers: self.0.clone() }
    }
}

impl<S, T> Service<T> for Watched<S>
where
    S: Service<T>,
    S::Response: Connection + Send,
    S::Error: Send,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, to: T) -> Self::Future {
        let addresses = OnceLock::new();
        let watched = Arc::new(Connecting { peers: self.peers.clone(), addresses });
        let connecting = CONNECTING.scope(watched.clone(), self.connector.call(to));
        Box::pin(async move {
            tokio::pin!(connecting);
            let made = tokio::select! {
                biased;
                made = &mut connecting => made,
                () = tokio::time::sleep(SLOW) => {
                    watched.is_slow();
                    connecting.await
                }
            };
            if let Ok(connection) = &made {
                let mut known = Default::default();
                connection.connected().get_extras(&mut known);
                if let Some(info) = known.get::<HttpInfo>() {
                    watched.is_made_to(info.remote_addr().ip());
                }
            }
            made
        })
    }
}
