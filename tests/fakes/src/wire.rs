//! Puts a response on a socket, faults included.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crate::date::http_date;
use crate::http::{Response, Running};
use crate::response::{Delivery, Stop};

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    KeepAlive,
    Close,
    Reset,
}

pub(crate) fn send(
    stream: &TcpStream,
    running: &Running,
    method: &str,
    response: Response,
) -> io::Result<After> {
    let mut stream = stream;
    let delivery = &response.delivery;
    running.sleep(delivery.delay)?;
    if delivery.hang_up {
        return Ok(After::Close);
    }
    if let Some(raw) = &delivery.raw {
        stream.write_all(raw)?;
        return Ok(After::Close);
    }
    let length = response.body.len() + delivery.padding_bytes;
    stream.write_all(head(&response, length).as_bytes())?;
    if method == "HEAD" || matches!(response.status, 204 | 304) {
        return Ok(if delivery.close_delimited { After::Close } else { After::KeepAlive });
    }
    send_body(stream, running, &response, length)
}

fn head(response: &Response, length: u64) -> String {
    let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
    let own = [("Date", http_date(SystemTime::now())), ("Content-Length", length.to_string())];
    for (name, value) in own {
        let delivery = &response.delivery;
        let framed_otherwise = name == "Content-Length"
            && (delivery.close_delimited || delivery.one_chunk || response.status == 204);
        if response.header_value(name).is_none() && !framed_otherwise {
            head += &format!("{name}: {value}\r\n");
        }
    }
    if response.delivery.close_delimited {
        head += "Connection: close\r\n";
    }
    for (name, value) in &response.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

fn send_body(
    stream: &TcpStream,
    running: &Running,
    response: &Response,
    length: u64,
) -> io::Result<After> {
    let delivery = &response.delivery;
    let mut pace = Pace::new(delivery);
    // At its end as well, but an empty body is none to stop in.
    let mut stop = delivery.stop.filter(|(after, _)| *after <= length && length > 0);
    let mut buffer = vec![0; (length as usize).min(pace.block_bytes)];
    let mut position = 0;
    if delivery.one_chunk {
        let mut stream = stream;
        stream.write_all(format!("{length:x}\r\n").as_bytes())?;
    }
    loop {
        if let Some((after, kind)) = stop
            && position == after
        {
            match kind {
                Stop::Close => return Ok(After::Close),
                Stop::Reset => {
                    // A reset throws away what the kernel has not delivered yet; let it go first.
                    running.sleep(Duration::from_millis(30))?;
                    return Ok(After::Reset);
                }
                Stop::Stall(duration) => running.sleep(duration)?,
            }
            stop = None;
        }
        if position == length {
            break;
        }
        let until = stop.map_or(length, |(after, _)| after);
        let count = (until - position).min(buffer.len() as u64) as usize;
        let block = &mut buffer[..count];
        response.body.read_at(position, block);
        flip(block, response.body.file_offset() + position, &delivery.flipped);
        // Counted first: a client that has read everything must find it in the log.
        delivery.sent.store(position + count as u64, Ordering::Release);
        if let Err((written, error)) = write_counting(stream, block) {
            delivery.sent.store(position + written as u64, Ordering::Release);
            return Err(error);
        }
        position += count as u64;
        running.sleep(pace.pause_after(position))?;
        if let Some(link) = &delivery.link {
            running.sleep(link.busy_with(count as u64))?;
        }
    }
    let mut stream = stream;
    if delivery.one_chunk {
        stream.write_all(b"\r\n")?;
    }
    stream.write_all(&delivery.stray)?;
    let ends = delivery.close_delimited || delivery.one_chunk;
    Ok(if ends { After::Close } else { After::KeepAlive })
}

/// On failure says how many bytes had been taken.
fn write_counting(mut stream: &TcpStream, block: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < block.len() {
        match stream.write(&block[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

fn flip(block: &mut [u8], block_offset: u64, flipped: &[u64]) {
    for offset in flipped {
        if let Some(at) = offset.checked_sub(block_offset)
            && let Some(byte) = block.get_mut(at as usize)
        {
            *byte = !*byte;
        }
    }
}

/// Spreads a body evenly over time when it has a speed.
struct Pace {
    started: Instant,
    bytes_per_second: Option<u64>,
    block_bytes: usize,
}

impl Pace {
    fn new(delivery: &Delivery) -> Self {
        let block_bytes = match (delivery.bytes_per_second, &delivery.link) {
            (Some(rate), _) => (rate / 20).clamp(1, BLOCK_BYTES as u64) as usize,
            (None, Some(_)) => BLOCK_BYTES_OF_A_LINK,
            (None, None) => BLOCK_BYTES,
        };
        Self { started: Instant::now(), bytes_per_second: delivery.bytes_per_second, block_bytes }
    }

    fn pause_after(&mut self, position: u64) -> Duration {
        let Some(rate) = self.bytes_per_second else {
            return Duration::ZERO;
        };
        let due = Duration::from_secs_f64(position as f64 / rate.max(1) as f64);
        due.saturating_sub(self.started.elapsed())
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        412 => "Precondition Failed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

const BLOCK_BYTES: usize = 256 * 1024;
/// So small that many connections share a link evenly.
const BLOCK_BYTES_OF_A_LINK: usize = 32 * 1024;
