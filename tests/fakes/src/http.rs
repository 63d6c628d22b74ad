//! A small HTTP/1.1 server: one thread per connection, keep-alive, a closure for the answers.
//!
//! Knows nothing of hubs or buckets. Written by hand because a proper server would not let
//! anyone send a wrong length, half a body or a reset. How an answer leaves is in `wire.rs`.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use crate::response::{Body, Response};
use crate::text::{percent_decode, query_pairs};
use crate::wire::{self, After};

/// A running server, on `127.0.0.1` unless told otherwise. Dropping it closes the port and every connection.
pub struct Server {
    address: SocketAddr,
    running: Arc<Running>,
    accepting: Option<JoinHandle<()>>,
}

/// One request as it arrived; path and query are still percent-encoded.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which connection of this server it came over, counted from 1.
    pub connection: usize,
}

/// What a `Range` header asks of a body of a given size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeAsked {
    /// No range, or one that servers ignore (several ranges, other units, nonsense).
    Whole,
    Part(Range<u64>),
    Unsatisfiable,
}

impl Server {
    /// # Panics
    /// When the machine has no free port.
    pub fn start(handler: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::start_on(0, handler).expect("a free port on 127.0.0.1")
    }

    /// Port 0 stands for any free one.
    pub fn start_on(
        port: u16,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, port).into(), handler)
    }

    /// As [`Server::start_on`], at an address that others than this machine may reach.
    pub fn start_at(
        address: SocketAddr,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let running = Arc::new(Running::default());
        let accepting = thread::Builder::new().name("fake-accept".into()).spawn({
            let running = Arc::clone(&running);
            let handler: Arc<Handler> = Arc::new(handler);
            move || accept(&listener, &running, &handler)
        })?;
        Ok(Self { address, running, accepting: Some(accepting) })
    }

    /// `http://127.0.0.1:PORT`, no slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections that are open now.
    pub fn open_connections(&self) -> usize {
        self.running.connections().len()
    }

    /// The most requests that were answered at the same time.
    pub fn most_answered_at_once(&self) -> usize {
        self.running.most_answered.load(Ordering::Acquire)
    }

    /// Connections that were ever accepted.
    pub fn accepted_connections(&self) -> usize {
        self.running.accepted.load(Ordering::Acquire)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.stopping.store(true, Ordering::Release);
        // `accept` only looks at the flag once it returns, so give it one more connection.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for stream in self.running.connections().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// The decoded parts of the path between slashes.
    pub fn segments(&self) -> Vec<String> {
        self.path.split('/').skip(1).map(percent_decode).collect()
    }

    /// Decoded value of the first query parameter of that name.
    pub fn query_value(&self, name: &str) -> Option<String> {
        self.query_values(name).into_iter().next()
    }

    /// All values of a name that comes several times.
    pub fn query_values(&self, name: &str) -> Vec<String> {
        let pairs = query_pairs(&self.query).into_iter();
        pairs.filter_map(|(found, value)| (found == name).then_some(value)).collect()
    }

    /// `path?query` as it was sent.
    pub fn target(&self) -> String {
        if self.query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, self.query)
        }
    }

    pub fn range_for(&self, size: u64) -> RangeAsked {
        self.header("range")
            .and_then(|header| parse_range(header, size))
            .unwrap_or(RangeAsked::Whole)
    }
}

pub(crate) type Handler = dyn Fn(&Request) -> Response + Send + Sync;

pub(crate) fn find_header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value.as_str()))
}

/// What the threads of one server share.
#[derive(Default)]
pub(crate) struct Running {
    stopping: AtomicBool,
    accepted: AtomicUsize,
    answering: AtomicUsize,
    most_answered: AtomicUsize,
    connections: Mutex<HashMap<SocketAddr, Arc<TcpStream>>>,
}

impl Running {
    /// Fails as soon as the server ends, so that nothing is sent afterwards.
    pub(crate) fn sleep(&self, duration: Duration) -> io::Result<()> {
        let deadline = Instant::now() + duration;
        while !self.stopping.load(Ordering::Acquire) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(20)));
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<TcpStream>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a connection off the list even when its handler panics.
struct Registered<'a> {
    running: &'a Running,
    peer: SocketAddr,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.running.connections().remove(&self.peer);
    }
}

fn accept(listener: &TcpListener, running: &Arc<Running>, handler: &Arc<Handler>) {
    while let Ok((stream, peer)) = listener.accept() {
        if running.stopping.load(Ordering::Acquire) {
            break;
        }
        let number = running.accepted.fetch_add(1, Ordering::AcqRel) + 1;
        let stream = Arc::new(stream);
        running.connections().insert(peer, Arc::clone(&stream));
        let (running, handler) = (Arc::clone(running), Arc::clone(handler));
        // A machine out of threads drops the connection, as a busy server would.
        let _ = thread::Builder::new().name("fake-connection".into()).spawn(move || {
            let _registered = Registered { running: &running, peer };
            // Moved in, so that after the list forgot it this is the last handle on the socket.
            let stream = stream;
            let _ = converse(&stream, number, &running, &*handler);
        });
    }
}

fn converse(
    stream: &TcpStream,
    number: usize,
    running: &Running,
    handler: &Handler,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut reader)? {
        request.connection = number;
        let last = request.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        let answering = running.answering.fetch_add(1, Ordering::AcqRel) + 1;
        running.most_answered.fetch_max(answering, Ordering::AcqRel);
        let sent = wire::send(stream, running, &request.method, handler(&request));
        running.answering.fetch_sub(1, Ordering::AcqRel);
        let after = sent?;
        if after == After::Reset {
            return socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        if last || after == After::Close {
            return stream.shutdown(Shutdown::Write);
        }
    }
    Ok(())
}

/// `None` when the client closed between two requests.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some(first) = read_line(reader)? else {
        return Ok(None);
    };
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(malformed("request line"));
    };
    // What a proxy is asked for begins with an origin, which `Host` names as well.
    let target = target
        .strip_prefix("http://")
        .map_or(target, |absolute| absolute.find('/').map_or("/", |at| &absolute[at..]));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        ..Request::default()
    };
    loop {
        let line = read_line(reader)?.ok_or_else(|| malformed("end of headers"))?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("header"))?;
        request.headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    if let Some(length) = request.header("content-length") {
        let length: u64 = length.parse().map_err(|_| malformed("content-length"))?;
        reader.take(length.min(MAX_BODY_BYTES)).read_to_end(&mut request.body)?;
    }
    Ok(Some(request))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    reader.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(malformed("line"));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {what}"))
}

fn parse_range(header: &str, size: u64) -> Option<RangeAsked> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let suffix: u64 = last.parse().ok()?;
        return Some(match suffix.min(size) {
            0 => RangeAsked::Unsatisfiable,
            length => RangeAsked::Part(size - length..size),
        });
    }
    let start: u64 = first.parse().ok()?;
    let end = match last {
        "" => size,
        last => last.parse::<u64>().ok()?.saturating_add(1).min(size),
    };
    if start >= size {
        Some(RangeAsked::Unsatisfiable)
    } else if start >= end {
        None
    } else {
        Some(RangeAsked::Part(start..end))
    }
}

const MAX_LINE_BYTES: u64 = 64 << 10;
const MAX_BODY_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_servers_read_them() {
        let part = |range| Some(RangeAsked::Part(range));
        assert_eq!(parse_range("bytes=0-0", 10), part(0..1));
        assert_eq!(parse_range("bytes=3-", 10), part(3..10));
        assert_eq!(parse_range("bytes=3-99", 10), part(3..10));
        assert_eq!(parse_range("bytes=-4", 10), part(6..10));
        assert_eq!(parse_range("bytes=-0", 10), Some(RangeAsked::Unsatisfiable));
        assert_eq!(parse_range("bytes=10-", 10), Some(RangeAsked::Unsatisfiable));
        assert_eq!(parse_range("bytes=0-", 0), Some(RangeAsked::Unsatisfiable));
        assert_eq!(parse_range("bytes=5-3", 10), None);
        assert_eq!(parse_range("bytes=0-1,4-5", 10), None);
        assert_eq!(parse_range("lines=0-1", 10), None);
    }
}
