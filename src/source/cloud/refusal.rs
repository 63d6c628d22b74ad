//! An answer of a store that is not what was asked for.

use std::time::Duration;

use reqwest::Response;

use crate::model::text;
use crate::net::{SourceError, http};

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

impl From<SourceError> for Failed {
    fn from(error: SourceError) -> Self {
        Self::Otherwise(error)
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
}

/// A key as a message may show it.
pub fn shown(key: &str) -> String {
    text::inert(key, 200)
}
