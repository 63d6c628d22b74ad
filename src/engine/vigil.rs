//! Whether there still is a reason to go on, for a process that may have been frozen: who fetches waits with
//! the next request until somebody has looked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Whoever looks does so every second; after this long the process was frozen, or is starved.
const LATE_AFTER: Duration = Duration::from_secs(5);
/// So long a look is waited for: the volume may hang, and that is no reason for the network to.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// When it was looked last.
#[derive(Debug)]
pub struct Vigil {
    started: Instant,
    looked_ms: AtomicU64,
    /// A look is under way that nobody waits for.
    is_routine: AtomicBool,
}

impl Vigil {
    pub fn new(started: Instant) -> Self {
        Self { started, looked_ms: AtomicU64::new(0), is_routine: AtomicBool::new(false) }
    }

    /// Whether nobody may go on before the next look.
    pub fn is_late(&self, now: Instant) -> bool {
        let looked = Duration::from_millis(self.looked_ms.load(SeqCst));
        now.saturating_duration_since(self.started).saturating_sub(looked) > LATE_AFTER
            && !self.is_routine.load(SeqCst)
    }

    /// Looks at `begun`, in its turn or because it is late; `look` says when it is over. True if time has stood
    /// still meanwhile, so that what was seen is old.
    pub fn look(&self, begun: Instant, look: impl FnOnce() -> Instant) -> bool {
        let is_routine = !self.is_late(begun);
        self.is_routine.store(is_routine, SeqCst);
        let ended = look();
        let is_old = is_routine && ended.saturating_duration_since(begun) > LATE_AFTER;
        if !is_old {
            let at = ended.saturating_duration_since(self.started).as_millis();
            self.looked_ms.store(u64::try_from(at).unwrap_or(u64::MAX), SeqCst);
        }
        self.is_routine.store(false, SeqCst);
        is_old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_frozen_waits_for_a_look_and_nobody_else_does() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let vigil = Vigil::new(start);
        assert!(!vigil.is_late(at(5)));
        assert!(!vigil.look(at(1), || at(1)));
        assert!(!vigil.is_late(at(6)));
        // Frozen between two looks.
        assert!(vigil.is_late(at(60)));
        let look = || {
            assert!(vigil.is_late(at(61)), "the look is waited for");
            at(61)
        };
        assert!(!vigil.look(at(60), look));
        assert!(!vigil.is_late(at(61)));
        // A volume that answers slowly holds nobody up; if time has stood still, it is looked again.
        let look = || {
            assert!(!vigil.is_late(at(70)), "nobody waits for a look in its turn");
            at(120)
        };
        assert!(vigil.look(at(62), look));
        assert!(vigil.is_late(at(120)));
        assert!(!vigil.look(at(120), || at(121)));
        assert!(!vigil.is_late(at(121)));
    }
}
