//! What comes out for one state or a few.

use std::ops::Range;
use std::time::Duration;

use super::event::*;
use super::machine::Doing;
use super::*;
use crate::model::{Plan, RelPath, RemoteFile};

const MIB: u64 = 1 << 20;

pub(super) fn plan(sizes: &[u64]) -> Plan {
    let file = |(n, size): (usize, &u64)| RemoteFile {
        path: RelPath::parse(&format!("f{n}")).expect("path"),
        size: *size,
        digest: None,
        validator: None,
        xet_hash: None,
    };
    let files: Vec<_> = sizes.iter().enumerate().map(file).collect();
    Plan::new(files.into(), |_| Vec::new())
}

fn limits(chunk_size: u64, workers: usize) -> Limits {
    Limits {
        chunk_size,
        workers,
        at_first: workers,
        open_files: 128,
        hashers: 1,
        small_bytes: 0,
        low_speed_after: Duration::from_secs(20),
        min_rate: None,
    }
}

/// A schedule with its threads, of which the first so many workers have started.
struct Scene {
    schedule: Schedule,
    now: Duration,
    given: Vec<(Party, Task)>,
    other: Vec<Action>,
}

impl Scene {
    fn new(plan: &Plan, limits: Limits, started: usize) -> Self {
        let schedule = Schedule::new(plan, |_| true, limits);
        let mut scene =
            Self { schedule, now: Duration::ZERO, given: Vec::new(), other: Vec::new() };
        scene.schedule.wanted = started;
        for n in 0..started {
            scene.tell(Event::Started(Party::Worker(n)));
        }
        scene
    }

    fn of(sizes: &[u64], chunk_size: u64, workers: usize) -> Self {
        Self::new(&plan(sizes), limits(chunk_size, workers), workers)
    }

    fn tell(&mut self, event: Event) {
        self.schedule.handle(self.now, event);
        while let Some(action) = self.schedule.poll() {
            match action {
                Action::Give(party, task) => self.given.push((party, task)),
                Action::StartWorker(_) => {}
                other => self.other.push(other),
            }
        }
    }

    /// The last chunk that worker `n` was given.
    fn chunk(&self, n: usize) -> Option<&Chunk> {
        self.given.iter().rev().find_map(|(party, task)| match task {
            Task::Fetch(chunk) if *party == Party::Worker(n) => Some(chunk),
            _ => None,
        })
    }

    fn is_idle(&self, n: usize) -> bool {
        matches!(self.schedule.workers[n].doing, Doing::Idle)
    }

    /// Worker `n` has fetched all of its chunk.
    fn fetched(&mut self, n: usize) {
        let Doing::Fetches(lease) = &self.schedule.workers[n].doing else {
            panic!("worker {n} has nothing");
        };
        let at = lease.piece.range.end;
        self.tell(Event::Fetched { worker: n, at, ending: Ending::Written });
    }

    fn restarts(&mut self, n: usize, at: u64, how: Restart) {
        self.tell(Event::Fetched { worker: n, at, ending: Ending::Restart(how) });
    }

    /// The hasher, once it has started, does all that it is given.
    fn hash_all(&mut self) {
        let mut next = 0;
        while let Some((party, task)) = self.given.get(next).cloned() {
            next += 1;
            match (party, task) {
                (Party::Hasher(hasher), Task::Hash { .. }) => self.tell(Event::Hashed { hasher }),
                (party @ Party::Hasher(_), Task::Finish { .. }) => {
                    self.tell(Event::Finished(party));
                }
                _ => continue,
            }
            self.given.remove(next - 1);
            next = 0;
        }
    }

    /// Chunks that were given so far: file and range.
    fn chunks(&self) -> Vec<(usize, Range<u64>)> {
        let chunk = |(_, task): &(Party, Task)| match task {
            Task::Fetch(chunk) => Some((chunk.file, chunk.range.clone())),
            _ => None,
        };
        self.given.iter().filter_map(chunk).collect()
    }

    /// `seconds` in which each worker brings so many bytes per second.
    fn pass(&mut self, seconds: u64, rates: &[u64]) {
        for _ in 0..seconds * 4 {
            self.now += concurrency::TICK;
            let readings = (0..self.schedule.workers.len()).map(|n| {
                let worker = &self.schedule.workers[n];
                match &worker.doing {
                    Doing::Fetches(lease) => {
                        let at = worker.meter.at() + rates[n] / 4;
                        Reading { at: at.min(lease.piece.range.end), phase: Phase::Body }
                    }
                    _ => Reading::default(),
                }
            });
            let readings = readings.collect();
            let wanted = self.schedule.wanted;
            let fetched_bytes = self.schedule.traffic.bytes + rates.iter().sum::<u64>() / 4;
            self.tell(Event::Tick(Tick {
                fetched_bytes,
                cpu: 0.9,
                is_paused: false,
                most: usize::MAX,
                readings,
            }));
            self.schedule.wanted = wanted;
        }
    }
}

/// What worker after worker takes, each coming back in its turn.
fn take_all(mut scene: Scene) -> Vec<(usize, Range<u64>)> {
    let workers = scene.schedule.workers.len();
    for turn in 0..1_000 {
        let n = turn % workers;
        if matches!(scene.schedule.workers[n].doing, Doing::Fetches(_)) {
            scene.fetched(n);
        }
    }
    assert_eq!(scene.schedule.spans.bytes(), 0);
    scene.chunks()
}

#[test]
fn one_worker_goes_file_by_file_and_in_order() {
    assert_eq!(take_all(Scene::of(&[5, 0, 4], 4, 1)), [(0, 0..4), (0, 4..5), (2, 0..4)]);
}

#[test]
fn each_worker_stays_with_its_file_and_then_joins_the_others() {
    let taken = take_all(Scene::of(&[8, 16], 4, 2));
    let expected = [(0, 0..4), (1, 0..4), (0, 4..8), (1, 4..8), (1, 8..12), (1, 12..16)];
    assert_eq!(taken, expected);
    assert!(Scene::of(&[8, 16], 4, 2).chunk(0).is_some_and(|chunk| chunk.hashes));
}

#[test]
fn workers_spread_evenly_over_few_files() {
    let scene = Scene::of(&[1 << 20, 1 << 20], 4, 6);
    let files: Vec<_> = scene.chunks().iter().map(|(file, _)| *file).collect();
    assert_eq!(files, [0, 1, 0, 1, 0, 1]);
    let hashes = |(_, task): &(Party, Task)| matches!(task, Task::Fetch(chunk) if chunk.hashes);
    assert!(!scene.given.iter().any(hashes));
}

#[test]
fn workers_that_share_a_file_wait_for_its_hash() {
    let mut scene = Scene::of(&[8 << 30], 64 * MIB, 4);
    // The first is at the start of the file and does not end; the others run ahead of it.
    for turn in 0..200 {
        let n = 1 + turn % 3;
        if !scene.is_idle(n) {
            scene.fetched(n);
        }
    }
    let at = scene.chunks().last().expect("some").1.end;
    let most = scene.schedule.spans.most_ahead(4);
    assert!(at > most && at <= most + 64 * MIB, "{at}");
    assert!((1..4).all(|n| scene.is_idle(n)));
    scene.fetched(0);
    scene.tell(Event::Started(Party::Hasher(0)));
    scene.hash_all();
    assert!(!scene.is_idle(1) && scene.chunk(1).is_some_and(|chunk| chunk.range.start >= at));
}

#[test]
fn what_was_there_before_holds_nobody_back() {
    let files = plan(&[16 << 30]).files;
    let resumed = Plan::new(files, |_| std::iter::once(0..8 << 30).collect());
    let mut scene = Scene::new(&resumed, limits(64 * MIB, 4), 4);
    for turn in 0..100 {
        scene.fetched(turn % 4);
    }
    assert!(scene.chunks().len() > 100);
}

#[test]
fn chunks_become_smaller_towards_the_end_and_are_cut_at_whole_blocks() {
    let size = 1_000_000_007;
    let taken = take_all(Scene::of(&[size, 1, 1, 1, 1], 64 * MIB, 4));
    let mut ranges: Vec<_> = taken.into_iter().filter(|(file, _)| *file == 0).collect();
    ranges.sort_by_key(|(_, range)| range.start);
    let mut at = 0;
    for (_, range) in &ranges {
        assert!(range.start == at && at.is_multiple_of(spans::ALIGNMENT));
        at = range.end;
    }
    assert_eq!(at, size);
    let lengths: Vec<_> = ranges.iter().map(|(_, range)| range.end - range.start).collect();
    assert_eq!(lengths[0], 64 * MIB);
    assert!(lengths.iter().rev().skip(1).all(|len| *len >= 8 * MIB), "{lengths:?}");
    assert!(lengths.iter().rev().take(4).all(|len| *len <= 16 * MIB), "{lengths:?}");
}

#[test]
fn a_request_for_a_shared_file_is_as_large_as_its_connection_is_fast() {
    let size_at = |rate: u64, chunk_size: u64| {
        let mut scene = Scene::of(&[64 << 30], chunk_size, 4);
        scene.pass(1, &[rate; 4]);
        scene.fetched(1);
        let range = &scene.chunk(1).expect("goes on").range;
        range.end - range.start
    };
    let found = [(100_000, 64), (10 << 20, 64), (50 << 20, 64), (50 << 20, 256), (50 << 20, 1)]
        .map(|(rate, chunk_size)| size_at(rate, chunk_size * MIB) / MIB);
    assert_eq!(found, [16, 40, 64, 200, 1]);
    // Nothing is known yet: as large as may be.
    let first = Scene::of(&[64 << 30], 64 * MIB, 4);
    assert!(first.chunks().iter().all(|(_, range)| range.end - range.start == 64 * MIB));
}

#[test]
fn a_small_file_is_one_chunk_however_slow_the_connections_are() {
    let sizes = [7 * MIB; 20];
    let mut scene = Scene::of(&sizes, 64 * MIB, 16);
    scene.pass(1, &[1_000; 16]);
    (0..4).for_each(|n| scene.fetched(n));
    assert_eq!(scene.chunks().len(), sizes.len());
    assert!(scene.chunks().iter().all(|(_, range)| *range == (0..7 * MIB)));
}

#[test]
fn an_outlier_gives_its_rest_back_and_the_one_who_waits_takes_it() {
    let mut scene = Scene::of(&[64 * MIB, 64 * MIB], 64 * MIB, 2);
    let (slow, fast) = (70_000, 16 * MIB);
    scene.pass(2, &[slow, fast]);
    let end = scene.chunk(0).expect("has one").range.end;
    while scene.other.is_empty() {
        scene.fetched(1);
    }
    // All else is done: it has the tail of the other.
    let given = scene.chunk(1).expect("the tail").range.clone();
    assert!(given.start < 2 * MIB && given.end == end, "{given:?}");
    assert!(
        matches!(scene.other[..], [Action::Shorten { worker: 0, end, .. }] if end == given.start)
    );
    // And the rest is taken from worker 0, which has had its time.
    let mut scene = Scene::of(&[256 * MIB; 3], 64 * MIB, 3);
    scene.pass(4, &[slow, fast, fast]);
    let [Action::Recall { worker: 0, why: Recall::Slow { rate, usual }, .. }] = scene.other[..]
    else {
        panic!("{:?}", scene.other);
    };
    assert_eq!((rate, usual), (slow, fast));
    let at = scene.schedule.workers[0].meter.at();
    scene.tell(Event::Fetched { worker: 0, at, ending: Ending::Written });
    assert!(scene.chunk(0).is_some_and(|chunk| chunk.range.start == at));
}

#[test]
fn a_file_is_not_finished_while_somebody_has_a_part_that_another_has_written_already() {
    const MIB: u64 = 1 << 20;
    let mut scene = Scene::of(&[64 * MIB], 64 * MIB, 1);
    assert_eq!(scene.chunk(0).map(|chunk| chunk.hashes), Some(true));
    scene.schedule.frontier.begin(0, Party::Worker(1), 32 * MIB, false);
    scene.schedule.frontier.written(0, Party::Worker(0), 0..64 * MIB);
    assert!(!scene.schedule.frontier.take_complete(0, Party::Worker(0)));
    scene.schedule.frontier.written(0, Party::Worker(1), 32 * MIB..64 * MIB);
    assert_eq!(scene.schedule.frontier.leases(0), 0);
    assert!(scene.schedule.frontier.take_complete(0, Party::Worker(1)));
}

#[test]
fn a_link_that_is_slow_for_all_replaces_nobody() {
    for rate in [10_000, 100_000, 10 * MIB] {
        let mut scene = Scene::of(&[1 << 30; 4], 64 * MIB, 4);
        scene.pass(60, &[rate, rate / 2, rate / 3, rate]);
        assert!(scene.other.is_empty(), "{:?}", scene.other);
    }
}

#[test]
fn a_piece_is_taken_back_a_few_times_only() {
    let mut scene = Scene::of(&[1 << 30; 3], 64 * MIB, 3);
    let mut recalls = 0;
    for _ in 0..30 {
        scene.pass(4, &[10_000, 16 * MIB, 16 * MIB]);
        let recalled =
            scene.other.drain(..).any(|it| matches!(it, Action::Recall { worker: 0, .. }));
        if recalled {
            recalls += 1;
            let at = scene.schedule.workers[0].meter.at();
            scene.tell(Event::Fetched { worker: 0, at, ending: Ending::Written });
        }
    }
    assert!(recalls <= hedge::MAX_RECALLS, "{recalls}");
}

#[test]
fn a_file_that_begins_again_is_given_back_by_all_and_comes_first_and_only_once() {
    let mut scene = Scene::of(&[64, 64, 64], 4, 2);
    // Both are on file 0 and 1; then 1 begins again, in one stream.
    scene.restarts(1, 2, Restart::InOneStream);
    let restart = (Party::Worker(1), Task::Restart { file: 1, how: Restart::InOneStream });
    assert_eq!(scene.given.last(), Some(&restart));
    scene.tell(Event::Restarted(Party::Worker(1)));
    assert_eq!(scene.chunk(1).map(|it| (it.file, it.range.clone())), Some((1, 0..64)));
    // Where several share it, all give it back first.
    let mut scene = Scene::of(&[64], 4, 3);
    scene.restarts(1, 6, Restart::InRanges);
    let recalled = |it: &Action| matches!(it, Action::Recall { why: Recall::Restart, .. });
    assert_eq!(scene.other.iter().filter(|it| recalled(it)).count(), 2);
    assert!(scene.is_idle(1));
    let ending = Ending::Written;
    scene.tell(Event::Fetched { worker: 0, at: 1, ending });
    scene.tell(Event::Fetched { worker: 2, at: 8, ending });
    let restart = (Party::Worker(2), Task::Restart { file: 0, how: Restart::InRanges });
    assert_eq!(scene.given.last(), Some(&restart));
    scene.given.clear();
    scene.tell(Event::Restarted(Party::Worker(2)));
    assert_eq!(take_all(scene).len(), 16);
}

#[test]
fn no_more_files_are_open_than_may_be_and_a_finished_one_makes_room() {
    let limits = Limits { open_files: 2, small_bytes: 8, ..limits(4, 3) };
    let mut scene = Scene::new(&plan(&[4, 12, 12]), limits, 3);
    let files = |scene: &Scene| Vec::from_iter(scene.chunks().into_iter().map(|(file, _)| file));
    assert_eq!((files(&scene), scene.schedule.permits.count()), (vec![0, 1, 1], 2));
    // The third has to wait for one of them, and then comes.
    scene.fetched(1);
    scene.fetched(2);
    assert_eq!((files(&scene).len(), scene.is_idle(2)), (4, true));
    scene.fetched(0);
    assert_eq!(scene.given.last(), Some(&(Party::Worker(0), Task::Finish { file: 0 })));
    scene.tell(Event::Finished(Party::Worker(0)));
    assert_eq!(files(&scene).last(), Some(&2));
    assert_eq!(scene.schedule.permits.count(), 2);
}

#[test]
fn what_comes_in_is_hashed_before_what_was_there() {
    let files = plan(&[1 << 30, 1 << 30]).files;
    let update = Plan::new(files, |n| (n == 0).then_some(0..1 << 30).into_iter().collect());
    let mut scene = Scene::new(&update, limits(64 * MIB, 2), 2);
    scene.tell(Event::Started(Party::Hasher(0)));
    let hashes = |scene: &Scene| match scene.given.last() {
        Some((_, Task::Hash { file, range, is_old })) => (*file, range.clone(), *is_old),
        other => panic!("{other:?}"),
    };
    // A pause: old bytes, a little of them.
    let quantum = frontier::QUANTUM;
    assert_eq!(hashes(&scene), (0, 0..quantum, true));
    scene.fetched(0);
    scene.tell(Event::Hashed { hasher: 0 });
    assert_eq!(hashes(&scene), (1, 0..quantum, false));
    for n in 1..4 {
        scene.tell(Event::Hashed { hasher: 0 });
        assert_eq!(hashes(&scene), (1, n * quantum..(n + 1) * quantum, false));
    }
    // It has caught up.
    scene.tell(Event::Hashed { hasher: 0 });
    assert_eq!(hashes(&scene), (0, quantum..2 * quantum, true));
}

#[test]
fn everybody_is_sent_home_at_the_end() {
    let mut scene = Scene::of(&[4], 4, 2);
    scene.tell(Event::Started(Party::Hasher(0)));
    scene.fetched(0);
    scene.hash_all();
    assert_eq!(scene.other, [Action::End]);
    let ends = scene.given.iter().filter(|(_, task)| *task == Task::End).count();
    assert_eq!((ends, scene.schedule.next_deadline()), (3, None));
}
