//! Writes past the page cache, in whole blocks: half of the work of a processor that receives is to copy into
//! that cache and to look after it, and where a disk is fast the kernel lets writers wait all the same.
//!
//! But what is not in the cache is read from the disk by the server that loads the model. So it is done where it
//! is asked for, or where the kernel is seen to hold writers back and a trial shows that it is far better.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::volume::{StagedFile, StoreError};

/// Where blocks begin in a file.
const BLOCK: usize = 1 << 20;
/// Where they begin in memory: no disk asks for more.
const ALIGNMENT: usize = 4 << 10;
/// A way of writing is judged by so many bytes.
pub const WINDOW: u64 = 16 << 20;
/// A copy into the page cache takes a tenth of this. What takes longer is held back by the kernel.
const HELD_BACK: Duration = Duration::from_millis(16);
/// So many times faster it must be: the server reads from the disk then, which takes about as long as writing.
const BETTER: u32 = 2;
/// Windows, one after the other, that have to say the same.
const AGREE: u32 = 2;
/// Windows until the next trial after one that brought nothing.
const REST: u32 = 64;

/// Whether files are written past the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectIo {
    /// Where a trial shows that it is worth it.
    #[default]
    Auto,
    On,
    Off,
}

/// One way of writing or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Cached,
    Direct,
}

/// What the writers of a transfer have found out together.
pub struct Trial(Mutex<State>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// For good.
    Decided(Way),
    /// Until writers are held back, in so many more windows one after the other: a busy processor looks like that
    /// as well, but not for long.
    Watching { left: u32 },
    /// This worker writes windows past the cache; with it, one took so long. So many have yet to show.
    Trying { by: usize, cached: Duration, left: u32 },
    /// So many windows more.
    Resting(u32),
}

impl Trial {
    /// Where a trial `is_worth_it` is found out by who calls: there must be memory for it, and nobody between us and
    /// the disk who keeps copies.
    pub fn new(mode: DirectIo, is_worth_it: bool) -> Self {
        Self(Mutex::new(match mode {
            DirectIo::Auto if is_worth_it => State::Watching { left: AGREE },
            DirectIo::On => State::Decided(Way::Direct),
            DirectIo::Auto | DirectIo::Off => State::Decided(Way::Cached),
        }))
    }

    /// How a chunk is written at first.
    pub fn begin(&self) -> Way {
        match *self.state() {
            State::Decided(way) => way,
            _ => Way::Cached,
        }
    }

    /// `worker` has written a window in `way`, with so much time spent in writing. Returns how it writes the
    /// next one.
    pub fn look(&self, worker: usize, way: Way, took: Duration) -> Way {
        let mut state = self.state();
        *state = match (*state, way) {
            (State::Watching { left }, Way::Cached) if took > HELD_BACK => match left {
                0 | 1 => State::Trying { by: worker, cached: took, left: AGREE },
                _ => State::Watching { left: left - 1 },
            },
            (State::Watching { .. }, Way::Cached) => State::Watching { left: AGREE },
            (State::Trying { by, cached, left }, Way::Direct) if by == worker => {
                match (took * BETTER <= cached, left) {
                    (true, 0 | 1) => State::Decided(Way::Direct),
                    (true, _) => State::Trying { by, cached, left: left - 1 },
                    (false, _) => State::Resting(REST),
                }
            }
            (State::Resting(0), _) => State::Watching { left: AGREE },
            (State::Resting(left), _) => State::Resting(left - 1),
            (same, _) => same,
        };
        match *state {
            State::Decided(way) => way,
            State::Trying { by, .. } if by == worker => Way::Direct,
            _ => Way::Cached,
        }
    }

    /// `worker` ends its chunk: a trial that it has begun is over without a result.
    pub fn end(&self, worker: usize) {
        let mut state = self.state();
        if matches!(*state, State::Trying { by, .. } if by == worker) {
            *state = State::Watching { left: AGREE };
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has come of a block that is not complete yet.
pub struct Block {
    memory: Vec<u8>,
    /// Where in `memory` it begins, and how much is there.
    first: usize,
    len: usize,
    /// Where that belongs in the file.
    offset: u64,
    /// The filesystem does not write past the cache.
    is_refused: bool,
}

impl Default for Block {
    fn default() -> Self {
        let memory = vec![0; BLOCK + ALIGNMENT];
        let first = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, first, len: 0, offset: 0, is_refused: false }
    }
}

/// Bytes from `at` on to where a block begins.
pub fn to_next_block(at: u64) -> usize {
    BLOCK - (at % BLOCK as u64) as usize
}

impl Block {
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the bytes that belong at `offset`, and writes what is complete.
    pub fn write(
        &mut self,
        staged: &StagedFile,
        mut bytes: &[u8],
        mut offset: u64,
    ) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let room = to_next_block(offset);
            let len = bytes.len().min(room);
            let (part, rest) = bytes.split_at(len);
            if self.is_refused || (self.len == 0 && room != BLOCK) {
                staged.write_at(part, offset)?;
            } else {
                if self.len == 0 {
                    self.offset = offset;
                }
                let at = self.first + self.len;
                self.memory[at..at + len].copy_from_slice(part);
                self.len += len;
                if self.len == BLOCK {
                    self.flush(staged)?;
                }
            }
            (bytes, offset) = (rest, offset + len as u64);
        }
        Ok(())
    }

    /// Writes what has come: past the cache if it is a whole block.
    pub fn flush(&mut self, staged: &StagedFile) -> Result<(), StoreError> {
        let bytes = &self.memory[self.first..self.first + self.len];
        let is_whole = bytes.len() == BLOCK && !self.is_refused;
        if !(is_whole && staged.write_direct(bytes, self.offset)?) {
            self.is_refused |= is_whole;
            if !bytes.is_empty() {
                staged.write_at(bytes, self.offset)?;
            }
        }
        // Not before it is written: what failed must not be noted as if it was there.
        self.len = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(3);
    const SLOW: Duration = Duration::from_millis(100);
    const FASTER: Duration = Duration::from_millis(40);

    /// Lets writers be held back until `worker` tries.
    fn hold_back(trial: &Trial, worker: usize) {
        for _ in 1..AGREE {
            assert_eq!(trial.look(worker, Way::Cached, SLOW), Way::Cached);
        }
        assert_eq!(trial.look(worker, Way::Cached, SLOW), Way::Direct);
    }

    #[test]
    fn nothing_is_tried_as_long_as_nobody_is_held_back_or_the_user_has_decided() {
        let trial = Trial::new(DirectIo::Auto, true);
        assert!((0..1_000).all(|n| trial.look(n % 4, Way::Cached, FAST) == Way::Cached));
        let (on, off) = (Trial::new(DirectIo::On, false), Trial::new(DirectIo::Off, true));
        assert_eq!(
            (on.begin(), off.begin(), trial.begin()),
            (Way::Direct, Way::Cached, Way::Cached)
        );
        let elsewhere = Trial::new(DirectIo::Auto, false);
        assert_eq!(elsewhere.look(0, Way::Cached, SLOW), Way::Cached);
        assert_eq!(on.look(0, Way::Direct, SLOW), Way::Direct);
        assert_eq!(off.look(0, Way::Cached, SLOW), Way::Cached);
    }

    #[test]
    fn who_is_held_back_tries_alone_and_all_follow_if_it_is_twice_as_fast() {
        let trial = Trial::new(DirectIo::Auto, true);
        // Once is nothing.
        assert_eq!(trial.look(1, Way::Cached, SLOW), Way::Cached);
        assert_eq!(trial.look(1, Way::Cached, FAST), Way::Cached);
        hold_back(&trial, 1);
        assert_eq!(trial.look(2, Way::Cached, SLOW), Way::Cached);
        assert_eq!((trial.begin(), trial.look(1, Way::Direct, FASTER)), (Way::Cached, Way::Direct));
        assert_eq!((trial.begin(), trial.look(1, Way::Direct, FASTER)), (Way::Cached, Way::Direct));
        assert_eq!((trial.begin(), trial.look(2, Way::Cached, SLOW)), (Way::Direct, Way::Direct));
    }

    #[test]
    fn what_is_not_twice_as_fast_is_tried_again_later_only() {
        let trial = Trial::new(DirectIo::Auto, true);
        for wins in [0, 1] {
            hold_back(&trial, 1);
            for _ in 0..wins {
                assert_eq!(trial.look(1, Way::Direct, FASTER), Way::Direct);
            }
            assert_eq!(trial.look(1, Way::Direct, SLOW / 2 + FAST), Way::Cached);
            let rest = (0..).take_while(|_| trial.look(1, Way::Cached, FAST) == Way::Cached);
            assert_eq!(rest.take(REST as usize + 1).count(), REST as usize + 1);
        }
    }

    #[test]
    fn a_chunk_that_ends_leaves_its_trial_to_others() {
        let trial = Trial::new(DirectIo::Auto, true);
        hold_back(&trial, 1);
        trial.end(2);
        assert_eq!(trial.look(2, Way::Cached, SLOW), Way::Cached);
        trial.end(1);
        hold_back(&trial, 2);
    }

    #[test]
    fn a_block_begins_where_a_disk_can_take_it() {
        let block = Block::default();
        assert_eq!(block.memory[block.first..].as_ptr() as usize % ALIGNMENT, 0);
        assert!(block.memory.len() - block.first >= BLOCK);
    }
}
