//! One host's rate limit, kept by everybody who talks to it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// Shortest wait that is made of what a server asks for, and the longest that is believed.
const MIN_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(86_400);
/// Longest wait for a host that does not say how long it should be.
const MAX_UNASKED_WAIT: Duration = Duration::from_secs(30);

/// Until when each origin asked not to be called.
#[derive(Debug, Default)]
pub struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    until: HashMap<String, Instant>,
    /// How often in a row each origin has asked to slow down without saying for how long.
    slowed: HashMap<String, u32>,
    /// Until when any origin is left alone, and how long that has been in all, that end included.
    last: Option<Instant>,
    total: Duration,
}

impl Pace {
    /// Waits until `origin` may be called again.
    pub async fn wait(&self, origin: &str) {
        // Again after each sleep: another worker may have been told to wait longer.
        while let Some(left) = self.remaining(origin) {
            tokio::time::sleep(left).await;
        }
    }

    /// How long `origin` must still be left alone.
    pub fn remaining(&self, origin: &str) -> Option<Duration> {
        let until = *self.state().until.get(origin)?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Keeps everybody off `origin`, which has not said for how long: for `first`, and for twice as
    /// long each time that it says so again. Returns the wait.
    pub fn slow_down(&self, origin: &str, first: Duration) -> Duration {
        // The other answers to what was on its way by then say nothing new.
        if let Some(left) = self.remaining(origin) {
            return left;
        }
        let times = {
            let mut state = self.state();
            let times = state.slowed.entry(origin.to_owned()).or_default();
            *times += 1;
            *times
        };
        let wait = first.saturating_mul(1 << (times - 1).min(16));
        self.pause(origin, wait.min(MAX_UNASKED_WAIT))
    }

    /// `origin` has answered: the next time to slow down is the first one again.
    pub fn goes_well(&self, origin: &str) {
        self.state().slowed.remove(origin);
    }

    /// Keeps everybody off `origin` for `wait`, which is returned.
    pub fn pause(&self, origin: &str, wait: Duration) -> Duration {
        let now = Instant::now();
        let until = now + wait;
        let mut state = self.state();
        let entry = state.until.entry(origin.to_owned()).or_insert(until);
        *entry = until.max(*entry);
        // Pauses that overlap count once.
        let from = state.last.map_or(now, |last| last.max(now));
        state.total += until.saturating_duration_since(from);
        state.last = Some(until.max(from));
        wait
    }

    /// Whether any origin is left alone at the moment.
    pub fn is_pausing(&self) -> bool {
        self.state().last.is_some_and(|last| last > Instant::now())
    }

    /// How long this process has been asked to wait so far.
    pub fn paused(&self) -> Duration {
        let state = self.state();
        let ahead = state.last.map(|last| last.saturating_duration_since(Instant::now()));
        state.total.saturating_sub(ahead.unwrap_or_default())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the headers of a 429 or 503 ask to wait: `Retry-After` in seconds or as a date, or the
/// Hub's `RateLimit: "api";r=0;t=55`.
pub fn asked_wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let exhausted = |limit: &str| {
        let field = |name: &str| {
            limit.split(';').find_map(|part| part.trim().strip_prefix(name)?.parse::<u64>().ok())
        };
        // One second more: the window is full seconds, and the edge is the busiest moment.
        let wait = || field("t=").map(|t| Duration::from_secs(t.saturating_add(1)));
        (field("r=") == Some(0)).then(wait).flatten()
    };
    // Several limits are separated by commas; the one that is used up longest counts.
    let from_limit = text("ratelimit").and_then(|all| all.split(',').filter_map(exhausted).max());
    let from_retry_after = || {
        let value = text(RETRY_AFTER.as_str())?;
        if let Ok(seconds) = value.parse::<u64>() {
            return Some(Duration::from_secs(seconds));
        }
        let at = httpdate::parse_http_date(value).ok()?;
        // The server's own clock, where it sends it: ours may be wrong.
        let now = text(DATE.as_str())
            .and_then(|date| httpdate::parse_http_date(date).ok())
            .unwrap_or(now);
        Some(at.duration_since(now).unwrap_or_default())
    };
    from_limit.or_else(from_retry_after).map(|wait| wait.clamp(MIN_WAIT, MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(pairs: &[(&'static str, &'static str)]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, reqwest::header::HeaderValue::from_static(value));
        }
        asked_wait(&headers, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn each_way_to_ask_for_a_wait_is_understood() {
        assert_eq!(wait(&[("retry-after", "3")]), Some(Duration::from_secs(3)));
        assert_eq!(wait(&[("ratelimit", "\"api\";r=0;t=55")]), Some(Duration::from_secs(56)));
        assert_eq!(
            wait(&[("ratelimit", "\"api\";r=7;t=55"), ("retry-after", "2")]),
            Some(Duration::from_secs(2))
        );
        assert_eq!(
            wait(&[
                ("date", "Fri, 20 Nov 2026 10:00:00 GMT"),
                ("retry-after", "Fri, 20 Nov 2026 10:00:20 GMT")
            ]),
            Some(Duration::from_secs(20))
        );
        assert_eq!(
            wait(&[("ratelimit", "\"api\";r=9;t=5, \"resolvers\";r=0;t=20")]),
            Some(Duration::from_secs(21))
        );
        assert_eq!(wait(&[("retry-after", "3600")]), Some(Duration::from_secs(3600)));
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn pauses_that_overlap_count_once() {
        let pace = Pace::default();
        pace.pause("https://a", Duration::from_millis(60));
        pace.pause("https://b", Duration::from_millis(50));
        std::thread::sleep(Duration::from_millis(80));
        let paused = pace.paused();
        assert!(
            paused >= Duration::from_millis(59) && paused < Duration::from_millis(79),
            "{paused:?}"
        );
    }

    #[test]
    fn a_host_that_asks_to_slow_down_again_is_left_alone_for_longer() {
        let pace = Pace::default();
        let first = Duration::from_millis(20);
        let mut waits = Vec::new();
        for _ in 0..4 {
            waits.push(pace.slow_down("https://a", first));
            // What was on its way already is told the same, and it counts once.
            assert!(pace.slow_down("https://a", first) <= waits[waits.len() - 1]);
            std::thread::sleep(waits[waits.len() - 1]);
        }
        assert_eq!(waits, [20, 40, 80, 160].map(Duration::from_millis));
        pace.goes_well("https://a");
        assert_eq!(pace.slow_down("https://a", first), first);
        assert_eq!(pace.slow_down("https://b", Duration::from_secs(3_600)), MAX_UNASKED_WAIT);
    }

    #[test]
    fn absurd_waits_are_bounded_and_nonsense_is_ignored() {
        assert_eq!(wait(&[("retry-after", "1000000000")]), Some(MAX_WAIT));
        assert_eq!(wait(&[("retry-after", "0")]), Some(MIN_WAIT));
        assert_eq!(wait(&[("retry-after", "-5")]), None);
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        assert_eq!(wait(&[("ratelimit", "\"api\";r=0;t=18446744073709551615")]), Some(MAX_WAIT));
    }

    #[test]
    fn the_longest_pause_of_an_origin_counts() {
        let pace = Pace::default();
        pace.pause("https://a", Duration::from_secs(30));
        pace.pause("https://a", Duration::from_secs(2));
        assert!(pace.remaining("https://a").expect("paused") > Duration::from_secs(20));
        assert_eq!(pace.remaining("https://b"), None);
    }
}
