//! What all threads of one transfer share.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::activity::Activity;
use super::desk::Desk;
use super::direct::Trial;
use super::error::TransferError;
use super::job::Job;
use super::options::Options;
use super::schedule::event::Event;
use super::stop::Stop;
use crate::content::Source;
use crate::net::http::Http;
use crate::report::{Event as Said, Progress, Screen};
use crate::volume::Staging;

/// What is known of a file once it is complete: all of its bytes are hashed.
#[derive(Clone, Debug)]
pub struct Proof {
    pub sha256: [u8; 32],
    /// The bytes have the digest that the source published.
    pub is_compared: bool,
    /// For safetensors: `valid`, or why the structure was not checked.
    pub structure: Option<Box<Cow<'static, str>>>,
}

pub struct Shared<'a> {
    pub source: &'a dyn Source,
    pub http: &'a Http,
    pub staging: &'a Staging,
    pub options: &'a Options,
    pub progress: &'a Progress,
    pub screen: &'a Screen,
    pub stop: &'a Stop,
    pub jobs: Vec<Job<'a>>,
    pub proofs: Mutex<Vec<Option<Proof>>>,
    /// An ETag of this source was the MD5 of its file.
    pub has_md5_etags: AtomicBool,
    pub desk: Desk,
    /// Which way of writing is better.
    pub trial: Trial,
    pub activity: Activity,
    /// Processor time that the hashing of old bytes has used, in nanoseconds.
    pub old_hash_nanos: AtomicU64,
    pub failure: Mutex<Option<TransferError>>,
    /// When a line about a retry was last shown: a flapping network must not flood the log.
    pub last_said: Mutex<Option<Instant>>,
}

impl Shared<'_> {
    /// Ends the transfer; the first failure is the one that is reported.
    pub fn fail(&self, error: TransferError) {
        {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            if failure.is_none() && !matches!(error, TransferError::Stopped) {
                *failure = Some(error);
            }
        }
        self.stop.set();
        self.desk.stop();
        self.desk.tell(Event::Close);
    }

    /// One line about something that will be tried again, not more often than every five seconds unless all are
    /// asked for.
    pub fn say_sometimes(&self, event: impl FnOnce() -> Said) {
        let mut last = self.last_said.lock().unwrap_or_else(PoisonError::into_inner);
        if self.screen.is_verbose()
            || last.is_none_or(|last| last.elapsed() > Duration::from_secs(5))
        {
            *last = Some(Instant::now());
            self.screen.tell(&event());
        }
    }
}
