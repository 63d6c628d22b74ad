//! What the steps of a mirror share.

use std::time::Duration;

use super::relay::Relay;
use crate::Error;
use crate::cli::MirrorArgs;
use crate::commands::ask::Asking;
use crate::commands::run_state::RunState;
use crate::commands::shared::deadlines;
use crate::content::Source;
use crate::engine::Stop;
use crate::net::SourceError;
use crate::net::http::Http;
use crate::report::{Progress, Screen};
use crate::source::Sink;

/// One run, for one model after the other.
pub struct Mirror<'a> {
    pub(super) args: &'a MirrorArgs,
    pub(super) http: Http,
    pub(super) screen: &'a Screen,
    pub(super) stop: &'a Stop,
    pub(super) state: &'a RunState,
}

impl<'a> Mirror<'a> {
    pub fn new(
        args: &'a MirrorArgs,
        screen: &'a Screen,
        stop: &'a Stop,
        state: &'a RunState,
    ) -> Result<Self, Error> {
        let http = Http::new(deadlines(&args.network))?;
        Ok(Self { args, http, screen, stop, state })
    }

    pub(super) fn relay<'b>(
        &'b self,
        source: &'b dyn Source,
        sink: Option<&'b Sink>,
        progress: &'b Progress,
    ) -> Relay<'b> {
        Relay {
            source,
            sink,
            http: &self.http,
            retry: self.args.network.retry_policy(),
            connections: usize::from(self.args.connections),
            progress,
            screen: self.screen,
            stop: self.stop,
            wrong_is_fatal: sink.is_some(),
        }
    }

    pub(super) fn pass_on(&self, warnings: &[String]) {
        warnings.iter().for_each(|warning| self.screen.warn(warning));
    }

    /// Asks a source or the bucket as often as that makes sense.
    pub(super) async fn retried<T>(
        &self,
        call: impl AsyncFn() -> Result<T, SourceError>,
    ) -> Result<T, Error> {
        let network = &self.args.network;
        let asking = Asking { http: &self.http, network, screen: self.screen, stop: self.stop };
        let bound = network.retry_timeout.saturating_mul(4) + Duration::from_secs(30);
        asking.retried(network.retry_timeout, bound, call).await
    }
}
