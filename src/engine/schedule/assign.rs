//! Gives everybody who has nothing to do something, if there is anything that they may do.

use std::time::Duration;

use super::event::{Action, Chunk, Party, Task};
use super::frontier::ToHash;
use super::hedge::Running;
use super::machine::{Doing, Hasher, Lease, Schedule, Service};
use super::spans::{Around, Piece};

impl Schedule {
    pub(super) fn assign(&mut self, now: Duration) {
        if self.is_over() {
            self.end_all();
            return;
        }
        self.assign_hashers();
        // Whose connection was the fastest is asked first.
        let rate = |n: &usize| self.workers[*n].meter.last_rate().unwrap_or_default();
        let mut idle = Vec::from_iter(self.idle());
        idle.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
        for n in idle {
            if let Some(piece) = self.take(n).or_else(|| self.split_for(n)) {
                self.lease(now, n, piece);
            }
        }
    }

    /// Workers that may fetch and have nothing to do.
    pub(super) fn idle(&self) -> impl Iterator<Item = usize> {
        let workers = self.workers[..self.wanted].iter().enumerate();
        workers.filter_map(|(n, worker)| matches!(worker.doing, Doing::Idle).then_some(n))
    }

    fn end_all(&mut self) {
        for (n, worker) in self.workers.iter_mut().enumerate() {
            if matches!(worker.doing, Doing::Idle) {
                worker.doing = Doing::Ended;
                self.actions.push_back(Action::Give(Party::Worker(n), Task::End));
            }
        }
        for (n, hasher) in self.hashers.iter_mut().enumerate() {
            if matches!(hasher, Hasher::Idle) {
                *hasher = Hasher::Ended;
                self.actions.push_back(Action::Give(Party::Hasher(n), Task::End));
            }
        }
        if !std::mem::replace(&mut self.is_ended, true) {
            self.actions.push_back(Action::End);
        }
    }

    fn assign_hashers(&mut self) {
        // One processor at least is for what comes in, where there are several.
        let most_old = match self.spans.bytes() {
            0 => self.hashers.len(),
            _ => (self.hashers.len() - 1).max(1),
        };
        let is_old = |hasher: &&Hasher| matches!(hasher, Hasher::Hashes { is_old: true, .. });
        for n in 0..self.hashers.len() {
            if !matches!(self.hashers[n], Hasher::Idle) {
                continue;
            }
            let may_take_old = self.hashers.iter().filter(is_old).count() < most_old;
            let task = match self.frontier.next(Party::Hasher(n), may_take_old) {
                None => return,
                Some(ToHash::Finish { file }) => {
                    self.serve(Party::Hasher(n), Service { file, restart: None });
                    continue;
                }
                Some(ToHash::Range { file, range, is_old }) => {
                    self.hashers[n] = Hasher::Hashes { file, range: range.clone(), is_old };
                    Task::Hash { file, range, is_old }
                }
            };
            self.actions.push_back(Action::Give(Party::Hasher(n), task));
        }
    }

    pub(super) fn take(&mut self, n: usize) -> Option<Piece> {
        let (frontier, permits) = (&self.frontier, &mut self.permits);
        let mut around = Around { workers: self.wanted, permits, frontier };
        self.spans.take(self.workers[n].own, &mut around)
    }

    /// The tail of a chunk that another worker has, if that one would be long about it.
    pub(super) fn split_for(&mut self, n: usize) -> Option<Piece> {
        // Nothing is left of the files that may be open; or all that is left is too far ahead of its hash,
        // which waits for a chunk.
        let is_end = self.spans.is_given_out();
        let is_waited_for = |n: usize| match &self.workers[n].doing {
            Doing::Fetches(lease) => {
                lease.piece.range.start <= self.frontier.hashed(lease.piece.file)
            }
            _ => false,
        };
        let usual = || self.rates().usual();
        let other = self.workers[n].meter.last_rate().or_else(usual)?;
        let least = self.spans.least();
        let splits = self.running().filter_map(|(victim, running)| {
            let (left, end) = running.split(other, is_end || is_waited_for(victim), least)?;
            Some((left, end, victim))
        });
        let (_, end, victim) = splits.max_by(|a, b| a.0.total_cmp(&b.0))?;
        let Doing::Fetches(lease) = &mut self.workers[victim].doing else { return None };
        let tail = end..std::mem::replace(&mut lease.piece.range.end, end);
        self.actions.push_back(Action::Shorten { worker: victim, lease: lease.id, end });
        Some(Piece { range: tail, alone: false, ..lease.piece.clone() })
    }

    /// Chunks that can be given to somebody else, with who has them.
    pub(super) fn running(&self) -> impl Iterator<Item = (usize, Running<'_>)> {
        self.workers.iter().enumerate().filter_map(|(n, worker)| match &worker.doing {
            Doing::Fetches(Lease { piece, is_recalled: false, .. }) if !piece.in_one => {
                let (meter, end, recalls) = (&worker.meter, piece.range.end, piece.recalls);
                Some((n, Running { meter, end, recalls }))
            }
            _ => None,
        })
    }

    fn lease(&mut self, now: Duration, n: usize, piece: Piece) {
        let (file, range) = (piece.file, piece.range.clone());
        let party = Party::Worker(n);
        let from_start = self.frontier.written_from_start(file);
        // Where several share a file, its hash is on a thread of its own: it is what all wait for.
        let may_hash = piece.alone || self.frontier.size(file) <= self.limits.small_bytes;
        let hashes = self.frontier.begin(file, party, range.start, may_hash);
        self.leases += 1;
        let id = self.leases;
        let worker = &mut self.workers[n];
        worker.own = Some(file);
        worker.meter.begin(now, range.start);
        worker.low_speed.reset();
        let (is_recalled, is_exchanged) = (false, false);
        worker.doing = Doing::Fetches(Lease { id, piece, is_recalled, is_exchanged });
        let chunk = Chunk { lease: id, file, range, hashes, from_start };
        self.actions.push_back(Action::Give(party, Task::Fetch(chunk)));
    }
}
