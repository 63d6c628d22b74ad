//! How many files may be open for writing.
//!
//! A file counts as open from its first chunk until it is finished or thrown away. A worker that is given
//! a chunk may open its file and waits for nobody; a worker that cannot be given one holds nothing.

use std::collections::HashSet;

#[derive(Clone, Debug)]
pub struct Permits {
    open: HashSet<usize>,
    most: usize,
}

impl Permits {
    pub fn new(most: usize) -> Self {
        // A file that is never opened is never done.
        Self { open: HashSet::new(), most: most.max(1) }
    }

    pub fn has_room(&self) -> bool {
        self.open.len() < self.most
    }

    /// How many of so many workers have to share a file.
    pub fn crowd(&self, workers: usize) -> usize {
        workers.div_ceil(self.most)
    }

    pub fn open(&mut self, file: usize) {
        self.open.insert(file);
    }

    pub fn close(&mut self, file: usize) {
        self.open.remove(&file);
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.open.len()
    }
}
