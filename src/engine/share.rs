//! Connections that the transfers of one run have together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// How many transfers are under way, and what one of them has said for all; a copy is the same.
#[derive(Clone, Debug, Default)]
pub struct Share {
    active: Arc<AtomicUsize>,
    said: Arc<Said>,
}

/// What the user is told once.
#[derive(Debug, Default)]
struct Said {
    memory: AtomicBool,
    processor: AtomicBool,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Active<'a>(&'a Share);

impl Share {
    pub(super) fn join(&self) -> Active<'_> {
        self.active.fetch_add(1, SeqCst);
        Active(self)
    }

    /// Whether nobody has said yet that memory limits the connections; true once.
    pub(super) fn says_memory(&self) -> bool {
        !self.said.memory.swap(true, SeqCst)
    }

    /// The same of the processor, which limits the rate.
    pub(super) fn says_processor(&self) -> bool {
        !self.said.processor.swap(true, SeqCst)
    }

    /// What each may have of `all`; at least one. A transfer that joins gets its part as the chunks of the
    /// others end, and one that ends leaves its part to them.
    pub(super) fn of(&self, all: usize) -> usize {
        (all / self.active.load(SeqCst).max(1)).max(1)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_is_shared_by_those_who_are_there() {
        let share = Share::default();
        assert_eq!(share.of(16), 16);
        let first = share.join();
        assert_eq!(share.of(16), 16);
        let same = share.clone();
        let (second, third) = (share.join(), same.join());
        assert_eq!((share.of(16), same.of(16), share.of(2)), (5, 5, 1));
        drop((second, third));
        assert_eq!(share.of(16), 16);
        drop(first);
    }
}
