//! What comes out for one state or a few.

use super::*;
use crate::model::{RelPath, RemoteFile};

fn schedule(sizes: &[u64], workers: usize) -> Schedule {
    schedule_of(sizes, 4, workers)
}

fn schedule_of(sizes: &[u64], chunk_size: u64, workers: usize) -> Schedule {
    Schedule::new(&plan(sizes), Limits { chunk_size, workers, open_files: 128 })
}

pub(super) fn plan(sizes: &[u64]) -> Plan {
    let file = |(n, size): (usize, &u64)| RemoteFile {
        path: RelPath::parse(&format!("f{n}")).expect("path"),
        size: *size,
        digest: None,
        validator: None,
    };
    let files: Vec<_> = sizes.iter().enumerate().map(file).collect();
    Plan::new(files.into(), |_| Vec::new())
}

/// What worker after worker takes, each coming back with its last chunk in its turn.
fn take_all(mut state: Schedule, workers: usize) -> Vec<(usize, Range<u64>)> {
    let mut own = vec![None; workers];
    let mut taken = Vec::new();
    for turn in 0.. {
        let last: &mut Option<u64> = &mut own[turn % workers];
        if let Some(id) = *last {
            state.leave(id);
        }
        let Some(chunk) = state.take(*last) else { break };
        *last = Some(chunk.span);
        taken.push((chunk.file, chunk.range));
    }
    assert_eq!(state.bytes, 0);
    taken
}

#[test]
fn one_worker_goes_file_by_file_and_in_order() {
    assert_eq!(take_all(schedule(&[5, 0, 4], 1), 1), [(0, 0..4), (0, 4..5), (2, 0..4)]);
}

#[test]
fn each_worker_stays_with_its_file_and_then_joins_the_others() {
    let taken = take_all(schedule(&[8, 16], 2), 2);
    let expected = [(0, 0..4), (1, 0..4), (0, 4..8), (1, 4..8), (1, 8..12), (1, 12..16)];
    assert_eq!(taken, expected);
    assert!(schedule(&[8, 16], 2).take(None).is_some_and(|chunk| chunk.alone));
}

#[test]
fn workers_spread_evenly_over_few_files() {
    let mut state = schedule(&[1 << 20, 1 << 20], 6);
    let taken: Vec<_> = (0..6).filter_map(|_| state.take(None)).collect();
    let files: Vec<_> = taken.iter().map(|chunk| chunk.file).collect();
    assert_eq!(files, [0, 1, 0, 1, 0, 1]);
    assert!(taken.iter().all(|chunk| !chunk.alone));
}

#[test]
fn workers_that_share_a_file_wait_for_its_hash() {
    let mut state = schedule_of(&[4 << 30], 64 << 20, 4);
    let ahead: Vec<Chunk> = std::iter::from_fn(|| state.take(None)).collect();
    let at = ahead.last().expect("some").range.end;
    assert!(at > 4 * AHEAD_EACH && at <= 5 * AHEAD_EACH, "{at}");
    assert!(!ahead[0].alone);
    assert_eq!(state.turn(0, None), (Turn::Wait, News::Nothing));
    assert_eq!(state.hashed(0, 0, AHEAD_EACH), News::ForThoseWhoWait);
    assert_eq!(state.take(None).expect("goes on").range.start, at);
}

#[test]
fn news_of_an_earlier_beginning_is_no_harm() {
    let mut state = schedule_of(&[4 << 30], 64 << 20, 2);
    let first = state.take(None).expect("a chunk");
    assert_eq!(state.again(first.file, 4 << 30, 1, false), News::ForThoseWhoWait);
    assert_eq!(state.take(None).map(|chunk| chunk.range.start), Some(0));
    // Neither one that is further on nor one that is further back.
    let _ = state.hashed(first.file, 0, 1 << 30);
    assert_eq!(state.begun[0].hashed, 0);
    let next = state.take(None).expect("goes on");
    assert_eq!((next.range.start, next.generation), (AHEAD_EACH / 2, 1));
}

#[test]
fn what_was_there_before_holds_nobody_back() {
    let mut state = schedule_of(&[4 << 30], 64 << 20, 4);
    state.waiting[0].range.start = 1 << 30;
    let taken = std::iter::from_fn(|| state.take(None)).count();
    assert!(taken > 40, "{taken}");
}

#[test]
fn chunks_become_smaller_towards_the_end_and_are_cut_at_whole_blocks() {
    let (size, chunk_size) = (1_000_000_007, 64 << 20);
    let mut state = schedule_of(&[size], chunk_size, 4);
    let mut at = 0;
    let mut lengths = Vec::new();
    while let Some(chunk) = state.take(None) {
        state.begun.iter_mut().for_each(|span| span.hashed = chunk.range.end);
        assert!(chunk.range.start == at && at % ALIGNMENT == 0);
        at = chunk.range.end;
        lengths.push(chunk.range.end - chunk.range.start);
    }
    assert_eq!(at, size);
    assert_eq!(lengths[0], AHEAD_EACH / 2);
    assert!(lengths.iter().rev().skip(1).all(|len| *len >= MIN_CHUNK), "{lengths:?}");
    assert!(lengths.iter().rev().take(4).all(|len| *len <= 2 * MIN_CHUNK), "{lengths:?}");
}

#[test]
fn the_last_chunks_of_slow_connections_are_smaller_still() {
    let last = |rate_each: f64| {
        let mut state = schedule_of(&[256 << 20], 64 << 20, 4);
        let _ = state.let_work(4, rate_each);
        let (mut last, mut before_it) = (0, 0);
        while let Some(chunk) = state.take(None) {
            state.begun.iter_mut().for_each(|span| span.hashed = chunk.range.end);
            (before_it, last) = (last, chunk.range.end - chunk.range.start);
        }
        assert!(last <= before_it);
        before_it
    };
    assert_eq!([last(1e9), last(4.5e6), last(1e3)], [8 << 20, 2 << 20, 1 << 20]);
}

#[test]
fn a_small_file_is_one_chunk_however_slow_the_connections_are() {
    let sizes = [7 << 20; 20];
    let mut state = schedule_of(&sizes, 64 << 20, 16);
    let _ = state.let_work(16, 1e3);
    let count = std::iter::from_fn(|| state.take(None)).count();
    assert_eq!(count, sizes.len());
}

#[test]
fn an_empty_range_does_not_block_the_others() {
    let mut state = schedule(&[5], 1);
    let _ = state.again(7, 0, 1, false);
    assert_eq!(take_all(state, 1), [(0, 0..4), (0, 4..5)]);
}

#[test]
fn a_file_that_begins_anew_comes_first_and_only_once() {
    let mut state = schedule(&[5, 9], 1);
    let _ = state.again(1, 9, 1, true);
    assert_eq!(take_all(state, 1), [(1, 0..9), (0, 0..4), (0, 4..5)]);
}

#[test]
fn what_somebody_has_left_comes_before_a_new_file_and_is_kept_over_a_wait() {
    let mut state = schedule(&[12, 12, 12, 12], 3);
    let taken: Vec<_> = (0..3).filter_map(|_| state.take(None)).collect();
    // The second is one too many now, and leaves its file behind.
    let _ = state.let_work(1, 0.0);
    state.leave(taken[1].span);
    assert_eq!(state.turn(1, Some(taken[1].span)).0, Turn::Wait);
    // The first keeps its own, and the third comes first where nobody is.
    state.leave(taken[0].span);
    assert_eq!(state.take(Some(taken[0].span)).map(|it| it.range), Some(4..8));
    state.leave(taken[2].span);
    assert_eq!(state.take(None).map(|it| (it.file, it.range)), Some((1, 4..8)));
    // A worker that may go on finds its own again.
    let _ = state.let_work(3, 0.0);
    let own = state.take(Some(taken[2].span));
    assert_eq!(own.map(|it| (it.file, it.range)), Some((2, 4..8)));
    assert_eq!(state.take(None).map(|it| it.file), Some(3));
}

#[test]
fn no_more_files_are_open_than_may_be_and_a_proved_one_makes_room() {
    let limits = Limits { chunk_size: 4, workers: 3, open_files: 2 };
    let mut state = Schedule::new(&plan(&[4, 12, 12]), limits);
    let files: Vec<_> = std::iter::from_fn(|| state.take(None)).map(|it| it.file).collect();
    // All is given out of the two; the third has to wait for one of them, and then comes.
    assert_eq!((files, state.open_files()), (vec![0, 1, 1, 1], 2));
    assert_eq!(state.turn(0, None), (Turn::Wait, News::Nothing));
    assert_eq!(state.finish(0), News::ForThoseWhoWait);
    assert_eq!(state.take(None).map(|it| it.file), Some(2));
    assert_eq!(state.again(1, 12, 1, false), News::ForThoseWhoWait);
    assert_eq!(state.open_files(), 1);
}
