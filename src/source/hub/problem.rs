//! What can go wrong at a Hub beside HTTP: refusals, and answers that contradict the question.

use std::fmt;

use url::Url;

use crate::model::{ErrorFields, RelPath, text};
use crate::net::Problem;
use crate::net::http::origin;

/// A refusal by a Hub, or by the storage behind it.
#[derive(Debug)]
pub struct Refused {
    pub host: String,
    pub status: u16,
    pub file: Option<RelPath>,
    pub repo: String,
    /// Inert.
    pub said: String,
    pub why: Why,
}

/// What a refusal means.
#[derive(Debug)]
pub enum Why {
    /// `page` is where its licence can be accepted.
    Gated {
        page: String,
    },
    GatedForToken {
        page: String,
    },
    BadUser {
        endpoint: String,
    },
    NoLogin {
        page: String,
    },
    BadToken,
    NoAccess,
    NoRevision {
        revision: String,
        hint: Option<String>,
    },
    NoRepo {
        endpoint: String,
        hint: Option<String>,
    },
    NoRepoForToken {
        endpoint: String,
    },
    NoListing,
    NoFile,
    /// A directory whose content was not listed with the rest.
    NoListingOf {
        directory: String,
    },
    /// A refusal that is final; `meaning` is what its status says.
    Final {
        meaning: &'static str,
    },
    /// The words of the Hub.
    Words,
    /// The words of the storage.
    OfStorage,
    /// By another Hub, to which the endpoint redirects.
    Elsewhere {
        endpoint: String,
        hint: String,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, status, repo, said, .. } = self;
        let file = self.file.as_ref().map(RelPath::as_str);
        match &self.why {
            Why::Gated { .. } => write!(out, "`{repo}` is gated"),
            Why::GatedForToken { .. } => {
                write!(out, "`{repo}` is gated and the account of this token has no access")
            }
            Why::BadUser { endpoint } => write!(
                out,
                "`{endpoint}` does not accept the user and password in HF_ENDPOINT, or this user has no \
                 access to `{repo}`: {said}"
            ),
            Why::NoLogin { .. } => write!(out, "`{repo}` is private, gated or does not exist"),
            Why::BadToken => out.write_str("the Hub does not accept the token"),
            Why::NoAccess => write!(out, "the Hub refuses access to `{repo}`: {said}"),
            Why::NoRevision { revision, .. } => {
                write!(out, "`{repo}` has no revision `{revision}`")
            }
            Why::NoRepo { endpoint, .. } => write!(out, "`{repo}` does not exist at {endpoint}"),
            Why::NoRepoForToken { endpoint } => write!(
                out,
                "`{repo}` does not exist at {endpoint}, or the account of this token has no access to it"
            ),
            Why::NoListing => write!(out, "`{repo}` has no listing of its files: {said}"),
            Why::NoFile => {
                write!(
                    out,
                    "`{repo}` no longer has the file `{}`: {said}",
                    file.unwrap_or_default()
                )
            }
            Why::NoListingOf { directory } => write!(
                out,
                "the listing names the directory `{directory}` but no file in it, and `{host}` answered \
                 {status} to the request for its listing: {said}"
            ),
            Why::Final { meaning } => {
                write!(out, "`{host}` answered {status} for ")?;
                if let Some(file) = file {
                    write!(out, "`{file}` of ")?;
                }
                write!(out, "`{repo}`{meaning}: {said}")
            }
            Why::Words => write!(out, "`{host}` answered {status}: {said}"),
            Why::OfStorage => {
                write!(out, "`{host}` answered {status} for `{}`: {said}", file.unwrap_or_default())
            }
            Why::Elsewhere { endpoint, .. } => write!(
                out,
                "`{endpoint}` redirects to `{host}`, which refuses access to `{repo}` ({status}: \
                 {said})"
            ),
        }
    }
}

impl std::error::Error for Refused {}

impl Problem for Refused {
    fn fields(&self) -> ErrorFields {
        let hint = match &self.why {
            Why::Gated { page } => Some(format!(
                "accept its licence at {page} and give that account's token in HF_TOKEN or \
                 HF_TOKEN_PATH"
            )),
            Why::GatedForToken { page } => Some(format!("accept its licence at {page}")),
            Why::NoLogin { page } => Some(format!(
                "give a token with access in HF_TOKEN or HF_TOKEN_PATH, or check the name at {page}"
            )),
            Why::BadToken => Some(format!("renew it or unset it: {}", self.said)),
            Why::NoRevision { hint, .. } | Why::NoRepo { hint, .. } => hint.clone(),
            Why::Elsewhere { hint, .. } => Some(hint.clone()),
            _ => None,
        };
        let file = self.file.as_ref().map(ToString::to_string);
        let fields = ErrorFields::of_host(&self.host).status(self.status).said(&self.said);
        ErrorFields { file, hint, ..fields }
    }
}

/// An answer that is not one to what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HubProblem {
    #[error("`{endpoint}` did not resolve `{revision}` of `{repo}` to a commit")]
    NoCommit { endpoint: Url, revision: String, repo: String },
    #[error("asked for commit {asked}, `{endpoint}` answered with {answered}")]
    OtherCommit { asked: String, endpoint: Url, answered: String },
    #[error("`{host}` answered for commit {answered} instead of {pinned}")]
    CommitOfAnswer { host: String, answered: String, pinned: String },
    #[error("`{endpoint}` answered with {what} in an unknown format: {why}")]
    Form { endpoint: Url, what: &'static str, why: String, hint: Option<String> },
    #[error("no URL for `{path}`: {why}")]
    Url { path: String, why: url::ParseError },
    #[error("`{endpoint}` redirects `{file}` more than {most} times")]
    ManyRedirects { endpoint: Url, file: RelPath, most: usize },
    #[error("the listing gives `{file}` the {what} `{value}`")]
    Entry { file: RelPath, what: &'static str, value: String },
    #[error(
        "the listing of `{repo}` names the directory `{directory}` and no file in it: it is not \
         complete"
    )]
    BareDirectory { repo: String, directory: String },
    #[error(
        "`{endpoint}` lists the directories of `{repo}` one by one, and there are more than {most}"
    )]
    ManyDirectories { endpoint: Url, repo: String, most: usize },
    #[error("the listing of `{repo}` returns to a page that was already read")]
    Circle { repo: String },
    #[error("the listing of `{repo}` continues page after page without an entry")]
    Endless { repo: String },
    #[error("`{repo}` lists more than {most} files")]
    ManyFiles { repo: String, most: usize },
    #[error("`{repo}` lists directories with names of more than {} in all", text::size(*most as u64))]
    LongNames { repo: String, most: usize },
    #[error(
        "the listing of the directory `{directory}` of `{repo}` names `{name}`, which is not in it"
    )]
    NotBelow { directory: RelPath, repo: String, name: String },
    #[error("the listing has a Link header in an unknown format")]
    Link,
    #[error("the listing continues in another repo or commit, `{id}` at `{commit}`; not followed")]
    OtherRepo { id: String, commit: String },
    #[error("the listing continues at another host, `{host}`; not followed")]
    OtherHost { host: String },
    #[error("the token file `{path}` of HF_TOKEN_PATH cannot be read: {why}")]
    TokenFile { path: String, why: std::io::Error },
    #[error("the token in `{place}` contains blanks or control characters")]
    Token { place: String },
}

impl Problem for HubProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::CommitOfAnswer { host, .. } | Self::OtherHost { host } => {
                ErrorFields::of_host(host)
            }
            Self::NoCommit { endpoint, .. }
            | Self::OtherCommit { endpoint, .. }
            | Self::ManyDirectories { endpoint, .. } => ErrorFields::of_host(&origin(endpoint)),
            Self::Form { endpoint, hint, .. } => {
                ErrorFields { hint: hint.clone(), ..ErrorFields::of_host(&origin(endpoint)) }
            }
            Self::ManyRedirects { endpoint, file, .. } => {
                ErrorFields::of_host(&origin(endpoint)).file(file)
            }
            Self::Entry { file, .. } => ErrorFields::of_file(file),
            Self::BareDirectory { directory, .. } => ErrorFields::of_file(directory),
            Self::NotBelow { name, .. } => ErrorFields::of_file(name),
            Self::TokenFile { path, .. } => {
                ErrorFields::of_setting("HF_TOKEN_PATH").file(path).hint(
                    "check that it is a file, and its mode and fsGroup (defaultMode of the Secret)",
                )
            }
            Self::Token { place } => ErrorFields::of_setting(place).hint("check the Secret"),
            Self::Url { .. }
            | Self::Circle { .. }
            | Self::Endless { .. }
            | Self::ManyFiles { .. }
            | Self::LongNames { .. }
            | Self::Link
            | Self::OtherRepo { .. } => ErrorFields::default(),
        }
    }
}
