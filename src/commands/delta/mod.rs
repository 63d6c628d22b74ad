//! What a new revision has in common with files on the volume is copied, where the source has a store that tells
//! what files are made of. An error of the store is no reason not to fetch: then all of it is fetched.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::ask::Asker;
use super::shared::Fetch;
use crate::Error;
use crate::content::{ChunkStore, ChunkedFile, Recipe, Source};
use crate::net::SourceError;
use crate::report::Progress;
use crate::volume::{Likeness, LocalFiles, LocalTerms, Staging, Store, StoreError, Surroundings};

/// One question to the store may take so long with all its retries: those who wait for this run see no other
/// sign of life meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);
/// All questions together may take as long as fetching what is missing would at this rate, bytes a second,
const RATE: u64 = 500_000_000;
/// within these bounds; those about other models, which rarely help, a quarter.
const LEAST_TIME: Duration = Duration::from_secs(8);
const MOST_TIME: Duration = Duration::from_secs(60);

/// Files that are asked about at once, and their bytes: a recipe has some kilobytes for each gigabyte.
const MAX_FILES_AT_ONCE: usize = 32;
const MAX_BYTES_AT_ONCE: u64 = 32 << 30;

/// Files of other paths are asked about only if so much is missing after those of the same path.
const WORTH_ANOTHER_LOOK: u64 = 4 << 20;

/// What the recipes of new files may need of memory, in terms of 44 bytes.
const MAX_NEW_TERMS: usize = 100_000;

/// What one look for common chunks has to do with.
struct Look<'a> {
    ask: &'a Asker<'a>,
    chunks: &'a dyn ChunkStore,
    progress: &'a Progress,
    outside: &'a Surroundings<'a>,
    /// It did not answer, and is not asked again.
    is_away: Cell<bool>,
    /// When the last question must have been answered.
    until: Cell<Instant>,
    /// What is asked is about other models: nobody waits for an answer.
    is_about_others: Cell<bool>,
}

impl Fetch<'_> {
    /// Copies into `staging` what its files have in common with those on the volume. Returns the bytes that
    /// need not be fetched for that.
    pub(super) async fn copy_common(
        &self,
        source: &dyn Source,
        store: &Store,
        staging: &mut Staging,
        progress: &Progress,
        outside: &Surroundings<'_>,
    ) -> Result<u64, StoreError> {
        let Some(chunks) = source.chunk_store() else { return Ok(0) };
        let numbers = staging.divisible();
        if numbers.is_empty() {
            return Ok(0);
        }
        progress.enter("looking for chunks that are here");
        let lacks: u64 = numbers.iter().map(|n| staging.lacks(*n)).sum();
        let (is_away, is_about_others) = (Cell::new(false), Cell::new(false));
        let until = Cell::new(Instant::now() + time_for(lacks));
        Look { ask: &self.ask, chunks, progress, outside, is_away, until, is_about_others }
            .copy(store, staging, numbers)
            .await
    }
}

impl Look<'_> {
    async fn copy(
        &self,
        store: &Store,
        staging: &mut Staging,
        numbers: Vec<usize>,
    ) -> Result<u64, StoreError> {
        let hub = self.chunks.hub();
        let (mut local, unnamed) = staging.local_files(store, &numbers, hub, self.outside);
        if let Some(unnamed) = unnamed {
            let ask = || self.chunks.listed(&unnamed.repo, &unnamed.revision);
            match self.ask.retried(self.patience(), self.patience(), ask).await {
                Ok(listed) => local.add_listed(&unnamed, listed),
                Err(error) => self.failed(&error),
            }
        }
        let mut terms = LocalTerms::default();
        let mut recipes: Option<Vec<(usize, Recipe)>> = None;
        let mut copied = 0;
        for likeness in Likeness::ALL {
            let groups = local.alike(likeness);
            let lacks: u64 = numbers.iter().map(|n| staging.lacks(*n)).sum();
            let is_worth_it = likeness == Likeness::SamePath || lacks >= WORTH_ANOTHER_LOOK;
            if groups.is_empty() || !is_worth_it || !(self.outside.go_on)() {
                continue;
            }
            if likeness == Likeness::OtherModel {
                self.is_about_others.set(true);
                self.until.set(self.until.get().min(Instant::now() + time_for(lacks) / 4));
            }
            let recipes = match &mut recipes {
                Some(known) => known,
                unknown => unknown.insert(self.recipes_of_new(staging, &numbers).await),
            };
            if recipes.is_empty() {
                return Ok(copied);
            }
            for group in groups {
                self.add_terms(&local, group, &mut terms).await;
            }
            terms.sort();
            self.progress.enter("copying chunks that are here");
            for (n, recipe) in recipes.iter() {
                copied += staging.copy_common(*n, recipe, &terms, &local, self.outside)?;
            }
        }
        Ok(copied)
    }

    /// How the files `numbers` of `staging` are made, as far as the store tells.
    async fn recipes_of_new(&self, staging: &Staging, numbers: &[usize]) -> Vec<(usize, Recipe)> {
        let files = numbers.iter().filter_map(|n| Some((*n, staging.chunked(*n)?))).collect();
        let mut known = Vec::new();
        let mut terms = 0;
        for (numbers, files) in at_once(files) {
            let Some(recipes) = self.recipes(&files).await else { break };
            for (n, recipe) in numbers.into_iter().zip(recipes) {
                let Some(recipe) = recipe else { continue };
                terms += recipe.terms.len();
                if terms > MAX_NEW_TERMS {
                    return known;
                }
                known.push((n, recipe));
            }
        }
        known
    }

    /// Adds to `terms` how the files `group` of one revision are made, as far as the store tells.
    async fn add_terms(&self, local: &LocalFiles, group: Vec<usize>, terms: &mut LocalTerms) {
        let files = group.into_iter().map(|n| (n, local.chunked(n).clone())).collect();
        for (numbers, files) in at_once(files) {
            let Some(recipes) = self.recipes(&files).await else { return };
            for ((n, file), recipe) in numbers.into_iter().zip(files).zip(recipes) {
                if let Some(recipe) = recipe {
                    terms.add(n, file.size, recipe);
                }
            }
        }
    }

    /// One question to the store; nothing, and a line that says so, if it does not answer.
    async fn recipes(&self, files: &[ChunkedFile]) -> Option<Vec<Option<Recipe>>> {
        if self.is_away.get() {
            return None;
        }
        let asked = || self.chunks.recipes(files);
        match self.ask.retried(self.patience(), self.patience(), asked).await {
            Ok(recipes) => {
                // An answer is a sign of life as well.
                (self.outside.worked)(recipes.len() as u64);
                Some(recipes)
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    fn patience(&self) -> Duration {
        self.until.get().saturating_duration_since(Instant::now()).min(PATIENCE)
    }

    /// Says so. What may not be read of one revision may be allowed of another; any other failure is one of all.
    fn failed(&self, error: &Error) {
        let is_refused =
            matches!(error, Error::Source(SourceError::Access(_) | SourceError::NotFound(_)));
        self.is_away.set(!is_refused);
        if !matches!(error, Error::Stopped) && !self.is_about_others.get() {
            let why = error.to_string();
            self.ask.screen.say(&format!(
                "could not find out which chunks are here already ({why}); fetching the rest"
            ));
        }
    }
}

/// How long the store may be asked where so many bytes are missing.
fn time_for(lacks: u64) -> Duration {
    Duration::from_secs(lacks / RATE).clamp(LEAST_TIME, MOST_TIME)
}

/// Parts of `files`, each with the numbers of its files, that are small enough for one question.
fn at_once(files: Vec<(usize, ChunkedFile)>) -> Vec<(Vec<usize>, Vec<ChunkedFile>)> {
    let mut parts: Vec<(Vec<usize>, Vec<ChunkedFile>)> = Vec::new();
    let mut bytes = 0_u64;
    for (n, file) in files {
        bytes = bytes.saturating_add(file.size);
        match parts.last_mut() {
            Some((numbers, files))
                if bytes <= MAX_BYTES_AT_ONCE && files.len() < MAX_FILES_AT_ONCE =>
            {
                numbers.push(n);
                files.push(file);
            }
            _ => {
                bytes = file.size;
                parts.push((vec![n], vec![file]));
            }
        }
    }
    parts
}
