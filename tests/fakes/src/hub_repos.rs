//! Repositories: branches, commits, and files as git and LFS see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::blob::Blob;
use crate::text::hex;
use crate::tree::Tree;

#[derive(Clone, Default)]
pub(crate) struct Repo {
    pub branches: BTreeMap<String, String>,
    pub commits: BTreeMap<String, Arc<Snapshot>>,
    pub private: bool,
    pub gated: bool,
    pub granted: bool,
    pub raw_entries: Vec<Value>,
}

/// A tree with everything the API says about it, worked out once.
pub(crate) struct Snapshot {
    pub commit: String,
    pub files: BTreeMap<String, File>,
}

pub(crate) struct File {
    pub blob: Blob,
    /// Git blob id: of the contents, or of the pointer when this is LFS.
    pub oid: String,
    pub lfs: Option<Lfs>,
}

pub(crate) struct Lfs {
    pub sha256: String,
    pub pointer_bytes: u64,
    /// Id in the chunk store; no client can check it, so it only has to look like one.
    pub xet_hash: String,
}

impl Repo {
    pub fn move_branch(&mut self, branch: &str, snapshot: Snapshot) -> String {
        let commit = snapshot.commit.clone();
        self.branches.insert(branch.to_owned(), commit.clone());
        self.commits.insert(commit.clone(), Arc::new(snapshot));
        commit
    }

    /// By branch or by commit.
    pub fn snapshot(&self, revision: &str) -> Option<Arc<Snapshot>> {
        let commit = self.branches.get(revision).map_or(revision, String::as_str);
        self.commits.get(commit).cloned()
    }
}

impl Snapshot {
    pub fn of(tree: &Tree, lfs_threshold_bytes: u64) -> Self {
        let mut files = BTreeMap::new();
        let mut commit = Sha1::new_with_prefix("commit\0");
        for (path, blob) in tree.iter() {
            let file = File::new(path, blob, lfs_threshold_bytes);
            commit.update(format!("{path}\0{}\0{}\0", blob.len(), file.etag()));
            files.insert(path.to_owned(), file);
        }
        Self { commit: hex(&commit.finalize()), files }
    }

    /// Paths directly below `folder` (empty for the root) or, when `recursive`, all below it;
    /// folders come without a file. `None` when there is no such folder.
    pub fn list(&self, folder: &str, recursive: bool) -> Option<Vec<(String, Option<&File>)>> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut entries: BTreeMap<String, Option<&File>> = BTreeMap::new();
        for (path, file) in &self.files {
            let Some(below) = path.strip_prefix(&prefix) else {
                continue;
            };
            for (at, _) in below.match_indices('/') {
                if recursive || at == below.find('/').unwrap_or(at) {
                    entries.insert(format!("{prefix}{}", &below[..at]), None);
                }
            }
            if recursive || !below.contains('/') {
                entries.insert(path.clone(), Some(file));
            }
        }
        (folder.is_empty() || !entries.is_empty()).then(|| entries.into_iter().collect())
    }

    /// Id of a folder; no client can check it, so it only has to look like one.
    pub fn folder_oid(&self, folder: &str) -> String {
        hex(&Sha1::digest(format!("{}\0{folder}", self.commit)))
    }
}

impl File {
    /// The digest that the hub uses as entity tag.
    pub fn etag(&self) -> &str {
        self.lfs.as_ref().map_or(&self.oid, |lfs| &lfs.sha256)
    }

    fn new(path: &str, blob: &Blob, lfs_threshold_bytes: u64) -> Self {
        let by_name = LFS_SUFFIXES.iter().any(|suffix| path.ends_with(suffix));
        if !by_name && blob.len() < lfs_threshold_bytes {
            return Self { blob: blob.clone(), oid: blob.git_sha1(), lfs: None };
        }
        let (sha256, size) = (blob.sha256(), blob.len());
        let pointer = Blob::bytes(format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        ));
        let xet_hash = hex(&Sha256::digest(format!("xet {sha256}")));
        let lfs = Lfs { sha256, pointer_bytes: pointer.len(), xet_hash };
        Self { blob: blob.clone(), oid: pointer.git_sha1(), lfs: Some(lfs) }
    }

    /// As in listings, where the digest is called `oid`.
    pub fn tree_entry(&self, path: &str, with_xet: bool) -> Value {
        let mut entry =
            json!({"type": "file", "oid": self.oid, "size": self.blob.len(), "path": path});
        if let Some(lfs) = &self.lfs {
            entry["lfs"] = json!({
                "oid": lfs.sha256, "size": self.blob.len(), "pointerSize": lfs.pointer_bytes
            });
            if with_xet {
                entry["xetHash"] = json!(lfs.xet_hash);
            }
        }
        entry
    }

    /// As in the description of a repository, where the digest is called `sha256`.
    pub fn sibling(&self, path: &str, with_blobs: bool) -> Value {
        let mut entry = json!({"rfilename": path});
        if with_blobs {
            entry["size"] = json!(self.blob.len());
            entry["blobId"] = json!(self.oid);
        }
        if let (true, Some(lfs)) = (with_blobs, &self.lfs) {
            entry["lfs"] = json!({
                "sha256": lfs.sha256, "size": self.blob.len(), "pointerSize": lfs.pointer_bytes
            });
        }
        entry
    }
}

const LFS_SUFFIXES: [&str; 8] =
    [".safetensors", ".bin", ".pt", ".pth", ".h5", ".gguf", ".onnx", ".msgpack"];
