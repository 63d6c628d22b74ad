//! Where a listing that comes in pages goes on.

use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, LINK};
use url::Url;

use super::problem::HubProblem;
use crate::model::{RepoKind, text};
use crate::net::{SourceError, http};

/// What the path of a listing says: `/api/models/{id}/tree/{commit}/{directory}`, decoded.
#[derive(Debug, PartialEq, Eq)]
struct Tree {
    /// With the kind of the repo, as its name has it.
    id: String,
    commit: String,
    directory: String,
}

/// `Link: <…>; rel="next"` of the answer from `at`, which is a page of the listing `page` at the Hub's
/// endpoint.
///
/// A mirror may pass on the link of the Hub that it mirrors: with that one's host, or without the path
/// that it has itself. If it leads to the same listing, the endpoint is asked for it, and nobody else
/// learns of it. A Link that cannot be read is an error: a listing that is cut short must not look
/// complete.
pub fn next_page(at: &Url, headers: &HeaderMap, page: &Url) -> Result<Option<Url>, SourceError> {
    let broken = || SourceError::Protocol(HubProblem::Link.into());
    let mut next = None;
    for value in headers.get_all(LINK) {
        let found = value.to_str().map_err(|_| broken())?;
        for (target, rel) in links(found).ok_or_else(broken)? {
            if rel.split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case("next")) {
                next = Some(target);
            }
        }
    }
    let Some(next) = next else { return Ok(None) };
    let next = at.join(&next).map_err(|_| broken())?;
    let (wanted, found) = (Tree::of(page), Tree::of(&next));
    if let (Some(wanted), Some(found)) = (&wanted, &found) {
        if wanted.is(found) {
            let mut url = page.clone();
            url.set_query(next.query());
            return Ok(Some(url));
        }
        if next.path() != at.path() && wanted.is_other_repo_than(found) {
            let (id, commit) = (text::inert(&found.id, 100), text::inert(&found.commit, 40));
            return Err(SourceError::Unsafe(HubProblem::OtherRepo { id, commit }.into()));
        }
    }
    if next.origin() == at.origin() {
        return Ok(Some(next));
    }
    let host = text::inert(&http::origin(&next), 100);
    Err(SourceError::Unsafe(HubProblem::OtherHost { host }.into()))
}

impl Tree {
    fn of(url: &Url) -> Option<Self> {
        let of = |kind: RepoKind| {
            let (_, path) = url.path().split_once(&format!("/api/{}/", kind.plural()))?;
            Some((kind, path))
        };
        let (kind, path) = RepoKind::ALL.into_iter().find_map(of)?;
        let (id, rest) = path.split_once("/tree/")?;
        let (commit, directory) = rest.split_once('/').unwrap_or((rest, ""));
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(String::from);
        Some(Self {
            id: kind.name_of(&decoded(id)?),
            commit: decoded(commit)?,
            directory: decoded(directory.trim_end_matches('/'))?,
        })
    }

    fn is(&self, other: &Self) -> bool {
        self.id.eq_ignore_ascii_case(&other.id)
            && self.commit.eq_ignore_ascii_case(&other.commit)
            && self.directory == other.directory
    }

    /// Whether `other` names another repo or commit, rather than the same in words of its own: a
    /// number that stands for the repo, a branch.
    fn is_other_repo_than(&self, other: &Self) -> bool {
        let other_id = other.id.contains('/') && !self.id.eq_ignore_ascii_case(&other.id);
        let is_commit =
            other.commit.len() == 40 && other.commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        other_id || (is_commit && !self.commit.eq_ignore_ascii_case(&other.commit))
    }
}

/// The targets of a `Link` header with the relation of each; `None` if it is not well-formed.
/// Targets and quoted values may hold commas and semicolons.
fn links(header: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut rest = header.trim();
    while !rest.is_empty() {
        let (target, mut parameters) = rest.strip_prefix('<')?.split_once('>')?;
        let mut rel = String::new();
        loop {
            parameters = parameters.trim_start();
            let Some(parameter) = parameters.strip_prefix(';') else {
                break;
            };
            let (name, value) = parameter.split_once('=')?;
            let value = value.trim_start();
            let (value, after) = match value.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => value.split_at(value.find([';', ',']).unwrap_or(value.len())),
            };
            if name.trim().eq_ignore_ascii_case("rel") {
                rel = value.trim().to_owned();
            }
            parameters = after;
        }
        found.push((target.to_owned(), rel));
        rest = match parameters.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if parameters.is_empty() => "",
            None => return None,
        };
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    const COMMIT: &str = "0123456789012345678901234567890123456789";

    fn next(link: &str) -> Result<Option<Url>, SourceError> {
        let url = |url: String| Url::parse(&url).expect("a URL");
        let page = url(format!("https://mirror.example/hf/api/models/org/m/tree/{COMMIT}"));
        let at = url(format!("{page}?recursive=true"));
        let link = link.replace("COMMIT", COMMIT);
        let mut headers = HeaderMap::new();
        headers.insert(LINK, HeaderValue::from_str(&link).expect("a header"));
        next_page(&at, &headers, &page)
    }

    #[test]
    fn the_same_listing_is_asked_for_at_the_endpoint_whoever_the_link_names() {
        for link in [
            "<https://mirror.example/hf/api/models/org/m/tree/COMMIT?c=1>; rel=\"next\"",
            "<https://huggingface.co/api/models/org/m/tree/COMMIT?c=1>; rel=\"next\"",
            "<http://mirror.example/hf/api/models/org/m/tree/COMMIT?c=1>; rel=\"next\"",
            "<https://mirror.example:8443/hf/api/models/org/m/tree/COMMIT?c=1>; rel=\"next\"",
            "<https://user:pw@upstream/x/api/models/org/m/tree/COMMIT?c=1>; rel=\"next\"",
            "</api/models/org/m/tree/COMMIT?c=1>; rel=\"next\"",
            "</api/models/Org%2FM/tree/COMMIT/?c=1>; rel=\"next\"",
            "<?c=1>; rel=\"next\"",
        ] {
            let found = next(link).expect(link).expect(link);
            let wanted = format!("https://mirror.example/hf/api/models/org/m/tree/{COMMIT}?c=1");
            assert_eq!(found.as_str(), wanted, "{link}");
        }
    }

    #[test]
    fn another_host_or_another_repo_is_not_asked() {
        for link in [
            "<https://huggingface.co/api/models/org/other/tree/COMMIT?c=1>; rel=\"next\"",
            "<https://huggingface.co/api/models/org/m/tree/main?c=1>; rel=\"next\"",
            "<https://huggingface.co/api/models/org/m/tree/COMMIT/sub?c=1>; rel=\"next\"",
            "<https://huggingface.co/api/datasets/org/m/tree/COMMIT?c=1>; rel=\"next\"",
            "<https://huggingface.co/>; rel=\"next\"",
            "<file:///api/models>; rel=\"next\"",
            "</hf/api/models/org/other/tree/COMMIT?c=1>; rel=\"next\"",
            "</hf/api/models/org/m/tree/1111111111111111111111111111111111111111>; rel=\"next\"",
        ] {
            assert!(matches!(next(link), Err(SourceError::Unsafe(_))), "{link}");
        }
    }

    #[test]
    fn a_mirror_may_have_pages_of_its_own() {
        for link in [
            "</hf/pages?token=1>; rel=\"next\"",
            "</hf/api/models/9/tree/COMMIT?c=1>; rel=\"next\"",
        ] {
            let found = next(link).expect(link).expect(link);
            assert_eq!(http::origin(&found), "https://mirror.example", "{link}");
        }
        assert!(next("</x>; rel=\"prev\"").expect("well-formed").is_none());
    }

    #[test]
    fn links_may_hold_commas_and_what_is_no_link_is_seen() {
        let one = |target: &str, rel: &str| Some(vec![(target.to_owned(), rel.to_owned())]);
        assert_eq!(
            links(r#"<https://a/b?cursor=x,y;z>; rel="next""#),
            one("https://a/b?cursor=x,y;z", "next")
        );
        assert_eq!(links("</x>; title=\"a, b\" ; Rel=next"), one("/x", "next"));
        let two = links(r#"</a>; rel="prev", </b>; rel="next last""#).expect("well-formed");
        assert_eq!(two[1], ("/b".to_owned(), "next last".to_owned()));
        for broken in
            ["https://a/b; rel=next", "</a; rel=next", r#"</a>; rel="next"#, "</a> rel=next"]
        {
            assert_eq!(links(broken), None, "{broken}");
        }
    }
}
