//! Where the threads of a transfer and its schedule meet: events go in, tasks and orders come out. It
//! decides nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::bounds::Bounds;
use super::schedule::Schedule;
use super::schedule::event::{
    Action, Chunk, Event, Party, Phase, Reading, Recall, Task, Tick, TooSlow,
};

/// There are four ticks a second: one that is so late tells of a process, or a machine, that stood still.
const FROZEN_AFTER: Duration = Duration::from_secs(2);
/// A look at the volume takes milliseconds; at a file server that is slow, longer than this.
const SETTLES_WITHIN: Duration = Duration::from_millis(250);
/// So often it is looked for a stop meanwhile.
const LOOK_AFTER_A_FREEZE: Duration = Duration::from_millis(10);

pub struct Desk {
    schedule: Mutex<Schedule>,
    started: Instant,
    workers: Vec<Worker>,
    hashers: Vec<Hasher>,
    /// Chunks are given up where they stand.
    is_stopped: AtomicBool,
    last_tick: Mutex<LastTick>,
    /// For the thread that started the transfer.
    news: Mutex<News>,
    has_news: Condvar,
}

/// What the thread that started the transfer has to do.
#[derive(Default)]
pub struct News {
    pub start_workers: Vec<usize>,
    pub too_slow: Option<TooSlow>,
    pub is_over: bool,
    pub is_tick_due: bool,
}

/// What the schedule says to one worker. Nobody else's is in the same lines of the cache: the worker reads and
/// writes here with each read from the network.
#[derive(Default)]
#[repr(align(128))]
struct Worker {
    task: Mutex<Option<Task>>,
    has_task: Notify,
    /// How far its chunk is.
    at: AtomicU64,
    /// Where its chunk ends.
    bounds: Bounds,
    recall: Order<Recall>,
    reconnect: Order<u64>,
}

#[derive(Default)]
struct Hasher {
    task: Mutex<Option<Task>>,
    has_task: Condvar,
}

/// Something about one chunk, which may be done by the time that it is read.
struct Order<T> {
    of: Mutex<Option<(u64, T)>>,
    is_given: Notify,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self { of: Mutex::new(None), is_given: Notify::new() }
    }
}

impl<T: Copy> Order<T> {
    fn give(&self, lease: u64, what: T) {
        *lock(&self.of) = Some((lease, what));
        self.is_given.notify_one();
    }

    /// Returns once something is given: what, if it is for this chunk; once only.
    async fn next(&self, lease: u64) -> Option<T> {
        self.is_given.notified().await;
        let given = *lock(&self.of);
        given.filter(|(of, _)| *of == lease).map(|(_, what)| what)
    }
}

/// Whether the process was frozen just now, told by ticks that are far too late.
#[derive(Debug, Default, PartialEq, Eq)]
struct LastTick {
    at: Duration,
    /// When it was noticed that there were none for long.
    woke: Option<Duration>,
}

impl LastTick {
    fn is_at(&mut self, now: Duration) {
        if self.is_late(now) {
            self.woke = Some(now);
        }
        self.at = now;
    }

    /// How long nothing new is to be asked for.
    fn unsettled(&self, now: Duration) -> Duration {
        match self.woke {
            _ if self.is_late(now) => SETTLES_WITHIN,
            Some(woke) => (woke + SETTLES_WITHIN).saturating_sub(now),
            None => Duration::ZERO,
        }
    }

    fn is_late(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) > FROZEN_AFTER
    }
}

impl Desk {
    pub fn new(schedule: Schedule, workers: usize, hashers: usize) -> Self {
        let desk = Self {
            schedule: Mutex::new(schedule),
            started: Instant::now(),
            workers: (0..workers).map(|_| Worker::default()).collect(),
            hashers: (0..hashers).map(|_| Hasher::default()).collect(),
            is_stopped: AtomicBool::new(false),
            last_tick: Mutex::default(),
            news: Mutex::default(),
            has_news: Condvar::new(),
        };
        desk.carry_out(&mut desk.schedule());
        desk
    }

    /// Tells the schedule what has happened.
    pub fn tell(&self, event: Event) {
        let mut schedule = self.schedule();
        schedule.handle(self.started.elapsed(), event);
        self.carry_out(&mut schedule);
    }

    /// Tells it what there is to see; `phase` is what each worker does.
    pub fn tick(&self, mut tick: Tick, phase: impl Fn(usize) -> Phase) {
        lock(&self.last_tick).is_at(self.started.elapsed());
        let mut schedule = self.schedule();
        let reading = |(n, worker): (usize, &Worker)| Reading {
            at: worker.at.load(Relaxed),
            phase: phase(n),
        };
        tick.readings = self.workers.iter().enumerate().map(reading).collect();
        schedule.handle(self.started.elapsed(), Event::Tick(tick));
        self.carry_out(&mut schedule);
    }

    /// Returns once others have had the time to look whether what is fetched is still wanted, where this process
    /// was frozen: what was frozen for minutes may find that another process has done it.
    pub async fn has_settled(&self) {
        let since = Instant::now();
        loop {
            let left = lock(&self.last_tick).unsettled(self.started.elapsed());
            let is_over = self.is_stopped.load(SeqCst) || since.elapsed() >= SETTLES_WITHIN;
            if left.is_zero() || is_over {
                return;
            }
            tokio::time::sleep(left.min(LOOK_AFTER_A_FREEZE)).await;
        }
    }

    /// What worker number `n` does next.
    pub async fn next(&self, n: usize) -> Task {
        let worker = &self.workers[n];
        loop {
            if let Some(task) = lock(&worker.task).take() {
                return task;
            }
            worker.has_task.notified().await;
        }
    }

    /// What hasher number `n` does next.
    pub fn next_to_hash(&self, n: usize) -> Task {
        let hasher = &self.hashers[n];
        let mut task = lock(&hasher.task);
        loop {
            if let Some(task) = task.take() {
                return task;
            }
            task = hasher.has_task.wait(task).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The chunk of worker number `n` is written up to `at`; returns where it ends by now.
    pub fn has_come_to(&self, n: usize, at: u64) -> u64 {
        self.workers[n].at.store(at, Relaxed);
        self.end_of(n)
    }

    /// Worker number `n` is about to write up to `upto`; returns where its chunk ends, which it does not write
    /// beyond.
    pub fn claim(&self, n: usize, upto: u64) -> u64 {
        self.workers[n].bounds.claim(upto)
    }

    /// Where the chunk of worker number `n` ends.
    pub fn end_of(&self, n: usize) -> u64 {
        self.workers[n].bounds.end()
    }

    /// Returns once worker number `n` is to give this chunk back; `None`: because everything stops.
    pub async fn recalled(&self, n: usize, chunk: &Chunk) -> Option<Recall> {
        let recall = &self.workers[n].recall;
        loop {
            if self.is_stopped.load(SeqCst) {
                return None;
            }
            if let Some(recall) = recall.next(chunk.lease).await {
                return Some(recall);
            }
        }
    }

    /// Tells all workers that everything stops. Not the wish itself is what they listen to: that would be one
    /// thing for all of them, looked at with each read from the network.
    pub fn stop(&self) {
        if !self.is_stopped.swap(true, SeqCst) {
            self.workers.iter().for_each(|worker| worker.recall.is_given.notify_one());
        }
    }

    /// Returns once worker number `n` is to close the connection for this chunk, which brought so many
    /// bytes per second, and to make another one.
    pub async fn is_to_reconnect(&self, n: usize, chunk: &Chunk) -> u64 {
        loop {
            if let Some(rate) = self.workers[n].reconnect.next(chunk.lease).await {
                return rate;
            }
        }
    }

    /// What there is to do for the thread that started the transfer, at a tick at the latest.
    pub fn news(&self) -> News {
        let deadline = self.schedule().next_deadline().unwrap_or_default();
        let is_quiet = |news: &mut News| {
            !news.is_over && news.start_workers.is_empty() && news.too_slow.is_none()
        };
        let now = self.started.elapsed();
        let left = match lock(&self.last_tick).unsettled(now).is_zero() {
            true => deadline.saturating_sub(now),
            false => deadline.saturating_sub(now).min(LOOK_AFTER_A_FREEZE),
        };
        let waited = self.has_news.wait_timeout_while(lock(&self.news), left, is_quiet);
        let mut news = waited.unwrap_or_else(PoisonError::into_inner).0;
        let is_over = news.is_over;
        let rest = News { is_over, ..News::default() };
        // By the clock of the schedule: by another one it could be asked for in vain again and again.
        let is_tick_due = self.started.elapsed() >= deadline;
        News { is_tick_due, ..std::mem::replace(&mut news, rest) }
    }

    /// Waits for the end of the transfer, but not longer than `time`.
    pub fn is_over_within(&self, time: Duration) -> bool {
        let waited = self.has_news.wait_timeout_while(lock(&self.news), time, |it| !it.is_over);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_over
    }

    fn carry_out(&self, schedule: &mut Schedule) {
        // Where the tail of a chunk that was shortened begins: its worker may have passed the place already.
        let mut reached = None;
        while let Some(action) = schedule.poll() {
            match action {
                Action::Give(Party::Worker(n), mut task) => {
                    let worker = &self.workers[n];
                    if let Task::Fetch(chunk) = &mut task {
                        if let Some(reached) = reached.take() {
                            chunk.range.start = chunk.range.end.min(reached);
                        }
                        worker.at.store(chunk.range.start, Relaxed);
                        worker.bounds.begin(&chunk.range);
                    }
                    *lock(&worker.task) = Some(task);
                    worker.has_task.notify_one();
                }
                Action::Give(Party::Hasher(n), task) => {
                    *lock(&self.hashers[n].task) = Some(task);
                    self.hashers[n].has_task.notify_one();
                }
                Action::Shorten { worker, end, .. } => {
                    reached = Some(self.workers[worker].bounds.shorten(end));
                }
                Action::Recall { worker, lease, why } => {
                    self.workers[worker].recall.give(lease, why);
                }
                Action::Reconnect { worker, lease, rate } => {
                    self.workers[worker].reconnect.give(lease, rate);
                }
                Action::StartWorker(n) => self.inform(|news| news.start_workers.push(n)),
                Action::GiveUp(too_slow) => self.inform(|news| news.too_slow = Some(too_slow)),
                Action::End => self.inform(|news| news.is_over = true),
            }
        }
    }

    fn inform(&self, change: impl FnOnce(&mut News)) {
        change(&mut lock(&self.news));
        self.has_news.notify_all();
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        lock(&self.schedule)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_for_just_after_a_freeze() {
        let millis = Duration::from_millis;
        let mut tick = LastTick::default();
        for (now, is_tick, unsettled) in [
            (0, true, 0),
            (250, true, 0),
            (1_900, false, 0),
            (2_100, true, 0),
            // A worker notices it before the first tick does.
            (60_000, false, 250),
            (60_010, true, 250),
            (60_110, false, 150),
            (60_250, true, 10),
            (60_260, false, 0),
            (60_500, true, 0),
        ] {
            if is_tick {
                tick.is_at(millis(now));
            }
            assert_eq!(tick.unsettled(millis(now)), millis(unsettled), "{now}");
        }
    }
}
