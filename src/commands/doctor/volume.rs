//! Looks at the volume: what it is, what can be done there, and what lies on it.

use std::path::Path;

use super::asking::{TIME_FOR_A_QUESTION, TIME_FOR_MUCH, Teller};
use super::container::us;
use super::verdict::volume::{Content, content, judge, locks, missing, not_looked_at, operations};
use super::verdict::{Failure, Question};
use crate::cli::NamedRoot;
use crate::error::Error;
use crate::volume::{AttemptState, Condition, FamilyReport, StoreError, Survey, Trial};

pub fn check(teller: &Teller, root: &NamedRoot) {
    teller.asks(Question::of_volume("filesystem"));
    let path = root.path.display().to_string();
    let found = match Condition::of(&root.path) {
        Ok(Some(found)) => found,
        Ok(None) => return look_above(teller, root),
        Err(error) => return teller.tell(not_looked_at("root", failure(error))),
    };
    let us = us();
    judge(&path, &found, &us).into_iter().for_each(|check| teller.tell(check));
    let is_read_only = found.space.is_some_and(|space| space.is_read_only);
    let state_is_closed = found.state.as_ref().is_some_and(|(.., obstacle)| obstacle.is_some());
    if !is_read_only && found.obstacle.is_none() && !state_is_closed {
        teller.asks_for(Question::of_volume("operations"), TIME_FOR_A_QUESTION);
        match Trial::at(&root.path) {
            Ok(tried) => {
                teller.tell(operations(&tried));
                teller.tell(locks(found.nature.reach, tried.abilities.locks));
            }
            Err(error) => teller.tell(not_looked_at("operations", failure(error))),
        }
    }
    teller.asks_for(Question::of_volume("content"), TIME_FOR_MUCH);
    match lies_there(&root.path) {
        Ok(found) => content(&found).into_iter().for_each(|check| teller.tell(check)),
        Err(error) => teller.tell(not_looked_at("content", failure(error))),
    }
}

/// Where there is no root: can it be made?
fn look_above(teller: &Teller, root: &NamedRoot) {
    let path = root.path.display().to_string();
    for above in root.path.ancestors().skip(1) {
        match Condition::of(above) {
            Ok(Some(found)) => {
                let above = above.display().to_string();
                return teller.tell(missing(&path, root.is_named, &above, found.obstacle));
            }
            Ok(None) => {}
            Err(error) => return teller.tell(not_looked_at("root", failure(error))),
        }
    }
}

fn lies_there(root: &Path) -> Result<Content, StoreError> {
    let Some(survey) = Survey::of(root)? else { return Ok(Content::default()) };
    let below = survey.volumes_below();
    let mut found = Content {
        volumes_below: below.iter().map(|path| path.display().to_string()).collect(),
        problems: survey.problems.clone(),
        ..Content::default()
    };
    survey.each_family(&mut |family: FamilyReport| {
        let add = |(count, sum): &mut (usize, u64), bytes: u64| {
            *count += 1;
            *sum = sum.saturating_add(bytes);
        };
        if let Some(shown) = &family.shown {
            add(&mut found.models, shown.total_bytes);
        }
        family.kept.iter().for_each(|kept| add(&mut found.kept, kept.summary.total_bytes));
        for attempt in &family.attempts {
            match attempt.state {
                AttemptState::Working => found.at_work += 1,
                AttemptState::Silent | AttemptState::Gone | AttemptState::Removing => {
                    add(&mut found.left, attempt.bytes);
                }
            }
        }
        found.problems.extend(family.problems);
        Ok::<(), StoreError>(())
    })?;
    Ok(found)
}

fn failure(error: StoreError) -> Failure {
    Failure::of(&Error::from(error))
}
