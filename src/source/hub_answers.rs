//! What the Hub's answers mean: entries of its listing, and the reasons of its refusals.

use std::fmt;
use std::time::Duration;

use reqwest::header::{HeaderMap, LINK};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use url::Url;

use super::{SourceError, http};
use crate::model::{Digest, RefusedFile, RelPath, RemoteFile, is_quantisation, text};

/// An entry of the recursive tree. In this answer the SHA-256 is `lfs.oid`, and `oid` is git's
/// name of a blob, which for an LFS file is only the pointer.
#[derive(Debug, Deserialize)]
pub struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    oid: Option<String>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    #[serde(default)]
    oid: Option<String>,
    /// Another spelling of the same, which the model info and some mirrors use.
    #[serde(default)]
    sha256: Option<String>,
    size: Option<u64>,
}

/// An entry as it is used.
#[derive(Debug)]
pub enum Listed {
    File(RemoteFile),
    /// A file whose name cannot become a path.
    Refused(RefusedFile),
    /// A directory, or one of git's other kinds.
    Other,
}

impl TreeEntry {
    /// What the entry describes.
    pub fn read(self) -> Result<Listed, SourceError> {
        if self.kind != "file" {
            return Ok(Listed::Other);
        }
        let path = match RelPath::parse(&self.path) {
            Ok(path) => path,
            Err(why) => {
                let size = self.lfs.and_then(|lfs| lfs.size).or(self.size).unwrap_or_default();
                return Ok(Listed::Refused(RefusedFile { name: self.path, size, why }));
            }
        };
        let unusable = |what: &str, value: &str| {
            SourceError::Protocol(format!(
                "the listing gives `{path}` the {what} `{}`",
                text::inert(value, 80)
            ))
        };
        let (size, digest) = match &self.lfs {
            Some(lfs) => {
                let oid = lfs.oid.as_deref().or(lfs.sha256.as_deref());
                let oid = oid.map(|oid| oid.strip_prefix("sha256:").unwrap_or(oid));
                let digest = oid
                    .map(|oid| Digest::sha256_from_hex(oid).ok_or_else(|| unusable("LFS oid", oid)))
                    .transpose()?;
                if let (Some(size), Some(other)) = (lfs.size, self.size)
                    && size != other
                {
                    return Err(unusable("sizes", &format!("{size}, {other}")));
                }
                (lfs.size.or(self.size), digest)
            }
            None => {
                let digest = self
                    .oid
                    .as_deref()
                    .map(|oid| Digest::git_sha1_from_hex(oid).ok_or_else(|| unusable("oid", oid)))
                    .transpose()?;
                (self.size, digest)
            }
        };
        let Some(size) = size else {
            return Err(unusable("size", "nothing"));
        };
        Ok(Listed::File(RemoteFile { path, size, digest, validator: None }))
    }
}

/// Hands each entry of a page of the tree to `take` until it refuses one. The entries are never in
/// memory together: a page may have millions that say nothing.
pub fn for_each_entry(
    page: &[u8],
    take: impl FnMut(TreeEntry) -> Result<(), SourceError>,
) -> serde_json::Result<Result<(), SourceError>> {
    let mut refused = None;
    let mut json = serde_json::Deserializer::from_slice(page);
    let entries = Entries { take, refused: &mut refused };
    let read = entries.deserialize(&mut json).and_then(|()| json.end());
    match refused {
        Some(refused) => Ok(Err(refused)),
        None => read.map(Ok),
    }
}

struct Entries<'a, F> {
    take: F,
    /// Why the reading has ended.
    refused: &'a mut Option<SourceError>,
}

impl<'de, F: FnMut(TreeEntry) -> Result<(), SourceError>> DeserializeSeed<'de> for Entries<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(TreeEntry) -> Result<(), SourceError>> Visitor<'de> for Entries<'_, F> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut page: A) -> Result<(), A::Error> {
        while let Some(entry) = page.next_element()? {
            if let Err(refused) = (self.take)(entry) {
                *self.refused = Some(refused);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// What a refused request was about.
pub enum Asked<'a> {
    Revision,
    Tree,
    File(&'a RelPath),
}

/// What a message about a refusal needs to know.
pub struct Context<'a> {
    pub endpoint: &'a Url,
    pub repo: &'a str,
    pub revision: &'a str,
    pub has_token: bool,
}

/// Turns a refusal into the one sentence that a person can act on.
pub async fn refusal(
    response: Response,
    asked: &Asked<'_>,
    context: &Context<'_>,
    deadline: Duration,
) -> SourceError {
    let status = response.status();
    let header = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.map(|value| text::inert(value, 200)).unwrap_or_default()
    };
    let (code, message) = (header("x-error-code"), header("x-error-message"));
    let request = ["x-request-id", "x-amzn-trace-id", "x-amz-cf-id"]
        .map(header)
        .into_iter()
        .find(|id| !id.is_empty());
    let origin = http::origin(response.url());
    let body = http::error_body(response, deadline).await;
    // What the Hub itself said, for the cases that have no sentence of their own.
    let mut told = if message.is_empty() { body } else { message.clone() };
    if let Some(request) = request {
        told = format!("{told} (request {request})");
    }
    let Context { repo, revision, has_token, .. } = context;
    let endpoint = context.endpoint.as_str().trim_end_matches('/');
    match status {
        StatusCode::UNAUTHORIZED if code == "GatedRepo" => SourceError::Access(format!(
            "`{repo}` is gated; accept its licence at {endpoint}/{repo} and give that account's token \
             in HF_TOKEN or HF_TOKEN_PATH"
        )),
        StatusCode::UNAUTHORIZED if *has_token && message.contains("Invalid credentials") => {
            SourceError::Access(format!(
                "the Hub does not accept the token; renew it or unset it: {told}"
            ))
        }
        StatusCode::UNAUTHORIZED if !has_token => SourceError::Access(format!(
            "`{repo}` is private, gated or does not exist; give a token with access in HF_TOKEN or \
             HF_TOKEN_PATH, or check the name at {endpoint}/{repo}"
        )),
        StatusCode::FORBIDDEN if code == "GatedRepo" => SourceError::Access(format!(
            "`{repo}` is gated and the account of this token has no access; accept its licence at \
             {endpoint}/{repo}"
        )),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            SourceError::Access(format!("the Hub refuses access to `{repo}`: {told}"))
        }
        StatusCode::NOT_FOUND if code == "RevisionNotFound" => SourceError::NotFound(format!(
            "`{repo}` has no revision `{revision}`{}",
            quantisation_hint(repo, revision)
        )),
        StatusCode::NOT_FOUND | StatusCode::GONE => SourceError::NotFound(match asked {
            Asked::Revision if *has_token => format!(
                "`{repo}` does not exist at {endpoint}, or the account of this token may not see it"
            ),
            Asked::Revision => format!(
                "`{repo}` does not exist at {endpoint}{}",
                // A mirror may not tell which of the two it does not have.
                quantisation_hint(repo, revision)
            ),
            Asked::Tree => format!("`{repo}` has no listing of its files: {told}"),
            Asked::File(path) => format!("`{repo}` has no file `{path}` any more: {told}"),
        }),
        StatusCode::REQUEST_TIMEOUT => SourceError::Unreachable(format!("`{origin}` answered 408")),
        status if status.is_server_error() => {
            SourceError::Unreachable(format!("`{origin}` answered {}: {told}", status.as_u16()))
        }
        status => SourceError::Protocol(format!("`{origin}` answered {}: {told}", status.as_u16())),
    }
}

/// llama.cpp and vLLM write the quantisation where KServe and we have the revision.
fn quantisation_hint(repo: &str, revision: &str) -> String {
    if !is_quantisation(revision) {
        return String::new();
    }
    format!(
        "; for the files of the quantisation {revision} write `hf://{repo} --include '*{revision}*'`"
    )
}

/// `Link: <…>; rel="next"`, which must stay at the origin that sent it. A Link that cannot be read is
/// an error: a listing that is cut short must not look complete.
pub fn next_page(at: &Url, headers: &HeaderMap) -> Result<Option<Url>, SourceError> {
    let broken = || SourceError::Protocol("the listing has a Link that is not understood".into());
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
    match at.join(&next) {
        Ok(url) if url.origin() == at.origin() => Ok(Some(url)),
        Ok(url) => Err(SourceError::Unsafe(format!(
            "the listing continues at another host, `{}`; not followed",
            text::inert(&http::origin(&url), 100)
        ))),
        Err(_) => Err(broken()),
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

/// The commit that an answer belongs to; mirrors leave it out.
pub fn commit_header(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-repo-commit")?.to_str().ok()?;
    Some(value.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str) -> Result<Option<RemoteFile>, SourceError> {
        match serde_json::from_str::<TreeEntry>(json).expect("is an entry").read()? {
            Listed::File(file) => Ok(Some(file)),
            Listed::Refused(file) => panic!("`{}` is refused", file.why),
            Listed::Other => Ok(None),
        }
    }

    #[test]
    fn the_sha256_of_a_large_file_is_its_lfs_oid() {
        let sha256 = "ab".repeat(32);
        let entry = file(&format!(
            r#"{{"type":"file","path":"m.safetensors","size":5,"oid":"{}","lfs":{{"oid":"{sha256}","size":5,"pointerSize":134}}}}"#,
            "cd".repeat(20)
        ));
        let entry = entry.expect("is valid").expect("is a file");
        assert_eq!(entry.digest, Digest::sha256_from_hex(&sha256));
    }

    #[test]
    fn a_digest_that_is_none_is_refused_and_not_ignored() {
        for json in [
            r#"{"type":"file","path":"a","size":5,"oid":"../../x"}"#,
            r#"{"type":"file","path":"a","size":5,"lfs":{"oid":"xyz","size":5}}"#,
            r#"{"type":"file","path":"a","size":5,"lfs":{"size":6}}"#,
            r#"{"type":"file","path":"a"}"#,
        ] {
            assert!(file(json).is_err(), "{json}");
        }
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

    #[test]
    fn directories_and_submodules_are_no_files() {
        for kind in ["directory", "submodule", "unknown"] {
            let json = format!(r#"{{"type":"{kind}","path":"../x","oid":"0"}}"#);
            assert!(file(&json).expect("is skipped").is_none());
        }
    }
}
