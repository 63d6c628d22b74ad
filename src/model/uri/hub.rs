//! `hf://org/name@revision`, `hf://datasets/org/name`, `hf://spaces/org/name`.

use super::Refusal;

/// A repo of a Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRepo {
    pub kind: RepoKind,
    /// `org/name`, or `name` for the few without an owner.
    pub id: String,
    /// A branch, a tag, `refs/pr/1`, or a commit of 40 hexadecimal digits.
    pub revision: String,
}

/// What a repo holds. All kinds have the same API, at paths of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RepoKind {
    Model,
    Dataset,
    Space,
}

impl RepoKind {
    pub const ALL: [Self; 3] = [Self::Model, Self::Dataset, Self::Space];

    /// The part of the API's paths, `/api/models/…`.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
            Self::Space => "spaces",
        }
    }

    /// What is written before the id, wherever a repo is named: models have nothing there.
    fn prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
            Self::Space => "spaces/",
        }
    }

    /// The kind of the repo of this name, and its id.
    pub fn split(name: &str) -> (Self, &str) {
        let kinds = [Self::Dataset, Self::Space].into_iter();
        let mut found = kinds.filter_map(|kind| Some((kind, name.strip_prefix(kind.prefix())?)));
        found.next().unwrap_or((Self::Model, name))
    }

    /// The name of the repo of this kind and id: `org/name`, `datasets/org/name`.
    pub fn name_of(self, id: &str) -> String {
        format!("{}{id}", self.prefix())
    }
}

impl HubRepo {
    /// The repo of a name that [`name`](Self::name) gave.
    pub fn named(name: &str, revision: &str) -> Self {
        let (kind, id) = RepoKind::split(name);
        Self { kind, id: id.to_owned(), revision: revision.to_owned() }
    }

    /// As the Hub has it in the addresses of its pages: `org/name`, `datasets/org/name`.
    pub fn name(&self) -> String {
        self.kind.name_of(&self.id)
    }

    /// Where the API of the repo of this name is: `api/models/org/name`, `api/datasets/org/name`.
    pub fn api_of(name: &str) -> String {
        let (kind, id) = RepoKind::split(name);
        format!("api/{}/{id}", kind.plural())
    }

    /// Whether `id` is `org/name` or `name`, in the characters that the Hub allows.
    pub fn is_id(id: &str) -> bool {
        let named = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        id.split('/').count() <= 2 && id.split('/').all(named)
    }

    pub(super) fn parse(rest: &str) -> Result<Self, Refusal> {
        // KServe separates the revision by `:`; neither character can be part of a repo id.
        let (name, revision) = match rest.find(['@', ':']) {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, "main"),
        };
        let name = name.trim_end_matches('/');
        let (kind, id) = RepoKind::split(name);
        // No owner can have these names: the Hub keeps them for what is no model.
        match name.split('/').next() {
            Some("buckets") => {
                return Err(Refusal::with_hint(
                    "names a Storage Bucket, which is read as S3",
                    "write s3://bucket/prefix/ with --s3-endpoint https://s3.hf.co/NAMESPACE",
                ));
            }
            Some("kernels") if name.contains('/') => {
                return Err("names a kernel, which weightlift does not fetch".into());
            }
            Some("models") if name.contains('/') => {
                return Err("has `models/` before the name".into());
            }
            Some("datasets" | "spaces") if kind == RepoKind::Model => {
                return Err("does not name a repo after `datasets/` or `spaces/`".into());
            }
            _ => {}
        }
        if !Self::is_id(id) {
            return Err(match id.split('/').count() {
                0..=2 => "does not name a repo as org/name".into(),
                _ => Refusal::with_hint("names more than a repo", "choose files with `--include`"),
            });
        }
        if revision.is_empty()
            || revision.split('/').any(|part| matches!(part, "" | "." | ".."))
            || revision.contains(['?', '#', '%', '\\', '@'])
        {
            return Err("has no usable revision after `@`".into());
        }
        let revision =
            if is_commit(revision) { revision.to_ascii_lowercase() } else { revision.to_owned() };
        Ok(Self { kind, id: id.to_owned(), revision })
    }
}

/// Whether `revision` is a full commit hash.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}
