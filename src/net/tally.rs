//! What this process has counted of its requests, for monitoring. One for the process, as its numbers are.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a request was made again, as monitoring names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No usable answer: refused, reset, timed out, 5xx.
    Unreachable,
    /// The host asked for a pause.
    RateLimited,
    /// An answer that breaks the protocol.
    Protocol,
    /// A link had expired and was made anew.
    RenewedLink,
    /// A whole file came in place of a range.
    NoRanges,
}

impl Reason {
    pub const ALL: [Self; 5] =
        [Self::Unreachable, Self::RateLimited, Self::Protocol, Self::RenewedLink, Self::NoRanges];

    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::RateLimited => "rate_limited",
            Self::Protocol => "protocol",
            Self::RenewedLink => "renewed_link",
            Self::NoRanges => "no_ranges",
        }
    }
}

/// Raised with relaxed atomics: nothing is decided by them.
static RETRIES: [AtomicU64; Reason::ALL.len()] = [const { AtomicU64::new(0) }; Reason::ALL.len()];
static TRANSFERS: AtomicU64 = AtomicU64::new(0);

/// A request will be made again.
pub fn retried(reason: Reason) {
    RETRIES[reason as usize].fetch_add(1, Relaxed);
}

/// How often requests were made again, by reason.
pub fn retries() -> impl Iterator<Item = (Reason, u64)> {
    Reason::ALL.into_iter().map(|reason| (reason, RETRIES[reason as usize].load(Relaxed)))
}

/// So many bodies are being read at the moment, each on a connection of its own.
pub fn transfers() -> u64 {
    TRANSFERS.load(Relaxed)
}

/// A body that is being read, until this is dropped.
#[derive(Debug)]
pub(super) struct Transfer(());

impl Transfer {
    pub fn begin() -> Self {
        TRANSFERS.fetch_add(1, Relaxed);
        Self(())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        TRANSFERS.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_counts_at_its_own_place() {
        for (n, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, n);
            let of = || retries().find(|(other, _)| *other == reason).map(|(_, count)| count);
            let before = of();
            retried(reason);
            assert!(of() > before, "{}", reason.name());
        }
    }
}
