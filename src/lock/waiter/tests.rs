use super::*;

const PATIENCE: Patience = Patience {
    lock_timeout: Duration::from_secs(7_200),
    takeover_after: Duration::from_secs(60),
    takeover_rate: 256 << 10,
};
const GB: u64 = 1_000_000_000;
const MB: u64 = 1_000_000;

/// What a holder writes at each beat, by the seconds since its start.
fn fetching(bytes_per_second: u64) -> impl Fn(u64) -> Beat<'static> {
    move |second| Beat {
        staging: "holder",
        sequence: second / 5,
        phase: "fetching",
        done_bytes: second / 5 * 5 * bytes_per_second,
        total_bytes: 16 * GB,
        worked_bytes: 0,
    }
}

/// The first second of a day at which a waiter without luck, that looks every second, does anything but
/// wait, and what.
fn first<'a>(patience: Patience, beat: impl Fn(u64) -> Beat<'a>) -> Option<(u64, Next)> {
    first_of(Waiter::new(Instant::now(), patience, 0.0), beat)
}

fn first_of<'a>(mut waiter: Waiter, beat: impl Fn(u64) -> Beat<'a>) -> Option<(u64, Next)> {
    let start = waiter.moved_at;
    (0..24 * 3_600).find_map(|second| {
        let now = start + Duration::from_secs(second);
        waiter.sees(now, &beat(second));
        Some((second, waiter.next(now))).filter(|(_, next)| *next != Next::Wait)
    })
}

fn is_slow(next: Next) -> bool {
    matches!(next, Next::FetchAsWell { why: Why::Slow { .. }, .. })
}

const STUCK: Next = Next::FetchAsWell { why: Why::Stuck, extra_attempts: 2 };

#[test]
fn a_holder_is_waited_for_as_long_as_it_makes_progress() {
    type Holder = Box<dyn Fn(u64) -> Beat<'static>>;
    let never_slow = Patience { takeover_rate: 0, ..PATIENCE };
    let no_takeover = Patience { takeover_after: Duration::from_secs(86_400), ..never_slow };
    let brief = Patience { lock_timeout: Duration::from_secs(2), ..no_takeover };
    let none = Patience { lock_timeout: Duration::ZERO, ..no_takeover };
    let stuck_after =
        |seconds: u64| -> Holder { Box::new(move |second| fetching(MB)(second.min(seconds))) };
    let hashing = |second| Beat { worked_bytes: second / 5, ..fetching(0)(second) };
    type Row = (&'static str, Patience, Holder, Option<(u64, Next)>);
    let table: Vec<Row> = vec![
        ("a day of honest download", PATIENCE, Box::new(fetching(MB)), None),
        ("one byte a beat", never_slow, Box::new(hashing), None),
        ("stuck after an hour", PATIENCE, stuck_after(3_600), Some((3_660, STUCK))),
        ("stuck from the start", PATIENCE, stuck_after(0), Some((60, STUCK))),
        (
            "and no waiter may take over",
            no_takeover,
            stuck_after(3_600),
            Some((10_800, Next::GiveUp)),
        ),
        // Between two beats even a healthy holder shows nothing.
        ("little patience, healthy", brief, Box::new(fetching(MB)), None),
        ("little patience, stuck", brief, stuck_after(20), Some((31, Next::GiveUp))),
        ("no patience", none, Box::new(fetching(MB)), Some((0, Next::GiveUp))),
        // Beats without progress, which a frozen disk lets through.
        ("beats alone", PATIENCE, Box::new(fetching(0)), Some((60, STUCK))),
    ];
    for (name, patience, holder, expected) in table {
        assert_eq!(first(patience, holder), expected, "{name}");
    }
}

#[test]
fn a_holder_is_slow_when_fetching_as_well_would_end_sooner() {
    let at = |done: u64, total: u64, rate: u64| {
        move |second: u64| {
            let beat = fetching(rate)(second);
            Beat { done_bytes: done + beat.done_bytes, total_bytes: total, ..beat }
        }
    };
    let rate = |bytes: u64| Patience { takeover_rate: bytes, ..PATIENCE };
    let table = [
        ("16 connections at 2.5 kB/s", PATIENCE, at(0, 16 * GB, 40_000), true),
        ("one connection at 2.5 kB/s", PATIENCE, at(0, 16 * GB, 2_500), true),
        ("a thin link", PATIENCE, at(0, 16 * GB, MB), false),
        ("a very large model on it", PATIENCE, at(0, 1_000 * GB, MB), false),
        // Nearly done: starting takes longer than the rest.
        ("two minutes left", PATIENCE, at(16 * GB - 12 * MB, 16 * GB, 40_000), false),
        ("an hour left", PATIENCE, at(16 * GB - 144 * MB, 16 * GB, 40_000), true),
        // Re-checking what is there takes longer than the rest.
        ("much to re-check", PATIENCE, at(400 * GB, 400 * GB + 80 * MB, 40_000), false),
        ("switched off", rate(0), at(0, 16 * GB, 2_500), false),
        ("a fast network", rate(100 * MB), at(0, 16 * GB, MB), true),
        ("nothing left", PATIENCE, at(16 * GB, 0, 40_000), false),
    ];
    for (name, patience, holder, expected) in table {
        let mut waiter = Waiter::new(Instant::now(), patience, 0.0);
        let start = waiter.moved_at;
        let found = (0..400).any(|second| {
            let now = start + Duration::from_secs(second);
            waiter.sees(now, &holder(second));
            is_slow(waiter.next(now))
        });
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn only_a_rate_that_was_seen_for_minutes_counts() {
    // The window is three minutes.
    let (second, next) = first(PATIENCE, fetching(40_000)).expect("is slow");
    assert!(is_slow(next) && (180..190).contains(&second), "{second}: {next:?}");
    let dips = |second: u64| {
        let fast = second / 5 * 5 - (second % 600).min(120) / 5 * 5;
        Beat { done_bytes: fast * MB, ..fetching(0)(second) }
    };
    let patient = Patience { takeover_after: Duration::from_secs(130), ..PATIENCE };
    assert_eq!(first(patient, dips), None, "two minutes out of ten without a byte");
    // What it reads back is work as well; other phases have no rate.
    let hashing =
        |second: u64| Beat { worked_bytes: second / 5 * 500 * MB, ..fetching(1_000)(second) };
    assert_eq!(first(PATIENCE, hashing), None);
    let looking = |second| Beat { phase: "looking at earlier attempts", ..fetching(1_000)(second) };
    assert_eq!(first(PATIENCE, looking), None);
}

#[test]
fn of_many_waiters_one_fetches_beside_a_slow_holder() {
    let slow = fetching(2_500);
    let waiters: Vec<(u64, Next)> = (0..50)
        .filter_map(|n| {
            let waiter = Waiter::new(Instant::now(), PATIENCE, f64::from(n) / 50.0);
            first_of(waiter, &slow)
        })
        .collect();
    assert_eq!(waiters.len(), 50);
    assert!(
        waiters
            .iter()
            .all(|(_, next)| { matches!(next, Next::FetchAsWell { extra_attempts: 1, .. }) }),
        "{waiters:?}"
    );
    let (first, last) = (waiters[0].0, waiters[49].0);
    assert!(last - first > 150, "they come at once: {first} to {last}");
    // The first one is seen at work a few seconds later, and holds back all others.
    let with_extra = |second: u64| {
        let is_extra = second > 190 && second % 2 == 1;
        let extra = fetching(MB)(second.saturating_sub(190));
        if is_extra { Beat { staging: "extra", ..extra } } else { slow(second) }
    };
    let others = (10..50).filter(|n| {
        let waiter = Waiter::new(Instant::now(), PATIENCE, f64::from(*n) / 50.0);
        first_of(waiter, with_extra).is_some()
    });
    assert_eq!(others.count(), 0);
    // Which is as slow: then a second one may.
    let both_slow = |second: u64| {
        let it = slow(second);
        if second % 2 == 1 { Beat { staging: "extra", ..it } } else { it }
    };
    let mut waiter = Waiter::new(Instant::now(), PATIENCE, 0.0);
    let start = waiter.moved_at;
    let most = (0..600).filter_map(|second| {
        let now = start + Duration::from_secs(second);
        waiter.sees(now, &both_slow(second));
        match waiter.next(now) {
            Next::FetchAsWell { extra_attempts, .. } => Some(extra_attempts),
            _ => None,
        }
    });
    assert_eq!(most.max(), Some(2));
}

#[test]
fn an_attempt_that_ended_is_forgotten() {
    // A fast one comes and goes; the slow one stays.
    let holder = |second: u64| {
        if second < 20 {
            Beat { staging: "gone", ..fetching(100 * MB)(second) }
        } else {
            fetching(2_500)(second)
        }
    };
    let (second, next) = first(PATIENCE, holder).expect("is slow");
    assert!(is_slow(next) && (200..215).contains(&second), "{second}: {next:?}");
}

#[test]
fn the_holder_of_a_lease_is_heard() {
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let mut waiter = Waiter::new(start, PATIENCE, 0.0);
    for second in 0..600 {
        waiter.hears(at(second), "pod-a", &format!("{} bytes", second / 30));
        assert_eq!(waiter.next(at(second)), Next::Wait);
    }
    assert_eq!(waiter.lease_holder(), Some("pod-a"));
    (600..650).for_each(|second| waiter.hears(at(second), "pod-a", "20 bytes"));
    assert_eq!(waiter.next(at(659)), Next::Wait);
    assert_eq!(waiter.next(at(661)), STUCK);
}

#[test]
fn what_a_heartbeat_claims_is_survived() {
    let start = Instant::now();
    let mut waiter = Waiter::new(start, PATIENCE, 1.0);
    for second in 0..2_000_u64 {
        let now = start + Duration::from_secs(second);
        let claim = fastrand::Rng::with_seed(second).u64(..);
        let long = "x".repeat((claim % 100) as usize);
        let beat = Beat {
            staging: &long,
            sequence: claim,
            phase: "fetching",
            done_bytes: if second % 3 == 0 { u64::MAX } else { claim },
            total_bytes: u64::MAX,
            worked_bytes: u64::MAX,
        };
        waiter.sees(now, &beat);
        waiter.next(now);
        assert!(waiter.attempts.len() <= MAX_ATTEMPTS);
        let samples = |it: &Attempt| it.samples.len() <= SAMPLES as usize + 3;
        assert!(waiter.attempts.iter().all(samples));
    }
}
