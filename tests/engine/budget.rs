//! What a fetch may cost, in counts that do not depend on a clock: instructions, system calls,
//! requests, connections, syncs and memory. Nothing here is timed.
//!
//! A count that leaves its bounds is either a regression or a decision; for a decision, change the
//! bound here and say why in the commit. Each test prints its counts: `cargo test --test engine budget:: --
//! --nocapture`.

use std::process::Command;

use crate::support::measure::*;
use crate::support::*;
use weightlift_fakes::{Blob, Checksum, FakeHub, FakeS3, ObjectOptions, Tree};

const MIB: u64 = 1 << 20;

/// Instructions of the release binary under callgrind, and how far they may be off, both ways.
/// Measured with rustc 1.95 and valgrind 3.19 on x86-64 with AVX2; runs differ by 0.1 %. Valgrind has
/// no SHA instructions, so hashing is in software (aws-lc; with `sha2` it was 51.92) and dwarfs the rest; that is
/// why it is measured apart, by `verify`, and subtracted.
const HASHING_PER_BYTE: f64 = 32.64;
/// Receiving, writing at its place, and the journal's checksum.
const RECEIVING_PER_BYTE: f64 = 0.347;
/// All of a fetch of one byte: arguments, TLS settings, lock, probe of the volume, listing, publication. A fifth of it came
/// with headings, examples and hints of the command line, which are made at each start.
const SMALLEST_FETCH: f64 = 3.58e6;
const TOLERANCE: f64 = 0.10;

/// System calls beyond those of the smallest fetch. How much one read brings depends on the speed of
/// both sides; 15 per MiB and 20 per file are usual, and the least of three runs counts.
const CALLS_PER_MIB: f64 = 20.0;
const CALLS_PER_SMALL_FILE: f64 = 26.0;

/// Sizes of files, and requests that their bytes take with `--chunk-size 64MiB --connections 1`.
const CHUNKS: [(u64, usize); 2] = [(64 * MIB, 1), (300_000_000, 5)];

#[test]
fn a_byte_costs_as_many_instructions_as_it_did() {
    if !is_release() || !has("valgrind") || !has("strace") {
        return;
    }
    if !cfg!(target_arch = "x86_64") {
        skip("the figures are those of x86-64");
        return;
    }
    let bytes = 64 * MIB;
    let [(fetch_all, verify_all), (fetch_one, verify_one)] = [bytes, 1].map(|size| {
        let (hub, volume) = (hub_of_one(size), Volume::new());
        // One connection: with several, the way of a byte depends on who comes first.
        let arguments = ["hf://org/tiny", "--connections", "1", "--direct-io", "off"];
        let fetched = instructions(&fetch(&hub, &volume, &arguments));
        let mut verify = weightlift();
        verify.arg("verify").arg(volume.family("tiny"));
        (fetched as f64, instructions(&verify) as f64)
    });
    eprintln!("64 MiB: {:.4} bytes per instruction", bytes as f64 / fetch_all);
    let hashing = (verify_all - verify_one) / bytes as f64;
    let receiving = (fetch_all - fetch_one) / bytes as f64 - hashing;
    let off: Vec<String> = [
        ("HASHING_PER_BYTE", HASHING_PER_BYTE, hashing),
        ("RECEIVING_PER_BYTE", RECEIVING_PER_BYTE, receiving),
        ("SMALLEST_FETCH", SMALLEST_FETCH, fetch_one),
    ]
    .into_iter()
    .filter_map(|(name, committed, now)| {
        let change = now / committed - 1.0;
        let line = format!("{name} was {committed}, is {now:.4} ({:+.1} %)", change * 100.0);
        eprintln!("{line}");
        (change.abs() > TOLERANCE).then_some(line)
    })
    .collect();
    assert!(
        off.is_empty(),
        "{}\nIf that is meant, or better, put the new figure into tests/engine/budget.rs.",
        off.join("\n")
    );
}

#[test]
fn large_files_need_few_system_calls_per_mebibyte() {
    if !has("strace") {
        return;
    }
    let start = calls_of(&hub_of_one(1)).total() as f64;
    let hub = hub_of_one(256 * MIB);
    assert_few("MiB", CALLS_PER_MIB, || {
        let calls = calls_of(&hub);
        ((calls.total() as f64 - start) / 256.0, calls)
    });
}

#[test]
fn small_files_need_few_system_calls_each() {
    if !has("strace") {
        return;
    }
    let start = calls_of(&hub_of_one(1)).total() as f64;
    let hub = FakeHub::serving(REPO, small_files(300));
    assert_few("file", CALLS_PER_SMALL_FILE, || {
        let calls = calls_of(&hub);
        ((calls.total() as f64 - start) / 299.0, calls)
    });
}

/// Each sync of a file waits for the disk; one of the filesystem serves for many of them.
#[test]
fn small_files_are_synced_together() {
    if !has("strace") {
        return;
    }
    let calls = calls_of(&FakeHub::serving(REPO, small_files(300)));
    let syncs = calls.count(&["fsync", "fdatasync", "syncfs", "sync", "msync"]);
    eprintln!("300 files: {syncs} syncs");
    // Directories, the sentinel and the parents of the family have each one of their own.
    assert!((1..=20).contains(&syncs), "{syncs} syncs for 300 files in one directory");
}

/// Each of them gets the revision and the listing once.
#[test]
fn a_file_of_the_hub_needs_no_more_requests_than_it_must() {
    // Small files: `resolve`, and where the Hub redirects it to.
    let hub = FakeHub::serving(REPO, small_files(300));
    fetch(&hub, &Volume::new(), &["hf://org/tiny"]).run().assert_success();
    assert_eq!(requests(&hub), [2, 300, 300, 0]);

    // LFS: `resolve`, and the storage that it redirects to.
    let lfs = |tree: Tree, n| tree.with_blob(&format!("{n}.bin"), Blob::synthetic(100, n));
    let hub = FakeHub::serving(REPO, (0..50).fold(Tree::new(), lfs));
    fetch(&hub, &Volume::new(), &["hf://org/tiny"]).run().assert_success();
    assert_eq!(requests(&hub), [2, 50, 0, 50]);

    // Large files: one link for all chunks. Over one connection, where their number is certain.
    for (size, chunks) in CHUNKS {
        let (hub, volume) = (hub_of_one(size), Volume::new());
        let settings = ["hf://org/tiny", "--connections", "1", "--chunk-size", "64MiB"];
        fetch(&hub, &volume, &settings).run().assert_success();
        assert_eq!(requests(&hub), [2, 1, 0, chunks]);
    }
}

/// The listing, each object, and what checksum it has: some have one, and the listing does not say so.
#[test]
fn an_object_of_s3_needs_no_more_requests_than_it_must() {
    for checksum in [None, Some(Checksum::Sha256)] {
        let s3 = (0..100).fold(FakeS3::builder(), |s3, n| {
            let options = ObjectOptions { checksum, ..ObjectOptions::default() };
            s3.object_with("models", &format!("tiny/{n}"), Blob::synthetic(100, n), options)
        });
        let s3 = s3.start();
        fetch_s3(&s3, &Volume::new(), &["s3://models/tiny/"]).run().assert_success();
        let [listings, asked, read] =
            [("GET", "list-type=2"), ("HEAD", "/tiny/"), ("GET", "/tiny/")]
                .map(|(method, target)| s3.count(method, target));
        eprintln!("{} requests: {listings}, {asked}, {read}", s3.requests().len());
        // And a look whether mirror has written a listing.
        assert_eq!((listings, asked, read), (1, 100, 1 + 100));
        assert_eq!(s3.requests().len(), 1 + 100 + 1 + 100);
    }
}

/// A new connection costs a round trip, with TLS more: one for each worker, and one for the listing.
/// An answer whose body is not read to its end takes its connection with it.
#[test]
fn small_files_come_over_as_many_connections_as_there_are_workers() {
    let hub = FakeHub::serving(REPO, small_files(300));
    fetch(&hub, &Volume::new(), &["hf://org/tiny", "--connections", "8"]).run().assert_success();
    let connections = hub.accepted_connections();
    eprintln!("300 files, 8 workers: {connections} connections");
    assert!(connections <= 8 + 2, "{connections} connections for 8 workers and 300 files");
}

#[test]
fn a_large_file_fits_a_small_memory_cgroup() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(256 * MIB, 1));
    assert_fits_a_small_group(tree);
}

#[test]
fn many_small_files_fit_a_small_memory_cgroup() {
    assert_fits_a_small_group(small_files(2_000));
}

/// The plan, the proofs and the sentinel are held in memory; a hundred thousand files must not need
/// more than the smallest pod has.
#[test]
fn a_hundred_thousand_files_need_little_memory() {
    if !is_release() {
        return;
    }
    let tree = small_files(100_000);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    let fetch = |most: u64| {
        // Each further connection needs 0.3 MiB, and there are fewer where the container has a limit.
        let arguments = ["hf://org/tiny", "--connections", "16"];
        let (run, peak) = with_peak_memory(&mut fetch(&hub, &volume, &arguments));
        run.assert_success();
        eprintln!("100,000 files: peak RSS {} KiB", peak >> 10);
        assert!(peak <= most, "peak RSS {} KiB", peak >> 10);
    };
    // 59 MiB are usual.
    fetch(64 * MIB);
    // An update, which links all but one of them.
    hub.move_branch(REPO, "main", tree.with("file-000000.txt", "changed"));
    hub.log().clear();
    // 64.1 MiB are usual.
    fetch(68 * MIB);
    assert!(hub.count("*", "file-") < 100, "fetched again");
}

fn hub_of_one(size: u64) -> FakeHub {
    FakeHub::serving(REPO, Tree::new().with_blob("model.bin", Blob::synthetic(size, 1)))
}

/// Files of 1 to 16 bytes that are not LFS.
fn small_files(count: usize) -> Tree {
    (0..count).fold(Tree::new(), |tree, n| {
        tree.with(&format!("file-{n:06}.txt"), &b"0123456789abcdef"[..=n % 16])
    })
}

/// System calls of a fetch of the only repository of `hub`.
fn calls_of(hub: &FakeHub) -> Calls {
    Calls::of(&fetch(hub, &Volume::new(), &["hf://org/tiny", "--connections", "8"]))
}

/// Fails if each of three runs needs more than `most` per `unit`.
#[track_caller]
fn assert_few(unit: &str, most: f64, measure: impl Fn() -> (f64, Calls)) {
    let mut runs: Vec<(f64, Calls)> = (0..3).map(|_| measure()).collect();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let each: Vec<String> = runs.iter().map(|(per, _)| format!("{per:.1}")).collect();
    eprintln!("system calls per {unit}: {}", each.join(", "));
    let (least, calls) = &runs[0];
    assert!(*least <= most, "{least:.1} system calls per {unit}, of them {}", calls.most());
}

/// Requests for the revision and the listing, for files, for small files where the Hub has them, and
/// for large ones where the storage has them.
fn requests(hub: &FakeHub) -> [usize; 4] {
    let mut counts = [0; 4];
    for request in hub.requests() {
        let kind = match (request.origin, request.target.as_str()) {
            ("cdn", _) => 3,
            (_, target) if target.starts_with("/api/resolve-cache/") => 2,
            (_, target) if target.starts_with("/api/") => 0,
            _ => 1,
        };
        counts[kind] += 1;
    }
    eprintln!("{} requests: {counts:?}", counts.iter().sum::<usize>());
    counts
}

/// Fails unless `tree` is fetched in a cgroup of 64 MiB, page cache included, with half of that as
/// memory of its own.
#[track_caller]
fn assert_fits_a_small_group(tree: Tree) {
    let volume = Volume::new();
    std::fs::create_dir(volume.root()).unwrap();
    if is_in_memory(&volume.root()) {
        skip("the temporary directory is in memory, and so would be the files");
        return;
    }
    let Some(group) = MemoryGroup::limited_to(64 * MIB) else {
        return;
    };
    let hub = FakeHub::serving(REPO, tree);
    let mut command: Command = group.around(&fetch(&hub, &volume, &["hf://org/tiny"]));
    let (run, peak) = with_peak_memory(&mut command);
    run.assert_success();
    let charged = group.peak();
    eprintln!("in 64 MiB: peak RSS {} KiB, charged {charged:?}", peak >> 10);
    assert!(charged.is_none_or(|charged| charged > 8 * MIB), "it did not run in the group");
    assert!(peak <= 32 * MIB, "peak RSS {} KiB", peak >> 10);
}
