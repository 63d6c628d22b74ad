//! What workers and hashers do, and are told to do.

use super::super::event::*;
use super::super::machine::Doing;
use super::Fault;
use super::network::{Fetching, NEVER};
use super::seconds;
use super::world::{File, Hasher, MIB, Worker, World};

impl World {
    pub fn work(&mut self, n: usize) -> Result<(), String> {
        let now = self.now;
        match self.workers[n].clone() {
            Worker::Starts(at) if at <= now => {
                self.workers[n] = Worker::Waits;
                self.tell(Event::Started(Party::Worker(n)))
            }
            Worker::Serves(at, task) if at <= now => {
                self.workers[n] = Worker::Waits;
                self.served(Party::Worker(n), &task)
            }
            Worker::Fetches(mut it) => {
                if it.at + 0.5 >= it.end as f64 {
                    let at = it.end;
                    return self.fetched(n, &it.chunk, at, false);
                }
                if it.retries_at <= now {
                    it.connection = self.conditions.connect(&mut self.random, now, None);
                    it.retries_at = NEVER;
                } else if it.retries_at == NEVER && it.connection.is_broken(now) {
                    it.retries_at = now + 0.25;
                } else if it.rate(now) > 0.0 {
                    it.connection.heard = now;
                }
                self.workers[n] = Worker::Fetches(it);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Worker `n` is done with its chunk, or gives it back.
    fn fetched(
        &mut self,
        n: usize,
        chunk: &Chunk,
        at: u64,
        is_given_back: bool,
    ) -> Result<(), String> {
        if let Worker::Fetches(it) = std::mem::replace(&mut self.workers[n], Worker::Waits) {
            // What is read to its end leaves its connection to the next chunk.
            self.at_address[n] = (!is_given_back).then_some(it.connection.address);
        }
        let file = &mut self.files[chunk.file];
        let may_restart = self.conditions.restarts && file.beginnings < 2 && !is_given_back;
        let ending = if may_restart && self.random.u16(0..200) == 0 {
            let is_stream = self.random.bool();
            Ending::Restart(if is_stream { Restart::InOneStream } else { Restart::InRanges })
        } else {
            file.written.insert(chunk.range.start..at);
            Ending::Written
        };
        if self.fault == Some(Fault::RestLost)
            && let Doing::Fetches(lease) = &mut self.schedule.workers[n].doing
        {
            lease.piece.range.end = lease.piece.range.end.min(at);
        }
        self.tell(Event::Fetched { worker: n, at, ending })
    }

    pub fn hash(&mut self, n: usize) -> Result<(), String> {
        let now = self.now;
        match self.hashers[n].clone() {
            Hasher::Starts(at) if at <= now => {
                self.hashers[n] = Hasher::Waits;
                self.tell(Event::Started(Party::Hasher(n)))
            }
            Hasher::Hashes(at, range, file) if at <= now => {
                if self.files[file].written.end_of(range.start) < range.end {
                    return Err(format!(
                        "{range:?} of file {file} was hashed before it was written"
                    ));
                }
                self.hashers[n] = Hasher::Waits;
                self.tell(Event::Hashed { hasher: n })
            }
            Hasher::Serves(at, task) if at <= now => {
                self.hashers[n] = Hasher::Waits;
                self.served(Party::Hasher(n), &task)
            }
            _ => Ok(()),
        }
    }

    fn served(&mut self, party: Party, task: &Task) -> Result<(), String> {
        match task {
            Task::Finish { file: n } => {
                let file = &mut self.files[*n];
                if file.is_finished || file.written.end_of(0) < file.size {
                    return Err(format!("file {n} was finished too early, or twice"));
                }
                let may_restart = self.conditions.restarts && file.size > 0 && file.beginnings < 2;
                if may_restart && self.random.u8(0..20) == 0 {
                    return self.tell(Event::Wrong(party));
                }
                (file.is_finished, file.is_open) = (true, false);
                self.tell(Event::Finished(party))?;
                if self.fault == Some(Fault::FileLeftOpen) {
                    self.schedule.permits.open(*n);
                }
            }
            Task::Restart { file: n, .. } => {
                let uses = |it: &Worker| matches!(it, Worker::Fetches(it) if it.chunk.file == *n);
                let hashes = |it: &Hasher| matches!(it, Hasher::Hashes(_, _, file) if file == n);
                if self.workers.iter().any(uses) || self.hashers.iter().any(hashes) {
                    return Err(format!("file {n} was thrown away under somebody"));
                }
                let file = &mut self.files[*n];
                let (size, beginnings) = (file.size, file.beginnings + 1);
                *file = File { size, beginnings, ..File::default() };
                self.needed += size;
                self.restarts += 1;
                self.tell(Event::Restarted(party))?;
            }
            _ => {}
        }
        Ok(())
    }

    pub fn tell(&mut self, event: Event) -> Result<(), String> {
        if self.fault == Some(Fault::NewFilesFirst) {
            // What is left is nobody's: only its own worker would go on with it.
            self.schedule.spans.forget_what_is_left(&self.schedule.frontier);
        }
        self.schedule.handle(seconds(self.now), event);
        self.carry_out()
    }

    pub fn carry_out(&mut self) -> Result<(), String> {
        while let Some(action) = self.schedule.poll() {
            match action {
                Action::Give(party, _)
                    if self.fault == Some(Fault::LostTask)
                        && self.random.u8(0..50) == 0
                        && party != Party::Worker(0) => {}
                Action::Give(Party::Worker(n), task) => self.give_worker(n, task)?,
                Action::Give(Party::Hasher(n), task) => self.give_hasher(n, task)?,
                Action::Shorten { worker, end, .. } => {
                    if self.fault != Some(Fault::DeafToSplits)
                        && let Worker::Fetches(it) = &mut self.workers[worker]
                    {
                        // It may be further than was known, or about to be.
                        let upto = (it.at as u64 + self.random.u64(0..MIB)).min(it.end);
                        if upto > end {
                            (it.at, it.end) = (upto as f64, upto);
                        } else {
                            it.end = end;
                        }
                        self.reached = (upto > end).then_some(upto);
                    }
                }
                Action::Recall { worker, lease, why } => {
                    if let Worker::Fetches(it) = self.workers[worker].clone()
                        && it.chunk.lease == lease
                    {
                        if matches!(why, Recall::Slow { .. }) {
                            self.recalls += 1;
                            self.conditions.avoid(it.connection.address, self.now);
                        }
                        let at = (it.at as u64).min(it.end);
                        self.fetched(worker, &it.chunk, at, true)?;
                    }
                }
                Action::Reconnect { worker, .. } => {
                    let now = self.now;
                    if let Worker::Fetches(it) = &mut self.workers[worker] {
                        it.retries_at = now + 0.25;
                    }
                }
                Action::StartWorker(n) => {
                    if n > 0 && self.conditions.threads_fail && self.random.u8(0..3) == 0 {
                        self.workers[n] = Worker::Ended;
                        self.tell(Event::Gone(Party::Worker(n)))?;
                    } else {
                        self.workers[n] = Worker::Starts(self.now + 0.001);
                    }
                }
                Action::GiveUp(too_slow) => return Err(format!("{too_slow:?}")),
                Action::End => self.is_over = true,
            }
        }
        Ok(())
    }

    fn give_worker(&mut self, n: usize, task: Task) -> Result<(), String> {
        if !matches!(self.workers[n], Worker::Waits) {
            return Err(format!("worker {n} is given {task:?} and has {:?}", self.workers[n]));
        }
        self.workers[n] = match task {
            Task::Fetch(mut chunk) => {
                if let Some(reached) = self.reached.take() {
                    chunk.range.start = chunk.range.end.min(reached);
                }
                self.files[chunk.file].is_open = true;
                let (at, end) = (chunk.range.start as f64, chunk.range.end);
                let address = self.at_address[n].take();
                let mut connection = self.conditions.connect(&mut self.random, self.now, address);
                if self.files[chunk.file].beginnings > 0 {
                    // In one stream it could not be replaced, whatever it brings.
                    connection.turns_bad_at = NEVER;
                }
                Worker::Fetches(Fetching { chunk, at, end, connection, retries_at: NEVER })
            }
            Task::End => Worker::Ended,
            task => Worker::Serves(self.now + 0.002, task),
        };
        Ok(())
    }

    fn give_hasher(&mut self, n: usize, task: Task) -> Result<(), String> {
        if !matches!(self.hashers[n], Hasher::Waits) {
            return Err(format!("hasher {n} is given {task:?} and has {:?}", self.hashers[n]));
        }
        self.hashers[n] = match task {
            Task::Hash { file, range, .. } => {
                let takes = (range.end - range.start) as f64 / self.conditions.hash;
                Hasher::Hashes(self.now + takes, range, file)
            }
            Task::End => Hasher::Ended,
            task => Hasher::Serves(self.now + 0.002, task),
        };
        Ok(())
    }
}
