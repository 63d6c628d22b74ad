//! A slow link between two new tap devices, for kernels without netem: what goes from the first to the
//! second is late, limited and with losses; the way back is free.
//!
//! Says `up` when the devices are there. They live as long as this program.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::process::exit;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{env, mem, thread};

const USAGE: &str = "usage: slowlink DEVICE DEVICE DELAY_MILLISECONDS LOSS_PERCENT MBIT_PER_SECOND";
/// Packets that wait for their turn, as in many a router; the next ones are lost.
const MAX_QUEUE: usize = 1000;
const MAX_PACKET: usize = 64 << 10;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [first, second, numbers @ ..] = arguments.as_slice() else { usage() };
    let numbers: Vec<f64> = numbers.iter().filter_map(|it| it.parse().ok()).collect();
    let [delay, loss, rate] = numbers[..] else { usage() };
    let (first, second) = (tap(first), tap(second));
    let back =
        (second.try_clone().expect("a descriptor"), first.try_clone().expect("a descriptor"));
    thread::spawn(move || forward(back.0, back.1));
    println!("up");
    slow(first, second, Duration::from_secs_f64(delay / 1e3), loss / 100.0, rate * 1e6);
}

fn usage() -> ! {
    eprintln!("{USAGE}");
    exit(2)
}

/// A new tap device. Without offloads, so each packet is one that fits a wire.
fn tap(name: &str) -> File {
    let file =
        File::options().read(true).write(true).open("/dev/net/tun").unwrap_or_else(|error| {
            eprintln!("/dev/net/tun: {error}");
            exit(1)
        });
    let name = CString::new(name).expect("a name");
    // SAFETY: all bytes of it may be zero.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the structure that this call wants, alive until it returns.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request) } != 0 {
        eprintln!("{}: {}", name.to_string_lossy(), io::Error::last_os_error());
        exit(1);
    }
    file
}

/// Hands packets on. A device that is not up yet refuses them, which is as good as a loss.
fn forward(mut from: File, mut to: File) {
    let mut packet = vec![0; MAX_PACKET];
    loop {
        match from.read(&mut packet) {
            Ok(len) => drop(to.write(&packet[..len])),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Packets and when each is to arrive.
type Queue = (Mutex<VecDeque<(Instant, Vec<u8>)>>, Condvar);

fn slow(mut from: File, mut to: File, delay: Duration, loss: f64, rate: f64) {
    let queue: Arc<Queue> = Arc::default();
    let filled = queue.clone();
    thread::spawn(move || {
        loop {
            let mut waiting = queue.0.lock().expect("no panic");
            while waiting.is_empty() {
                waiting = queue.1.wait(waiting).expect("no panic");
            }
            let (due, packet) = waiting.pop_front().expect("not empty");
            drop(waiting);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let _ = to.write(&packet);
        }
    });
    let mut packet = vec![0; MAX_PACKET];
    let mut free_at = Instant::now();
    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    loop {
        let Ok(len) = from.read(&mut packet) else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let now = Instant::now();
        let takes = Duration::from_secs_f64(len as f64 * 8.0 / rate);
        let queued = free_at.saturating_duration_since(now).as_secs_f64() / takes.as_secs_f64();
        if (dice >> 11) as f64 / (1_u64 << 53) as f64 <= loss || queued > MAX_QUEUE as f64 {
            continue;
        }
        free_at = free_at.max(now) + takes;
        filled.0.lock().expect("no panic").push_back((free_at + delay, packet[..len].to_vec()));
        filled.1.notify_one();
    }
}
