//! The smallest HTTP client that can tell how an answer ended. One connection per request.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod xet;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub end: End,
    pub first_byte: Duration,
    pub total: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As many bytes as announced, or an orderly end where none were announced.
    Whole,
    /// Closed before all announced bytes came.
    Short,
    Reset,
    /// Nothing came for as long as the client waits.
    Silent,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value.as_str()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub fn content_range(&self) -> &str {
        self.header("content-range").unwrap_or("none")
    }
}

pub fn get(url: &str) -> Answer {
    request("GET", url, &[], "")
}

pub fn get_range(url: &str, range: &str) -> Answer {
    request("GET", url, &[("Range", range)], "")
}

/// Follows redirects as a browser would, keeping the headers.
pub fn get_following(url: &str, headers: &[(&str, &str)]) -> Answer {
    let mut url = url.to_owned();
    for _ in 0..5 {
        let answer = request("GET", &url, headers, "");
        let Some(location) = answer.header("location").map(str::to_owned) else {
            return answer;
        };
        url = absolute(&url, &location);
    }
    panic!("too many redirects");
}

pub fn absolute(base: &str, location: &str) -> String {
    if location.starts_with("http") {
        return location.to_owned();
    }
    let origin: Vec<&str> = base.splitn(4, '/').take(3).collect();
    format!("{}{location}", origin.join("/"))
}

pub fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let (mut stream, target) = connect(url);
    send(&mut stream, method, &target, headers, body);
    receive(&mut stream, method == "HEAD")
}

pub fn connect(url: &str) -> (TcpStream, String) {
    let rest = url.strip_prefix("http://").expect("a plain URL");
    let (host, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let stream = TcpStream::connect(host).expect("a server that listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (stream, if target.is_empty() { "/".to_owned() } else { target.to_owned() })
}

pub fn send(
    stream: &mut TcpStream,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) {
    let host = stream.peer_addr().expect("a peer");
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    stream.write_all((head + "\r\n" + body).as_bytes()).expect("a request that can be sent");
}

pub fn receive(stream: &mut TcpStream, without_body: bool) -> Answer {
    let started = Instant::now();
    let mut answer = Answer {
        status: 0,
        headers: Vec::new(),
        body: Vec::new(),
        end: End::Whole,
        first_byte: Duration::ZERO,
        total: Duration::ZERO,
    };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => answer.end = End::Short,
            Ok(_) => head.push(byte[0]),
            Err(error) => answer.end = end_of(&error),
        }
        if answer.first_byte.is_zero() {
            answer.first_byte = started.elapsed();
        }
        if answer.end != End::Whole {
            return answer;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let first = lines.next().expect("a status line");
    answer.status = first.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
    answer.headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if !without_body {
        receive_body(stream, &mut answer);
    }
    answer.total = started.elapsed();
    answer
}

fn receive_body(stream: &mut TcpStream, answer: &mut Answer) {
    let length: Option<usize> = answer.header("content-length").and_then(|it| it.parse().ok());
    let mut buffer = vec![0; 64 * 1024];
    while length.is_none_or(|length| answer.body.len() < length) {
        let most = length.map_or(buffer.len(), |it| buffer.len().min(it - answer.body.len()));
        match stream.read(&mut buffer[..most]) {
            Ok(0) if length.is_none() => return,
            Ok(0) => {
                answer.end = End::Short;
                return;
            }
            Ok(count) => answer.body.extend_from_slice(&buffer[..count]),
            Err(error) => {
                answer.end = end_of(&error);
                return;
            }
        }
    }
}

fn end_of(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::ConnectionReset => End::Reset,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => End::Silent,
        kind => panic!("unexpected {kind}"),
    }
}

const PATIENCE: Duration = Duration::from_millis(1500);
