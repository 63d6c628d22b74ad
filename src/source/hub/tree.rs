//! The listing of a repo: all pages of it, and the directories that it names without what is in them.
//!
//! Git knows no empty directories. One that is listed without a file below it is the answer of a server
//! that does not know `recursive`, and what it holds has to be asked for.

use std::collections::HashSet;

use percent_encoding::utf8_percent_encode;
use reqwest::Method;

use super::answers::{self, Listed};
use super::problem::HubProblem;
use super::refusals::Asked;
use super::{Hub, Pinned, QUOTED_PATH, pages};
use crate::model::{HubRepo, RefusedFile, RefusedFiles, RelPath, RemoteFile, text};
use crate::net::{SourceError, encoding, http};

/// One page of the tree holds 1000 entries of a few hundred bytes; some mirrors send all at once.
const MAX_PAGE_BYTES: usize = 64 << 20;
/// More entries than this is no model; it bounds memory and disk.
const MAX_ENTRIES: usize = 1_000_000;
/// Pages in a row that bring nothing, and say that there are more.
const MAX_EMPTY_PAGES: usize = 3;
/// Directories that are asked for one by one.
const MAX_DIRECTORIES: usize = 1_000;
/// Bytes of the names of directories, and of what else is no file, that are kept.
const MAX_NAMES_BYTES: usize = 64 << 20;

/// What has been listed so far.
#[derive(Default)]
struct Listing {
    files: Vec<RemoteFile>,
    refused: RefusedFiles,
    directories: HashSet<String>,
    /// Names of what is no file that we could fetch, and shows all the same that its directory was
    /// looked into: submodules, refused names.
    others: Vec<String>,
    names_bytes: usize,
    entries: usize,
    pages: HashSet<String>,
}

impl Hub {
    pub(super) async fn list(
        &self,
        pinned: &Pinned,
    ) -> Result<(Vec<RemoteFile>, Vec<RefusedFile>), SourceError> {
        let mut listing = Listing::default();
        self.list_below(pinned, None, &mut listing).await?;
        let mut asked = HashSet::new();
        loop {
            let bare = listing.bare_directories();
            if bare.is_empty() {
                return Ok((listing.files, listing.refused.into_files()));
            }
            for directory in bare {
                let path = RelPath::parse(&directory);
                let (Ok(path), true) = (path, asked.insert(directory.clone())) else {
                    return Err(SourceError::Protocol(
                        HubProblem::BareDirectory {
                            repo: pinned.name.clone(),
                            directory: text::inert(&directory, 200),
                        }
                        .into(),
                    ));
                };
                if asked.len() > MAX_DIRECTORIES {
                    return Err(SourceError::Protocol(
                        HubProblem::ManyDirectories {
                            endpoint: self.endpoint().clone(),
                            repo: pinned.name.clone(),
                            most: MAX_DIRECTORIES,
                        }
                        .into(),
                    ));
                }
                self.list_below(pinned, Some(&path), &mut listing).await?;
            }
        }
    }

    /// Reads all pages of the listing of the repo, or of one directory in it.
    async fn list_below(
        &self,
        pinned: &Pinned,
        directory: Option<&RelPath>,
        listing: &mut Listing,
    ) -> Result<(), SourceError> {
        let mut page = format!("{}/tree/{}", HubRepo::api_of(&pinned.name), pinned.commit);
        if let Some(directory) = directory {
            page += &format!("/{}", utf8_percent_encode(directory.as_str(), QUOTED_PATH));
        }
        let page = self.url(&page)?;
        let mut first = page.clone();
        first.set_query(Some("recursive=true&expand=false"));
        let mut next = Some(first);
        let mut empty_pages = 0;
        let asked = directory.map_or(Asked::Tree, Asked::Directory);
        while let Some(url) = next {
            if !listing.pages.insert(url.to_string()) {
                let repo = pinned.name.clone();
                return Err(SourceError::Protocol(HubProblem::Circle { repo }.into()));
            }
            let followed = self.follow(self.client(), Method::GET, url, None).await?;
            let response = self.accepted(followed.response, &asked).await?;
            next = pages::next_page(response.url(), response.headers(), &page)?;
            let encoding = encoding::claimed(response.headers());
            let body = http::small_body(response, MAX_PAGE_BYTES, self.stall()).await?;
            let before = listing.entries;
            let read = answers::for_each_entry(&body, |entry| {
                listing.take(entry.read()?, directory, &pinned.name)
            });
            read.map_err(|error| self.misunderstood(&error, &body, encoding, "the listing"))??;
            empty_pages = if listing.entries == before { empty_pages + 1 } else { 0 };
            if empty_pages > MAX_EMPTY_PAGES && next.is_some() {
                let repo = pinned.name.clone();
                return Err(SourceError::Protocol(HubProblem::Endless { repo }.into()));
            }
        }
        Ok(())
    }
}

impl Listing {
    /// Keeps an entry of the listing of `directory`.
    fn take(
        &mut self,
        entry: Listed,
        directory: Option<&RelPath>,
        repo: &str,
    ) -> Result<(), SourceError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            let (repo, most) = (repo.to_owned(), MAX_ENTRIES);
            return Err(SourceError::Unsafe(HubProblem::ManyFiles { repo, most }.into()));
        }
        let name = match &entry {
            Listed::File(file) => file.path.as_str(),
            Listed::Refused(file) => &file.name,
            Listed::Directory(name) | Listed::Other(name) => name,
        };
        // A server that does not know listings of directories sends that of the whole repo.
        if let Some(directory) = directory
            && !is_below(name, directory.as_str())
            && name != directory.as_str()
        {
            return Err(SourceError::Protocol(
                HubProblem::NotBelow {
                    directory: directory.clone(),
                    repo: repo.to_owned(),
                    name: text::inert(name, 200),
                }
                .into(),
            ));
        }
        match entry {
            Listed::File(file) => self.files.push(file),
            Listed::Refused(file) => {
                self.count_name(&file.name, repo)?;
                self.others.push(file.name.clone());
                self.refused.push(file)?;
            }
            Listed::Directory(name) => {
                self.count_name(&name, repo)?;
                self.directories.insert(name);
            }
            Listed::Other(name) => {
                self.count_name(&name, repo)?;
                self.others.push(name);
            }
        }
        Ok(())
    }

    fn count_name(&mut self, name: &str, repo: &str) -> Result<(), SourceError> {
        self.names_bytes += name.len() + size_of::<String>();
        if self.names_bytes > MAX_NAMES_BYTES {
            let (repo, most) = (repo.to_owned(), MAX_NAMES_BYTES);
            return Err(SourceError::Unsafe(HubProblem::LongNames { repo, most }.into()));
        }
        Ok(())
    }

    /// The directories without anything below them, not even such a directory, in order.
    fn bare_directories(&self) -> Vec<String> {
        if self.directories.is_empty() {
            return Vec::new();
        }
        let files = self.files.iter().map(|file| file.path.as_str());
        let mut names: Vec<&str> = files
            .chain(self.others.iter().map(String::as_str))
            .chain(self.directories.iter().map(String::as_str))
            .collect();
        names.sort_unstable();
        let holds_nothing = |directory: &&String| {
            let below = format!("{directory}/");
            let first = names.partition_point(|name| *name < below.as_str());
            !names.get(first).is_some_and(|name| name.starts_with(&below))
        };
        let mut bare: Vec<String> =
            self.directories.iter().filter(holds_nothing).cloned().collect();
        bare.sort_unstable();
        bare
    }
}

fn is_below(name: &str, directory: &str) -> bool {
    name.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(entries: &[&str]) -> Listing {
        let mut listing = Listing::default();
        for entry in entries {
            let listed = match entry.strip_suffix('/') {
                Some(name) => Listed::Directory(name.into()),
                None => match entry.strip_prefix('@') {
                    Some(name) => Listed::Other(name.into()),
                    None => Listed::File(RemoteFile {
                        path: RelPath::parse(entry).expect("a path"),
                        size: 1,
                        digest: None,
                        validator: None,
                        xet_hash: None,
                    }),
                },
            };
            listing.take(listed, None, "org/m").expect("few");
        }
        listing
    }

    #[test]
    fn a_directory_without_anything_below_it_is_asked_for_the_deepest_first() {
        for (entries, bare) in [
            (&["a"][..], &[][..]),
            (&["d/", "d/a"], &[]),
            (&["d/a", "d/"], &[]),
            (&["d/", "d/e/", "d/e/a"], &[]),
            (&["d/", "a"], &["d"]),
            (&["d/", "d.a", "d-a", "da/b"], &["d"]),
            (&["d/", "d/e/"], &["d/e"]),
            (&["d/", "d/a", "d/e/"], &["d/e"]),
            (&["d/", "e/", "e/f/", "e/a"], &["d", "e/f"]),
            (&["d/", "@d/submodule"], &[]),
            (&["@submodule"], &[]),
        ] {
            assert_eq!(listing(entries).bare_directories(), bare, "{entries:?}");
        }
    }

    #[test]
    fn what_does_not_belong_to_the_directory_is_refused() {
        let directory = RelPath::parse("d").expect("a path");
        for (name, fits) in
            [("d", true), ("d/a", true), ("d/e/a", true), ("da", false), ("a", false), ("", false)]
        {
            let entry = Listed::Directory(name.into());
            let taken = Listing::default().take(entry, Some(&directory), "org/m");
            assert_eq!(taken.is_ok(), fits, "{name}");
        }
    }
}
