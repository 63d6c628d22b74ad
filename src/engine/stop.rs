//! The wish to stop, which every wait listens to.

use std::sync::Arc;

use tokio::sync::watch;

/// Set once, by a signal or by the first fatal error; clones share it.
#[derive(Clone, Debug)]
pub struct Stop {
    own: Arc<watch::Sender<bool>>,
    /// Of whatever this is a part of.
    outer: Option<Arc<watch::Sender<bool>>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { own: Arc::new(watch::Sender::new(false)), outer: None }
    }
}

impl Stop {
    /// For a part of the work: it stops with the whole, and the whole does not stop with it.
    pub fn part(&self) -> Self {
        Self { outer: Some(self.own.clone()), ..Self::default() }
    }

    pub fn set(&self) {
        self.own.send_replace(true);
    }

    pub fn is_set(&self) -> bool {
        *self.own.borrow() || self.outer.as_ref().is_some_and(|outer| *outer.borrow())
    }

    /// Returns once it is set.
    pub async fn wait(&self) {
        let is_set = async |sender: &watch::Sender<bool>| {
            // The sender lives as long as `self`, so this ends only by the value.
            let _ = sender.subscribe().wait_for(|set| *set).await;
        };
        match &self.outer {
            Some(outer) => tokio::select! {
                () = is_set(&self.own) => {}
                () = is_set(outer) => {}
            },
            None => is_set(&self.own).await,
        }
    }
}
