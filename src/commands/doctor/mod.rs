//! `weightlift doctor`: what a support engineer would ask of a pod, one line each. Looks only, but for a directory on
//! the volume that is removed again.
//!
//! What is found is gathered by one file for each area; what follows is decided in `verdict`. Each area asks on a
//! thread of its own (`asking`), so that a volume or a name server that does not answer is a line, and no hang.

mod asking;
mod cluster;
mod container;
mod network;
mod source;
mod verdict;
mod volume;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::run_state::RunState;
use super::several;
use crate::Error;
use crate::cli::DoctorArgs;
use crate::engine::Stop;
use crate::net::http::Http;
use crate::net::{Exchange, Witness};
use crate::sandbox::Sandbox;
use asking::{Teller, collect};
use source::Asked;
pub use verdict::Check;
use verdict::{Failure, Question};

/// What the threads of one run share.
#[derive(Clone, Default)]
struct Shared {
    http: Arc<Mutex<Option<Http>>>,
    witness: Witness,
    /// What was asked of which host.
    seen: Arc<Mutex<Vec<Exchange>>>,
}

/// Makes all checks and hands over each; returns the last line.
pub fn run(
    args: &DoctorArgs,
    termination_log: &Path,
    sandbox: &Sandbox,
    each: &mut dyn FnMut(&Check) -> Result<(), Error>,
    stop: &Stop,
    state: &RunState,
) -> Result<String, Error> {
    let (sources, root) = (sources(args)?, args.root()?);
    let mut checks = Vec::new();
    let mut found = |check: Check| {
        each(&check)?;
        checks.push(check);
        Ok(())
    };
    let (log, sandbox) = (termination_log.to_owned(), sandbox.clone());
    collect(move |teller| container::check(teller, &log, sandbox), &mut found, stop, state)?;
    collect(move |teller| volume::check(teller, &root), &mut found, stop, state)?;
    if let Some(account) = args.account() {
        let (account, name) = (account.to_owned(), args.lease_name.clone());
        let ask = move |teller: &Teller| {
            asynchronous(teller, cluster::check(teller, &account, name.as_deref()));
        };
        collect(ask, &mut found, stop, state)?;
    }
    let shared = Shared::default();
    let of_thread = shared.clone();
    let set_up = move |teller: &Teller| {
        let http = network::set_up(teller, &of_thread.witness);
        *of_thread.http.lock().unwrap_or_else(PoisonError::into_inner) = http;
    };
    collect(set_up, &mut found, stop, state)?;
    let http = shared.http.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(http) = http {
        ask_sources(&http, &sources, &shared, &mut found, stop, state)?;
    }
    verdict::end(&checks)
}

/// Each source on a thread of its own, and then the hosts that they have asked.
fn ask_sources(
    http: &Http,
    sources: &[Asked],
    shared: &Shared,
    found: &mut dyn FnMut(Check) -> Result<(), Error>,
    stop: &Stop,
    state: &RunState,
) -> Result<(), Error> {
    if sources.is_empty() || sources.iter().any(Asked::is_of_hub) {
        let (http, shared) = (http.clone(), shared.clone());
        let ask = move |teller: &Teller| {
            asynchronous(teller, source::check_token(teller, &http));
            shared.keep(shared.witness.take());
        };
        collect(ask, found, stop, state)?;
    }
    for asked in sources {
        let (asked, http, of_thread) = (asked.clone(), http.clone(), shared.clone());
        let ask = move |teller: &Teller| {
            let check = source::check(teller, &asked, &http, &of_thread.witness);
            of_thread.keep(asynchronous(teller, check).unwrap_or_default());
        };
        collect(ask, found, stop, state)?;
    }
    let (http, shared) = (http.clone(), shared.clone());
    let ask = move |teller: &Teller| {
        let seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        asynchronous(teller, network::check(teller, &http, &shared.witness, seen));
    };
    collect(ask, found, stop, state)
}

impl Shared {
    fn keep(&self, mut exchanges: Vec<Exchange>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).append(&mut exchanges);
    }
}

/// Every place that is named, once.
fn sources(args: &DoctorArgs) -> Result<Vec<Asked>, Error> {
    let mut all: Vec<Asked> = Vec::new();
    for entry in args.entries()? {
        for uri in std::iter::once(&entry.source).chain(&entry.also) {
            if all.iter().all(|asked| asked.uri != *uri) {
                let selection = entry.selection.clone();
                let settings = args.source.settings(&selection, false);
                all.push(Asked { uri: uri.clone(), selection, settings });
            }
        }
    }
    Ok(all)
}

/// Runs `asking` to its end on this thread; nothing where the process may have no more descriptors.
fn asynchronous<T>(teller: &Teller, asking: impl Future<Output = T>) -> Option<T> {
    match several::runtime() {
        Ok(runtime) => Some(runtime.block_on(asking)),
        Err(error) => {
            teller.tell(Question::of_container("descriptors").failed(Failure::of(&error)));
            None
        }
    }
}
