//! Who asks a store: credentials that are renewed before they expire, or nobody.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use object_store::CredentialProvider;
use tokio::sync::Mutex;

use super::refusal::{Failed, Refusal};
use super::transport::reason;
use crate::net::SourceError;

/// Credentials younger than this that are refused are not asked for again.
const RENEW_AFTER: Duration = Duration::from_secs(30);

/// A service of the node may take so long until it is there: that of GKE begins to listen after the pod does.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);

/// Keeps a credential until shortly before it expires.
pub type Provider<C> = Arc<dyn CredentialProvider<Credential = C>>;

/// Where credentials come from.
pub struct Origin<C> {
    /// For messages: `with AZURE_STORAGE_KEY`.
    pub by: String,
    pub make: Box<dyn Fn() -> object_store::Result<Provider<C>> + Send + Sync>,
    /// It is a service of the node that may not be there: then nobody is named.
    pub may_be_missing: bool,
}

/// Who asks.
pub struct Identity<C> {
    /// Nothing: nobody.
    origin: Option<Origin<C>>,
    current: Mutex<Option<(Instant, Provider<C>)>>,
    is_missing: AtomicBool,
    /// One was given once: the service that gives them is there.
    was_given: AtomicBool,
    /// Why nobody asks, where a service of the node did not answer.
    silence: std::sync::Mutex<Option<SourceError>>,
    began: Instant,
}

impl<C> Identity<C> {
    pub fn of(origin: Option<Origin<C>>) -> Self {
        Self {
            origin,
            current: Mutex::default(),
            is_missing: AtomicBool::new(false),
            was_given: AtomicBool::new(false),
            silence: std::sync::Mutex::default(),
            began: Instant::now(),
        }
    }

    /// Whether nobody asks.
    pub fn is_anonymous(&self) -> bool {
        self.origin.is_none() || self.is_missing.load(Relaxed)
    }

    /// For messages.
    pub fn by(&self) -> String {
        match &self.origin {
            Some(origin) if !self.is_missing.load(Relaxed) => origin.by.clone(),
            _ => "without credentials".to_owned(),
        }
    }

    /// A credential that has not expired; nothing where nobody asks.
    pub async fn credential(&self) -> Result<Option<Arc<C>>, SourceError> {
        let Some(origin) = self.origin.as_ref().filter(|_| !self.is_anonymous()) else {
            return Ok(None);
        };
        let provider = {
            let mut current = self.current.lock().await;
            match current.as_ref() {
                Some((_, provider)) => Arc::clone(provider),
                None => {
                    let made = (origin.make)().map_err(|error| reason(&error, &origin.by))?;
                    *current = Some((Instant::now(), Arc::clone(&made)));
                    made
                }
            }
        };
        match provider.get_credential().await {
            Ok(credential) => {
                self.was_given.store(true, Relaxed);
                *self.silence() = None;
                Ok(Some(credential))
            }
            Err(error) => match reason(&error, &origin.by) {
                error @ (SourceError::Unreachable(_) | SourceError::NotFound(_))
                    if origin.may_be_missing && !self.was_given.load(Relaxed) =>
                {
                    self.is_missing.store(true, Relaxed);
                    *self.silence() =
                        Some(error).filter(|error| matches!(error, SourceError::Unreachable(_)));
                    Ok(None)
                }
                // Nobody is to read that the model is not there.
                SourceError::NotFound(cause) => Err(SourceError::Access(cause)),
                error => Err(error),
            },
        }
    }

    /// What a refusal comes to. Where nobody was named because a service of the node did not answer, that
    /// service may only begin: then the next try asks it again.
    pub fn refused(&self, refusal: Refusal) -> Failed {
        // Azure does not tell everybody that a container is there.
        let hides = ["ResourceNotFound", "PublicAccessNotPermitted"];
        let is_of_nobody = refusal.is_denial() || hides.contains(&refusal.code.as_str());
        let may_begin = is_of_nobody && self.began.elapsed() < BEGINS_WITHIN;
        // All who were refused meanwhile try again.
        match self.silence().clone().filter(|_| may_begin) {
            Some(error) => {
                self.is_missing.store(false, Relaxed);
                Failed::Otherwise(error)
            }
            None => Failed::Refused(refusal),
        }
    }

    fn silence(&self) -> std::sync::MutexGuard<'_, Option<SourceError>> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets credentials that were refused, unless they are fresh; whether another try makes sense. They were
    /// asked for at `asked`.
    pub async fn renew(&self, asked: Instant) -> bool {
        if self.is_anonymous() {
            return false;
        }
        let mut current = self.current.lock().await;
        match current.as_ref() {
            // Another worker was refused too, and has got new ones since.
            Some((made, _)) if *made > asked => true,
            Some((made, _)) if made.elapsed() < RENEW_AFTER => false,
            Some(_) => {
                *current = None;
                true
            }
            // Another worker was refused too, and has dealt with it.
            None => true,
        }
    }
}

impl<C> fmt::Debug for Identity<C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Identity(…)")
    }
}
