//! What the engine does around the network, piece by piece: `cargo bench --bench engine`.
//!
//! Whole fetches are measured by `benches/peers`, instructions and system calls by
//! `tests/budget.rs`. Files are made in the temporary directory, which `TMPDIR` names.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use sha2::Digest as _;
use tempfile::TempDir;
use weightlift::engine::schedule::Schedule;
use weightlift::engine::schedule::event::{Action, Ending, Event, Limits, Party, Task};
use weightlift::model::{
    Checksum, Digest, ModelDir, Plan, RelPath, RemoteFile, SENTINEL, Selection, Sentinel,
    SentinelFile, Sha256, Snapshot, SourceUri,
};
use weightlift::verify::FileHasher;
use weightlift::volume::{Destination, Existing, StagedFile, Staging, Store};

const KIB: usize = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

criterion_group!(benches, hash, writer, chunk_queue, plan, sentinel_check);
criterion_main!(benches);

/// A file against the digest that its source published. Our own SHA-256 is part of each; `SHA-256
/// alone` is the library without us.
fn hash(criterion: &mut Criterion) {
    let content = noise(64 * MIB as usize);
    let pieces = || content.chunks(400 * KIB);
    let size = content.len() as u64;
    let mut git = sha1::Sha1::new_with_prefix(format!("blob {size}\0"));
    git.update(&content);
    let crc64 = Checksum::Crc64Nvme.of(&content).to_be_bytes().to_vec();
    let published = [
        ("published SHA-256", Digest::Sha256(sha2::Sha256::digest(&content).into())),
        ("git blob", Digest::GitSha1(git.finalize().into())),
        ("S3 CRC64NVME", Digest::Full { checksum: Checksum::Crc64Nvme, value: crc64 }),
    ];
    let mut group = slow_group(criterion, "hash");
    group.throughput(Throughput::Bytes(size));
    group.bench_function("SHA-256 alone", |bencher| {
        bencher.iter(|| {
            let mut sha256 = sha2::Sha256::new();
            pieces().for_each(|piece| sha256.update(piece));
            sha256.finalize()
        });
    });
    for (name, digest) in published {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut hasher = FileHasher::new(size, Some(&digest));
                pieces().for_each(|piece| hasher.update(piece));
                hasher.finish().unwrap()
            });
        });
    }
    group.finish();
}

/// What a worker does with the pieces it receives, into a file that was just created with its
/// full size. Without the writeback that the worker asks for, so that the disk has little say.
fn writer(criterion: &mut Criterion) {
    const SIZE: u64 = 256 * MIB;
    const NOTE_BYTES: u64 = 16 * MIB;
    let root = TempDir::new().unwrap();
    let snapshot = Snapshot::new("hf://org/name".into(), COMMIT.into(), Vec::new(), Vec::new());
    let file = remote_file("model.safetensors", SIZE);
    let staging = Staging::begin(&store(root.path()), &snapshot, vec![file.clone()]).unwrap();
    // As if just received: in the cache of the core.
    let piece = noise(256 * KIB);
    let mut group = slow_group(criterion, "writer");
    group.throughput(Throughput::Bytes(SIZE));
    let mut bench = |name, is_noted: bool, is_hashed: bool| {
        group.bench_function(name, |bencher| {
            let fresh = || {
                staging.discard(0).unwrap();
                let hasher = is_hashed.then(|| FileHasher::new(SIZE, file.digest.as_ref()));
                (staging.open(0).unwrap(), hasher)
            };
            let write = |(staged, mut hasher): (StagedFile, Option<FileHasher>)| {
                let mut crc = new_crc();
                for at in (0..SIZE).step_by(piece.len()) {
                    staged.write_at(&piece, at).unwrap();
                    if is_noted {
                        crc.update(&piece);
                        let end = at + piece.len() as u64;
                        if end.is_multiple_of(NOTE_BYTES) {
                            let crc64 = std::mem::replace(&mut crc, new_crc()).finalize();
                            staging.wrote(0, end - NOTE_BYTES..end, crc64).unwrap();
                        }
                    }
                    if let Some(hasher) = &mut hasher {
                        hasher.update(&piece);
                    }
                }
                (staged, hasher)
            };
            bencher.iter_batched(fresh, write, BatchSize::PerIteration);
        });
    };
    bench("write", false, false);
    bench("write and journal", true, false);
    bench("write, journal and hash", true, true);
    group.finish();
}

/// All chunks of a transfer, given to eight workers that come back in turn.
fn chunk_queue(criterion: &mut Criterion) {
    const CHUNK_SIZE: u64 = 64 * MIB;
    let mut group = criterion.benchmark_group("chunk queue");
    for (name, workers, files, size) in [
        ("100 files of 1 GiB", 8, 100, GIB),
        ("1 file of 100 GiB", 8, 1, 100 * GIB),
        ("100,000 files of 1 MiB", 8, 100_000, MIB),
        ("100 files of 1 GiB, 64 workers", 64, 100, GIB),
        ("1 file of 100 GiB, 64 workers", 64, 1, 100 * GIB),
        ("100,000 files of 1 MiB, 64 workers", 64, 100_000, MIB),
    ] {
        let files = (0..files).map(|n| remote_file(&format!("{n:05}.safetensors"), size));
        let plan = Plan::new(files.collect(), |_| Vec::new());
        let limits = Limits {
            chunk_size: CHUNK_SIZE,
            workers,
            at_first: workers,
            open_files: 128,
            hashers: 1,
            small_bytes: 8 * MIB,
            low_speed_after: Duration::from_secs(20),
            min_rate: None,
        };
        let schedule = || Schedule::new(&plan, |_| true, limits);
        group.throughput(Throughput::Elements(carry_out(schedule())));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(schedule, carry_out, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// Does at once whatever it is told to do; returns how many tasks there were.
fn carry_out(mut schedule: Schedule) -> u64 {
    let mut tasks = 0;
    let mut event = Event::Started(Party::Hasher(0));
    let mut events = std::collections::VecDeque::new();
    loop {
        schedule.handle(Duration::ZERO, event);
        while let Some(action) = schedule.poll() {
            match action {
                Action::StartWorker(n) => events.push_back(Event::Started(Party::Worker(n))),
                Action::Give(party, task) => {
                    tasks += 1;
                    events.extend(done(party, &task));
                }
                Action::End => return tasks,
                _ => {}
            }
        }
        event = events.pop_front().unwrap();
    }
}

fn done(party: Party, task: &Task) -> Option<Event> {
    match (party, task) {
        (Party::Worker(worker), Task::Fetch(chunk)) => {
            Some(Event::Fetched { worker, at: chunk.range.end, ending: Ending::Written })
        }
        (Party::Hasher(hasher), Task::Hash { .. }) => Some(Event::Hashed { hasher }),
        (party, Task::Finish { .. }) => Some(Event::Finished(party)),
        _ => None,
    }
}

/// From the listing of 100,000 files to the ranges that are missing.
fn plan(criterion: &mut Criterion) {
    const FILES: usize = 100_000;
    const SIZE: u64 = 64 * MIB;
    // As a listing brings them: directories with weights in two formats beside small files.
    let names = ["model.safetensors", "pytorch_model.bin", "config.json", "onnx/model.onnx"];
    let listed: Vec<_> = (0..FILES)
        .map(|n| remote_file(&format!("{:05}/{}", n / names.len(), names[n % names.len()]), SIZE))
        .collect();
    let files: Arc<[RemoteFile]> = listed.clone().into();
    let mut group = slow_group(criterion, "plan of 100,000 files");
    group.throughput(Throughput::Elements(FILES as u64));
    // What comes out is dropped outside of the time.
    let fresh = || listed.clone();
    group.bench_function("listing sorted", |bencher| {
        let sort = |files| Snapshot::new("hf://org/name".into(), COMMIT.into(), files, Vec::new());
        bencher.iter_batched(fresh, sort, BatchSize::PerIteration);
    });
    let patterns = Selection {
        include: vec!["*.safetensors".into(), "*.json".into()],
        exclude: vec!["*9/*".into()],
        all: false,
    };
    for (name, selection) in
        [("plain selection", Selection::default()), ("selection by patterns", patterns)]
    {
        let select = |files| selection.apply(files, Vec::new()).unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter_batched(fresh, select, BatchSize::PerIteration);
        });
    }
    group.bench_function("plan, nothing present", |bencher| {
        bencher.iter_with_large_drop(|| Plan::new(files.clone(), |_| Vec::new()));
    });
    // Every second file is there, in two pieces that are not in order.
    let half = |n: usize| match n % 2 {
        0 => vec![SIZE / 2..SIZE, 0..SIZE / 2],
        _ => Vec::new(),
    };
    group.bench_function("plan, half present", |bencher| {
        bencher.iter_with_large_drop(|| Plan::new(files.clone(), half));
    });
    let plan = Plan::new(files.clone(), half);
    group.bench_function("bytes and inodes of the plan", |bencher| {
        bencher.iter(|| black_box(&plan).missing_bytes() + black_box(&plan).inodes());
    });
    group.finish();
}

/// What a warm start does: the sentinel is read, and every file that it lists is looked at.
fn sentinel_check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sentinel check");
    group.sample_size(20);
    for (name, files) in [("200 files", 200), ("10,000 files", 10_000)] {
        let root = TempDir::new().unwrap();
        let json = publish(root.path(), files);
        group.throughput(Throughput::Elements(files as u64));
        group.bench_function(format!("{name}, sentinel parsed"), |bencher| {
            bencher.iter_with_large_drop(|| Sentinel::parse(&json).unwrap());
        });
        group.bench_function(format!("{name}, family checked"), |bencher| {
            bencher.iter_with_large_drop(|| match store(root.path()).existing() {
                Ok(Existing::Complete(sentinel)) => sentinel,
                other => panic!("the family is not complete: {other:?}"),
            });
        });
    }
    group.finish();
}

/// Makes a complete family below `root`, a hundred files in each directory, and returns its
/// sentinel.
fn publish(root: &Path, files: usize) -> Vec<u8> {
    const SIZE: u64 = 1 << 10;
    let family = store(root).family_path();
    let file = |n: usize| {
        let listed = remote_file(&format!("{:05}/{n:05}.safetensors", n / 100), SIZE);
        let path = family.join(listed.path.as_str());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().set_len(SIZE).unwrap();
        SentinelFile::new(
            &listed,
            Sha256([7; 32]),
            listed.digest.as_ref(),
            Some(Box::new("valid".into())),
        )
    };
    let uri = SourceUri::parse("hf://org/name").unwrap();
    let sentinel = Sentinel::new(
        &uri,
        uri.source_name(),
        COMMIT.into(),
        Selection::default(),
        "2026-01-01T00:00:00Z".into(),
        (0..files).map(file).collect(),
        Vec::new(),
    );
    let mut json = Vec::new();
    sentinel.write(&mut json).unwrap();
    fs::write(family.join(SENTINEL), &json).unwrap();
    json
}

fn store(root: &Path) -> Store {
    let family = ModelDir::parse("family").unwrap();
    Store::open(Destination { root: root.to_owned(), family }).unwrap()
}

fn remote_file(path: &str, size: u64) -> RemoteFile {
    RemoteFile {
        path: RelPath::parse(path).unwrap(),
        size,
        digest: Some(Digest::Sha256([7; 32])),
        validator: None,
        xet_hash: None,
    }
}

/// For iterations that take tens of milliseconds.
fn slow_group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group
}

/// The same bytes in every run.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    bytes
}

/// As the journal has it.
fn new_crc() -> crc_fast::Digest {
    crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme)
}
