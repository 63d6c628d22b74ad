//! What it means that the Hub, or the storage behind it, refuses: whether the same may succeed later,
//! and the one sentence that a person can act on.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use url::Url;

use super::endpoint::Login;
use super::problem::{Refused, Why};
use crate::model::{HubRepo, RelPath, is_quantisation, text};
use crate::net::{SourceError, http};
use crate::source::status::{is_no, is_trouble, meaning};

/// What a refused request was about.
pub enum Asked<'a> {
    Revision,
    Tree,
    /// The listing of one directory, of a server that does not list what is in it.
    Directory(&'a RelPath),
    File(&'a RelPath),
    /// The token for its Xet store.
    XetToken,
}

impl Asked<'_> {
    fn directory(&self) -> String {
        match self {
            Self::Directory(path) => path.to_string(),
            _ => "/".into(),
        }
    }
}

/// What a message about a refusal needs to know.
pub struct Context<'a> {
    pub endpoint: &'a Url,
    pub repo: &'a str,
    pub revision: &'a str,
    pub login: &'a Login,
}

/// An answer that is none of success, in what it says.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    url: Url,
    pub origin: String,
    /// `X-Error-Code` and `X-Error-Message` of a Hub; empty from others.
    code: String,
    message: String,
    /// Inert.
    body: String,
    request: Option<String>,
}

impl Refusal {
    pub async fn read(response: Response, deadline: Duration) -> Self {
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(|value| text::inert(value, 200)).unwrap_or_default()
        };
        let request = ["x-request-id", "x-amzn-trace-id", "x-amz-cf-id"]
            .map(header)
            .into_iter()
            .find(|id| !id.is_empty());
        Self {
            status: response.status(),
            url: response.url().clone(),
            origin: http::origin(response.url()),
            code: header("x-error-code"),
            message: header("x-error-message"),
            request,
            body: http::error_body(response, deadline).await,
        }
    }

    /// What the other side itself said, for the cases that have no sentence of their own.
    pub fn told(&self) -> String {
        let told = if self.message.is_empty() { words(&self.body) } else { self.message.clone() };
        match &self.request {
            Some(request) => format!("{told} (request {request})"),
            None => told,
        }
    }

    fn refused(&self, repo: &str, file: Option<&RelPath>, said: String, why: Why) -> Refused {
        Refused {
            host: self.origin.clone(),
            status: self.status.as_u16(),
            file: file.cloned(),
            repo: repo.to_owned(),
            said,
            why,
        }
    }

    /// A refusal of a file, in the words of the storage.
    pub fn of_storage(&self, path: &RelPath, repo: &str) -> Refused {
        self.refused(repo, Some(path), self.body.clone(), Why::OfStorage)
    }

    /// What the Hub means by it.
    pub fn of_hub(&self, asked: &Asked<'_>, context: &Context<'_>) -> SourceError {
        let status = self.status;
        let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if is_refused && self.url.origin() != context.endpoint.origin() {
            return self.elsewhere(context);
        }
        let file = match asked {
            Asked::File(path) => Some(*path),
            _ => None,
        };
        let why = self.why(asked, context);
        let class = match why {
            Why::NoRevision { .. }
            | Why::NoRepo { .. }
            | Why::NoRepoForToken { .. }
            | Why::NoListing
            | Why::NoFile => SourceError::NotFound,
            Why::Words if is_trouble(status) => SourceError::Unreachable,
            Why::Words | Why::NoListingOf { .. } => SourceError::Protocol,
            _ => SourceError::Access,
        };
        class(self.refused(context.repo, file, self.told(), why).into())
    }

    fn why(&self, asked: &Asked<'_>, context: &Context<'_>) -> Why {
        let Context { repo, revision, login, .. } = context;
        let endpoint = context.endpoint.as_str().trim_end_matches('/').to_owned();
        let page = || format!("{endpoint}/{repo}");
        let (status, code) = (self.status, self.code.as_str());
        match status {
            StatusCode::UNAUTHORIZED if code == "GatedRepo" => Why::Gated { page: page() },
            StatusCode::UNAUTHORIZED if matches!(login, Login::User(_)) => {
                Why::BadUser { endpoint }
            }
            StatusCode::UNAUTHORIZED if matches!(login, Login::Nobody) => {
                Why::NoLogin { page: page() }
            }
            StatusCode::UNAUTHORIZED if self.message.contains("Invalid credentials") => {
                Why::BadToken
            }
            StatusCode::FORBIDDEN if code == "GatedRepo" => Why::GatedForToken { page: page() },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Why::NoAccess,
            StatusCode::NOT_FOUND if code == "RevisionNotFound" => {
                let hint = quantisation_hint(repo, revision);
                Why::NoRevision { revision: (*revision).to_owned(), hint }
            }
            _ if is_no(status) && matches!(asked, Asked::Directory(_)) => {
                Why::NoListingOf { directory: asked.directory() }
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => match asked {
                Asked::Revision if !matches!(login, Login::Nobody) => {
                    Why::NoRepoForToken { endpoint }
                }
                // A mirror may not tell which of the two it does not have.
                Asked::Revision => {
                    Why::NoRepo { endpoint, hint: quantisation_hint(repo, revision) }
                }
                Asked::Tree | Asked::Directory(_) => Why::NoListing,
                Asked::File(_) => Why::NoFile,
                Asked::XetToken => Why::Final { meaning: "" },
            },
            status if is_no(status) => Why::Final { meaning: meaning(status) },
            _ => Why::Words,
        }
    }

    /// Whether it is another Hub that wants to know who asks, and no storage whose link has expired:
    /// a link to a storage carries a signature, and Hubs have a header of their own.
    pub fn wants_login(&self) -> bool {
        match self.status {
            StatusCode::UNAUTHORIZED => self.url.query().is_none() || !self.code.is_empty(),
            StatusCode::FORBIDDEN => !self.code.is_empty(),
            _ => false,
        }
    }

    /// The endpoint redirects to somebody who wants a login, which the endpoint only is given.
    pub fn elsewhere(&self, context: &Context<'_>) -> SourceError {
        let there = format!("{}{}", self.origin, prefix(&self.url, context.repo));
        let hint = match context.login {
            Login::Nobody => {
                format!("set HF_ENDPOINT={there} and give the token in HF_TOKEN or HF_TOKEN_PATH")
            }
            Login::Token(_) => format!(
                "the token was not sent there: it goes to the host of HF_ENDPOINT only; set \
                 HF_ENDPOINT={there} to send it"
            ),
            Login::User(_) => format!(
                "the user of HF_ENDPOINT and the token were not sent there; set HF_ENDPOINT={there} and \
                 give the token in HF_TOKEN or HF_TOKEN_PATH"
            ),
        };
        let why = Why::Elsewhere { endpoint: http::origin(context.endpoint), hint };
        SourceError::Access(self.refused(context.repo, None, self.told(), why).into())
    }
}

/// The path at which a Hub lives, of a URL of that Hub.
fn prefix<'a>(url: &'a Url, repo: &str) -> &'a str {
    let path = url.path();
    let resolve = format!("/{repo}/resolve/");
    let api = format!("/{}/", HubRepo::api_of(repo));
    let ends = [&api, "/api/resolve-cache/", &resolve].map(|known| path.find(known));
    ends.into_iter().flatten().min().map_or("", |end| &path[..end])
}

/// What an error body says to a person: the message of a JSON object, the title of a web page.
fn words(body: &str) -> String {
    let json = serde_json::from_str::<serde_json::Value>(body).ok();
    if let Some(error) = json.as_ref().and_then(|json| json.get("error")?.as_str()) {
        return text::inert(error, 200);
    }
    let lower = body.to_ascii_lowercase();
    if !lower.starts_with("<!doctype html") && !lower.starts_with("<html") {
        return body.to_owned();
    }
    let title = lower.find("<title>").map(|at| at + "<title>".len());
    let title = title.and_then(|from| body.get(from..from + lower.get(from..)?.find("</title>")?));
    match title.map(str::trim).filter(|title| !title.is_empty()) {
        Some(title) => format!("a web page, `{title}`"),
        None => "a web page".into(),
    }
}

/// llama.cpp and vLLM write the quantisation where KServe and we have the revision.
fn quantisation_hint(repo: &str, revision: &str) -> Option<String> {
    is_quantisation(revision).then(|| {
        format!(
            "write `hf://{repo} --include '*{revision}*'` for the files of the quantisation {revision}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, url: &str) -> Refusal {
        let url = Url::parse(url).expect(url);
        Refusal {
            status: StatusCode::from_u16(status).expect("a status"),
            origin: http::origin(&url),
            url,
            code: String::new(),
            message: String::new(),
            body: "the words".into(),
            request: None,
        }
    }

    #[test]
    fn a_plain_refusal_is_final_and_what_may_pass_is_not() {
        let endpoint = Url::parse("https://hub.example").expect("a URL");
        let context =
            Context { endpoint: &endpoint, repo: "org/m", revision: "main", login: &Login::Nobody };
        for status in 400..=599 {
            let refusal = refusal(status, "https://hub.example/api/models/org/m");
            let error = refusal.of_hub(&Asked::Tree, &context);
            match status {
                404 | 410 => assert!(matches!(error, SourceError::NotFound(_)), "{status}"),
                408 | 425 | 500.. => {
                    assert!(matches!(error, SourceError::Unreachable(_)), "{status}");
                }
                416 | 429 => assert!(matches!(error, SourceError::Protocol(_)), "{status}"),
                _ => assert!(matches!(error, SourceError::Access(_)), "{status}"),
            }
            if status != 401 {
                assert!(error.to_string().contains("the words"), "{error}");
            }
        }
    }

    #[test]
    fn another_hub_is_told_from_a_storage() {
        let hub = "https://hub.example/org/m/resolve/c/f";
        let storage = "https://storage.example/f?Signature=x";
        for (status, url, code, wants) in [
            (401, hub, "", true),
            (401, storage, "", false),
            (401, storage, "GatedRepo", true),
            (403, hub, "GatedRepo", true),
            (403, hub, "", false),
            (403, storage, "", false),
            (404, hub, "EntryNotFound", false),
        ] {
            let refusal = Refusal { code: code.into(), ..refusal(status, url) };
            assert_eq!(refusal.wants_login(), wants, "{status} {url} {code}");
        }
    }

    #[test]
    fn the_endpoint_of_another_hub_is_where_its_paths_begin() {
        for (url, expected) in [
            ("https://h/api/models/org/m/revision/main", ""),
            ("https://h/hf/api/models/org/m/tree/c", "/hf"),
            ("https://h/a/b/org/m/resolve/c/f", "/a/b"),
            ("https://h/hf/api/resolve-cache/models/org/m/c/f", "/hf"),
            ("https://h/some/where", ""),
        ] {
            assert_eq!(prefix(&Url::parse(url).expect(url), "org/m"), expected, "{url}");
        }
        for url in ["https://h/hf/api/datasets/o/d/tree/c", "https://h/hf/datasets/o/d/resolve/c/f"]
        {
            assert_eq!(prefix(&Url::parse(url).expect(url), "datasets/o/d"), "/hf", "{url}");
        }
    }

    #[test]
    fn the_words_for_a_person_are_found_in_json_and_web_pages() {
        for (body, expected) in [
            (r#"{"error":"no such thing"}"#, "no such thing"),
            (r#"{"detail":"x"}"#, r#"{"detail":"x"}"#),
            ("plain", "plain"),
            ("<!DOCTYPE html><html><head><TITLE> Blocked </TITLE>", "a web page, `Blocked`"),
            ("<html><body>", "a web page"),
            ("<html><title>é", "a web page"),
            ("<Error><Code>x</Code></Error>", "<Error><Code>x</Code></Error>"),
        ] {
            assert_eq!(words(body), expected);
        }
    }
}
