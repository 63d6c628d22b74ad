//! An answer of a store that is not what was asked for, as a person is told of it.

use std::fmt;
use std::time::Duration;

use reqwest::Response;

use super::store::Store;
use crate::model::{ErrorFields, text};
use crate::net::{Problem, SourceError, http};

/// An error of a store is a few hundred bytes.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Why a question has no answer.
#[derive(Debug)]
pub enum Failed {
    Refused(Refusal),
    Otherwise(SourceError),
}

/// What was asked for when the store refused.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// The keys below a prefix.
    List(&'a str),
    /// An object that was listed.
    Object(&'a str),
}

/// A refusal in the words of the store. They are inert.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// The origin that was asked.
    pub host: String,
    pub status: u16,
    /// `AuthenticationFailed`, `userProjectMissing`; empty where the answer has none.
    pub code: String,
    pub message: String,
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Clock,
    NoPlace,
    Archived,
    BadCredentials,
    Expired,
    NotPaid,
    Denied,
    /// Nobody was named who asks, and the place is not public.
    Anonymous,
    NotListed,
    Gone,
    Changed,
    NotAccepted,
    /// In the words of the store: it may pass, or not.
    Trouble,
    Words,
}

#[derive(Debug)]
struct Refused {
    refusal: Refusal,
    /// How messages call the bucket or container.
    place: String,
    /// Inert.
    key: String,
    is_listing: bool,
    why: Why,
    asked_by: String,
    hint: Option<String>,
}

impl From<SourceError> for Failed {
    fn from(error: SourceError) -> Self {
        Self::Otherwise(error)
    }
}

impl Failed {
    pub fn explain(self, store: &impl Store, asked: Asked<'_>) -> SourceError {
        match self {
            Self::Refused(refusal) => refusal.explain(store, asked),
            Self::Otherwise(error) => error,
        }
    }
}

impl Refusal {
    /// Reads the refusal; `parse` finds the code and the message in its body.
    pub async fn read(
        response: Response,
        stall: Duration,
        parse: fn(&str) -> (String, String),
    ) -> Self {
        let (status, host) = (response.status().as_u16(), http::origin(response.url()));
        let named = response.headers().get("x-ms-error-code").and_then(|it| it.to_str().ok());
        let named = named.map(str::to_owned);
        let body = http::small_body(response, MAX_ERROR_BYTES, stall).await.unwrap_or_default();
        let (code, message) = parse(&String::from_utf8_lossy(&body));
        let code = named.unwrap_or(code);
        Self { host, status, code: text::inert(&code, 60), message: text::inert(&message, 300) }
    }

    /// Whether the server is in trouble, and says nothing about what was asked.
    pub fn is_passing(&self) -> bool {
        matches!(self.status, 408 | 429 | 500 | 502..)
    }

    pub fn is_denial(&self) -> bool {
        matches!(self.status, 401 | 403)
    }

    /// What it says in one line.
    pub fn told(&self) -> String {
        let words = [self.code.as_str(), self.message.as_str()];
        let words: Vec<&str> = words.into_iter().filter(|it| !it.is_empty()).collect();
        match words.is_empty() {
            true => format!("`{}` answered {}", self.host, self.status),
            false => format!("{}: {}", self.status, words.join(": ")),
        }
    }

    pub fn explain(self, store: &impl Store, asked: Asked<'_>) -> SourceError {
        let why = store.why(&self, asked);
        let class = match why {
            Why::Clock => SourceError::Unusable,
            Why::NoPlace | Why::Archived | Why::NotListed => SourceError::NotFound,
            Why::Gone | Why::Changed => SourceError::Stale,
            Why::Trouble => SourceError::Unreachable,
            Why::Words => SourceError::Protocol,
            Why::BadCredentials
            | Why::Expired
            | Why::NotPaid
            | Why::Denied
            | Why::Anonymous
            | Why::NotAccepted => SourceError::Access,
        };
        let (key, is_listing) = match asked {
            Asked::List(prefix) => (prefix, true),
            Asked::Object(key) => (key, false),
        };
        let refused = Refused {
            place: store.called().to_owned(),
            key: shown(key),
            is_listing,
            why,
            asked_by: store.asked_by(),
            hint: store.hint(why, asked),
            refusal: self,
        };
        class(refused.into())
    }
}

/// A key as a message may show it.
pub fn shown(key: &str) -> String {
    text::inert(key, 200)
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, key, asked_by, .. } = self;
        let told = self.refusal.told();
        let (doing, what) = match self.is_listing {
            true => ("listing", format!("the keys below `{key}` in {place}")),
            false => ("reading", format!("object `{key}` in {place}")),
        };
        match self.why {
            Why::Clock => write!(out, "the clock of this machine is wrong: {told}"),
            Why::NoPlace => write!(out, "{place} does not exist ({told})"),
            Why::Archived => write!(out, "{what} is archived and cannot be read"),
            Why::BadCredentials => {
                write!(out, "the credentials for {place} are not accepted ({asked_by}; {told})")
            }
            Why::Expired => write!(
                out,
                "the credentials for {place} have expired, and no newer ones were found ({asked_by}; \
                 {told})"
            ),
            Why::Denied | Why::Anonymous => {
                write!(out, "{doing} {what} is not allowed {asked_by} ({told})")
            }
            Why::NotListed => write!(out, "{place} cannot be listed ({told})"),
            Why::Gone => write!(out, "{what} is gone since it was listed ({told})"),
            Why::Changed => write!(out, "{what} changed while it was fetched"),
            Why::NotAccepted => write!(out, "the request for {what} is not accepted: {told}"),
            Why::NotPaid | Why::Trouble | Why::Words => write!(out, "{what}: {told}"),
        }
    }
}

impl std::error::Error for Refused {}

impl Problem for Refused {
    fn fields(&self) -> ErrorFields {
        let Refusal { host, status, code, message } = &self.refusal;
        let said = match (code.as_str(), message.as_str()) {
            ("", message) => message.to_owned(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        let hint = match self.why {
            Why::Changed | Why::Gone => Some("run again".to_owned()),
            _ => self.hint.clone(),
        };
        let fields = ErrorFields::of_file(&self.key).status(*status).said(&said);
        ErrorFields { host: Some(host.clone()), hint, ..fields }
    }
}
