//! How fast bytes come, and how long the rest takes, steady enough to be read. Pure: it is told the time and
//! how many bytes there are.

use std::time::Duration;

/// Each of two averages forgets what is older than a few of these. One after the other they answer within some
/// ten seconds, and even out bursts that are seconds apart.
const MEMORY: f64 = 5.0;
/// How fast the time that is shown follows the time that is computed.
const FOLLOWS: f64 = 3.0;
/// Until then there is too little to compute a time from.
const WARM_UP: Duration = Duration::from_millis(1_500);
/// Without a byte for so long, that is what a reader has to know.
const SILENCE: Duration = Duration::from_secs(10);
/// A longer guess is none.
const LONGEST: f64 = 100.0 * 3_600.0;

/// What there is to say of the time that is left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Left {
    /// Too early to tell.
    Unknown,
    Time(Duration),
    /// Days, at this rate.
    AlmostNone,
    /// No byte has come for so long.
    Silent(Duration),
}

/// Follows one count of bytes.
#[derive(Debug, Default)]
pub(super) struct Pace {
    first: Option<Duration>,
    last: (Duration, u64),
    moved_at: Duration,
    once: Average,
    twice: Average,
    left: Option<f64>,
}

/// An exponentially weighted average that is right from its first value on.
#[derive(Debug, Default)]
struct Average {
    sum: f64,
    weight: f64,
}

impl Average {
    fn add(&mut self, value: f64, part: f64) -> f64 {
        self.sum += part * (value - self.sum);
        self.weight += part * (1.0 - self.weight);
        self.value()
    }

    fn value(&self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }
}

impl Pace {
    /// At the time `now` there are `done` bytes of `total`. What is there at the first look is not what has come; a
    /// count that falls, because a file begins again, takes nothing away from the rate.
    pub fn sees(&mut self, now: Duration, done: u64, total: u64) {
        let Some(first) = self.first else {
            (self.first, self.last, self.moved_at) = (Some(now), (now, done), now);
            return;
        };
        let (at, before) = self.last;
        let seconds = now.saturating_sub(at).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        self.last = (now, done);
        let more = done.saturating_sub(before);
        if more > 0 {
            self.moved_at = now;
        }
        let part = share(seconds, MEMORY);
        let once = self.once.add(more as f64 / seconds, part);
        let rate = self.twice.add(once, part);
        let computed = (total.saturating_sub(done) as f64 / rate.max(0.001)).min(2.0 * LONGEST);
        if now.saturating_sub(first) < WARM_UP {
            return;
        }
        self.left = Some(match self.left {
            None => computed,
            Some(shown) => {
                let shown = (shown - seconds).max(0.0);
                shown + (computed - shown) * share(seconds, FOLLOWS)
            }
        });
    }

    /// Bytes per second.
    pub fn rate(&self) -> u64 {
        self.twice.value() as u64
    }

    /// What is left as of the last look.
    pub fn left(&self) -> Left {
        let silent = self.last.0.saturating_sub(self.moved_at);
        match self.left {
            None => Left::Unknown,
            Some(_) if silent >= SILENCE => Left::Silent(silent),
            Some(seconds) if seconds < LONGEST => Left::Time(Duration::from_secs_f64(seconds)),
            Some(_) => Left::AlmostNone,
        }
    }
}

/// How much of a difference is made good after `seconds`.
fn share(seconds: f64, memory: f64) -> f64 {
    1.0 - (-seconds / memory).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: f64 = 0.2;

    /// The times that are shown, in seconds, while `bytes_until(second)` come of `total`.
    fn shown(total: f64, bytes_until: impl Fn(f64) -> f64, seconds: f64) -> Vec<(f64, f64)> {
        let mut pace = Pace::default();
        let mut shown = Vec::new();
        for tick in 0..(seconds / TICK) as u32 {
            let at = f64::from(tick) * TICK;
            let done = bytes_until(at).min(total);
            pace.sees(Duration::from_secs_f64(at), done as u64, total as u64);
            if let Left::Time(left) = pace.left() {
                shown.push((at, left.as_secs_f64()));
            }
        }
        shown
    }

    /// So much comes in a burst at the start of every period.
    fn bursts(period: f64, length: f64, rate: f64) -> impl Fn(f64) -> f64 {
        move |at| {
            let (whole, rest) = ((at / period).floor(), at % period);
            rate * period * (whole + (rest / length).min(1.0))
        }
    }

    #[test]
    fn the_time_left_does_not_jump_while_the_source_is_bursty() {
        let random = |at: f64| {
            let mut dice = fastrand::Rng::with_seed(7);
            (0..(at / TICK) as u32).map(|_| f64::from(dice.u32(0..40)) * 1e6).sum()
        };
        type Rate = Box<dyn Fn(f64) -> f64>;
        let sources: [(&str, Rate); 6] = [
            ("steady", Box::new(|at| at * 100e6)),
            ("a second in five", Box::new(bursts(5.0, 1.0, 100e6))),
            ("a moment every two seconds", Box::new(bursts(2.0, 0.2, 100e6))),
            ("dice", Box::new(random)),
            ("slow at first", Box::new(|at: f64| 100e6 * at * (at / 8.0).min(1.0))),
            ("half as fast after a minute", Box::new(|at: f64| 50e6 * (at + at.min(60.0)))),
        ];
        for (name, bytes) in sources {
            let shown = shown(16e9, bytes, 100.0);
            for pair in shown.windows(2) {
                let ((at, before), (_, after)) = (pair[0], pair[1]);
                let jump = (after - (before - TICK)).abs();
                // A moment that brings nothing is no reason for another number.
                assert!(
                    jump <= 0.06 * before + 0.5,
                    "{name}: {before:.1} to {after:.1} at {at:.1}"
                );
            }
            for window in shown[shown.len() / 3..].windows(5 * 5) {
                let least = window.iter().map(|it| it.1).fold(f64::MAX, f64::min);
                let most = window.iter().map(|it| it.1).fold(0.0, f64::max);
                assert!(
                    most - least < 0.25 * most + 6.0,
                    "{name}: {least:.0} to {most:.0} within 5s"
                );
            }
        }
    }

    #[test]
    fn the_time_left_becomes_right() {
        let steady = shown(10e9, |at| at * 100e6, 60.0);
        for (at, left) in steady.into_iter().filter(|(at, _)| *at >= 3.0) {
            assert!((left - (100.0 - at)).abs() < 1.0, "{left:.1} at {at:.1}");
        }
        let slower = shown(16e9, |at: f64| 50e6 * (at + at.min(30.0)), 60.0);
        let (at, left) = *slower.last().expect("a time is shown");
        let right = (16e9 - 50e6 * (at + 30.0)) / 50e6;
        assert!((left - right).abs() < 0.1 * right, "{left:.1}, not {right:.1}");
    }

    #[test]
    fn what_was_there_and_what_is_thrown_away_is_no_rate() {
        let mut pace = Pace::default();
        let second = Duration::from_secs;
        pace.sees(second(0), 8_000_000_000, 16_000_000_000);
        for n in 1..=30 {
            pace.sees(second(n), 8_000_000_000 + n * 1_000_000, 16_000_000_000);
        }
        assert_eq!(pace.rate(), 1_000_000);
        pace.sees(second(31), 1_000_000, 16_000_000_000);
        assert!((700_000..1_000_000).contains(&pace.rate()), "{}", pace.rate());
    }

    #[test]
    fn silence_and_a_guess_of_days_are_said() {
        let mut pace = Pace::default();
        let second = Duration::from_secs;
        pace.sees(second(0), 0, 16_000_000_000);
        assert_eq!((pace.left(), pace.rate()), (Left::Unknown, 0));
        for n in 1..=20 {
            pace.sees(second(n), n * 300, 16_000_000_000);
        }
        assert_eq!(pace.left(), Left::AlmostNone);
        for n in 21..=32 {
            pace.sees(second(n), 6_000, 16_000_000_000);
        }
        assert_eq!(pace.left(), Left::Silent(second(12)));
    }
}
