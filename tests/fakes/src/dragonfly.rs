//! A node's dfdaemon: the HTTP proxy of Dragonfly, with peers that already have what was once asked for.
//!
//! As the real one (dragonfly-client 1.5, `proxy/mod.rs`): only a GET with `X-Dragonfly-Use-P2P: true` is for
//! peers, a task is what `X-Dragonfly-Content-For-Calculating-Task-ID` says, a range is answered with 206, and
//! an error says whose it is. Its origin is whatever `Host` names, over plain HTTP.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};

use crate::blob::Blob;
use crate::http::{Request, Response, Server};
use crate::log::{Log, Logged};
use crate::script::{Rule, Script};

/// A running daemon. Dropping it closes the port.
pub struct FakeDragonfly {
    server: Server,
    script: Script,
    log: Log,
    tasks: Tasks,
}

/// What the peers have, by the name of the task.
type Tasks = Arc<Mutex<BTreeMap<String, Task>>>;

/// The bytes, and the headers with which the origin has sent them: of whichever it was read from first.
type Task = (Blob, Vec<(String, String)>);

impl FakeDragonfly {
    /// Requests to any host of TLS, which have come through a tunnel, go to this port in place of it.
    ///
    /// # Panics
    /// When the machine has no free port.
    pub fn start(behind_tls: Option<u16>) -> Self {
        let (script, log, tasks) = (Script::default(), Log::new(), Tasks::default());
        let handler = {
            let tasks = tasks.clone();
            move |request: &Request| answer(request, &tasks, behind_tls)
        };
        let server = Server::start(script.observed("dragonfly", &log, handler));
        Self { server, script, log, tasks }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    pub fn port(&self) -> u16 {
        self.server.port()
    }

    pub fn script(&self, rule: Rule) {
        self.script.add(rule);
    }

    pub fn requests(&self) -> Vec<Logged> {
        self.log.requests()
    }

    /// The names of the tasks, in order.
    pub fn tasks(&self) -> Vec<String> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// What the peers have of a task from now on, whatever the origin has.
    pub fn have(&self, task: &str, blob: Blob) {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(task.to_owned(), (blob, Vec::new()));
    }
}

fn error(status: u16, whose: &str) -> Response {
    Response::new(status).header("X-Dragonfly-Error-Type", whose)
}

fn answer(request: &Request, tasks: &Tasks, behind_tls: Option<u16>) -> Response {
    let is = |name: &str, value: &str| request.header(name) == Some(value);
    let task = request.header("x-dragonfly-content-for-calculating-task-id").unwrap_or_default();
    let has_range = request.header("range").is_some();
    let is_meant = request.method == "GET"
        && is("x-dragonfly-use-p2p", "true")
        && task.strip_prefix("sha256:").is_some_and(is_sha256)
        && is("x-dragonfly-prefetch", "true") == has_range;
    if !is_meant {
        return error(400, "proxy");
    }
    // Others who want the same wait for the one who fetches it.
    let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = tasks.get(task) {
        return of_task(request, known).header("X-Dragonfly-Task-Download-Finished", "true");
    }
    match back_to_source(request, behind_tls) {
        Ok((200, headers, body)) => {
            let known = (Blob::bytes(body), headers);
            let response = of_task(request, &known);
            tasks.insert(task.to_owned(), known);
            response.header("X-Dragonfly-Task-ID", task)
        }
        Ok((status, ..)) => error(status, "backend"),
        Err(_) => error(500, "backend"),
    }
}

fn of_task(request: &Request, (blob, headers): &Task) -> Response {
    let response = Response::blob(request, blob);
    headers.iter().fold(response, |response, (name, value)| response.header(name, value))
}

fn is_sha256(digits: &str) -> bool {
    digits.len() == 64 && digits.bytes().all(|it| it.is_ascii_hexdigit())
}

/// What an origin answers: the status, the headers and the body.
type Origins = (u16, Vec<(String, String)>, Vec<u8>);

/// The whole file from the origin, with the client's headers.
fn back_to_source(request: &Request, behind_tls: Option<u16>) -> std::io::Result<Origins> {
    let host = request.header("host").unwrap_or_default();
    let port = match (host.rsplit_once(':'), behind_tls) {
        (_, Some(port)) => port,
        (Some((_, port)), None) => port.parse().unwrap_or(80),
        (None, None) => 80,
    };
    let mut head = format!("GET {} HTTP/1.1\r\n", request.target());
    for (name, value) in &request.headers {
        let lower = name.to_ascii_lowercase();
        if !lower.starts_with("x-dragonfly-") && !matches!(&*lower, "range" | "connection") {
            head += &format!("{name}: {value}\r\n");
        }
    }
    let mut origin = TcpStream::connect(("127.0.0.1", port))?;
    origin.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    origin.read_to_end(&mut answer)?;
    let malformed = || std::io::Error::other("malformed answer");
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").ok_or_else(malformed)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.get(9..12).and_then(|it| it.parse().ok()).ok_or_else(malformed)?;
    let framing = ["content-length", "content-range", "connection", "transfer-encoding", "date"];
    let kept = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let kept = kept.filter(|(name, _)| !framing.contains(&&*name.to_ascii_lowercase()));
    let headers = kept.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok((status, headers, answer.split_off(end + 4)))
}
