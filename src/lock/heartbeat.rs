//! The heartbeat: who is fetching a family, and how far they are, for those who wait.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fs::{Dir, FsError, NodeIdentity, filesystem, node};
use crate::model::text;

/// How often the heartbeat is written.
pub const BEAT: Duration = Duration::from_secs(5);
/// A holder has stopped when its heartbeat has not changed for this long, by the clock of the process that
/// watches it.
pub const STOPPED_AFTER: Duration = BEAT.saturating_mul(2).saturating_add(Duration::from_secs(1));
/// The same where the heartbeat is read once and its age is taken from the clock of its node: it carries
/// the time at which it was begun, and a slow disk may take a second more until it can be read.
pub const STOPPED_AT_AGE: Duration = STOPPED_AFTER.saturating_add(Duration::from_secs(1));
const MAX_OWNER_BYTES: u64 = 64 << 10;

/// What `owners/<family>.json` and `attempts/<id>/owner.json` hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    #[serde(rename = "attempt")]
    pub staging: String,
    pub writer: NodeIdentity,
    /// Grows with every beat.
    pub sequence: u64,
    /// Milliseconds since the boot of the writer's node.
    pub since_boot_ms: u64,
    pub phase: String,
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Grows with every kind of work, also where no new byte arrives.
    #[serde(default)]
    pub worked_bytes: u64,
}

impl Owner {
    /// Reads a heartbeat; what cannot be understood is treated as absent. A network filesystem asks
    /// its server again for a `dir` that has been opened just now.
    pub fn read(dir: &Dir, name: &str) -> Option<Self> {
        let content = dir.read(name, MAX_OWNER_BYTES).ok()??;
        serde_json::from_slice(&content).ok()
    }

    /// The heartbeat of a family, if there is one.
    pub fn of(state: &Dir, state_name: &str) -> Result<Option<Self>, FsError> {
        let owners = state.make_child("owners")?;
        Ok(Self::read(&owners, &file_name(state_name)))
    }

    /// Whether the writer may be at work although we have the lock, or there is none. The locks of
    /// some shared filesystems reach no further than their node.
    pub fn may_be_at_work(&self, state: &Dir, has_lock: bool) -> Result<bool, FsError> {
        let us = NodeIdentity::current();
        if us.same_boot(&self.writer) {
            return Ok(!has_lock && !us.sees_gone(&self.writer));
        }
        // One node at a time has a local filesystem, and has booted since.
        Ok(!filesystem::is_local(state))
    }

    /// `pod web-7 on node n2, 43 % of 16.1 GB`
    pub fn describe(&self) -> String {
        let mut text = self.name();
        let done = u128::from(self.done_bytes) * 100;
        if let Some(percent) = done.checked_div(u128::from(self.total_bytes)) {
            let total = text::size(self.total_bytes);
            let percent = percent.min(100);
            text += &format!(", {} {percent} % of {total}", text::inert(&self.phase, 20));
        }
        text
    }

    /// `pod web-7 on node n2`
    pub fn name(&self) -> String {
        let mut text = format!("pod {}", text::inert(&self.writer.host, 80));
        if !self.writer.node.is_empty() {
            text += &format!(" on node {}", text::inert(&self.writer.node, 80));
        }
        text
    }
}

/// Name of the heartbeat of a family, which all attempts for it share.
pub fn file_name(state_name: &str) -> String {
    format!("{state_name}.json")
}

/// Writes the heartbeat from a thread of its own until it is dropped.
pub struct Heartbeat {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    staging: String,
    shared: Arc<(Dir, String)>,
}

/// How far the holder is, as a heartbeat says it.
#[derive(Clone, Debug, Default)]
pub struct HolderStatus {
    pub phase: &'static str,
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub worked_bytes: u64,
}

/// Asked at every beat.
pub type AskStatus = Arc<dyn Fn() -> HolderStatus + Send + Sync>;

impl Heartbeat {
    /// Writes at once and then every [`BEAT`] into `own`, in a directory that is ours alone, and by
    /// way of that into `shared`, which is removed at the end unless another attempt writes it as well.
    pub fn start(
        staging: String,
        writer: NodeIdentity,
        own: (Dir, String),
        shared: (Dir, String),
        ask: AskStatus,
    ) -> Result<Self, FsError> {
        // One descriptor for each directory: there may be few.
        let shared = Arc::new(shared);
        let of_end = shared.clone();
        let mut sequence = 0;
        let id = staging.clone();
        let mut beat = move || -> Result<(), FsError> {
            let HolderStatus { phase, done_bytes, total_bytes, worked_bytes } = ask();
            sequence += 1;
            let owner = Owner {
                staging: id.clone(),
                writer: writer.clone(),
                sequence,
                since_boot_ms: node::since_boot().as_millis() as u64,
                phase: phase.to_owned(),
                done_bytes,
                total_bytes,
                worked_bytes,
            };
            let json = serde_json::to_vec(&owner).expect("strings and numbers always serialise");
            let private = &own.0;
            [&own, &*shared]
                .into_iter()
                .try_for_each(|(dir, name)| private.replace_in(dir, name, &json))
        };
        beat()?;
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("heartbeat".into()).spawn(move || {
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                // A beat that fails (a full disk) makes us look slow, never wrong.
                let _ = beat();
            }
        });
        let thread = thread.map_err(|error| {
            FsError::io("start a thread for", std::path::Path::new("heartbeat"), error)
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread), staging, shared: of_end })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let (dir, name) = &*self.shared;
        if Owner::read(dir, name).is_some_and(|owner| owner.staging == self.staging) {
            // No waiter has to find out that we have ended.
            let _ = dir.remove_file(name);
        }
    }
}
