//! SIGINT, SIGTERM, SIGHUP and the end of the time: stop, keep what is there, and be gone in time, also as
//! PID 1.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::signal::unix::{self, SignalKind, signal};

use crate::engine::Stop;
use crate::error::Signal;

/// Bound from the wish to stop to the end of the process; Kubernetes kills after 30 s by default.
pub const TIME_TO_STOP: Duration = Duration::from_secs(8);

const SIGHUP: i32 = rustix::process::Signal::HUP.as_raw();
const SIGXFSZ: i32 = rustix::process::Signal::XFSZ.as_raw();

/// Why a run has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    Signal(Signal),
    OutOfTime,
}

/// When a run is out of time, and how long it may take to stop.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimit {
    pub at: Instant,
    pub time_to_stop: Duration,
}

/// Why the run was told to stop, if it was.
#[derive(Clone, Default)]
pub struct Told(Arc<OnceLock<StopReason>>);

impl Told {
    pub fn reason(&self) -> Option<StopReason> {
        self.0.get().copied()
    }
}

/// Listens on a thread of its own, which touches neither locks nor the volume. A second signal, or a wish
/// to stop that is not obeyed in time, calls `give_up`, which ends the process.
pub fn listen(
    stop: Stop,
    limit: Option<TimeLimit>,
    give_up: impl Fn(StopReason) + Send + 'static,
) -> std::io::Result<Told> {
    let told = Told::default();
    let teller = told.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        // A file above the limit of the process is an error to report, not a reason to die.
        let _ = signal(SignalKind::from_raw(SIGXFSZ))?;
        Signals::listen()?
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let (reason, time_to_stop) = tokio::select! {
                signal = signals.next() => (StopReason::Signal(signal), TIME_TO_STOP),
                time_to_stop = passes(limit) => (StopReason::OutOfTime, time_to_stop),
            };
            let _ = teller.0.set(reason);
            stop.set();
            let is_insisted_on = async {
                // The kubelet's SIGTERM may come just after the end of the time, and is no second wish.
                if reason == StopReason::OutOfTime {
                    signals.next().await;
                }
                signals.next().await;
            };
            tokio::select! {
                () = is_insisted_on => {}
                () = tokio::time::sleep(time_to_stop) => {}
            }
            give_up(reason);
        });
    })?;
    Ok(told)
}

/// Waits until `limit` is reached; returns what it leaves for stopping.
async fn passes(limit: Option<TimeLimit>) -> Duration {
    let Some(TimeLimit { at, time_to_stop }) = limit else { return std::future::pending().await };
    tokio::time::sleep_until(at.into()).await;
    time_to_stop
}

/// The ways to ask us to end.
struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    /// A terminal that has gone away; absent under `nohup`.
    hangup: Option<unix::Signal>,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let hangup = (!is_ignored(SIGHUP)).then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    async fn next(&mut self) -> Signal {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => _ = hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            () = hangup => Signal::Hangup,
        }
    }
}

/// Whether the process that started us wants us to ignore a signal.
fn is_ignored(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}
