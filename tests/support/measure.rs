//! What a run costs in counts that do not depend on a clock: instructions, system calls, memory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Run, Runs, is_root, skip, under};

/// Whether the binary under test is one that the caller has named. Where it is not, this is no
/// skip: CI runs what asks for it once more, with the release binary.
pub fn is_release() -> bool {
    let named = std::env::var_os("WEIGHTLIFT_TEST_BIN").is_some();
    if !named {
        eprintln!("not measured: this needs the release binary, by WEIGHTLIFT_TEST_BIN");
    }
    named
}

/// Instructions that `command` executes, as callgrind counts them.
///
/// Valgrind hides the vDSO, but not from `prctl(PR_GET_AUXV)`, by which rustix would find it, and
/// crash; a kernel without that call is what strace makes of this one. Nothing else is traced.
pub fn instructions(command: &Command) -> u64 {
    let wrapper = "strace -f -qq --seccomp-bpf -o /dev/null -e trace=prctl \
                   -e inject=prctl:error=EINVAL \
                   valgrind --tool=callgrind --callgrind-out-file=/dev/null";
    let wrapper: Vec<&str> = wrapper.split_whitespace().collect();
    let run = under(&wrapper, command).run().assert_success();
    let count = run.stderr.lines().find_map(|line| line.split_once("Collected : "));
    count.expect("callgrind's count").1.trim().parse().unwrap()
}

/// How often a run has made each system call, all threads together.
pub struct Calls(BTreeMap<String, u64>);

impl Calls {
    pub fn of(command: &Command) -> Self {
        let table = tempfile::NamedTempFile::new().unwrap();
        let path = table.path().to_str().unwrap();
        let wrapper = ["strace", "-f", "-qq", "-c", "-U", "calls,name", "-o", path];
        under(&wrapper, command).run().assert_success();
        let text = std::fs::read_to_string(path).unwrap();
        let row = |line: &str| {
            let (count, name) = line.trim().split_once(' ')?;
            Some((name.trim().to_owned(), count.parse().ok()?))
        };
        let mut calls: BTreeMap<_, _> = text.lines().filter_map(row).collect();
        let total = calls.remove("total").expect("the last row of strace's table");
        assert_eq!(total, calls.values().sum::<u64>(), "{text}");
        Self(calls)
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn count(&self, names: &[&str]) -> u64 {
        names.iter().filter_map(|name| self.0.get(*name)).sum()
    }

    /// The ten that were made most often.
    pub fn most(&self) -> String {
        let mut rows: Vec<_> = self.0.iter().collect();
        rows.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let rows: Vec<_> = rows.iter().take(10).map(|(name, n)| format!("{name} {n}")).collect();
        rows.join(", ")
    }
}

/// Runs `command` and returns its peak resident memory in bytes beside the result.
pub fn with_peak_memory(command: &mut Command) -> (Run, u64) {
    // The high-water mark that the kernel keeps, read until the end.
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    // The pipes are small, and so is what we print: the child does not block on them.
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kib) =
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok())
        {
            peak = peak.max(kib << 10);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(peak > 0, "the high-water mark was never read");
    (Run::from(&child.wait_with_output().unwrap()), peak)
}

/// A cgroup with a limit of memory, the page cache included; removed at the end.
pub struct MemoryGroup {
    dir: PathBuf,
    /// Kept until the group is gone, and then unmounted.
    _mounted: Option<Mounted>,
}

impl MemoryGroup {
    /// `None`, and said why, where none can be made.
    pub fn limited_to(bytes: u64) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        if !is_root() {
            return None;
        }
        let name = format!(
            "weightlift-budget-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let groups = hierarchies().into_iter().map(|(root, file)| (root, file, None));
        let groups = groups.chain(std::iter::once_with(Mounted::memory).flatten());
        for (root, limit_file, mounted) in groups {
            let group = Self { dir: root.join(&name), _mounted: mounted };
            let made = std::fs::create_dir(&group.dir).is_ok();
            if made && std::fs::write(group.dir.join(limit_file), bytes.to_string()).is_ok() {
                // Only in version 2; in version 1, and without swap, there is no such file.
                let _ = std::fs::write(group.dir.join("memory.swap.max"), "0");
                return Some(group);
            }
        }
        skip("no cgroup with a limit of memory can be made here");
        None
    }

    /// `command`, for a shell that enters the group and becomes it.
    pub fn around(&self, command: &Command) -> Command {
        let procs = self.dir.join("cgroup.procs");
        let enter = "echo $$ >\"$0\" && exec \"$@\"";
        under(&["sh", "-c", enter, procs.to_str().unwrap()], command)
    }

    /// The most that was charged to it at any time, where the kernel says so.
    pub fn peak(&self) -> Option<u64> {
        ["memory.max_usage_in_bytes", "memory.peak"]
            .iter()
            .find_map(|file| std::fs::read_to_string(self.dir.join(file)).ok()?.trim().parse().ok())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// Where groups can be made, and the name of the file with their limit.
fn hierarchies() -> Vec<(PathBuf, &'static str)> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let found = mounts.lines().filter_map(|line| {
        let [_, path, kind, options, ..] = line.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        let path = PathBuf::from(path);
        match kind {
            "cgroup" if options.split(',').any(|option| option == "memory") => {
                Some((path, LIMIT_V1))
            }
            "cgroup2" => {
                // Already so under systemd.
                let _ = std::fs::write(path.join("cgroup.subtree_control"), "+memory");
                Some((path, LIMIT_V2))
            }
            _ => None,
        }
    });
    found.collect()
}

/// A hierarchy that nobody had mounted.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn memory() -> Option<(PathBuf, &'static str, Option<Self>)> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "cgroup", "-o", "memory", "none"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| (dir.path().to_owned(), LIMIT_V1, Some(Self(dir))))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Whether files below `dir` lie in memory, and so cannot leave it.
pub fn is_in_memory(dir: &Path) -> bool {
    let mut stat = Command::new("stat");
    let output = stat.args([OsString::from("-fc%T"), dir.into()]).output().unwrap();
    let kind = String::from_utf8_lossy(&output.stdout).into_owned();
    ["tmpfs", "ramfs"].contains(&kind.trim())
}

const LIMIT_V1: &str = "memory.limit_in_bytes";
const LIMIT_V2: &str = "memory.max";
