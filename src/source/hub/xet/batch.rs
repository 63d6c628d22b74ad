//! Small files are asked for many at a time: with each that is read, what those that follow it in the listing
//! are made of is learnt as well.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::answer::Window;
use super::store::{Question, Store};
use crate::content::{ChunkedFile, ChunkedId};

/// Files up to this size are small.
pub const SMALL_BYTES: u64 = 4 << 20;
const FILES_AT_ONCE: usize = 64;
/// After so many questions that brought nothing, files are asked for one by one.
const MAX_IN_VAIN: u32 = 3;
/// What was learnt is used for so long: links expire.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// What is known of small files.
#[derive(Default)]
pub struct Batches(tokio::sync::Mutex<State>);

#[derive(Default)]
struct State {
    known: HashMap<ChunkedId, Window>,
    since: Option<Instant>,
    /// Questions in a row that have brought nothing.
    in_vain: u32,
}

impl Batches {
    /// What the whole of a small file is made of, if several can be asked for. A failure is not one yet: the
    /// file is asked for alone then.
    pub async fn window(
        &self,
        store: &Store,
        question: Question<'_>,
        range: &Range<u64>,
    ) -> Option<Window> {
        let file = question.file;
        if *range != (0..file.size) || file.size > SMALL_BYTES {
            return None;
        }
        let mut state = self.0.lock().await;
        if state.in_vain >= MAX_IN_VAIN {
            return None;
        }
        if state.since.is_none_or(|since| since.elapsed() > GOOD_FOR) {
            state.known.clear();
        }
        if let Some(known) = state.known.get(&file.id) {
            return Some(known.clone());
        }
        let listed = question.hub.small_chunked();
        let place = listed.iter().position(|(id, size)| *id == file.id && *size == file.size)?;
        let files: Vec<ChunkedFile> = listed[place..]
            .iter()
            .take(FILES_AT_ONCE)
            .map(|(id, size)| ChunkedFile { id: *id, size: *size, ..file.clone() })
            .collect();
        if files.len() < 2 {
            return None;
        }
        state.in_vain += 1;
        let windows = store.windows(question, &files).await.ok()?;
        state.known = windows.into_iter().collect();
        state.since = Some(Instant::now());
        let size = |id| files.iter().find(|file| file.id == id).map(|file| file.size);
        // One that is not whole is asked for alone, and is judged then.
        state.known.retain(|id, window| size(*id) == Some(window.total()));
        let found = state.known.get(&file.id).cloned()?;
        state.in_vain = 0;
        Some(found)
    }
}
