//! Which revisions of a family may be removed. Decided from facts alone, so that it is one table.

use std::time::Duration;

/// Other nodes may show a revision although this one does not see it yet: a network filesystem answers from
/// its caches for a minute.
const SEEN_WITHIN: Duration = Duration::from_secs(90);

/// What is kept of the revisions that were replaced. A revision goes only if both let it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// So many, the ones that were replaced last.
    pub revisions: usize,
    /// And those that were replaced less than this ago. Clocks of filesystems are coarse: what was replaced
    /// a moment ago has an age of nothing.
    pub time: Duration,
}

impl Keep {
    /// Whether the one that was replaced as the `n`th last, from 0, and `age` ago, is kept.
    pub fn keeps(self, n: usize, age: Duration) -> bool {
        n < self.revisions || age < self.time
    }
}

/// What leads to a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedBy {
    Nothing,
    /// The family shows it.
    Family,
    /// Another link on the volume.
    Link,
    /// Nobody can tell what the family shows.
    Unknown,
}

/// What is known of a revision.
#[derive(Clone, Copy, Debug)]
pub struct RevisionFacts {
    pub led_by: LedBy,
    /// How many kept revisions of the family were replaced later.
    pub newer: usize,
    /// How long ago it was replaced; of the one that is shown, how long ago it was published.
    pub age: Duration,
    /// Whether other nodes may mount the volume at the same time.
    pub is_shared: bool,
    /// Whether the user wants this family at all.
    pub is_named: bool,
}

/// Whether `prune` removes a revision.
pub fn is_pruned(facts: RevisionFacts, keep: Keep) -> bool {
    if facts.is_shared && facts.age < SEEN_WITHIN {
        return false;
    }
    match facts.led_by {
        LedBy::Link | LedBy::Unknown => false,
        LedBy::Family => !facts.is_named && facts.age >= keep.time,
        LedBy::Nothing if facts.is_named => !keep.keeps(facts.newer, facts.age),
        LedBy::Nothing => facts.age >= keep.time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_revision_goes_only_if_count_and_age_let_it_go() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        for (revisions, time, n, age, is_kept) in [
            (2, hours(24), 0, hours(900), true),
            (2, hours(24), 1, hours(900), true),
            (2, hours(24), 2, hours(900), false),
            (2, hours(24), 2, hours(23), true),
            (2, hours(24), 9, hours(24), false),
            (2, hours(24), 9, hours(25), false),
            (0, hours(24), 0, hours(1), true),
            (0, hours(24), 0, hours(25), false),
            (2, hours(0), 1, hours(1), true),
            (2, hours(0), 2, hours(1), false),
            (0, hours(0), 0, hours(1), false),
            (0, hours(0), 0, hours(0), false),
        ] {
            let keep = Keep { revisions, time };
            assert_eq!(keep.keeps(n, age), is_kept, "{keep:?} {n} {age:?}");
        }
    }

    #[test]
    fn what_a_link_leads_to_stays_and_the_rest_goes_by_count_and_age() {
        use LedBy::{Family, Link, Nothing, Unknown};
        let (one, none) = (
            Keep { revisions: 1, time: Duration::ZERO },
            Keep { revisions: 0, time: Duration::ZERO },
        );
        let day = Keep { revisions: 0, time: HOUR * 24 };
        for (keep, led_by, newer, age, is_named, is_removed) in [
            (one, Nothing, 0, HOUR * 999, true, false),
            (one, Nothing, 1, HOUR, true, true),
            (one, Nothing, 1, Duration::ZERO, true, true),
            (none, Nothing, 0, HOUR, true, true),
            (day, Nothing, 5, HOUR * 23, true, false),
            (day, Nothing, 5, HOUR * 24, true, true),
            (none, Family, 0, HOUR * 999, true, false),
            (none, Link, 9, HOUR * 999, true, false),
            (none, Unknown, 9, HOUR * 999, true, false),
            // A family that nobody wants goes with all that it has; what a link leads to stays even so.
            (one, Nothing, 0, HOUR, false, true),
            (one, Family, 0, HOUR, false, true),
            (day, Family, 0, HOUR * 23, false, false),
            (day, Nothing, 0, HOUR * 23, false, false),
            (none, Link, 0, HOUR * 999, false, false),
            (none, Unknown, 0, HOUR * 999, false, false),
        ] {
            let facts = RevisionFacts { led_by, newer, age, is_shared: false, is_named };
            assert_eq!(is_pruned(facts, keep), is_removed, "{keep:?} {facts:?}");
        }
    }

    #[test]
    fn where_other_nodes_may_show_it_already_a_young_one_stays() {
        let keep = Keep { revisions: 0, time: Duration::ZERO };
        for (is_shared, seconds, is_removed) in
            [(true, 0, false), (true, 89, false), (true, 90, true), (false, 0, true)]
        {
            let age = Duration::from_secs(seconds);
            let led_by = LedBy::Nothing;
            let facts = RevisionFacts { led_by, newer: 0, age, is_shared, is_named: true };
            assert_eq!(is_pruned(facts, keep), is_removed, "{is_shared} {seconds}");
        }
    }
}
