//! SIGINT, SIGTERM and SIGHUP: stop, keep what is there, and be gone in time, also as PID 1.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::engine::Stop;

/// Bound from the signal to the end of the process; Kubernetes kills after 30 s by default.
const TIME_TO_STOP: Duration = Duration::from_secs(8);

const SIGHUP: i32 = rustix::process::Signal::HUP.as_raw();
const SIGXFSZ: i32 = rustix::process::Signal::XFSZ.as_raw();

/// Which signal has come, if any.
#[derive(Clone, Default)]
pub struct Received(Arc<AtomicI32>);

impl Received {
    pub fn number(&self) -> Option<i32> {
        Some(self.0.load(SeqCst)).filter(|number| *number != 0)
    }
}

/// Listens on a thread of its own, which touches neither locks nor the volume. A second signal, or
/// a first one that is not obeyed in time, calls `give_up`, which ends the process.
pub fn listen(stop: Stop, give_up: impl Fn(i32) + Send + 'static) -> std::io::Result<Received> {
    let received = Received::default();
    let seen = received.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut wishes = {
        let _inside = runtime.enter();
        // A file above the limit of the process is an error to report, not a reason to die.
        let _ = signal(SignalKind::from_raw(SIGXFSZ))?;
        Wishes::listen()?
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let number = wishes.next().await;
            seen.0.store(number, SeqCst);
            stop.set();
            tokio::select! {
                _ = wishes.next() => {}
                () = tokio::time::sleep(TIME_TO_STOP) => {}
            }
            give_up(number);
        });
    })?;
    Ok(received)
}

/// The ways to ask us to end.
struct Wishes {
    interrupt: Signal,
    terminate: Signal,
    /// A terminal that has gone away; absent under `nohup`.
    hangup: Option<Signal>,
}

impl Wishes {
    fn listen() -> std::io::Result<Self> {
        let hangup = (!is_ignored(SIGHUP)).then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => _ = hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            () = hangup => SIGHUP,
        }
    }
}

/// Whether whoever started us wants us to ignore a signal.
fn is_ignored(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}
