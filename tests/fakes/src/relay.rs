//! Ports that pass connections on: proxies (SOCKS 4, 4a and 5, CONNECT) and a host with many addresses.
//!
//! Knows nothing of what is carried. What a proxy was asked for is kept.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A port that passes connections on until the program ends.
pub struct Relay {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Relayed>>>,
}

/// One connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Which of this machine's addresses it came to.
    pub came_to: Option<IpAddr>,
    /// `socks4`, `socks4a`, `socks5` or `connect`; empty without a proxy.
    pub protocol: &'static str,
    /// What the proxy was asked for: a name or an address, and a port.
    pub host: String,
    pub port: u16,
    /// `user:password`, as far as the client told it.
    pub user: Option<String>,
}

impl Relay {
    /// A proxy for all protocols, which it tells apart by their first byte. Every name leads to
    /// `127.0.0.1`. With a `user`, given as `user:password`, nobody else is let through.
    ///
    /// # Panics
    /// When the machine has no free port.
    pub fn proxy(user: Option<&str>) -> Self {
        let user = user.map(str::to_owned);
        let upstream = move |client: &TcpStream, relayed: &mut Relayed| {
            negotiate(client, relayed, user.as_deref())
        };
        Self::start(Ipv4Addr::LOCALHOST, upstream, |_| None)
    }

    /// A port at every address of this machine, in front of the one at `127.0.0.1`.
    ///
    /// # Panics
    /// When the machine has no free port.
    pub fn everywhere(port: u16) -> Self {
        Self::everywhere_at(port, |_| None)
    }

    /// The same; each connection gets no more bytes per second than `rate_of` the address that it came to.
    ///
    /// # Panics
    /// When the machine has no free port.
    pub fn everywhere_at(
        port: u16,
        rate_of: impl Fn(IpAddr) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        let upstream =
            move |_: &TcpStream, _: &mut Relayed| TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        Self::start(Ipv4Addr::UNSPECIFIED, upstream, rate_of)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The connections that have got through, or tried to, in order.
    pub fn seen(&self) -> Vec<Relayed> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn start(
        address: Ipv4Addr,
        upstream: impl Fn(&TcpStream, &mut Relayed) -> io::Result<TcpStream> + Send + Sync + 'static,
        rate_of: impl Fn(IpAddr) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (list, how) = (Arc::clone(&seen), Arc::new((upstream, rate_of)));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (list, how) = (Arc::clone(&list), Arc::clone(&how));
                thread::spawn(move || {
                    let came_to = client.local_addr().ok().map(|address| address.ip());
                    let mut relayed = Relayed { came_to, ..Relayed::default() };
                    let (upstream, rate_of) = &*how;
                    let server = upstream(&client, &mut relayed);
                    list.lock().unwrap_or_else(PoisonError::into_inner).push(relayed);
                    if let Ok(server) = server {
                        carry(&client, &server, came_to.and_then(rate_of));
                    }
                });
            }
        });
        Self { address, seen }
    }
}

/// Passes bytes on in both directions until both have ended, to the client at this rate.
fn carry(client: &TcpStream, server: &TcpStream, bytes_per_second: Option<u64>) {
    let pass = |mut from: &TcpStream, mut to: &TcpStream, rate: Option<u64>| {
        let _ = match rate {
            Some(rate) => copy_at(rate, from, to),
            None => io::copy(&mut from, &mut to).map(drop),
        };
        let _ = to.shutdown(Shutdown::Write);
    };
    thread::scope(|scope| {
        scope.spawn(|| pass(client, server, None));
        pass(server, client, bytes_per_second);
    });
}

fn copy_at(bytes_per_second: u64, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let mut block = vec![0; (bytes_per_second / 20).clamp(1, 64 << 10) as usize];
    let (started, mut passed) = (Instant::now(), 0);
    loop {
        let count = from.read(&mut block)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&block[..count])?;
        passed += count;
        let due = Duration::from_secs_f64(passed as f64 / bytes_per_second as f64);
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
}

fn negotiate(
    client: &TcpStream,
    relayed: &mut Relayed,
    user: Option<&str>,
) -> io::Result<TcpStream> {
    let mut first = [0];
    client.peek(&mut first)?;
    match first[0] {
        5 => socks5(client, relayed, user),
        4 => socks4(client, relayed),
        _ => connect(client, relayed, user),
    }
}

fn socks5(
    mut client: &TcpStream,
    relayed: &mut Relayed,
    user: Option<&str>,
) -> io::Result<TcpStream> {
    relayed.protocol = "socks5";
    let [_, methods] = read(client)?;
    let mut offered = vec![0; methods.into()];
    client.read_exact(&mut offered)?;
    // 2 is user and password, 0 is nobody.
    let method = if offered.contains(&2) { 2 } else { 0 };
    client.write_all(&[5, method])?;
    if method == 2 {
        let [_version] = read(client)?;
        relayed.user = Some(format!("{}:{}", counted(client)?, counted(client)?));
        let refused = user.is_some() && relayed.user.as_deref() != user;
        client.write_all(&[1, refused.into()])?;
    }
    if user.is_some() && relayed.user.as_deref() != user {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let [_, _, _, kind] = read(client)?;
    relayed.host = match kind {
        1 => Ipv4Addr::from(read::<4>(client)?).to_string(),
        4 => Ipv6Addr::from(read::<16>(client)?).to_string(),
        _ => counted(client)?,
    };
    relayed.port = u16::from_be_bytes(read(client)?);
    let server = dial(relayed);
    // 5 is "connection refused".
    let reply = if server.is_ok() { 0 } else { 5 };
    client.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0])?;
    server
}

fn socks4(mut client: &TcpStream, relayed: &mut Relayed) -> io::Result<TcpStream> {
    relayed.protocol = "socks4";
    let [_, _] = read(client)?;
    relayed.port = u16::from_be_bytes(read(client)?);
    let address = Ipv4Addr::from(read::<4>(client)?);
    relayed.host = address.to_string();
    let id = terminated(client)?;
    relayed.user = (!id.is_empty()).then_some(id);
    // An address that cannot be, 0.0.0.x, says that a name follows.
    if address.octets()[..3] == [0; 3] && address.octets()[3] != 0 {
        relayed.protocol = "socks4a";
        relayed.host = terminated(client)?;
    }
    let server = dial(relayed);
    let reply = if server.is_ok() { 90 } else { 91 };
    client.write_all(&[0, reply, 0, 0, 0, 0, 0, 0])?;
    server
}

fn connect(
    mut client: &TcpStream,
    relayed: &mut Relayed,
    user: Option<&str>,
) -> io::Result<TcpStream> {
    relayed.protocol = "connect";
    // Nothing follows the head before the answer, so nothing is lost in the buffer.
    let mut lines = BufReader::new(client).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let target = first.split(' ').nth(1).unwrap_or_default();
    let (host, port) = target.rsplit_once(':').unwrap_or((target, "443"));
    relayed.host = host.trim_matches(['[', ']']).to_owned();
    relayed.port = port.parse().map_err(|_| io::ErrorKind::InvalidData)?;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("proxy-authorization")
        {
            let pair = value.trim().strip_prefix("Basic ").and_then(|it| STANDARD.decode(it).ok());
            relayed.user = pair.map(|pair| String::from_utf8_lossy(&pair).into_owned());
        }
    }
    if user.is_some() && relayed.user.as_deref() != user {
        client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")?;
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let server = dial(relayed);
    let reply = if server.is_ok() { "200 OK" } else { "502 Bad Gateway" };
    client.write_all(format!("HTTP/1.1 {reply}\r\n\r\n").as_bytes())?;
    server
}

fn dial(relayed: &Relayed) -> io::Result<TcpStream> {
    let ip = relayed.host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    TcpStream::connect((ip, relayed.port))
}

fn read<const N: usize>(mut client: &TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Text behind a byte with its length.
fn counted(mut client: &TcpStream) -> io::Result<String> {
    let [length] = read(client)?;
    let mut text = vec![0; length.into()];
    client.read_exact(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Text up to a zero byte.
fn terminated(client: &TcpStream) -> io::Result<String> {
    let mut text = Vec::new();
    loop {
        match read(client)? {
            [0] => return Ok(String::from_utf8_lossy(&text).into_owned()),
            [byte] => text.push(byte),
        }
    }
}
