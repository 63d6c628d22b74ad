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
/// What was learnt is used for so long: links expire.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// What is known of small files.
#[derive(Default)]
pub struct Batches(tokio::sync::Mutex<State>);

#[derive(Default)]
struct State {
    known: HashMap<ChunkedId, Window>,
    since: Option<Instant>,
    /// The store does not answer for several files.
    is_refused: bool,
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
        if state.is_refused {
            return None;
        }
        if state.since.is_none_or(|since| since.elapsed() > GOOD_FOR) {
            state.known.clear();
        }
        if let Some(known) = state.known.remove(&file.id) {
            return Some(known);
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
        match store.windows(question, &files).await {
            Ok(windows) => {
                state.known = windows.into_iter().collect();
                state.since = Some(Instant::now());
                let size = |id| files.iter().find(|file| file.id == id).map(|file| file.size);
                // One that is not whole is asked for alone, and is judged then.
                state.known.retain(|id, window| size(*id) == Some(window.total()));
                state.known.remove(&file.id)
            }
            Err(error) => {
                state.is_refused = !error.is_transient();
                None
            }
        }
    }
}
