//! What was asked of which host, and how it answered: for a report. Nothing is decided by it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use reqwest::Response;
use reqwest::header::DATE;

/// Sees each request of an [`Http`](super::http::Http), in order. Clones share what was seen.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Vec<Exchange>>>);

/// One request, and the head of its answer, if one has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// `scheme://host:port`
    pub origin: String,
    pub answer: Option<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The clock of the other side, if it says so, and ours when its answer came.
    pub clocks: Option<(SystemTime, SystemTime)>,
}

impl Witness {
    pub(super) fn asks(&self, origin: &str) {
        self.with(|all| all.push(Exchange { origin: origin.to_owned(), answer: None }));
    }

    pub(super) fn sees(&self, origin: &str, response: &Response) {
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let theirs = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let clocks = theirs.map(|theirs| (theirs, SystemTime::now()));
        let answer = Some(Answer { status: response.status().as_u16(), clocks });
        self.with(|all| {
            let open = |it: &&mut Exchange| it.origin == origin && it.answer.is_none();
            if let Some(exchange) = all.iter_mut().rev().find(open) {
                exchange.answer = answer;
            }
        });
    }

    /// What was seen until now; it is forgotten.
    pub fn take(&self) -> Vec<Exchange> {
        let mut taken = Vec::new();
        self.with(|all| taken = std::mem::take(all));
        taken
    }

    fn with(&self, act: impl FnOnce(&mut Vec<Exchange>)) {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
