//! Acquiring the Lease of a model directory.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::LeaseSpec;
use reqwest::Client;

use super::api::{Api, Trouble};
use super::error::{ClusterError, Refusal};
use super::held::{DescribeProgress, HeldLease, Holder};
use super::record::{ApiLease, LEASE_SECONDS, NODE, PROGRESS, is_name, now};
use crate::environment;
use crate::model::{ModelDir, text};
use crate::report::Screen;

/// Between two looks at a Lease that another pod holds: many nodes may be waiting.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After this long without the API server we continue without a Lease.
const PATIENCE: Duration = Duration::from_secs(30);

/// Wants the Lease of one model directory.
pub struct Candidate {
    holder: Holder,
    client: Option<Client>,
    /// The version that was seen last, and since when there has been no other by our own clock: those
    /// of other nodes may be wrong.
    seen: Option<(Option<String>, Instant)>,
    last: Option<(Instant, Busy)>,
    away_since: Option<Instant>,
}

/// Who holds it, or why that cannot be known.
#[derive(Clone, Debug)]
pub struct Busy {
    pub holder: String,
    pub progress: String,
}

pub enum TryLease {
    Held(HeldLease),
    Busy(Busy),
    /// The API server has not answered for too long; the reason.
    Unavailable(String),
}

/// What one look at the Lease has come to.
enum Taken {
    Ours(Box<ApiLease>),
    Others(Busy),
}

impl Candidate {
    /// As the service account below `account`; `POD_NAMESPACE` and `POD_NAME` come from the downward
    /// API.
    pub fn new(
        family: &ModelDir,
        name: Option<&str>,
        account: &Path,
    ) -> Result<Self, ClusterError> {
        let name = match name {
            Some(name) if is_name(name) => name.to_owned(),
            Some(name) => return Err(ClusterError::Name(text::inert(name, 100))),
            None => default_name(family),
        };
        let api = Api::of_this_pod(account)?;
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let identity = environment::text("POD_NAME").unwrap_or_else(host);
        let holder = Holder { api, name, identity };
        Ok(Self { holder, client: None, seen: None, last: None, away_since: None })
    }

    fn refused(&self, refusal: Refusal) -> ClusterError {
        let (host, lease) = (self.holder.api.url.clone(), self.holder.to_string());
        ClusterError::Refused { host, lease, refusal }
    }

    /// Tries once, without waiting for the holder. Waiters are told what `describe` says.
    pub async fn try_acquire(
        &mut self,
        describe: &DescribeProgress,
        screen: &Screen,
    ) -> Result<TryLease, ClusterError> {
        if let Some((when, busy)) = &self.last
            && when.elapsed() < LOOK_EVERY
        {
            return Ok(TryLease::Busy(busy.clone()));
        }
        let taken = self.take().await;
        if !matches!(taken, Err(Trouble::Away(_))) {
            self.away_since = None;
        }
        let busy = match taken {
            Ok(Taken::Ours(lease)) => {
                let kept =
                    HeldLease::keep(self.holder.clone(), *lease, describe.clone(), screen.clone());
                return Ok(match kept {
                    Ok(lease) => TryLease::Held(lease),
                    Err(error) => TryLease::Unavailable(error.to_string()),
                });
            }
            Ok(Taken::Others(busy)) => busy,
            Err(Trouble::Conflict) => Busy {
                holder: format!("another pod, which is acquiring the Lease `{}`", self.holder),
                progress: String::new(),
            },
            // Not the Lease, which would be made: the namespace.
            Err(Trouble::NotFound) => {
                let why = format!("there is no namespace `{}`", self.holder.api.namespace);
                return Err(self.refused(Refusal { status: Some(404), why }));
            }
            Err(Trouble::Refused(refusal)) => return Err(self.refused(refusal)),
            Err(Trouble::Away(why)) => {
                if self.away_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                    return Ok(TryLease::Unavailable(why));
                }
                Busy { holder: format!("the Kubernetes API ({why})"), progress: String::new() }
            }
        };
        self.last = Some((Instant::now(), busy.clone()));
        Ok(TryLease::Busy(busy))
    }

    async fn take(&mut self) -> Result<Taken, Trouble> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(self.holder.api.client()?).clone(),
        };
        let api = &self.holder.api;
        let Some(mut lease) = api.get(&client, &self.holder.name).await? else {
            let mut lease = ApiLease::default();
            lease.metadata.name = Some(self.holder.name.clone());
            self.holder.sign(&mut lease);
            return api.create(&client, &lease).await.map(|lease| Taken::Ours(Box::new(lease)));
        };
        let version = lease.metadata.resource_version.clone();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, Instant::now()));
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let other = spec.holder_identity.filter(|it| !it.is_empty() && *it != self.holder.identity);
        if let Some(other) = other {
            // As long as it says itself, within reason.
            let seconds = spec.lease_duration_seconds.unwrap_or(LEASE_SECONDS).clamp(1, 60);
            let lasts = Duration::from_secs(seconds.unsigned_abs().into());
            if self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() < lasts) {
                let mut annotations = lease.metadata.annotations.unwrap_or_default();
                let (progress, node) = (annotations.remove(PROGRESS), annotations.remove(NODE));
                let (pod, lease) = (text::inert(&other, 100), &self.holder);
                let node = node.map(|node| format!(" on node {}", text::inert(&node, 80)));
                let node = node.unwrap_or_default();
                let holder = format!("pod `{pod}`{node}, which holds the Lease `{lease}`");
                let progress = progress.unwrap_or_default();
                return Ok(Taken::Others(Busy { holder, progress }));
            }
        }
        self.holder.sign(&mut lease);
        api.replace(&client, &lease).await.map(|lease| Taken::Ours(Box::new(lease)))
    }
}

impl Holder {
    /// Makes the Lease ours.
    fn sign(&self, lease: &mut ApiLease) {
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        let time = now();
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            spec.lease_transitions =
                Some(spec.lease_transitions.map_or(0, |n| n.saturating_add(1)));
            spec.acquire_time = Some(time.clone());
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(LEASE_SECONDS);
        spec.renew_time = Some(time);
        lease.metadata.managed_fields = None;
        let annotations = lease.metadata.annotations.get_or_insert_default();
        match environment::text("NODE_NAME") {
            Some(node) => _ = annotations.insert(NODE.into(), node),
            // That of the holder before.
            None => _ = annotations.remove(NODE),
        }
    }
}

/// A family has a name that a Lease cannot have: then a hash of it tells it from its like.
fn default_name(family: &ModelDir) -> String {
    let path = family.path().as_str();
    let plain: String = path
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(200)
        .collect();
    let plain = plain.trim_matches('-');
    let name = if plain.is_empty() { "weightlift".into() } else { format!("weightlift-{plain}") };
    if plain == path {
        return name;
    }
    let hash = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, path.as_bytes());
    format!("{name}-{hash:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_a_name_of_its_own_that_is_name() {
        let name = |family: &str| default_name(&ModelDir::parse(family).expect("a family"));
        assert_eq!(name("llama-3-8b"), "weightlift-llama-3-8b");
        let families = ["a/b", "a-b", "a_b", "A-b", "é", "ü", "-a", "llama-3.1", &"x".repeat(250)];
        let mut names: Vec<String> = families.iter().map(|family| name(family)).collect();
        assert!(names.iter().all(|name| is_name(name)), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), families.len(), "{names:?}");
        for wrong in ["", "-a", "a-", "A", "a/b", "a b", &"x".repeat(254)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
