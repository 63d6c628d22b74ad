//! The listing of a model. The API has no pages: it cuts a listing off after so many entries and does not say so.
//! One that is as long as that is asked for again, directory by directory.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::answer::{Answer, Entry, Listed};
use super::api::Api;
use super::problem::ModelScopeProblem;
use crate::model::{Digest, RefusedFile, RefusedFiles, RelPath, RemoteFile, hex, text};
use crate::net::{SourceError, body, encoding, http};

/// A listing of so many entries may lack others.
const CUT_AT: usize = 3_000;
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// More entries than this is no model; it bounds memory and disk.
const MAX_ENTRIES: usize = 1_000_000;
/// Listings of one model.
const MAX_LISTINGS: usize = 2_000;

/// What is there.
pub struct Listing {
    /// SHA-256 over all paths, sizes and digests.
    pub revision: String,
    pub files: Vec<RemoteFile>,
    pub refused: Vec<RefusedFile>,
}

/// How far down a listing goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    All,
    One,
}

#[derive(Default)]
struct Found {
    files: BTreeMap<RelPath, RemoteFile>,
    refused: RefusedFiles,
    entries: usize,
    listings: usize,
}

/// All that the model holds.
pub async fn list(api: &Api) -> Result<Listing, SourceError> {
    let mut found = Found::default();
    let mut open: Vec<Option<String>> = vec![None];
    while let Some(directory) = open.pop() {
        let listed = list_below(api, directory.as_deref(), Depth::All, &mut found).await?;
        if listed.len() < CUT_AT {
            found.take(listed, &api.repo.id)?;
            continue;
        }
        let listed = list_below(api, directory.as_deref(), Depth::One, &mut found).await?;
        let directories: Vec<String> = listed.iter().filter_map(Listed::directory).collect();
        if listed.len() >= CUT_AT || directories.is_empty() {
            let directory = text::inert(directory.as_deref().unwrap_or("/"), 200);
            let id = api.repo.id.clone();
            let problem = ModelScopeProblem::Cut { id, directory, most: CUT_AT };
            return Err(SourceError::Unsafe(problem.into()));
        }
        // What goes on in a circle ends with the count of listings.
        found.take(listed, &api.repo.id)?;
        open.extend(directories.into_iter().map(Some));
    }
    let files: Vec<RemoteFile> = found.files.into_values().collect();
    Ok(Listing { revision: revision(&files), files, refused: found.refused.into_files() })
}

/// Lists the model, or one directory of it.
async fn list_below(
    api: &Api,
    directory: Option<&str>,
    depth: Depth,
    found: &mut Found,
) -> Result<Vec<Listed>, SourceError> {
    found.listings += 1;
    if found.listings > MAX_LISTINGS {
        let problem =
            ModelScopeProblem::ManyListings { id: api.repo.id.clone(), most: MAX_LISTINGS };
        return Err(SourceError::Unsafe(problem.into()));
    }
    let recursive = if depth == Depth::All { "True" } else { "False" };
    let response = api.files(directory, recursive).await?;
    let (host, packed) = (http::origin(response.url()), encoding::claimed(response.headers()));
    let body = http::small_body(response, MAX_ANSWER_BYTES, api.http.deadlines.stall).await?;
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| {
        let packed = packed.or_else(|| encoding::seen(&body));
        let is_web_page = body.trim_ascii_start().starts_with(b"<");
        let hint = body::hint(is_web_page, packed.as_deref());
        let why = text::inert(&error.to_string(), 120);
        SourceError::Protocol(ModelScopeProblem::Form { host: host.clone(), why, hint }.into())
    })?;
    let entries = answer.entries().map_err(|(code, said)| api.told(host, code, said))?;
    let is_below = |path: &str| {
        directory.is_none_or(|directory| {
            path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
        })
    };
    if let Some(stray) = entries.iter().find(|entry| !is_below(entry.path())) {
        let (directory, name) = (directory.unwrap_or_default(), stray.path());
        let (directory, name) = (text::inert(directory, 200), text::inert(name, 200));
        return Err(SourceError::Protocol(ModelScopeProblem::NotBelow { directory, name }.into()));
    }
    entries.into_iter().map(Entry::read).collect()
}

impl Listed {
    fn directory(&self) -> Option<String> {
        match self {
            Self::Directory(path) => Some(path.clone()),
            Self::File(_) | Self::Refused(_) => None,
        }
    }
}

impl Found {
    fn take(&mut self, listed: Vec<Listed>, id: &str) -> Result<(), SourceError> {
        self.entries += listed.len();
        if self.entries > MAX_ENTRIES {
            let problem = ModelScopeProblem::ManyFiles { id: id.to_owned(), most: MAX_ENTRIES };
            return Err(SourceError::Unsafe(problem.into()));
        }
        for entry in listed {
            match entry {
                Listed::File(file) => drop(self.files.insert(file.path.clone(), file)),
                Listed::Refused(file) => self.refused.push(file)?,
                Listed::Directory(_) => {}
            }
        }
        Ok(())
    }
}

/// It changes when a file does, and not when another commit holds the same.
fn revision(files: &[RemoteFile]) -> String {
    let mut hash = Sha256::new();
    for RemoteFile { path, size, digest, .. } in files {
        let digest = match digest {
            Some(Digest::Sha256(sha256)) => hex::encode(sha256),
            _ => String::new(),
        };
        hash.update(format!("{path}\t{size}\t{digest}\n"));
    }
    hex::encode(&hash.finalize())
}
