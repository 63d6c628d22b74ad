//! Asking a source, as often as that makes sense.

use std::time::{Duration, Instant};

use super::fetch::Fetch;
use crate::Error;
use crate::content::Source;
use crate::engine::{Retry, RetryPolicy};
use crate::model::{SourceUri, text};
use crate::net::SourceError;
use crate::report::Event;
use crate::source::hub::credentials::{Token, is_true, text_of};
use crate::source::{Hub, HubSettings, S3, S3Settings};

/// A source is given this long in all before a complete copy of an earlier revision is used.
const PATIENCE_WITH_A_COPY: Duration = Duration::from_secs(50);

impl Fetch<'_> {
    /// How long a source is asked where a complete copy can be used instead; there must be time left for
    /// that.
    pub(super) fn patience_with_a_copy(&self) -> Duration {
        let most = self.state.time_left().map_or(Duration::MAX, |left| left / 2);
        PATIENCE_WITH_A_COPY.min(self.args.retry_timeout).min(most)
    }

    /// The variable that forbids to ask the source of `uri`. As for `hf`, the first one that is set
    /// decides.
    pub(super) fn offline_by(&self, uri: &SourceUri) -> Option<&'static str> {
        let variables = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];
        let first = variables.into_iter().find(|name| text_of(name).is_some())?;
        (matches!(uri, SourceUri::Hub(_)) && is_true(first)).then_some(first)
    }

    pub(super) fn source(&self, uri: &SourceUri) -> Result<Box<dyn Source>, Error> {
        Ok(match uri {
            SourceUri::Hub(repo) => {
                let settings = HubSettings::from_environment(Token::find()?)?;
                Box::new(Hub::new(repo.clone(), settings, self.http()?.clone())?)
            }
            SourceUri::S3(location) => {
                let settings = S3Settings {
                    endpoint: self.args.s3_endpoint.clone(),
                    path_style: self.args.s3_path_style,
                    anonymous: self.args.s3_anonymous,
                    requester_pays: self.args.s3_requester_pays,
                };
                let s3 = S3::new(location.clone(), settings, self.http()?.clone())?;
                let s3 = s3.selecting(self.args.selection());
                Box::new(if self.args.require_digests { s3.asking_for_all() } else { s3 })
            }
        })
    }

    pub(super) async fn ask_revision(
        &self,
        source: &dyn Source,
        budget: Duration,
        bound: Duration,
    ) -> Result<String, Error> {
        let revision = self.retried(budget, bound, || source.revision()).await;
        for warning in source.warnings() {
            self.screen.warn(&warning);
        }
        revision
    }

    /// Tries a call to the source again as long as that makes sense, and not longer than `bound`
    /// in all: slow failures and asked-for waits must not add up.
    pub(super) async fn retried<T>(
        &self,
        budget: Duration,
        bound: Duration,
        call: impl AsyncFn() -> Result<T, SourceError>,
    ) -> Result<T, Error> {
        let policy = RetryPolicy { budget, max_delay: Duration::from_secs(10) };
        let mut retry = Retry::new(policy, self.http()?.pace.clone());
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
                    let error = error.to_string();
                    self.screen.tell(&Event::Retrying { path: None, from_byte: None, error });
                }
                tokio::time::sleep(delay).await;
            }
        };
        tokio::select! {
            answer = calls => answer,
            () = self.stop.wait() => Err(Error::Stopped),
            () = tokio::time::sleep(bound) => Err(SourceError::Unreachable(format!(
                "the source did not answer within {}", text::duration(bound)
            )).into()),
        }
    }
}
