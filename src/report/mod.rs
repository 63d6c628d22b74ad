//! What is said: events in one enum, the counters of a fetch, and their readers: lines, bars, JSON.
//!
//! Imports `model` only: everything that wants to say something passes it on to here.

mod bars;
mod count;
mod event;
mod layout;
mod pace;
mod progress;
mod region;
mod screen;
mod sentence;
mod view;
mod waiting;

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

pub use count::ModelCount;
pub use event::{Event, LeftOutFiles, Level, NamedFile, Setting};
pub use progress::{ActiveFile, FileState, Progress};
pub use screen::{Detail, LogFormat, Screen, Terminal, rfc3339};
use view::View;
pub use waiting::{Holder, Waiting};

impl Screen {
    /// Shows `progress` until the result is dropped.
    pub fn follow(&self, progress: Arc<Progress>) -> Follower {
        let (stop, stopped) = channel::<()>();
        let screen = self.clone();
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || {
            let mut view = View::new(&screen, &progress);
            while stopped.recv_timeout(view.every()) == Err(RecvTimeoutError::Timeout) {
                view.look();
            }
            view.clear();
        });
        Follower { stop: Some(stop), thread: thread.ok() }
    }
}

/// Ends the display when dropped.
pub struct Follower {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
