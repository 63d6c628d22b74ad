//! Makes what has arrived survive a power cut, every few seconds, so that it is not fetched again.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::activity::Post;
use super::error::TransferError;
use super::shared::Shared;
use super::written::SMALL_BYTES;

/// A power cut loses about this much of time, and what is on its way.
const EVERY: Duration = Duration::from_secs(5);

/// Works until the transfer is over. The data of each file goes first, the journal after it.
pub fn checkpoint<'a>(
    shared: &'a Shared<'_>,
    _number: usize,
    _post: Post<'a>,
) -> Result<(), TransferError> {
    let mut last = 0;
    while !shared.desk.is_over_within(EVERY) {
        let fetched = shared.progress.fetched_bytes.load(Relaxed);
        if fetched == std::mem::replace(&mut last, fetched) {
            continue;
        }
        // Small files are done in no time.
        for job in shared.jobs.iter().filter(|job| job.file.size > SMALL_BYTES) {
            if let Some(staged) = job.staged() {
                shared.staging.keep(job.n, &staged)?;
            }
        }
        shared.staging.keep_journal()?;
    }
    Ok(())
}
