//! SIGINT and SIGTERM: stop, keep what is there, and be gone in time, also as PID 1.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::transfer::Stop;

/// Bound from the signal to the end of the process; Kubernetes kills after 30 s by default.
const TIME_TO_STOP: Duration = Duration::from_secs(8);

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
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let number = tokio::select! {
                _ = interrupt.recv() => 2,
                _ = terminate.recv() => 15,
            };
            seen.0.store(number, SeqCst);
            stop.set();
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = tokio::time::sleep(TIME_TO_STOP) => {}
            }
            give_up(number);
        });
    })?;
    Ok(received)
}
