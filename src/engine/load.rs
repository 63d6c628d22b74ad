//! Whether the processors are what limits a transfer.

use std::time::{Duration, Instant};

/// Looked at over so long: shorter bursts are usual.
const WINDOW: Duration = Duration::from_secs(5);
/// This part of the processors is as good as all.
const ALL: f64 = 0.9;

pub struct Load {
    processors: f64,
    since: Option<(Instant, f64, u64)>,
}

impl Load {
    pub fn new(processors: f64) -> Self {
        Self { processors, since: None }
    }

    /// Looks at a process that has used `cpu` seconds by now, and has fetched so many bytes. Returns how many
    /// processors it has used, at the end of a window in which these were all, and something came.
    pub fn look(&mut self, at: Instant, cpu: f64, bytes: u64) -> Option<f64> {
        let (since, before, first) = *self.since.get_or_insert((at, cpu, bytes));
        let elapsed = at.saturating_duration_since(since);
        if elapsed < WINDOW {
            return None;
        }
        self.since = Some((at, cpu, bytes));
        let used = (cpu - before) / elapsed.as_secs_f64();
        (used >= self.processors * ALL && bytes > first).then_some(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said in the seconds of a transfer that uses so much of a processor in each of them.
    fn said(processors: f64, bytes_per_second: u64, cpu: &[f64]) -> Vec<f64> {
        let (start, mut load) = (Instant::now(), Load::new(processors));
        let mut used = 0.0;
        let mut said = Vec::new();
        for (n, cpu) in cpu.iter().enumerate() {
            let at = start + Duration::from_secs(n as u64);
            said.extend(load.look(at, used, bytes_per_second * n as u64));
            used += cpu;
        }
        said
    }

    #[test]
    fn a_processor_that_is_busy_all_the_time_is_the_limit() {
        assert_eq!(said(1.0, 1, &[1.0; 6]), [1.0]);
        assert_eq!(said(0.5, 1, &[0.5; 6]), [0.5]);
        // Not yet; a burst; other processors; nothing comes: what was here is hashed.
        assert!(said(1.0, 1, &[1.0; 5]).is_empty());
        assert!(said(1.0, 1, &[1.0, 1.0, 1.0, 0.2, 0.2, 0.2, 0.1]).is_empty());
        assert!(said(8.0, 1, &[1.0; 30]).is_empty());
        assert!(said(1.0, 0, &[1.0; 30]).is_empty());
    }
}
