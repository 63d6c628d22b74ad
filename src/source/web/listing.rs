//! What a directory of a web server holds, by the list that lies in it: pinned once, by the digests.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256 as Hasher};
use tokio::task::JoinSet;

use super::problem::{Asked, WebProblem};
use super::site::{Answered, Look, Site};
use crate::model::{
    Digest, MirrorState, RefusedFile, RefusedFiles, RelPath, RemoteFile, SENTINEL, Selection,
    Sentinel, SentinelProblem, content_revision, hex, text,
};
use crate::net::SourceError;
use crate::source::beside::{self, Beside, MAX_SUMS_BYTES, SHA256SUMS};

/// No sentinel of a model is longer.
const MAX_SENTINEL_BYTES: usize = 64 << 20;
/// The size of each file of a `SHA256SUMS` is a question of its own: more of them are no model.
const MAX_MEASURED: usize = 100_000;
/// Questions for sizes at the same time.
const MEASURED_AT_ONCE: usize = 16;

/// What is there.
#[derive(Debug)]
pub struct Listing {
    /// SHA-256 over all paths and digests; of one file its digest, or one over what the server tells of it.
    pub revision: String,
    pub refused: Vec<RefusedFile>,
    known: Known,
}

#[derive(Debug)]
enum Known {
    /// All there is to know.
    Files(Vec<RemoteFile>),
    /// Digests without sizes.
    Sums(BTreeMap<RelPath, [u8; 32]>),
}

/// Sizes that the server has told: a listing that fails half-way does not ask for them again.
#[derive(Default)]
pub struct Sizes(Mutex<HashMap<RelPath, u64>>);

impl Listing {
    fn of(revision: String, known: Known) -> Self {
        Self { revision, refused: Vec::new(), known }
    }
}

/// Finds out what is there, with warnings.
pub async fn pin(
    site: &Site,
    selection: &Selection,
) -> Result<(Listing, Vec<String>), SourceError> {
    if !site.location.is_directory() {
        return one_file(site).await;
    }
    let mut beside = Beside::default();
    let mut hidden = None;
    if beside.is_wanted(SENTINEL, selection) && beside::believes_sentinel(selection) {
        match site.list(SENTINEL, MAX_SENTINEL_BYTES).await? {
            // A server may show a page of its own for whatever it does not have.
            Answered::List(content) if is_web_page(&content) => {}
            Answered::List(content) => return Ok((of_sentinel(site, &content)?, beside.warnings)),
            Answered::Absent(refused) => hidden = refused,
        }
    }
    if beside.is_wanted(SHA256SUMS, selection) {
        match site.list(SHA256SUMS, MAX_SUMS_BYTES as usize).await? {
            Answered::List(content) if is_web_page(&content) => {}
            Answered::List(content) => {
                return Ok((of_sums(site, &content)?, beside.warnings));
            }
            Answered::Absent(refused) => hidden = hidden.or(refused),
        }
    }
    Err(hidden.unwrap_or_else(|| {
        let place = text::inert(site.location.url.as_str(), 200);
        SourceError::NotFound(WebProblem::NoList { place, host: site.host() }.into())
    }))
}

/// One file whose digest the user has written down needs no question: it is its own revision.
async fn one_file(site: &Site) -> Result<(Listing, Vec<String>), SourceError> {
    let path = RelPath::parse(&site.location.name())?;
    if let Some(hex) = &site.location.sha256
        && let Some(Digest::Sha256(sha256)) = Digest::sha256_from_hex(hex)
    {
        let sums = BTreeMap::from([(path, sha256)]);
        return Ok((Listing::of(hex.clone(), Known::Sums(sums)), Vec::new()));
    }
    let look = site.look(&site.location.url, &Asked::Place(&path)).await?;
    let Look { size, validator } = look;
    let mut warnings = Vec::new();
    if validator.is_none() {
        warnings.push(format!(
            "`{}` sends neither an ETag nor Last-Modified for `{path}`: a change that keeps the size is not noticed",
            site.host()
        ));
    }
    let told = format!("{path}\t{size}\t{}\n", validator.as_deref().unwrap_or_default());
    let revision = hex::encode(&Hasher::digest(told));
    let file = RemoteFile { path, size, digest: None, validator, xet_hash: None };
    Ok((Listing::of(revision, Known::Files(vec![file])), warnings))
}

fn of_sentinel(site: &Site, content: &[u8]) -> Result<Listing, SourceError> {
    let sentinel = Sentinel::parse(content).map_err(|problem| match problem {
        SentinelProblem::UnsafePath(refused) => refused.into(),
        problem => {
            let (host, told) = (site.host(), text::inert(&problem.to_string(), 200));
            SourceError::Contradiction(
                WebProblem::Sentinel { host, told, hint: problem.hint() }.into(),
            )
        }
    })?;
    // Wherever it was copied to: what was copied with it may be of any revision.
    if sentinel.mirror.as_ref().is_some_and(|mark| mark.state == MirrorState::Writing) {
        return Err(beside::is_being_written(&text::inert(site.location.url.as_str(), 200)));
    }
    let files = beside::mirrored(&sentinel, |_| None)?;
    Ok(Listing::of(content_revision(&sentinel.files), Known::Files(files)))
}

fn of_sums(site: &Site, content: &[u8]) -> Result<Listing, SourceError> {
    let (mut sums, strange) = beside::sha256sums(&String::from_utf8_lossy(content));
    // `sha256sum * > SHA256SUMS` lists it as it was then, empty.
    sums.remove(SHA256SUMS);
    if sums.is_empty() {
        return Err(SourceError::Contradiction(WebProblem::NoSums { host: site.host() }.into()));
    }
    // Beside a store's own listing a strange line proves less; here it could be a file.
    if strange > 0 {
        let problem = WebProblem::StrangeSums { host: site.host(), count: strange };
        return Err(SourceError::Contradiction(problem.into()));
    }
    let mut hash = Hasher::new();
    let mut files = BTreeMap::new();
    let mut refused = RefusedFiles::default();
    for (name, sha256) in sums {
        hash.update(format!("{name}\t{}\n", hex::encode(&sha256)));
        match RelPath::parse(&name) {
            Ok(path) => drop(files.insert(path, sha256)),
            Err(why) => refused.push(RefusedFile { name, size: 0, why })?,
        }
    }
    let listing = Listing::of(hex::encode(&hash.finalize()), Known::Sums(files));
    Ok(Listing { refused: refused.into_files(), ..listing })
}

impl Sizes {
    /// The files that `selection` names, with the sizes that the server tells where the list has none.
    pub async fn add(
        &self,
        site: &Arc<Site>,
        listing: &Listing,
        selection: &Selection,
    ) -> Result<Vec<RemoteFile>, SourceError> {
        let sums = match &listing.known {
            Known::Files(files) => return Ok(files.clone()),
            Known::Sums(sums) => sums,
        };
        let wanted = sums.keys().filter(|path| selection.names(path.as_str()));
        let open: Vec<RelPath> = {
            let known = self.known();
            wanted.filter(|path| !known.contains_key(*path)).cloned().collect()
        };
        if open.len() > MAX_MEASURED {
            let problem = WebProblem::ManyFiles { host: site.host(), most: MAX_MEASURED };
            return Err(SourceError::Unsafe(problem.into()));
        }
        let mut open = open.into_iter();
        let mut asking = JoinSet::new();
        loop {
            while asking.len() < MEASURED_AT_ONCE
                && let Some(path) = open.next()
            {
                let site = Arc::clone(site);
                asking.spawn(async move {
                    let is_one = !site.location.is_directory();
                    let asked = if is_one { Asked::Place(&path) } else { Asked::File(&path) };
                    let look = site.look(&site.url_of(&path), &asked).await;
                    (path, look)
                });
            }
            let Some(answered) = asking.join_next().await else { break };
            let (path, look) = answered
                .map_err(|_| SourceError::Unreachable("asking for sizes was cut off".into()))?;
            self.known().insert(path, look?.size);
        }
        let known = self.known();
        let file = |(path, sha256): (&RelPath, &[u8; 32])| {
            let digest = Some(Digest::Sha256(*sha256));
            let size = *known.get(path)?;
            Some(RemoteFile { path: path.clone(), size, digest, validator: None, xet_hash: None })
        };
        Ok(sums.iter().filter_map(file).collect())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<RelPath, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_web_page(content: &[u8]) -> bool {
    content.trim_ascii_start().starts_with(b"<")
}
