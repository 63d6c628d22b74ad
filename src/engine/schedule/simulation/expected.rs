//! How long a transfer takes at least, and what must hold at its end.

use super::network::Conditions;
use super::world::{File, GB, Hasher, MIB, Worker, World};

impl World {
    /// What the transfer takes at least: all bytes over the link, or over as many connections as may be,
    /// whichever is less, each request with its head; or the hashing of all bytes by the hashers; or that
    /// of the longest file by one.
    ///
    /// What costs more by nature is part of it: where fewer files may be open than there are workers, the two
    /// seconds at the end of each file; old bytes of a file behind others that lack, which are hashed
    /// after these; a bad connection its share of the rate for fifteen seconds, and three and a half of them all, because a
    /// piece can meet one after the other
    /// (three until it shows, or as long as a piece of it is no longer than twelve); few descriptors, where
    /// files are small (a piece of a file is not smaller than 8 MiB); the last 2 MiB, which are not split; busy processors, where four
    /// connections are all that is asked for; a cut the delay before the next try.
    pub fn ideal(&self) -> f64 {
        let Conditions { rate, link, hash, head, cpu, bad, cuts, .. } = self.conditions;
        let missing = self.files.iter().map(|file| file.size - file.written.total());
        let all = missing.clone().sum::<u64>() as f64;
        let files = missing.filter(|missing| *missing > 0).count().max(1) as f64;
        let at_once = self.limits.open_files as f64 * (all / files / (8 * MIB) as f64).max(1.0);
        let most = if cpu < 0.5 { self.limits.workers } else { self.limits.workers.min(4) };
        let most = (most as f64).min(at_once);
        let heads = self.requests as f64 * head / most;
        let fetching = all / (rate * most).min(link);
        let old: u64 = self.files.iter().map(|file| file.written.total()).sum();
        let all_hash = (old as f64 + all) / hash / self.limits.hashers as f64;
        let longest = self.files.iter().map(|file| file.size).max().unwrap_or_default();
        // What was there of a file cannot be hashed before what lacks in front of it.
        let behind = |file: &File| file.written.total() - file.written.end_of(0);
        let behind = self.files.iter().map(behind).max().unwrap_or_default() as f64 / hash;
        // Each file ends with a piece that is not worth a split, and the next one cannot begin meanwhile.
        let is_scarce = self.limits.open_files < self.limits.workers;
        let ends =
            if is_scarce { files / self.limits.open_files as f64 * (2.0 + head) } else { 0.0 };
        let lost = f64::from(bad) * (15.0 / most).max(3.5);
        let retries =
            if cuts { (self.requests as f64 / 20.0 + fetching / 40.0) * 0.3 / most } else { 0.0 };
        let hashing = all_hash.max(longest as f64 / hash);
        let last = longest.min(2 * MIB) as f64 / rate;
        (fetching + heads + retries).max(hashing) + lost + behind + last + ends
    }

    /// Not where a file begins again or threads never start: what that costs depends on when it happens.
    /// Not where more than a quarter of the connections are bad, or all others have had nothing to do: then
    /// there is nothing to compare them with. Not where hashing is hardly faster than the network: what is
    /// hashed last is hashed after the last byte.
    pub fn is_comparable(&self) -> bool {
        let Conditions { threads_fail, has_siblings, bad, hash, cpu, .. } = self.conditions;
        let most = if cpu < 0.5 { self.limits.workers } else { self.limits.workers.min(4) };
        let most = most.min(self.limits.open_files) as u32;
        !(threads_fail || has_siblings) && self.restarts == 0 && bad * 4 <= most && hash >= 2.0 * GB
    }

    pub fn about(&self) -> String {
        let sizes = self.files.iter().map(|file| file.size).sum::<u64>() / MIB;
        let present = self.files.iter().map(|file| file.written.total()).sum::<u64>() / MIB;
        let (files, limits, conditions) = (self.files.len(), &self.limits, &self.conditions);
        let largest = self.files.iter().map(|file| file.size).max().unwrap_or_default() / MIB;
        format!(
            "{files} files of {sizes} MiB, the largest {largest}, {present} there, {limits:?}, {conditions:?}"
        )
    }

    pub fn check_end(&self, expected: f64) -> Result<(), String> {
        if let Some(n) = self.files.iter().position(|file| !file.is_finished) {
            return Err(format!("file {n} was not finished"));
        }
        let ended = self.workers.iter().all(|it| matches!(it, Worker::Ended | Worker::Absent));
        let hashers = self.hashers.iter().all(|it| matches!(it, Hasher::Ended));
        if !(ended && hashers) {
            return Err(format!("somebody was not told: {:?} {:?}", self.workers, self.hashers));
        }
        if self.restarts == 0 && self.fetched > expected * 1.001 + 1e6 {
            return Err(format!("{} bytes were fetched in place of {expected}", self.fetched));
        }
        Ok(())
    }
}
