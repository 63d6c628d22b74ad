//! Every reader of foreign bytes, with a bounded number of mutated inputs: none panics, and what one
//! accepts holds what is promised of it. `tests/corpus` holds what the inputs are made of.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use weightlift::fuzz::{TARGETS, Target};

/// Inputs for each target; `WEIGHTLIFT_TEST_ROUNDS` multiplies them.
const CASES: usize = 30_000;
/// Through a whole SDK.
const SLOW: (&str, usize) = ("s3_listing", 5_000);
const MAX_LEN: usize = 16 << 10;

#[test]
fn no_reader_of_foreign_bytes_panics_or_accepts_what_it_must_not() {
    let rounds = number("WEIGHTLIFT_TEST_ROUNDS").unwrap_or(1);
    // The same inputs every time, unless asked otherwise.
    let seed = number("WEIGHTLIFT_TEST_SEED").unwrap_or(1);
    for (n, (name, target)) in TARGETS.iter().enumerate() {
        let cases = if *name == SLOW.0 { SLOW.1 } else { CASES } * rounds as usize;
        let corpus = corpus(name);
        for (path, input) in &corpus {
            check(name, *target, input, &path.display().to_string());
        }
        let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
        let mut rng = Rng::with_seed(seed ^ (n as u64) << 32);
        for case in 0..cases {
            let input = mutated(&inputs, &mut rng);
            check(name, *target, &input, &format!("case {case} of WEIGHTLIFT_TEST_SEED={seed}"));
        }
        eprintln!("{name}: {cases} inputs out of {}", inputs.len());
    }
}

fn check(name: &str, target: Target, input: &[u8], which: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        let path = std::env::temp_dir().join(format!("weightlift-fuzz-{name}"));
        std::fs::write(&path, input).unwrap();
        panic!("{name} fails at {which}; the input is kept in {}", path.display());
    }
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|_| panic!("no {}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

/// One of `inputs` with a few things done to it.
fn mutated(inputs: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = inputs[rng.usize(..inputs.len())].clone();
    for _ in 0..1 << rng.u32(..4) {
        mutate(&mut bytes, inputs, rng);
    }
    bytes.truncate(MAX_LEN);
    bytes
}

fn mutate(bytes: &mut Vec<u8>, inputs: &[Vec<u8>], rng: &mut Rng) {
    /// What parsers have tripped over before.
    const WORDS: [&str; 28] = [
        "0",
        "-1",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775808",
        "1e400",
        "../",
        "/",
        "\\",
        "..",
        "\0",
        "\u{1b}[2J",
        "\u{202e}",
        "\u{feff}",
        "\r\n",
        "\\u0000",
        "\\ud800",
        "%00",
        "%2e%2e%2f",
        "null",
        "true",
        "{}",
        "[",
        "\"",
        ".weightlift",
        "&#27;",
        ", ",
        "é",
    ];
    let at = rng.usize(..=bytes.len());
    let to = (at + rng.usize(..=32)).min(bytes.len());
    match rng.u8(..9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        1 if at < bytes.len() => bytes[at] = rng.u8(..),
        2 => _ = bytes.splice(at..at, WORDS[rng.usize(..WORDS.len())].bytes()),
        3 => _ = bytes.drain(at..to),
        4 => {
            let part = bytes[at..to].to_vec();
            let place = rng.usize(..=bytes.len());
            _ = bytes.splice(place..place, part);
        }
        // A number becomes another one.
        5 => {
            let Some(start) = (at..bytes.len()).find(|n| bytes[*n].is_ascii_digit()) else {
                return;
            };
            let digits = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            _ = bytes.splice(start..start + digits, WORDS[rng.usize(..6)].bytes());
        }
        6 => {
            let other = &inputs[rng.usize(..inputs.len())];
            let from = rng.usize(..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        7 => bytes.truncate(at),
        8 => {
            let part = bytes[at..to].repeat(rng.usize(..200));
            _ = bytes.splice(at..to, part);
        }
        _ => {}
    }
}
