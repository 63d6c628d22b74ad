//! Listens on several addresses and passes connections on to one server, each at a rate of its own:
//! edge servers that differ, and connections that stall.
//!
//! nginx's `limit_rate` lets the first second of every request through at full speed, so that it
//! limits nobody who asks for small ranges. Here the connection has the rate, whatever it asks for.
//! Says `up`, works until its standard input ends, and then prints what each address had to do.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, ptr, thread};

const USAGE: &str =
    "usage: relay SERVER STALL_ONE_IN(0: none) SEED ADDRESS:PORT=BYTES_PER_SECOND(0: any) …";
/// What is passed on at a time.
const BLOCK: usize = 64 << 10;
/// Time that a connection may make up for after a pause, which is the latency of a thread.
const SLACK: Duration = Duration::from_millis(10);
/// A connection that stalls has brought so many bytes.
const STALLS_AFTER: std::ops::Range<u64> = 1 << 20..8 << 20;

struct Relay {
    server: String,
    stall_one_in: u64,
    seed: u64,
    accepted: AtomicU64,
}

struct Edge {
    address: SocketAddr,
    rate: f64,
    connections: AtomicU64,
    bytes: AtomicU64,
    stalled: AtomicU64,
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [server, stall_one_in, seed, edges @ ..] = arguments.as_slice() else { usage() };
    let number = |text: &str| text.parse().unwrap_or_else(|_| usage());
    let relay = Arc::new(Relay {
        server: server.clone(),
        stall_one_in: number(stall_one_in),
        seed: number(seed),
        accepted: AtomicU64::new(0),
    });
    let edges: Vec<Arc<Edge>> = edges.iter().map(|it| Arc::new(edge(it))).collect();
    for edge in &edges {
        let listener = TcpListener::bind(edge.address).unwrap_or_else(|error| {
            eprintln!("relay: {}: {error}", edge.address);
            exit(1)
        });
        let (relay, edge) = (relay.clone(), edge.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (relay, edge) = (relay.clone(), edge.clone());
                // A connection that breaks is the client's affair.
                thread::spawn(move || drop(relay.pass(client, &edge)));
            }
        });
    }
    println!("up");
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let told: Vec<String> = edges.iter().map(|it| it.as_json()).collect();
    println!("[{}]", told.join(", "));
}

fn usage() -> ! {
    eprintln!("{USAGE}");
    exit(2)
}

fn edge(text: &str) -> Edge {
    let (address, rate) = text.split_once('=').unwrap_or_else(|| usage());
    let address = address.parse().unwrap_or_else(|_| usage());
    let rate = rate.parse().unwrap_or_else(|_| usage());
    let [connections, bytes, stalled] = [const { AtomicU64::new(0) }; 3];
    Edge { address, rate, connections, bytes, stalled }
}

impl Edge {
    fn as_json(&self) -> String {
        let [connections, bytes, stalled] =
            [&self.connections, &self.bytes, &self.stalled].map(|it| it.load(Ordering::Relaxed));
        format!(
            "{{\"address\": \"{}\", \"rate\": {}, \"connections\": {connections}, \"bytes\": {bytes}, \
             \"stalled\": {stalled}}}",
            self.address.ip(),
            self.rate
        )
    }
}

impl Relay {
    fn pass(&self, client: TcpStream, edge: &Edge) -> io::Result<()> {
        edge.connections.fetch_add(1, Ordering::Relaxed);
        let stalls_after = self.stalls_after(self.accepted.fetch_add(1, Ordering::Relaxed));
        let server = TcpStream::connect(&self.server)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        let requests = thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            // Wakes the other direction.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
        let result = answers(&server, &client, edge, stalls_after);
        if matches!(result, Ok(Ending::Stalled)) {
            edge.stalled.fetch_add(1, Ordering::Relaxed);
        } else {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
        // A stalled connection stays open for as long as the client wants.
        requests.join().expect("no panic");
        result.map(drop)
    }

    /// One of each so many connections in a row stalls; which, and when, follows from the seed.
    fn stalls_after(&self, number: u64) -> Option<u64> {
        let group = number.checked_div(self.stall_one_in)?;
        let dice = mixed(self.seed ^ mixed(group));
        let chosen = dice % self.stall_one_in == number % self.stall_one_in;
        let bytes = STALLS_AFTER.start + mixed(dice) % (STALLS_AFTER.end - STALLS_AFTER.start);
        chosen.then_some(bytes)
    }
}

enum Ending {
    Closed,
    Stalled,
}

/// Passes on what the server says, without copying it, until either side closes.
fn answers(
    server: &TcpStream,
    client: &TcpStream,
    edge: &Edge,
    stalls_after: Option<u64>,
) -> io::Result<Ending> {
    let (from, to) = pipe()?;
    let mut passed = 0;
    let mut due = Instant::now();
    loop {
        let most = stalls_after.map_or(u64::MAX, |it| it - passed).min(BLOCK as u64) as usize;
        if most == 0 {
            return Ok(Ending::Stalled);
        }
        let received = splice(server, &to, most)?;
        if received == 0 {
            return Ok(Ending::Closed);
        }
        let mut left = received;
        while left > 0 {
            left -= splice(&from, client, left)?;
        }
        passed += received as u64;
        edge.bytes.fetch_add(received as u64, Ordering::Relaxed);
        if edge.rate > 0.0 {
            let now = Instant::now();
            due = due.max(now - SLACK) + Duration::from_secs_f64(received as f64 / edge.rate);
            thread::sleep(due.saturating_duration_since(now));
        }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for the two descriptors that the call makes.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

fn splice(from: &impl AsRawFd, to: &impl AsRawFd, most: usize) -> io::Result<usize> {
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: both descriptors are open, and there are no offsets.
    let count = unsafe {
        libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), most, libc::SPLICE_F_MOVE)
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Splitmix64: every bit of the result depends on every bit of the number.
fn mixed(number: u64) -> u64 {
    let mut it = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    it ^ (it >> 31)
}
