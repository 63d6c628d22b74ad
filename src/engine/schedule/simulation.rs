//! Whole transfers at random, in simulated time, without a network, a volume or a clock: connections that
//! are fast, slow, dead, dripping, cut, or become so; a link that they share; files that begin again;
//! threads that never start; hashers that follow; old files.
//!
//! A bad one prints the seed that repeats it.

mod expected;
mod network;
mod parties;
mod world;

use std::time::Duration;

use world::World;

/// What is broken on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Somebody is not told what to do.
    LostTask,
    /// A file that is finished still counts as open.
    FileLeftOpen,
    /// One more file may be open than there are descriptors.
    OneTooMany,
    /// Who asks begins a new file, and what others have left waits: as it was with a semaphore for open
    /// files beside the queue.
    NewFilesFirst,
    /// Nobody sees how fast the connections are.
    NoHedge,
    /// Workers do not hear that their chunks were shortened.
    DeafToSplits,
    /// What was given back is forgotten.
    RestLost,
    /// Nobody looks for a better server.
    NoExchange,
}

/// Of one transfer.
#[derive(Clone, Debug)]
struct Outcome {
    /// How long it took, and how long it should have.
    took: f64,
    ideal: f64,
    /// It can be held against the ideal, see `World::ideal`.
    is_comparable: bool,
    recalls: u32,
    about: String,
}

/// A transfer takes no longer than this times the ideal, and this many seconds: until there are as many
/// connections as are worth having, and until the last slow one is found.
const MOST: f64 = 1.15;
const AND_SECONDS: f64 = 9.0;

/// Runs one transfer to its end; says what went wrong.
fn simulate(seed: u64, fault: Option<Fault>) -> Result<Outcome, String> {
    let outcome = World::new(seed, fault).run()?;
    let Outcome { took, ideal, is_comparable, .. } = outcome;
    if is_comparable && took > ideal * MOST + AND_SECONDS {
        return Err(format!("it took {took:.1} s in place of {ideal:.1} s: {}", outcome.about));
    }
    Ok(outcome)
}

#[test]
fn every_transfer_ends_in_time_within_its_files_and_with_nobody_idle() {
    let set = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = set("WEIGHTLIFT_TEST_SEED");
    let rounds = if seed.is_some() { 1 } else { set("WEIGHTLIFT_TEST_ROUNDS").unwrap_or(2_000) };
    let first = seed.unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    let mut bad = Vec::new();
    let (mut comparable, mut worst, mut total) = (0, (0.0, 0), 0.0);
    for seed in first..first + rounds {
        let outcome = match simulate(seed, None) {
            Ok(outcome) => outcome,
            Err(why) => {
                bad.push(format!("{why}; repeat it with WEIGHTLIFT_TEST_SEED={seed}"));
                if bad.len() == 5 {
                    break;
                }
                continue;
            }
        };
        if outcome.is_comparable && outcome.ideal >= 60.0 {
            let times = outcome.took / outcome.ideal;
            comparable += 1;
            total += times;
            worst = if times > worst.0 { (times, seed) } else { worst };
        }
    }
    eprintln!(
        "{rounds} transfers from seed {first}; of {comparable} that last a minute, mean {:.3}, worst {:.3} \
         times the ideal (seed {})",
        total / f64::from(comparable.max(1)),
        worst.0,
        worst.1
    );
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn what_is_broken_on_purpose_is_found() {
    use Fault::*;
    let faults =
        [LostTask, FileLeftOpen, OneTooMany, NewFilesFirst, NoHedge, DeafToSplits, RestLost];
    for fault in faults {
        let found = (0..600).find_map(|seed| {
            let why = simulate(seed, Some(fault)).err()?;
            simulate(seed, None).is_ok().then_some((seed, why))
        });
        let (seed, why) = found.unwrap_or_else(|| panic!("{fault:?} is not found"));
        eprintln!("{fault:?}, seed {seed}: {}", why.chars().take(100).collect::<String>());
    }
}

/// Mean times of the ideal, and the most recalls, of transfers from a host whose addresses bring such `parts` of the
/// rate of a connection.
fn of_addresses(parts: &[f64], link: f64, fault: Option<Fault>) -> (f64, u32) {
    let first = fastrand::u64(..u64::MAX / 2);
    let rounds = 10;
    let mut total = 0.0;
    let mut recalls = 0;
    for seed in first..first + rounds {
        let outcome = World::unequal(seed, fault, parts, 68e6, link).run();
        let outcome = outcome.unwrap_or_else(|why| panic!("{why}; seed {seed}"));
        total += outcome.took / outcome.ideal;
        recalls = recalls.max(outcome.recalls);
    }
    let mean = total / rounds as f64;
    eprintln!(
        "{rounds} transfers from seed {first}: {mean:.2} times the ideal, {recalls} recalls at most"
    );
    (mean, recalls)
}

#[test]
fn servers_that_are_far_worse_than_others_are_left() {
    // 5 or 2 of 16 are good. If the others are kept it takes 2.5 and 4 times as long.
    for good in [5, 2] {
        let parts = [vec![0.128; 16 - good], vec![1.0; good]].concat();
        let (times, _) = of_addresses(&parts, network::NEVER, None);
        let (without, _) = of_addresses(&parts, network::NEVER, Some(Fault::NoExchange));
        assert!(times < 1.4 && without > 1.8, "{times} {without}");
    }
}

#[test]
fn servers_that_are_all_alike_are_kept() {
    for (parts, link) in [
        (vec![0.128; 16], network::NEVER),
        (vec![1.0; 16], 200e6),
        // Not far enough below the others.
        ([[0.3; 8], [1.0; 8]].concat(), network::NEVER),
    ] {
        let (_, recalls) = of_addresses(&parts, link, None);
        assert!(recalls <= 4, "{parts:?}: {recalls}");
    }
}

fn seconds(time: f64) -> Duration {
    Duration::from_secs_f64(time)
}
