//! What files are made of, without their bytes.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::answer::Window;
use super::batch::SMALL_BYTES;
use super::inner::Inner;
use super::store::Question;
use crate::content::{ChunkedFile, Recipe, Term};
use crate::model::{RelPath, hex};
use crate::net::SourceError;

/// So much of a file is asked for at once; less, where the answer is too long.
const PART_BYTES: u64 = 4 << 30;
/// Files with more terms, together, have little in common with others, and are a burden to memory.
const MAX_TERMS: usize = 100_000;
const FILES_AT_ONCE: usize = 32;
/// Questions at the same time.
const QUESTIONS_AT_ONCE: usize = 12;

/// The recipe of each file; none where the store does not know it.
pub async fn of(
    inner: &Arc<Inner>,
    files: &[ChunkedFile],
) -> Result<Vec<Option<Recipe>>, SourceError> {
    let mut found: Vec<Option<Recipe>> = vec![None; files.len()];
    let small: Vec<usize> = (0..files.len()).filter(|n| files[*n].size <= SMALL_BYTES).collect();
    // Of one revision at a time: another has another token.
    let same = |a: &usize, b: &usize| {
        (&files[*a].repo, &files[*a].revision) == (&files[*b].repo, &files[*b].revision)
    };
    for group in small.chunk_by(same).flat_map(|group| group.chunks(FILES_AT_ONCE)) {
        if group.len() < 2 {
            continue;
        }
        let asked: Vec<ChunkedFile> = group.iter().map(|n| files[*n].clone()).collect();
        let path = name(&asked[0]);
        let question =
            Question { hub: &inner.hub, client: inner.hub.client(), file: &asked[0], path: &path };
        // Where it does not answer for several, each is asked for alone.
        let Ok(windows) = inner.store.windows(question, &asked).await else { continue };
        for (id, window) in windows {
            for n in group.iter().filter(|n| files[**n].id == id) {
                found[*n] = whole(window.clone(), files[*n].size);
            }
        }
    }
    let mut terms: usize = found.iter().flatten().map(|recipe| recipe.terms.len()).sum();
    let mut left = (0..files.len()).filter(|n| found[*n].is_none()).collect::<Vec<_>>().into_iter();
    let mut asking = JoinSet::new();
    loop {
        while asking.len() < QUESTIONS_AT_ONCE
            && terms < MAX_TERMS
            && let Some(n) = left.next()
        {
            let (inner, file) = (inner.clone(), files[n].clone());
            asking.spawn(async move { (n, alone(&inner, &file).await) });
        }
        let Some(answered) = asking.join_next().await else { return Ok(found) };
        let Ok((n, recipe)) = answered else { continue };
        found[n] = match recipe {
            // One store says so of a file that it does not know, another one otherwise.
            Err(SourceError::NotFound(_) | SourceError::Contradiction(_)) => None,
            recipe => recipe?,
        };
        terms += found[n].as_ref().map_or(0, |recipe| recipe.terms.len());
    }
}

/// Part by part. An answer ends where a chunk does, so the next part begins with one.
async fn alone(inner: &Inner, file: &ChunkedFile) -> Result<Option<Recipe>, SourceError> {
    let path = name(file);
    let mut terms: Vec<Term> = Vec::new();
    let mut at = 0;
    while at < file.size {
        let part = at..file.size.min(at + PART_BYTES);
        let window = inner.window(inner.hub.client(), file, &path, part).await?;
        // The last part has not ended where a chunk does: how the two fit together is not known.
        if window.skip != 0 || window.len() == 0 {
            return Ok(None);
        }
        at += window.len();
        window.terms.into_iter().for_each(|term| add(&mut terms, term));
        if terms.len() > MAX_TERMS {
            return Ok(None);
        }
    }
    Ok((at == file.size).then_some(Recipe { terms }))
}

fn whole(window: Window, size: u64) -> Option<Recipe> {
    (window.total() == size).then_some(Recipe { terms: window.terms })
}

/// What an answer has cut in two is one term again.
fn add(terms: &mut Vec<Term>, term: Term) {
    if let Some(last) = terms.last_mut()
        && last.block == term.block
        && last.chunks.end == term.chunks.start
        && let Some(len) = last.len.checked_add(term.len)
    {
        last.chunks.end = term.chunks.end;
        last.len = len;
        return;
    }
    terms.push(term);
}

/// What a message calls it: its path is not known here.
fn name(file: &ChunkedFile) -> RelPath {
    let id = hex::encode(&file.id);
    RelPath::parse(&id).expect("hexadecimal digits are a path")
}
