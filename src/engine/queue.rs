//! What is still to fetch, and the waits of those who fetch it. What they are given is decided by the
//! schedule.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

pub use super::schedule::{Chunk, least_chunk};
use super::schedule::{News, Schedule, Turn};
use crate::model::Plan;

/// How a transfer begins.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes of one chunk.
    pub chunk_size: u64,
    /// Workers that may take chunks, until `let_work` says otherwise.
    pub workers: usize,
    /// Files that may be open at the same time.
    pub open_files: usize,
}

pub struct Queue {
    schedule: Mutex<Schedule>,
    changed: Notify,
}

impl Queue {
    pub fn new(plan: &Plan, limits: Limits) -> Self {
        Self { schedule: Mutex::new(Schedule::new(plan, limits)), changed: Notify::new() }
    }

    /// For a plan of which only so many files are to be proved.
    pub fn until_proved(mut self, files: usize) -> Self {
        self.schedule.get_mut().unwrap_or_else(PoisonError::into_inner).until_proved(files);
        self
    }

    /// The next chunk for worker number `worker`, whose last one was `last`. Waits while files may
    /// still come back, and while there are too many workers; `None` when all are done.
    pub async fn next(&self, worker: usize, last: Option<Chunk>) -> Option<Chunk> {
        let own = last.map(|chunk| chunk.span);
        let mut to_leave = own;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let (turn, news) = {
                let mut schedule = self.schedule();
                if let Some(span) = to_leave.take() {
                    schedule.leave(span);
                }
                schedule.turn(worker, own)
            };
            self.tell(news);
            match turn {
                Turn::Take(chunk) => return Some(chunk),
                Turn::End => return None,
                Turn::Wait => changed.await,
            }
        }
    }

    /// How many workers may take chunks from now on; and how many bytes per second each has brought.
    pub fn let_work(&self, workers: usize, rate_each: f64) {
        let news = self.schedule().let_work(workers, rate_each);
        self.tell(news);
    }

    /// Bytes that nobody has been given yet.
    pub fn bytes_left(&self) -> u64 {
        self.schedule().bytes_left()
    }

    /// The hash of beginning number `generation` of `file` has come to `at`.
    pub fn hashed(&self, file: usize, generation: u32, at: u64) {
        let news = self.schedule().hashed(file, generation, at);
        self.tell(news);
    }

    /// Takes every waiting range of `file` back.
    pub fn withdraw(&self, file: usize) {
        self.schedule().withdraw(file);
    }

    /// Puts the whole of `file`, which is closed, to the front, for its beginning number `generation`.
    pub fn again(&self, file: usize, size: u64, generation: u32, in_one: bool) {
        let news = self.schedule().again(file, size, generation, in_one);
        self.tell(news);
    }

    /// `file` is proved and closed; returns whether all are.
    pub fn finish_file(&self, file: usize) -> bool {
        let (news, all_done) = {
            let mut schedule = self.schedule();
            (schedule.finish(file), schedule.is_done())
        };
        self.tell(news);
        all_done
    }

    /// Files that may be open at the moment because of what has been given out.
    pub fn open_files(&self) -> usize {
        self.schedule().open_files()
    }

    /// Ends the waits of all workers.
    pub fn wake_all(&self) {
        let news = self.schedule().close();
        self.tell(news);
    }

    fn tell(&self, news: News) {
        if news == News::ForThoseWhoWait {
            self.changed.notify_waiters();
        }
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
