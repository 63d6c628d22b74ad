//! How far each file is written and hashed, and which bytes are hashed next.
//!
//! A file is hashed in order, by one thread at a time: the worker that writes the next bytes, or a hasher
//! that follows behind. What workers wait for comes first; what was on the volume before the transfer is
//! hashed in the pauses, in small pieces.

use std::collections::VecDeque;
use std::ops::Range;

use super::event::{Party, Restart};
use super::ranges::Ranges;
use crate::model::Plan;

/// A hasher looks so often whether something more urgent has come.
pub const QUANTUM: u64 = 16 << 20;

/// A plan may have a hundred thousand files.
#[derive(Clone, Debug)]
struct File {
    kind: Kind,
    /// Once something has happened to it.
    active: Option<Box<Active>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing of it was there at the start.
    Fresh,
    /// All of it was.
    Whole,
    /// Some of it was.
    Part,
    /// It is finished, or for another transfer.
    Done,
}

#[derive(Clone, Debug)]
struct Active {
    written: Ranges,
    /// Bytes from the start that are hashed.
    hashed: u64,
    /// Bytes from the start that were there before the transfer: nobody waits for their hash.
    old: u64,
    /// Chunks of it that workers have.
    leases: usize,
    /// Who hashes it, finishes it or throws it away.
    holder: Option<Party>,
    /// It begins again once nobody uses it.
    restart: Option<Restart>,
    queued: bool,
}

/// What a hasher does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToHash {
    Range { file: usize, range: Range<u64>, is_old: bool },
    Finish { file: usize },
}

#[derive(Clone, Debug)]
pub struct Frontier {
    sizes: Vec<u64>,
    files: Vec<File>,
    live: VecDeque<usize>,
    old: VecDeque<usize>,
    unfinished: usize,
}

impl Frontier {
    /// Of the files of `plan` only those that are `wanted` are to be finished.
    pub fn new(plan: &Plan, wanted: impl Fn(usize) -> bool) -> Self {
        let mut missing = plan.missing.iter().peekable();
        let mut this = Self {
            sizes: plan.files.iter().map(|file| file.size).collect(),
            files: Vec::with_capacity(plan.files.len()),
            live: VecDeque::new(),
            old: VecDeque::new(),
            unfinished: 0,
        };
        for (n, file) in plan.files.iter().enumerate() {
            let mut written = Ranges::default();
            let mut at = 0;
            while let Some((_, range)) = missing.next_if(|(of, _)| *of == n) {
                written.insert(at..range.start);
                at = range.end;
            }
            written.insert(at..file.size);
            let kind = match written.total() {
                _ if !wanted(n) => Kind::Done,
                all if all == file.size => Kind::Whole,
                0 => Kind::Fresh,
                _ => Kind::Part,
            };
            let active = (kind == Kind::Part).then(|| Box::new(Active::of(written)));
            let has_old = kind == Kind::Whole || active.as_ref().is_some_and(|it| it.old > 0);
            this.unfinished += usize::from(kind != Kind::Done);
            this.files.push(File { kind, active });
            if has_old {
                this.old.push_back(n);
            }
        }
        // The longest first: each is hashed by one thread.
        this.old.make_contiguous().sort_by_key(|n| std::cmp::Reverse(this.sizes[*n]));
        this
    }

    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    pub fn size(&self, file: usize) -> u64 {
        self.sizes[file]
    }

    pub fn hashed(&self, file: usize) -> u64 {
        match &self.files[file] {
            File { active: Some(active), .. } => active.hashed,
            File { kind: Kind::Done, .. } => self.sizes[file],
            _ => 0,
        }
    }

    /// Chunks of `file` that workers have.
    pub fn leases(&self, file: usize) -> usize {
        self.files[file].active.as_ref().map_or(0, |active| active.leases)
    }

    /// Bytes from the start of `file` that are written.
    pub fn written_from_start(&self, file: usize) -> u64 {
        match &self.files[file] {
            File { active: Some(active), .. } => active.written.end_of(0),
            File { kind: Kind::Whole | Kind::Done, .. } => self.sizes[file],
            _ => 0,
        }
    }

    /// A worker is given a chunk of `file`. It hashes what it writes if it `may` and the hash stands at
    /// `start`; returns whether it does.
    pub fn begin(&mut self, file: usize, worker: Party, start: u64, may: bool) -> bool {
        let active = self.active(file);
        active.leases += 1;
        let hashes = may && active.holder.is_none() && active.hashed == start;
        if hashes {
            active.holder = Some(worker);
        }
        hashes
    }

    /// A worker is done with a chunk: `range` is written.
    pub fn written(&mut self, file: usize, worker: Party, range: Range<u64>) {
        let active = self.active(file);
        active.leases -= 1;
        if active.holder == Some(worker) {
            (active.holder, active.hashed) = (None, range.end);
        }
        active.written.insert(range);
        self.look(file);
    }

    /// A hasher is done with `range`.
    pub fn hashed_by(&mut self, file: usize, range: &Range<u64>) {
        let active = self.active(file);
        (active.holder, active.hashed) = (None, range.end);
        self.look(file);
    }

    /// The file is to begin again; in one stream if anybody has said so.
    pub fn restart(&mut self, file: usize, how: Restart) {
        let active = self.active(file);
        if active.restart != Some(Restart::InOneStream) {
            active.restart = Some(how);
        }
    }

    pub fn is_restarting(&self, file: usize) -> bool {
        self.files[file].active.as_ref().is_some_and(|active| active.restart.is_some())
    }

    /// How `file` begins again, if nobody uses it any more; `by` does it.
    pub fn take_restart(&mut self, file: usize, by: Party) -> Option<Restart> {
        let active = self.files[file].active.as_mut()?;
        if active.leases > 0 || active.holder.is_some() {
            return None;
        }
        let how = active.restart?;
        active.holder = Some(by);
        Some(how)
    }

    /// The file is thrown away.
    pub fn forget(&mut self, file: usize) {
        self.files[file] = File { kind: Kind::Fresh, active: None };
    }

    /// Lets `by` finish `file` if all of it is hashed.
    pub fn take_complete(&mut self, file: usize, by: Party) -> bool {
        let size = self.sizes[file];
        let active = self.files[file].active.as_mut();
        let complete = active.filter(|active| active.is_complete(size));
        complete.map(|active| active.holder = Some(by)).is_some()
    }

    /// `file` turned out to be wrong when all of it was hashed.
    pub fn wrong(&mut self, file: usize) {
        let active = self.active(file);
        active.holder = None;
        active.restart = Some(Restart::InRanges);
    }

    pub fn finish(&mut self, file: usize) {
        self.files[file] = File { kind: Kind::Done, active: None };
        self.unfinished -= 1;
    }

    /// What a hasher does next: what was there before the transfer only if it `may`.
    pub fn next(&mut self, hasher: Party, may_take_old: bool) -> Option<ToHash> {
        while let Some(file) = self.live.pop_front() {
            if let Some(next) = self.take(file, hasher) {
                return Some(next);
            }
        }
        while may_take_old && let Some(file) = self.old.pop_front() {
            if let Some(next) = self.take(file, hasher) {
                return Some(next);
            }
        }
        None
    }

    fn take(&mut self, file: usize, hasher: Party) -> Option<ToHash> {
        // It was thrown away, or finished by another, since it was queued.
        if matches!(self.files[file], File { kind: Kind::Fresh | Kind::Done, active: None }) {
            return None;
        }
        let size = self.sizes[file];
        let active = self.active(file);
        active.queued = false;
        if active.is_complete(size) {
            active.holder = Some(hasher);
            return Some(ToHash::Finish { file });
        }
        let range = active.to_hash()?;
        let is_old = range.start < active.old;
        active.holder = Some(hasher);
        Some(ToHash::Range { file, range, is_old })
    }

    /// Queues `file` if a hasher should look at it.
    fn look(&mut self, file: usize) {
        let size = self.sizes[file];
        let Some(active) = &mut self.files[file].active else { return };
        if active.queued || !(active.is_complete(size) || active.to_hash().is_some()) {
            return;
        }
        active.queued = true;
        if active.hashed < active.old {
            // The same file again: it is open, and the disk reads ahead.
            self.old.push_front(file);
        } else {
            self.live.push_back(file);
        }
    }

    /// The state of `file`, which something happens to now.
    fn active(&mut self, file: usize) -> &mut Active {
        let (size, File { kind, active }) = (self.sizes[file], &mut self.files[file]);
        active.get_or_insert_with(|| {
            let mut written = Ranges::default();
            if *kind == Kind::Whole {
                written.insert(0..size);
            }
            Box::new(Active::of(written))
        })
    }
}

impl Active {
    fn of(written: Ranges) -> Self {
        let old = written.end_of(0);
        Self { written, hashed: 0, old, leases: 0, holder: None, restart: None, queued: false }
    }

    fn is_idle(&self) -> bool {
        self.holder.is_none() && self.restart.is_none()
    }

    fn is_complete(&self, size: u64) -> bool {
        // The bytes of a chunk that is still somebody's may have been written by another, who was there
        // already when it was given away.
        self.is_idle() && self.leases == 0 && self.hashed == size
    }

    fn to_hash(&self) -> Option<Range<u64>> {
        let end = self.written.end_of(self.hashed);
        let range = self.hashed..end.min(self.hashed + QUANTUM);
        (self.is_idle() && !range.is_empty()).then_some(range)
    }
}
