//! What tells one version of an object from another.

/// Which version of an object was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub size: u64,
    /// In quotes, as `If-Match` wants it; `None` where the server gives none that can be matched.
    pub etag: Option<String>,
    /// When it was written, as the server spells it, where no ETag says more.
    pub modified: Option<Box<str>>,
}

impl Stamp {
    pub fn of(size: u64, etag: Option<&str>, modified: Option<&str>) -> Self {
        let etag = etag.and_then(strong);
        let modified = modified.map(str::trim).filter(|it| etag.is_none() && !it.is_empty());
        Self { size, modified: modified.map(Into::into), etag }
    }

    /// As it was told by somebody who looks at nothing else.
    pub fn by_etag(size: u64, etag: Option<String>) -> Self {
        Self { size, etag, modified: None }
    }

    /// What the revision is made of: the ETag without its quotes, or when the object was written.
    pub fn mark(&self) -> &str {
        let etag = self.etag.as_deref().map(|etag| etag.trim_matches('"'));
        etag.or(self.modified.as_deref()).unwrap_or_default()
    }
}

/// An ETag in quotes, if it can be matched.
pub fn strong(etag: &str) -> Option<String> {
    let bare = etag.trim().trim_matches('"');
    // A weak one never matches; one with quotes or control characters inside cannot be sent.
    let usable =
        !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    (usable && !bare.starts_with("W/")).then(|| format!("\"{bare}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_sent_back_only_if_it_can_match() {
        let etag = |text| Stamp::of(1, Some(text), None).etag;
        assert_eq!(etag("\"a-2\"").as_deref(), Some("\"a-2\""));
        assert_eq!(etag("a-2").as_deref(), Some("\"a-2\""));
        for none in ["", "\"\"", "W/\"a\"", "a\"b"] {
            assert_eq!(etag(none), None, "{none}");
        }
    }

    #[test]
    fn where_no_etag_tells_versions_apart_their_time_does() {
        let mark = |etag, modified| Stamp::of(1, etag, modified).mark().to_owned();
        let time = "2026-11-28T23:07:38.000Z";
        assert_eq!(mark(Some("\"a\""), Some(time)), "a");
        assert_eq!(Stamp::of(1, Some("a"), Some(time)), Stamp::of(1, Some("a"), None));
        for none in [None, Some(""), Some("W/\"a\"")] {
            assert_eq!(mark(none, Some(time)), time);
            assert_eq!(mark(none, Some(" ")), "");
        }
    }
}
