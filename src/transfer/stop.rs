//! The wish to stop, which every wait listens to.

use std::sync::Arc;

use tokio::sync::watch;

/// Set once, by a signal or by the first fatal error; clones share it.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Stop {
    pub fn set(&self) {
        self.0.send_replace(true);
    }

    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it is set.
    pub async fn wait(&self) {
        // The sender lives as long as `self`, so this ends only by the value.
        let _ = self.0.subscribe().wait_for(|set| *set).await;
    }
}
