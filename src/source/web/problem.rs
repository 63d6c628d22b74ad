//! What can go wrong at a web server beside HTTP itself.

use reqwest::StatusCode;

use super::login::Login;
use crate::model::{ErrorFields, RelPath, SENTINEL, text};
use crate::net::{Problem, SourceError};
use crate::source::beside::SHA256SUMS;

/// What a request was about.
pub enum Asked<'a> {
    /// One of the lists.
    List(&'static str),
    /// A file that a list names.
    File(&'a RelPath),
    /// The one file that the user names.
    Place(&'a RelPath),
}

impl Asked<'_> {
    pub fn name(&self) -> String {
        match self {
            Self::List(name) => (*name).to_owned(),
            Self::File(path) | Self::Place(path) => path.to_string(),
        }
    }
}

/// Answers that cannot be used. Hosts are origins; all texts are inert.
#[derive(Debug, thiserror::Error)]
pub enum WebProblem {
    #[error(
        "`{place}` has neither `{SENTINEL}` nor `{SHA256SUMS}`, so its list of files is unknown"
    )]
    NoList { place: String, host: String },
    #[error("`{place}` is a directory")]
    Directory { place: String },
    #[error("`{host}` has a `{SENTINEL}` there that is not usable: {told}")]
    Sentinel { host: String, told: String, hint: Option<&'static str> },
    #[error("`{host}` has a `{SHA256SUMS}` there without the SHA-256 sum of a file")]
    NoSums { host: String },
    #[error(
        "`{host}` has a `{SHA256SUMS}` there with lines that are not the SHA-256 sum of a file: {count}"
    )]
    StrangeSums { host: String, count: usize },
    #[error("`{host}` sent `{list}` in another form")]
    Packed { host: String, list: &'static str, hint: String },
    #[error("`{host}` has a `{SHA256SUMS}` there of more than {most} files")]
    ManyFiles { host: String, most: usize },
    #[error("`{host}` does not report the size of `{name}`")]
    NoSize { host: String, name: String },
    #[error("`{file}` at `{host}` was replaced while it was fetched")]
    Changed { host: String, file: RelPath },
    #[error("`{host}` answered {status} for `{name}`, which the list next to it names: {said}")]
    Missing { host: String, status: u16, name: String, said: String },
    #[error("`{host}` answered {status} for `{name}`: {said}")]
    Refused { host: String, status: u16, name: String, said: String, hint: Option<String> },
}

impl Problem for WebProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::NoList { host, .. } => ErrorFields::of_host(host).hint(format!(
                "put one there, as `sha256sum FILE… > {SHA256SUMS}` makes it, or name one file with \
                 #sha256=…"
            )),
            Self::Directory { place } => {
                ErrorFields::of_file(place).hint(format!("write `{place}/`"))
            }
            Self::Sentinel { host, hint, .. } => ErrorFields::of_host(host).hint(format!(
                "{}upload the model again, or add --exclude {SENTINEL} to go by `{SHA256SUMS}`",
                hint.map(|hint| format!("{hint}, ")).unwrap_or_default()
            )),
            Self::Packed { host, list, hint } => {
                ErrorFields::of_host(host).file(list).hint(hint.clone())
            }
            Self::StrangeSums { host, .. } => ErrorFields::of_host(host).file(SHA256SUMS).hint(
                "write the list with sha256sum, and use names without line breaks: a missing file would not \
                 be noticed",
            ),
            Self::NoSums { host } | Self::ManyFiles { host, .. } => {
                ErrorFields::of_host(host).file(SHA256SUMS)
            }
            Self::NoSize { host, name } => ErrorFields::of_host(host).file(name),
            Self::Changed { host, file } => {
                ErrorFields::of_host(host).file(file).hint("run again to fetch what is there now")
            }
            Self::Missing { host, status, name, said } => {
                ErrorFields::of_host(host).status(*status).said(said).file(name).hint(
                    "wait until the upload is finished and run again, or leave it out with `--exclude`",
                )
            }
            Self::Refused { host, status, name, said, hint } => {
                let fields = ErrorFields::of_host(host).status(*status).said(said).file(name);
                ErrorFields { hint: hint.clone(), ..fields }
            }
        }
    }
}

/// What a refusal by `host` means.
pub fn refused(
    status: StatusCode,
    host: String,
    said: String,
    asked: &Asked<'_>,
    login: &Login,
    is_elsewhere: bool,
) -> SourceError {
    let (name, code) = (asked.name(), status.as_u16());
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) && matches!(asked, Asked::File(_))
    {
        // What is served may just be replaced by another revision.
        let problem = WebProblem::Missing { host, status: code, name, said };
        return SourceError::Stale(problem.into());
    }
    let class = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => SourceError::NotFound,
        StatusCode::PRECONDITION_FAILED => SourceError::Stale,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => SourceError::Unreachable,
        StatusCode::RANGE_NOT_SATISFIABLE => SourceError::Protocol,
        status if status.is_client_error() => SourceError::Access,
        status if status.is_server_error() => SourceError::Unreachable,
        _ => SourceError::Protocol,
    };
    let hint = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        .then(|| login_hint(status, &host, login, is_elsewhere))
        .flatten();
    let said = text::inert(&said, 200);
    class(WebProblem::Refused { host, status: code, name, said, hint }.into())
}

fn login_hint(status: StatusCode, host: &str, login: &Login, is_elsewhere: bool) -> Option<String> {
    if is_elsewhere {
        return Some(format!(
            "SOURCE redirects there, and a login goes to the host of SOURCE only; name `{host}` in SOURCE \
             to log in there"
        ));
    }
    match login {
        Login::Nobody if status == StatusCode::UNAUTHORIZED => Some(
            "put a login into the file that NETRC names: `machine HOST login USER password PASSWORD`"
                .to_owned(),
        ),
        Login::Nobody => None,
        Login::Netrc(_) => Some("check the login in the netrc file, see NETRC".to_owned()),
        Login::Withheld => {
            Some("the login in the netrc file is sent by https only; use https".to_owned())
        }
    }
}
