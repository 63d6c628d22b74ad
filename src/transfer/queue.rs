//! What is still to fetch, in the order of the files; workers take the next chunk from the front.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::{Plan, chunks};

/// A byte range of one file: one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub file: usize,
    pub range: Range<u64>,
    /// Which beginning of the file it belongs to.
    pub generation: u32,
}

pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
    chunk_size: u64,
}

struct State {
    missing: VecDeque<Missing>,
    /// Files that are not proved yet; while there are any, one may come back.
    open_files: usize,
    is_closed: bool,
}

struct Missing {
    file: usize,
    range: Range<u64>,
    generation: u32,
    /// As one chunk, however long: the server sends no ranges.
    in_one: bool,
}

impl Queue {
    pub fn new(plan: &Plan, chunk_size: u64) -> Self {
        let missing = plan
            .missing
            .iter()
            .enumerate()
            .flat_map(|(file, ranges)| {
                ranges.iter().map(move |range| Missing {
                    file,
                    range: range.clone(),
                    generation: 0,
                    in_one: false,
                })
            })
            .collect();
        let state = State { missing, open_files: plan.files.len(), is_closed: false };
        Self { state: Mutex::new(state), changed: Notify::new(), chunk_size }
    }

    /// The next chunk; waits while files may still come back; `None` when all are done.
    pub async fn next(&self) -> Option<Chunk> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if state.is_closed || state.open_files == 0 {
                    return None;
                }
                if let Some(chunk) = state.take(self.chunk_size) {
                    return Some(chunk);
                }
            }
            changed.await;
        }
    }

    /// Takes every waiting range of `file` back.
    pub fn withdraw(&self, file: usize) {
        self.state().missing.retain(|missing| missing.file != file);
    }

    /// Puts the whole of `file` to the front, for its beginning number `generation`.
    pub fn again(&self, file: usize, size: u64, generation: u32, in_one: bool) {
        {
            let mut state = self.state();
            state.missing.retain(|missing| missing.file != file);
            state.missing.push_front(Missing { file, range: 0..size, generation, in_one });
        }
        self.changed.notify_waiters();
    }

    /// A file is proved.
    pub fn finish_file(&self) -> bool {
        let all_done = {
            let mut state = self.state();
            state.open_files -= 1;
            state.open_files == 0
        };
        if all_done {
            self.changed.notify_waiters();
        }
        all_done
    }

    /// Ends the waits of all workers.
    pub fn wake_all(&self) {
        self.state().is_closed = true;
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, chunk_size: u64) -> Option<Chunk> {
        while self.missing.front().is_some_and(|first| first.range.is_empty()) {
            self.missing.pop_front();
        }
        let first = self.missing.front_mut()?;
        let (file, generation) = (first.file, first.generation);
        let range = if first.in_one {
            first.range.clone()
        } else {
            chunks(first.range.clone(), chunk_size).next()?
        };
        first.range.start = range.end;
        if first.range.is_empty() {
            self.missing.pop_front();
        }
        Some(Chunk { file, range, generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RelPath, RemoteFile};

    fn queue(sizes: &[u64]) -> Queue {
        let file = |(n, size): (usize, &u64)| RemoteFile {
            path: RelPath::parse(&format!("f{n}")).expect("path"),
            size: *size,
            digest: None,
            validator: None,
        };
        Queue::new(&Plan::new(sizes.iter().enumerate().map(file).collect(), &[]), 4)
    }

    fn take_all(queue: &Queue) -> Vec<(usize, Range<u64>)> {
        let mut state = queue.state();
        std::iter::from_fn(|| state.take(4)).map(|chunk| (chunk.file, chunk.range)).collect()
    }

    #[test]
    fn chunks_come_file_by_file_and_in_order() {
        let queue = queue(&[5, 0, 4]);
        assert_eq!(take_all(&queue), [(0, 0..4), (0, 4..5), (2, 0..4)]);
    }

    #[test]
    fn an_empty_range_does_not_block_the_others() {
        let queue = queue(&[5]);
        queue.again(7, 0, 1, false);
        assert_eq!(take_all(&queue), [(0, 0..4), (0, 4..5)]);
    }

    #[test]
    fn a_file_that_begins_anew_comes_first_and_only_once() {
        let queue = queue(&[5, 9]);
        queue.again(1, 9, 1, true);
        assert_eq!(take_all(&queue), [(1, 0..9), (0, 0..4), (0, 4..5)]);
    }
}
