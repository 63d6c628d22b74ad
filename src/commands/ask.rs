//! Asking a source, as often as that makes sense.

use std::time::{Duration, Instant};

use super::shared::Fetch;
use crate::Error;
use crate::cli::{Model, NetworkFlags};
use crate::content::Source;
use crate::engine::{Retry, RetryPolicy, Stop};
use crate::model::{SourceUri, text};
use crate::net::http::Http;
use crate::net::{Problem, SourceError};
use crate::report::{Event, Screen};
use crate::source::registry;

/// A source is given this long in all before a complete copy of an earlier revision is used.
const PATIENCE_WITH_A_COPY: Duration = Duration::from_secs(50);

#[derive(Debug, thiserror::Error)]
#[error("the source did not answer within {}", text::duration(*.0))]
struct NoAnswer(Duration);

impl Problem for NoAnswer {}

/// Bound on the wait between two tries of a question.
const MAX_DELAY: Duration = Duration::from_secs(10);

impl Fetch<'_> {
    /// How long a source is asked where a complete copy can be used instead; there must be time left for
    /// that.
    pub(super) fn patience_with_a_copy(&self) -> Duration {
        let most = self.state.time_left().map_or(Duration::MAX, |left| left / 2);
        PATIENCE_WITH_A_COPY.min(self.args.network.retry_timeout).min(most)
    }

    /// The source of `model`, with the other places of its bytes that may be asked.
    pub(super) fn source(&self, model: &Model) -> Result<Box<dyn Source>, Error> {
        let may_be_asked = |place: &&SourceUri| {
            let variable = registry::offline_by(place);
            if let Some(variable) = variable {
                self.screen.warn(&format!("{variable} is set: {place} is left alone"));
            }
            variable.is_none()
        };
        let also: Vec<SourceUri> = model.also.iter().filter(may_be_asked).cloned().collect();
        let settings = self.args.source_settings(&model.selection);
        Ok(registry::open_with(&model.uri, &also, &settings, self.http()?)?)
    }

    pub(super) async fn ask_revision(
        &self,
        source: &dyn Source,
        budget: Duration,
        bound: Duration,
    ) -> Result<String, Error> {
        let revision = self.retried(budget, bound, || source.revision()).await;
        self.pass_on(source);
        revision
    }

    /// Shows what `source` has to say.
    pub(super) fn pass_on(&self, source: &dyn Source) {
        source.warnings().iter().for_each(|warning| self.screen.warn(warning));
    }

    /// See [`Asking::retried`].
    pub(super) async fn retried<T>(
        &self,
        budget: Duration,
        bound: Duration,
        call: impl AsyncFn() -> Result<T, SourceError>,
    ) -> Result<T, Error> {
        let (http, network) = (self.http()?, &self.args.network);
        let asking = Asking { http, network, screen: self.screen, stop: self.stop };
        asking.retried(budget, bound, call).await
    }
}

/// Who asks a source, or a store.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub http: &'a Http,
    pub network: &'a NetworkFlags,
    pub screen: &'a Screen,
    pub stop: &'a Stop,
}

impl Asking<'_> {
    /// Tries a call to the source again as long as that makes sense, and not longer than `bound`
    /// in all: slow failures and asked-for waits must not add up.
    pub(super) async fn retried<T>(
        &self,
        budget: Duration,
        bound: Duration,
        call: impl AsyncFn() -> Result<T, SourceError>,
    ) -> Result<T, Error> {
        let policy = RetryPolicy { budget, max_delay: MAX_DELAY, ..RetryPolicy::default() }
            .with_first_delay(self.network.retry_delay);
        let mut retry = Retry::new(policy, self.http.pace.clone());
        let started = Instant::now();
        let calls = async {
            loop {
                let error = match call().await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                };
                let (delay, error) = retry.after(error)?;
                if let SourceError::RateLimited { wait, .. } = &error
                    && started.elapsed() + *wait > bound
                {
                    return Err(error.into());
                }
                if retry.is_worth_a_line() {
                    let (error, fields) = (error.to_string(), Box::new(error.fields()));
                    let retrying = Event::Retrying { path: None, from_byte: None, error, fields };
                    self.screen.tell(&retrying);
                }
                tokio::time::sleep(delay).await;
            }
        };
        tokio::select! {
            answer = calls => answer,
            () = self.stop.wait() => Err(Error::Stopped),
            () = tokio::time::sleep(bound) => Err(SourceError::Unreachable(NoAnswer(bound).into()).into()),
        }
    }
}
