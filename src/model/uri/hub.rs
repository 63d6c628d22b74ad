//! `hf://org/name@revision`.

/// A model repo of a Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRepo {
    /// `org/name`, or `name` for the few without an owner.
    pub id: String,
    /// A branch, a tag, `refs/pr/1`, or a commit of 40 hexadecimal digits.
    pub revision: String,
}

impl HubRepo {
    /// Whether `id` is `org/name` or `name`, in the characters that the Hub allows.
    pub fn is_id(id: &str) -> bool {
        let named = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        id.split('/').count() <= 2 && id.split('/').all(named)
    }

    pub(super) fn parse(rest: &str) -> Result<Self, &'static str> {
        // KServe separates the revision by `:`; neither character can be part of a repo id.
        let (id, revision) = match rest.find(['@', ':']) {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, "main"),
        };
        let id = id.trim_end_matches('/');
        if !Self::is_id(id) {
            return Err(match id.split('/').count() {
                0..=2 => "does not name a repo as org/name",
                _ => "names more than a repo; choose files with `--include`",
            });
        }
        if revision.is_empty()
            || revision.split('/').any(|part| matches!(part, "" | "." | ".."))
            || revision.contains(['?', '#', '%', '\\', '@'])
        {
            return Err("has no usable revision after `@`");
        }
        let revision =
            if is_commit(revision) { revision.to_ascii_lowercase() } else { revision.to_owned() };
        Ok(Self { id: id.to_owned(), revision })
    }
}

/// Whether `revision` is a full commit hash.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}
