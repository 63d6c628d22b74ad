//! A Lease that is held: renewed on a thread of its own, released at the end.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::sync::oneshot;

use super::api::{Api, Trouble};
use super::error::Refusal;
use super::record::{ApiLease, LEASE_SECONDS, PROGRESS, RENEW_EVERY, now};
use crate::model::text;
use crate::report::Screen;

/// Bound on the release; a Lease that is not released runs out by itself.
const RELEASE_TAKES_AT_MOST: Duration = Duration::from_secs(2);

/// Tells how far the holder is: another text each time that it has moved.
pub type DescribeProgress = Arc<dyn Fn() -> String + Send + Sync>;

/// Which Lease, and who holds it or wants to.
#[derive(Clone)]
pub struct Holder {
    pub(crate) api: Api,
    pub(crate) name: String,
    pub(crate) identity: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.api.namespace, self.name)
    }
}

/// Ours until it is dropped.
#[derive(Debug)]
pub struct HeldLease {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HeldLease {
    pub(crate) fn keep(
        holder: Holder,
        lease: ApiLease,
        describe: DescribeProgress,
        screen: Screen,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("lease".into());
        let thread = thread
            .spawn(move || runtime.block_on(keep(&holder, lease, &describe, &screen, ended)))?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn keep(
    holder: &Holder,
    mut lease: ApiLease,
    describe: &DescribeProgress,
    screen: &Screen,
    mut ended: oneshot::Receiver<()>,
) {
    let Ok(client) = holder.api.client() else { return };
    let mut renewed = Instant::now();
    let mut is_told = false;
    loop {
        // By its own pace: a call that takes long must not delay the next.
        let pause = RENEW_EVERY.saturating_sub(renewed.elapsed()).max(Duration::from_secs(1));
        tokio::select! {
            _ = &mut ended => break,
            () = tokio::time::sleep(pause) => {}
        }
        let renewal = tokio::select! {
            _ = &mut ended => break,
            renewal = renew(&client, holder, &mut lease, describe()) => renewal,
        };
        match renewal {
            Ok(true) => {
                renewed = Instant::now();
                is_told = false;
            }
            Ok(false) => {
                screen.warn(&format!(
                    "another pod has acquired the Lease `{holder}`; both pods fetch; no data is lost"
                ));
                return;
            }
            Err(Trouble::Conflict | Trouble::NotFound) => {}
            Err(Trouble::Refused(Refusal { why, .. }) | Trouble::Away(why)) => {
                let lasts = Duration::from_secs(LEASE_SECONDS.unsigned_abs().into());
                if renewed.elapsed() >= lasts && !std::mem::replace(&mut is_told, true) {
                    screen.warn(&format!(
                        "could not renew the Lease `{holder}` for {} ({why}); another node may fetch \
                         as well",
                        text::duration(renewed.elapsed())
                    ));
                }
            }
        }
    }
    let _ = tokio::time::timeout(RELEASE_TAKES_AT_MOST, release(&client, holder, lease)).await;
}

/// Whether it still is ours, and renewed.
async fn renew(
    client: &Client,
    holder: &Holder,
    lease: &mut ApiLease,
    progress: String,
) -> Result<bool, Trouble> {
    let mut next = lease.clone();
    if let Some(spec) = &mut next.spec {
        spec.renew_time = Some(now());
    }
    next.metadata.annotations.get_or_insert_default().insert(PROGRESS.into(), progress);
    match holder.api.replace(client, &next).await {
        Ok(renewed) => {
            *lease = renewed;
            return Ok(true);
        }
        // Changed by another client, removed, or renewed by us in an answer that was lost.
        Err(Trouble::Conflict | Trouble::NotFound) => {}
        Err(away) => return Err(away),
    }
    match holder.api.get(client, &holder.name).await? {
        Some(now) if is_of(&now, holder) => {
            // The next renewal, a second from now, writes on top of this.
            *lease = now;
            Err(Trouble::Conflict)
        }
        Some(_) => Ok(false),
        None => {
            let mut created = lease.clone();
            created.metadata.resource_version = None;
            created.metadata.uid = None;
            created.metadata.creation_timestamp = None;
            created.metadata.managed_fields = None;
            *lease = holder.api.create(client, &created).await?;
            Ok(true)
        }
    }
}

async fn release(client: &Client, holder: &Holder, mut lease: ApiLease) {
    // Twice: a renewal whose answer was lost has changed its version.
    for _ in 0..2 {
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        match holder.api.replace(client, &lease).await {
            Err(Trouble::Conflict) => match holder.api.get(client, &holder.name).await {
                Ok(Some(now)) if is_of(&now, holder) => lease = now,
                _ => return,
            },
            _ => return,
        }
    }
}

fn is_of(lease: &ApiLease, holder: &Holder) -> bool {
    let identity = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref());
    identity == Some(&holder.identity)
}
