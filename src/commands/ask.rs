//! Asking a source, as often as that makes sense.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::run_state::RunState;
use crate::Error;
use crate::cli::{Model, SourceArgs};
use crate::content::Source;
use crate::engine::{Retry, RetryPolicy, Stop};
use crate::model::{Locked, Selection, SourceUri, text};
use crate::net::http::{Deadlines, Http};
use crate::net::{Detour, Exchange, P2p, Problem, SourceError, Told};
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

/// Made when a source is first asked: a warm start needs no roots and no client. All models of a run have the
/// same, so that a pause which a host asks for is kept by all.
pub type SharedHttp = Arc<OnceLock<Http>>;

/// What it takes to ask sources.
pub struct Asker<'a> {
    args: &'a SourceArgs,
    /// Every checksum that a store has is asked for.
    all_checksums: bool,
    deadlines: Deadlines,
    http: SharedHttp,
    pub screen: &'a Screen,
    pub stop: &'a Stop,
    pub state: &'a RunState,
}

impl<'a> Asker<'a> {
    pub fn new(
        args: &'a SourceArgs,
        all_checksums: bool,
        http: SharedHttp,
        screen: &'a Screen,
        stop: &'a Stop,
        state: &'a RunState,
    ) -> Self {
        let usual = Deadlines::default();
        // One silent server must leave room for a second try.
        let first_byte = usual.first_byte.min(args.retry_timeout / 2).max(usual.connect / 10);
        let deadlines = Deadlines { stall: args.stall_timeout, first_byte, ..usual };
        Self { args, all_checksums, deadlines, http, screen, stop, state }
    }

    /// The same, with lines about one of several models.
    pub fn with_screen<'b>(&'b self, screen: &'b Screen) -> Asker<'b> {
        let Self { args, all_checksums, stop, state, .. } = *self;
        Asker::new(args, all_checksums, self.http.clone(), screen, stop, state)
    }

    pub fn http(&self) -> Result<&Http, Error> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let http = Http::new(self.deadlines)?
            .limited_to(self.args.bandwidth)
            .through_peers(self.args.p2p()?.map(|it| Arc::new(P2p::new(it)) as Arc<dyn Detour>))
            .telling(self.told());
        Ok(self.http.get_or_init(|| http))
    }

    /// Who wants a line about each request.
    fn told(&self) -> Option<Told> {
        let screen = self.screen.of_all();
        screen.is_verbose().then(|| {
            let told = move |exchange: Exchange| screen.tell(&request(exchange));
            Arc::new(told) as Told
        })
    }

    /// How long one question to a source may be tried.
    pub fn budget(&self) -> Duration {
        self.args.retry_timeout
    }

    /// How reading a file is tried again.
    pub fn retry_of_bytes(&self) -> RetryPolicy {
        self.args.retry()
    }

    /// How long one question to a source may take with all its retries.
    pub fn bound(&self) -> Duration {
        self.args.retry_timeout.saturating_mul(4) + Duration::from_secs(30)
    }

    /// How long a source is asked where a complete copy can be used instead; there must be time left for
    /// that.
    pub fn patience_with_a_copy(&self) -> Duration {
        let most = self.state.time_left().map_or(Duration::MAX, |left| left / 2);
        PATIENCE_WITH_A_COPY.min(self.args.retry_timeout).min(most)
    }

    /// The source of `uri` alone.
    pub fn source_of(
        &self,
        uri: &SourceUri,
        selection: &Selection,
    ) -> Result<Box<dyn Source>, Error> {
        let settings = self.args.settings(selection, self.all_checksums);
        Ok(registry::open(uri, &settings, self.http()?)?)
    }

    /// The source of `model`, with the other places of its bytes that may be asked.
    pub fn source(&self, model: &Model) -> Result<Box<dyn Source>, Error> {
        self.open(&model.uri, &model.also, &model.selection, model.locked.as_deref())
    }

    /// The source of `uri`, with those of `also` that may be asked; where a lock file says what it holds, it is
    /// not asked for that.
    pub fn open(
        &self,
        uri: &SourceUri,
        also: &[SourceUri],
        selection: &Selection,
        locked: Option<&Locked>,
    ) -> Result<Box<dyn Source>, Error> {
        let may_be_asked = |place: &&SourceUri| {
            let variable = registry::offline_by(place);
            if let Some(variable) = variable {
                self.screen.warn(&format!("{variable} is set: {place} is not contacted"));
            }
            variable.is_none()
        };
        let also: Vec<SourceUri> = also.iter().filter(may_be_asked).cloned().collect();
        let settings = self.args.settings(selection, self.all_checksums);
        let http = self.http()?;
        Ok(match locked {
            Some(locked) => registry::open_locked(uri, locked, &also, &settings, http)?,
            None => registry::open_with(uri, &also, &settings, http)?,
        })
    }

    pub async fn ask_revision(
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
    pub fn pass_on(&self, source: &dyn Source) {
        source.warnings().iter().for_each(|warning| self.screen.warn(warning));
    }

    /// Tries a call to the source again as long as that makes sense, and not longer than `bound`
    /// in all: slow failures and asked-for waits must not add up.
    pub async fn retried<T>(
        &self,
        budget: Duration,
        bound: Duration,
        call: impl AsyncFn() -> Result<T, SourceError>,
    ) -> Result<T, Error> {
        let policy = RetryPolicy { budget, max_delay: MAX_DELAY, ..self.args.retry() };
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
                if retry.is_worth_a_line() || self.screen.is_verbose() {
                    let (error, fields) = (error.to_string(), Box::new(error.fields()));
                    let retrying =
                        Event::Retrying { path: None, from_byte: None, error, delay, fields };
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

fn request(exchange: Exchange) -> Event {
    let Exchange { method, origin, path, range, has_credentials, answer, took } = exchange;
    let url = format!("{origin}{path}");
    let (status, error) = match answer {
        Ok(answer) => (Some(answer.status), None),
        Err(error) => (None, Some(error)),
    };
    Event::Request { method, url, range, has_credentials, status, error, took }
}
