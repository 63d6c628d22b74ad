//! What a stopped download left is damaged in every way we could think of; the next run ends with
//! the right bytes all the same.
//!
//! A few hundred cases by default; `WEIGHTLIFT_TEST_ROUNDS=70` makes it more than 10,000.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;
use fastrand::Rng;
use fs2::FileExt as _;
use weightlift_fakes::{Blob, FakeHub, FakeS3, Fault, Rule, Tree};

/// Cases of each round.
const CASES: u64 = 150;
const CHUNK: u64 = 1 << 20;
const BIG: u64 = 5 * CHUNK + 77;
const BUCKET: &str = "models";

/// What the file that was begun belongs to, and how far its writer can be trusted.
#[derive(Clone, Copy, Debug)]
enum Writer {
    /// Of this boot, and gone.
    Gone,
    /// Of an earlier boot.
    OtherBoot,
    /// Still holds its journal.
    Alive,
}

#[test]
fn whatever_happens_to_what_a_stopped_download_left_the_bytes_are_right() {
    let rounds = number("WEIGHTLIFT_TEST_ROUNDS").unwrap_or(1);
    let seed = number("WEIGHTLIFT_TEST_SEED").unwrap_or(1);
    let (hub, s3) = (hub(), s3());
    let templates = [
        Left::by(&|volume, arguments| fetch(&hub, volume, arguments), "hf://org/tiny", |rule| {
            hub.script(rule)
        }),
        Left::by(&|volume, arguments| fetch_s3(&s3, volume, arguments), "s3://models/m/", |rule| {
            s3.script(rule)
        }),
    ];
    hub.clear_script();
    s3.clear_script();
    let cases = CASES * rounds;
    let mut reused = 0;
    for case in 0..cases {
        let mut rng = Rng::with_seed(seed << 32 ^ case);
        let (left, other) = (&templates[(case % 2) as usize], &templates[(case + 1) as usize % 2]);
        let writer = [Writer::Gone, Writer::OtherBoot, Writer::Alive][(case / 2 % 3) as usize];
        let volume = Volume::new();
        left.lay_out(&volume);
        let attempt = volume.attempts().remove(0);
        if let Writer::OtherBoot = writer {
            sign_with_other_boot(&attempt.join("journal"));
        }
        let told = damage(&attempt, other.dir.path(), &mut rng);
        let held = std::fs::File::open(attempt.join("journal")).ok();
        if let (Writer::Alive, Some(journal)) = (writer, &held) {
            let _ = journal.try_lock_exclusive();
        }
        let arguments = [left.uri, "tiny", "--chunk-size", "1MiB", "--connections", "2"];
        let run = if left.uri.starts_with("hf") {
            fetch(&hub, &volume, &arguments).run()
        } else {
            fetch_s3(&s3, &volume, &arguments).run()
        };
        let what = format!(
            "case {case} of WEIGHTLIFT_TEST_SEED={seed}: {}, {writer:?}, {told:?}",
            left.uri
        );
        assert_eq!(run.code, 0, "{what}: {}", run.stderr);
        reused += u64::from(run.stderr.contains("are here already"));
        let found = files_below(&volume.family("tiny"));
        for (name, blob) in tree().iter() {
            assert!(found[name] == blob.to_vec(), "{what}: {name} is wrong\n{}", run.stderr);
        }
        assert_eq!(found.len(), tree().len(), "{what}");
        if case % 10 == 0 {
            let mut verify = weightlift();
            let run = verify.arg("verify").arg(volume.family("tiny")).run();
            assert_eq!(run.code, 0, "{what}: {}", run.stderr);
        }
    }
    eprintln!("{cases} cases, {reused} of them continued");
    // Otherwise this would show nothing but that a fetch works.
    assert!(reused > cases / 5, "only {reused} of {cases} runs used anything of what was left");
}

fn tree() -> Tree {
    Tree::new()
        .with("config.json", "{\"a\": 1}")
        .with_blob("big.bin", Blob::synthetic(BIG, 9))
        .with_blob("sub/mid.bin", Blob::synthetic(CHUNK / 2 + 5, 10))
}

fn hub() -> FakeHub {
    FakeHub::builder().repo(REPO, tree()).lfs_threshold(1_000).start()
}

/// Objects without any checksum: nothing but our own journal says what the bytes are.
fn s3() -> FakeS3 {
    let builder = FakeS3::builder().credentials(ACCESS_KEY, SECRET_KEY);
    tree()
        .iter()
        .fold(builder, |builder, (name, blob)| {
            builder.object(BUCKET, &format!("m/{name}"), blob.clone())
        })
        .start()
}

/// What a killed run has left.
struct Left {
    uri: &'static str,
    dir: tempfile::TempDir,
}

impl Left {
    fn by(
        fetch: &dyn Fn(&Volume, &[&str]) -> Command,
        uri: &'static str,
        script: impl Fn(Rule),
    ) -> Self {
        // What begins behind this point never arrives.
        for at in 3..=5 {
            let stall = Fault::StallAfter(0, std::time::Duration::from_secs(3_600));
            script(Rule::on("GET", "big.bin").when_range_starts_at(at * CHUNK).then(stall));
        }
        let volume = Volume::new();
        let arguments = [uri, "tiny", "--chunk-size", "1MiB", "--connections", "2"];
        let running = fetch(&volume, &arguments).start();
        let has_journal = |lines: usize| {
            let journal = volume.attempts().first().map(|attempt| attempt.join("journal"));
            let journal = journal.and_then(|path| std::fs::read_to_string(path).ok());
            journal.is_some_and(|text| text.matches("\"chunk\"").count() >= lines)
        };
        eventually("some chunks arrive", || has_journal(4));
        running.signal("-KILL");
        drop(running.wait());
        let dir = tempfile::tempdir().unwrap();
        copy(&volume.root(), &dir.path().join("models"));
        Self { uri, dir }
    }

    fn lay_out(&self, volume: &Volume) {
        copy(&self.dir.path().join("models"), &volume.root());
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for path in list(from) {
        let there = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &there);
        } else {
            std::fs::copy(&path, &there).unwrap();
        }
    }
}

/// The journal as if it had been written before the last boot, with checksums that are right.
fn sign_with_other_boot(journal: &Path) {
    let text = std::fs::read_to_string(journal).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let other = "00000000-0000-0000-0000-000000000000";
    let signed = |line: &str| {
        let json = line.split_once(' ').unwrap().1.replace(boot.trim(), other);
        let crc = weightlift::model::Checksum::Crc32c.of(json.as_bytes());
        format!("{crc:08x} {json}\n")
    };
    std::fs::write(journal, text.lines().map(signed).collect::<String>()).unwrap();
}

/// Damages one to three things; tells what was done.
fn damage(attempt: &Path, other: &Path, rng: &mut Rng) -> Vec<String> {
    let count = rng.usize(1..=3);
    (0..count)
        .map(|_| {
            if rng.u8(..5) < 3 {
                damage_file(attempt, rng)
            } else {
                damage_journal(attempt, other, rng)
            }
        })
        .collect()
}

fn damage_file(attempt: &Path, rng: &mut Rng) -> String {
    let names = ["big.bin", "big.bin", "sub/mid.bin", "config.json"];
    let name = names[rng.usize(..names.len())];
    let path = attempt.join("tree").join(name);
    let Ok(file) = std::fs::OpenOptions::new().read(true).write(true).open(&path) else {
        return format!("{name} is not there");
    };
    let len = file.metadata().unwrap().len();
    if len == 0 {
        return format!("{name} is empty");
    }
    let at = rng.u64(..len);
    let span = rng.u64(1..=CHUNK * 2).min(len - at) as usize;
    let mut bytes = vec![0; span];
    file.read_exact_at(&mut bytes, at).unwrap();
    let what = match rng.u8(..8) {
        0 | 1 => {
            file.write_all_at(&[bytes[0] ^ 1 << rng.u8(..8)], at).unwrap();
            "flip"
        }
        2 => {
            file.write_all_at(&vec![0; span], at).unwrap();
            "zero"
        }
        3 => {
            file.set_len(at).unwrap();
            "truncate"
        }
        4 => {
            file.write_all_at(&bytes, len).unwrap();
            "extend"
        }
        5 => {
            file.write_all_at(&bytes, rng.u64(..len - span as u64 + 1)).unwrap();
            "repeat"
        }
        6 => {
            // The right size, and nothing of it on the disk.
            file.set_len(0).unwrap();
            file.set_len(len).unwrap();
            "hole"
        }
        _ => {
            std::fs::remove_file(&path).unwrap();
            let target = ["big.bin", "config.json", "gone"][rng.usize(..3)];
            let full = attempt.join("tree").join(target);
            match rng.u8(..3) {
                0 => drop(std::os::unix::fs::symlink(&full, &path)),
                1 => drop(std::fs::copy(&full, &path)),
                _ => {}
            }
            "another file"
        }
    };
    format!("{what} {name} at {at}, {span} bytes")
}

fn damage_journal(attempt: &Path, other: &Path, rng: &mut Rng) -> String {
    let path = attempt.join("journal");
    let Ok(mut bytes) = std::fs::read(&path) else { return "no journal".into() };
    if bytes.is_empty() {
        return "empty journal".into();
    }
    let at = rng.usize(..bytes.len());
    let to = (at + rng.usize(1..200)).min(bytes.len());
    let mut lines: Vec<Vec<u8>> =
        bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let (a, b) = (rng.usize(..lines.len()), rng.usize(..lines.len()));
    let what = match rng.u8(..9) {
        0 => {
            bytes[at] ^= 1 << rng.u8(..8);
            "flip a bit"
        }
        1 => {
            bytes[at..to].fill(0);
            "zero"
        }
        2 => {
            bytes.truncate(at);
            "truncate"
        }
        3 => {
            let part = bytes[at..to].to_vec();
            bytes.extend(part);
            "extend"
        }
        4 => {
            lines.swap(a, b);
            bytes = lines.concat();
            "swap lines"
        }
        5 => {
            let line = lines[a].clone();
            lines.insert(b, line);
            bytes = lines.concat();
            "repeat a line"
        }
        6 => {
            lines.remove(a);
            bytes = lines.concat();
            "lose a line"
        }
        7 => {
            // Its header, and what another download says of its files.
            let theirs = std::fs::read(journal_below(other)).unwrap();
            let theirs = theirs.split_inclusive(|byte| *byte == b'\n').skip(1);
            bytes = lines[0].clone();
            bytes.extend(theirs.flatten());
            "another journal"
        }
        _ => {
            bytes.splice(at..to, (0..to - at).map(|_| rng.u8(..)));
            "noise"
        }
    };
    std::fs::write(&path, bytes).unwrap();
    format!("journal: {what} at {at}, lines {a} and {b}")
}

fn journal_below(dir: &Path) -> PathBuf {
    list(&dir.join("models/.weightlift/attempts")).remove(0).join("journal")
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}
