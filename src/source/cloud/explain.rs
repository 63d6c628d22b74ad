//! A refusal of a store as a person is told of it.

use std::fmt;

use super::refusal::{Asked, Failed, Refusal, Why, shown};
use super::store::Store;
use crate::model::ErrorFields;
use crate::net::{Problem, SourceError};

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

impl Failed {
    pub fn explain(self, store: &impl Store, asked: Asked<'_>) -> SourceError {
        match self {
            Self::Refused(refusal) => refusal.explain(store, asked),
            Self::Otherwise(error) => error,
        }
    }
}

impl Refusal {
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
            Why::Gone => write!(out, "{what} was removed after it was listed ({told})"),
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
