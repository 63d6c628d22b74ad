//! The names in a cache of the Hub's own clients (`HF_HOME`). `hf-hub` gives those of a repo and of the token;
//! nothing else of it is used, and its default features, a network among them, are off.
//!
//! ```text
//! hub/models--org--name/
//! ├── blobs/<etag>                       a file, named by its SHA-256 or by Git's SHA-1
//! ├── snapshots/<commit>/config.json     a link to ../../blobs/<etag>
//! └── refs/main                          the commit
//! ```

use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};

use super::uri::is_commit;
use super::{HubRepo, RelPath, RepoKind, SentinelFile, content_named};

/// The directory of all repos in `HF_HOME`.
pub const HUB: &str = "hub";
pub const BLOBS: &str = "blobs";
pub const SNAPSHOTS: &str = "snapshots";
pub const REFS: &str = "refs";
/// Where clients keep what a commit lists.
pub const TREES: &str = "trees";

/// How a model directory looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The files by their paths.
    Plain,
    HfCache,
}

/// A repo as it is asked of a cache.
#[derive(Clone, Debug)]
pub struct CachedModel {
    repo: Repo,
    /// The commit, where that is what was asked for.
    pub pin: Option<String>,
    /// What a name leads to already is left alone: one pod alone wants the pinned commit.
    pub keeps_ref: bool,
}

impl CachedModel {
    /// A server that is told no revision asks for `main`, so that this name leads to a commit that was asked
    /// for by its hash; unless the server is led there in another way. `pin` is the commit that is meant, if
    /// that is known.
    pub fn of(asked: &HubRepo, pin: Option<&str>, is_linked: bool) -> Self {
        let main = Repo::new(asked.id.clone(), kind_of(asked));
        let (pin, keeps_ref) = (pin.map(str::to_owned), is_linked && pin.is_some());
        if is_commit(&asked.revision) {
            return Self { repo: main, pin, keeps_ref };
        }
        let (id, name) = (asked.id.clone(), asked.revision.clone());
        Self { repo: Repo::with_revision(id, kind_of(asked), name), pin, keeps_ref }
    }

    /// The name below `refs/` that leads to the commit.
    pub fn ref_name(&self) -> &str {
        self.repo.revision()
    }

    /// Whether the name has to be led to `commit`, where it leads to `named` now.
    pub fn must_be_named(&self, named: Option<&str>, commit: &str) -> bool {
        named != Some(commit) && !(self.keeps_ref && named.is_some())
    }

    /// Where the files of `commit` are in the cache at `hub`.
    pub fn snapshot_path(&self, hub: &Path, commit: &str) -> PathBuf {
        Cache::new(hub.to_owned()).repo(self.repo.clone()).pointer_path(commit)
    }
}

/// The directory of a repo in the cache.
pub fn repo_folder(repo: &HubRepo) -> String {
    Repo::new(repo.id.clone(), kind_of(repo)).folder_name()
}

fn kind_of(repo: &HubRepo) -> RepoType {
    match repo.kind {
        RepoKind::Model => RepoType::Model,
        RepoKind::Dataset => RepoType::Dataset,
        RepoKind::Space => RepoType::Space,
    }
}

/// Where the token is kept in `home`.
pub fn token_path(home: &Path) -> PathBuf {
    Cache::new(home.join(HUB)).token_path()
}

/// What a file at `refs/…` says, if it is a commit.
pub fn commit_in(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?.trim();
    is_commit(text).then(|| text.to_ascii_lowercase())
}

/// The name of a file's blob: what the Hub sends as its ETag.
pub fn blob_name(file: &SentinelFile) -> String {
    let git = file.published.as_deref().and_then(|digest| digest.strip_prefix("git-sha1:"));
    match git.filter(|name| name.len() == 40 && content_named(name).is_some()) {
        Some(name) => name.to_owned(),
        None => file.sha256.to_string(),
    }
}

/// Where the link at `path` in a snapshot leads.
pub fn link_target(path: &RelPath, blob: &str) -> String {
    format!("{}{BLOBS}/{blob}", "../".repeat(path.parts().count() + 1))
}

/// The blob that such a link names, if it is one.
pub fn blob_of<'a>(path: &RelPath, target: &'a str) -> Option<&'a str> {
    let name =
        target.rsplit('/').next().filter(|name| !name.is_empty() && !name.starts_with('.'))?;
    (target == link_target(path, name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Sha256, SourceUri};

    fn asked(uri: &str, is_linked: bool) -> CachedModel {
        let uri = SourceUri::parse(uri).expect("a source");
        let SourceUri::Hub(repo) = &uri else { panic!("{uri}") };
        CachedModel::of(repo, uri.pinned_commit(), is_linked)
    }

    #[test]
    fn a_name_or_a_commit_leads_to_a_snapshot() {
        let commit = "c0ffee00".repeat(5);
        let pinned = format!("hf://org/name@{commit}");
        for (uri, is_linked, ref_name, pin, keeps_ref) in [
            ("hf://org/name", false, "main", None, false),
            ("hf://org/name", true, "main", None, false),
            ("hf://org/name@refs/pr/1", false, "refs/pr/1", None, false),
            (pinned.as_str(), false, "main", Some(commit.as_str()), false),
            (pinned.as_str(), true, "main", Some(commit.as_str()), true),
        ] {
            let model = asked(uri, is_linked);
            assert_eq!(model.ref_name(), ref_name, "{uri}");
            assert_eq!((model.pin.as_deref(), model.keeps_ref), (pin, keeps_ref), "{uri}");
            let path = model.snapshot_path(Path::new("/m/hub"), &commit);
            let folder = "models--org--name";
            assert_eq!(path, Path::new("/m").join(HUB).join(folder).join(SNAPSHOTS).join(&commit));
        }
        for (name, folder) in [
            ("gpt2", "models--gpt2"),
            ("org/name", "models--org--name"),
            ("datasets/org/name", "datasets--org--name"),
            ("spaces/org/name", "spaces--org--name"),
        ] {
            assert_eq!(repo_folder(&HubRepo::named(name, "main")), folder);
        }
        assert_eq!(token_path(Path::new("/h")), Path::new("/h/token"));
        assert_eq!(commit_in(format!("{commit}\n").as_bytes()), Some(commit));
        assert_eq!(commit_in(b"../../secret"), None);
    }

    #[test]
    fn a_blob_is_named_as_the_hub_names_it_and_found_by_the_link() {
        let (sha1, sha256) = ("1b".repeat(20), Sha256([10; 32]));
        let file = |published: Option<&str>| SentinelFile {
            path: "a".into(),
            size: 1,
            sha256,
            verified_by: "git-sha1".into(),
            published: published.map(Into::into),
            validator: None,
            xet_hash: None,
            stored: None,
            structure: None,
        };
        assert_eq!(blob_name(&file(Some(&format!("git-sha1:{sha1}")))), sha1);
        // What another tenant may have written into the sentinel is no name.
        for published in [None, Some("git-sha1:../../../x"), Some("git-sha1:"), Some("crc32:00")] {
            assert_eq!(blob_name(&file(published)), "0a".repeat(32), "{published:?}");
        }
        for (path, target, blob) in [
            ("config.json", "../../blobs/aa", Some("aa")),
            ("a/b/c", "../../../../blobs/aa", Some("aa")),
            ("a/b/c", "../../blobs/aa", None),
            ("a", "../../../blobs/aa", None),
            ("a", "../../blobs/..", None),
            ("a", "../../blobs/", None),
            ("a", "../../blobs/a/b", None),
            ("a", "/blobs/aa", None),
        ] {
            let path = RelPath::parse(path).expect("a path");
            assert_eq!(blob_of(&path, target), blob, "{path} {target}");
            if let Some(blob) = blob {
                assert_eq!(link_target(&path, blob), target);
            }
        }
    }
}
