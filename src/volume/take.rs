//! How one file that lies somewhere already becomes a file of an attempt: a second name, the same blocks, or a
//! copy. The file itself is never changed, nor opened for writing. It is hashed like every other before it
//! counts.

use rustix::io::Errno;

use super::StoreError;
use super::journal::{JOURNAL, WrittenChunk};
use super::recheck::{Surroundings, copy_range};
use super::staging::{Presence, Staging};
use crate::fs::{Dir, space};
use crate::model::{Giver, Share, Shares, shares};

/// A file that could be taken.
pub(super) struct Offer<'a> {
    pub dir: &'a Dir,
    pub name: &'a str,
    pub size: u64,
    pub giver: Giver,
}

impl Staging {
    /// Takes what is offered as file `n`; whether that could be done. What cannot be read, or goes away
    /// meanwhile, is not there.
    pub(super) fn take(
        &mut self,
        n: usize,
        offer: &Offer<'_>,
        outside: &Surroundings<'_>,
    ) -> Result<bool, StoreError> {
        if !offer.is_there() {
            return Ok(false);
        }
        if self.presence(n) == Presence::Ours {
            // A part of it, which an earlier attempt has left.
            self.discard(n)?;
            self.present.remove(&n);
        }
        let crc64 = match self.take_somehow(n, offer, outside)? {
            Some(crc64) => crc64,
            None => return Ok(false),
        };
        self.present.insert(n, vec![WrittenChunk { range: 0..offer.size, crc64 }]);
        Ok(true)
    }

    /// The CRC64NVME of what was copied, or nothing of what is the same file or has the same blocks: that is
    /// not journalled. If we are killed, the next run finds it where this one did.
    fn take_somehow(
        &mut self,
        n: usize,
        offer: &Offer<'_>,
        outside: &Surroundings<'_>,
    ) -> Result<Option<u64>, StoreError> {
        let is_shared = match shares(self.share(offer)?) {
            Shares::LinkFirst => self.link(n, offer)? || self.share_blocks(n, offer)?,
            Shares::BlocksFirst => self.share_blocks(n, offer)? || self.link(n, offer)?,
            Shares::NoLink => self.share_blocks(n, offer)?,
        };
        if is_shared { Ok(Some(0)) } else { self.copy(n, offer, outside) }
    }

    fn share(&self, offer: &Offer<'_>) -> Result<Share, StoreError> {
        let giver = offer.giver;
        if giver == Giver::SameModel {
            return Ok(Share { giver, is_own: true, is_readable: true });
        }
        let ours = self.dir.owned(JOURNAL)?.unwrap_or_default();
        let theirs = offer.dir.owned(offer.name).ok().flatten();
        let reads = |mode: u16| mode & 0o444;
        Ok(Share {
            giver,
            is_own: theirs.is_some_and(|theirs| theirs.is_changed_by_those_of(&ours)),
            is_readable: theirs.is_some_and(|theirs| reads(ours.mode) & !reads(theirs.mode) == 0),
        })
    }

    fn link(&mut self, n: usize, offer: &Offer<'_>) -> Result<bool, StoreError> {
        let to = self.directory_of(n)?;
        let name = self.files[n].path.name();
        // Not possible: other links are too many, the file is another user's or on another filesystem, …
        if offer.dir.hard_link(offer.name, &to, name).is_err() {
            return Ok(false);
        }
        self.set_presence(n, Presence::Whole);
        if to.file_size(name)? == Some(offer.size) {
            return Ok(true);
        }
        // Another file has got the name in between.
        self.discard(n)?;
        Ok(false)
    }

    /// Lets a file of ours have the same blocks, if the filesystem can.
    fn share_blocks(&mut self, n: usize, offer: &Offer<'_>) -> Result<bool, StoreError> {
        if self.shares_no_blocks {
            return Ok(false);
        }
        let Ok(Some(source)) = offer.dir.read_file(offer.name) else { return Ok(false) };
        let target = self.create(n)?;
        let cloned = rustix::fs::ioctl_ficlone(target.file(), &source);
        let is_whole = cloned.is_ok() && target.size()? == offer.size;
        if !is_whole {
            self.discard(n)?;
        }
        // Whatever lies on another filesystem may be followed by what does not.
        self.shares_no_blocks =
            matches!(cloned, Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY));
        Ok(is_whole)
    }

    fn copy(
        &mut self,
        n: usize,
        offer: &Offer<'_>,
        outside: &Surroundings<'_>,
    ) -> Result<Option<u64>, StoreError> {
        if !matches!(offer.dir.read_file(offer.name), Ok(Some(_)))
            || space::free_bytes(&self.dir)? < offer.size
        {
            return Ok(None);
        }
        let target = self.open(n)?;
        let range = 0..offer.size;
        (outside.reads)(offer.size);
        match copy_range(offer.dir, offer.name, &range, &target, outside) {
            Ok(Some(crc64)) => {
                self.journal.chunk(n, &WrittenChunk { range, crc64 })?;
                Ok(Some(crc64))
            }
            other => {
                self.discard(n)?;
                other
            }
        }
    }
}

impl Offer<'_> {
    fn is_there(&self) -> bool {
        self.size > 0
            && matches!(self.dir.file_size(self.name), Ok(Some(size)) if size == self.size)
    }
}
