//! What another user has closed to us: it is passed over and named, and is no reason not to fetch.

use super::StoreError;
use super::recheck::Surroundings;
use crate::model::text;

/// Files that another user has closed to us. They are left alone, and the others are not.
#[derive(Default)]
pub(super) struct Closed {
    files: usize,
    /// Of the first one.
    why: Option<StoreError>,
}

impl Closed {
    /// What was done with one file.
    pub fn pass_over(&mut self, done: Result<(), StoreError>) -> Result<(), StoreError> {
        match done {
            Err(error) if error.is_closed() => {
                self.files += 1;
                self.why.get_or_insert(error);
                Ok(())
            }
            done => done,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.files == 0
    }

    pub fn say(&self, of: &str, outside: &Surroundings<'_>) {
        if let Some(why) = &self.why {
            let (files, are) =
                (text::files(self.files), if self.files == 1 { "is" } else { "are" });
            (outside.say)(format!("warning: {files} of {of} {are} not reused: {why}"));
        }
    }
}

/// What another user has closed to us is left alone.
pub(super) fn unless_closed(done: Result<(), StoreError>) -> Result<(), StoreError> {
    done.or_else(|error| if error.is_closed() { Ok(()) } else { Err(error) })
}
