//! The wish to stop, which every wait listens to.

use std::sync::Arc;

use tokio::sync::watch;

/// Set once, by a signal or by the first fatal error; clones share it.
#[derive(Clone, Debug)]
pub struct Stop {
    own: Arc<watch::Sender<bool>>,
    /// Of whatever this is a part of.
    outer: Option<Arc<Stop>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { own: Arc::new(watch::Sender::new(false)), outer: None }
    }
}

impl Stop {
    /// For a part of the work: it stops with the whole, and the whole does not stop with it.
    pub fn part(&self) -> Self {
        Self { outer: Some(Arc::new(self.clone())), ..Self::default() }
    }

    pub fn set(&self) {
        self.own.send_replace(true);
    }

    pub fn is_set(&self) -> bool {
        *self.own.borrow() || self.outer.as_ref().is_some_and(|outer| outer.is_set())
    }

    /// Returns once it is set.
    pub async fn wait(&self) {
        // The sender lives as long as `self`, so this ends only by the value.
        let mut own = self.own.subscribe();
        let is_set = own.wait_for(|set| *set);
        match &self.outer {
            Some(outer) => tokio::select! {
                _ = is_set => {}
                () = Box::pin(outer.wait()) => {}
            },
            None => _ = is_set.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_part_stops_with_the_whole_and_not_the_other_way() {
        let whole = Stop::default();
        let part = whole.part();
        let inner = part.part();
        inner.set();
        assert!(inner.is_set() && !part.is_set() && !whole.is_set());
        let other = part.part();
        whole.set();
        assert!(other.is_set());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(other.wait());
    }
}
