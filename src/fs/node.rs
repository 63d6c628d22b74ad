//! Who we are, as another process on the volume needs to know it.

use std::time::Duration;

use rustix::time::ClockId;
use serde::{Deserialize, Serialize};

use crate::environment;

/// Process, pod, node and boot. All of it is optional information: nothing of it needs `/proc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// Changes with every boot of a node's kernel; empty where `/proc` is not mounted.
    pub boot_id: String,
    /// The pod's name in Kubernetes, which is its host name.
    pub host: String,
    /// The node's name, if the manifest passes it on as `NODE_NAME`.
    pub node: String,
    pub pid: i32,
    /// Identifies the PID namespace in which `pid` counts; empty if unknown.
    pub pid_namespace: String,
}

impl NodeIdentity {
    pub fn current() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            host: environment::text("POD_NAME").unwrap_or(host),
            node: environment::text("NODE_NAME").unwrap_or_default(),
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            pid_namespace: namespace.to_string_lossy().into_owned(),
        }
    }

    /// Whether `other` ran under the very kernel that runs us, since its last boot.
    pub fn same_boot(&self, other: &Self) -> bool {
        !self.boot_id.is_empty() && self.boot_id == other.boot_id
    }

    /// Whether `other`, of the same boot, is certainly gone: its number is visible from here and
    /// no process has it.
    pub fn sees_gone(&self, other: &Self) -> bool {
        if self.pid_namespace.is_empty() || self.pid_namespace != other.pid_namespace {
            return false;
        }
        let Some(pid) = rustix::process::Pid::from_raw(other.pid) else {
            return false;
        };
        rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
    }
}

/// Time since boot, sleep included: the same for all processes of one boot, untouched by changes of
/// the wall clock.
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec as u32)
}

/// Sixteen hexadecimal digits that nobody else has.
pub fn random_id() -> String {
    let mut bytes = [0; 8];
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).is_err() {
        // Uniqueness is all that is needed; the kernel of today always has random numbers.
        bytes =
            (since_boot().as_nanos() as u64 ^ u64::from(std::process::id()) << 40).to_le_bytes();
    }
    crate::model::hex::encode(&bytes)
}
