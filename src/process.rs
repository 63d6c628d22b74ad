//! What the process may do and what it shows of itself.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// As many descriptors as the most connections and files need.
const ENOUGH_DESCRIPTORS: u64 = 4_096;
/// Taken to be open where `/proc` does not say.
const USUALLY_OPEN: usize = 32;

/// Called first of all.
pub fn settle() {
    // There is a token in our memory: no core file has it, nor does `/proc` for others of our user.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // The usual limit is a soft one, for programs that use `select`.
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX).min(ENOUGH_DESCRIPTORS);
    if limit.current.is_some_and(|current| current < most) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limit });
    }
}

/// Bytes of memory that the process has; 0 where `/proc` does not say.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    kib.unwrap_or(0) << 10
}

/// How many more files and sockets can be opened.
pub fn free_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(ENOUGH_DESCRIPTORS);
    let open = std::fs::read_dir("/proc/self/fd").map_or(USUALLY_OPEN, Iterator::count);
    usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(open)
}
