//! Asks the Kubernetes API whether this service account may use a Lease.

use std::path::Path;

use super::asking::{TIME_FOR_MUCH, Teller};
use super::verdict::cluster::lease;
use super::verdict::{Failure, Question};
use crate::error::Error;
use crate::lock::cluster::Permissions;

pub async fn check(teller: &Teller, account: &Path, name: Option<&str>) {
    let question = Question::of_cluster("lease");
    teller.asks_for(question.clone(), TIME_FOR_MUCH);
    teller.tell(match Permissions::of(account, name).await {
        Ok(found) => lease(&found),
        Err(error) => question.failed(Failure::of(&Error::from(error))),
    });
}
