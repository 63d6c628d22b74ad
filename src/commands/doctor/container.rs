//! Looks at the container: its limits, and who we are in it.

use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};

use super::asking::Teller;
use super::verdict::Question;
use super::verdict::container::{Confinement, Container, Security, TerminationLog, judge};
use super::verdict::volume::Us;
use crate::cgroup;
use crate::fs::NodeIdentity;
use crate::lock::cluster;
use crate::process;
use crate::sandbox::{Files, Sandbox};

pub fn check(teller: &Teller, termination_log: &Path, sandbox: Sandbox) {
    teller.asks(Question::of_container("limits"));
    judge(&look(termination_log, sandbox)).into_iter().for_each(|check| teller.tell(check));
}

fn look(log: &Path, sandbox: Sandbox) -> Container {
    let status = std::fs::read_to_string("/proc/self/status").ok();
    let limits = cgroup::limits();
    let threads = getrlimit(Resource::Nproc).current;
    let NodeIdentity { host, node, .. } = NodeIdentity::current();
    let Us { user, group, groups } = us();
    Container {
        has_proc: status.is_some(),
        memory_limit: limits.memory,
        memory_used: process::resident_bytes(),
        processor_limit: limits.processors,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        descriptors: process::free_descriptors(),
        thread_limit: limits.threads.into_iter().chain(threads).min(),
        user,
        group,
        groups,
        security: status.as_deref().and_then(Security::parse).map(|found| Security {
            // By now we have seen to it ourselves; what the container has is asked.
            no_new_privileges: sandbox.had_no_new_privileges,
            ..found
        }),
        sandbox: Confinement::of(&sandbox.files),
        termination_log: (log.display().to_string(), look_at_log(log)),
        in_cluster: cluster::is_here(),
        pod: host,
        node,
    }
}

/// Who we are for a filesystem.
pub fn us() -> Us {
    let groups = rustix::process::getgroups().unwrap_or_default();
    Us {
        user: rustix::process::geteuid().as_raw(),
        group: rustix::process::getegid().as_raw(),
        groups: groups.into_iter().map(|group| group.as_raw()).collect(),
    }
}

/// Opened as the last message is, and nothing is written.
fn look_at_log(log: &Path) -> TerminationLog {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::open(log, flags, Mode::empty()) {
        Ok(_) => TerminationLog::Writable,
        Err(rustix::io::Errno::NOENT) => TerminationLog::Missing,
        Err(error) => TerminationLog::Refused(std::io::Error::from(error).to_string()),
    }
}

impl Confinement {
    fn of(files: &Files) -> Self {
        match files {
            Files::Confined { version, reads_all, .. } => {
                Self::On { version: *version, reads_all: *reads_all }
            }
            Files::Off => Self::Off,
            Files::Unfit(why) => Self::Unfit(why),
            Files::Refused => Self::Refused,
        }
    }
}
