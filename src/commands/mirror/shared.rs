//! What the steps of a mirror share.

use super::relay::Relay;
use crate::Error;
use crate::cli::MirrorArgs;
use crate::commands::ask::{Asker, SharedHttp};
use crate::commands::run_state::RunState;
use crate::content::Source;
use crate::engine::Stop;
use crate::net::SourceError;
use crate::net::http::Http;
use crate::report::{Progress, Screen};
use crate::source::Sink;

/// One run, for one model after the other.
pub struct Mirror<'a> {
    pub(super) args: &'a MirrorArgs,
    pub(super) ask: Asker<'a>,
    pub(super) http: Http,
    pub(super) screen: &'a Screen,
    pub(super) stop: &'a Stop,
    pub(super) state: &'a RunState,
}

impl<'a> Mirror<'a> {
    pub fn new(
        args: &'a MirrorArgs,
        http: SharedHttp,
        screen: &'a Screen,
        stop: &'a Stop,
        state: &'a RunState,
    ) -> Result<Self, Error> {
        let ask = Asker::new(&args.source, false, http, screen, stop, state);
        let http = ask.http()?.clone();
        Ok(Self { args, ask, http, screen, stop, state })
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
            retry: self.args.source.retry(),
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
        self.ask.retried(self.ask.budget(), self.ask.bound(), call).await
    }
}
