//! What follows from what the user wants, what lies on the volume, and what is known of the source. The
//! only place that answers "does it have to be fetched?".

use super::{Accepted, Locked, Selection, Sentinel, SourceUri};

/// What the user wants of one model directory.
#[derive(Clone, Copy, Debug)]
pub struct Goal<'a> {
    pub uri: &'a SourceUri,
    pub selection: &'a Selection,
    /// A whole older copy will do where the source refuses, or cannot be reached.
    pub may_be_stale: bool,
    /// The directory becomes exactly this, whatever of ours it holds.
    pub replace: bool,
    /// Every file has been compared with a digest that the source published.
    pub compared: bool,
    /// The signature that was verified of it.
    pub signed: Option<&'a Accepted>,
    /// A server is led to the revision itself, so what the directory shows does not matter to it.
    pub linked: bool,
    /// What a lock file names. It alone counts, wherever the bytes have come from.
    pub locked: Option<&'a Locked>,
}

impl<'a> Goal<'a> {
    /// The revision that is meant, if nothing can change what that is.
    pub fn pin(&self) -> Option<&'a str> {
        self.locked.map(|locked| locked.revision.as_str()).or(self.uri.pinned_commit())
    }
}

/// What lies in the model directory.
#[derive(Clone, Copy, Debug)]
pub enum There<'a> {
    Nothing,
    /// A sentinel, and not all that it lists.
    Damaged(&'a Sentinel),
    Whole(&'a Sentinel),
}

/// What is known of the source by now.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// It has not been asked.
    Nothing,
    Revision(&'a str),
    /// It cannot be reached, says no, or what it holds cannot be fetched.
    Refusal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// What is wanted lies there.
    Present,
    /// The source has to say which revision it holds.
    Ask,
    /// Fetch that revision; what is there is replaced.
    Fetch,
    /// The same revision lies there and lacks files, or the proof of some: they are added.
    Extend,
    /// What is wanted is kept beside the directory, which goes on to show another revision.
    Beside,
    /// What is wanted is kept beside the directory, which is to show it again.
    Restore,
    /// A whole copy of another revision, or of one that nobody can compare, is used with a warning.
    Stale,
    /// Another model lies there. Only `--replace` takes it away.
    Conflict,
    /// The refusal ends the run.
    Fail,
}

pub fn decide(goal: Goal<'_>, there: There<'_>, known: Known<'_>) -> Decision {
    let (sentinel, is_whole) = match there {
        There::Nothing => return without_a_copy(known),
        There::Damaged(sentinel) => (sentinel, false),
        There::Whole(sentinel) => (sentinel, true),
    };
    if is_whole && goal.locked.is_some() && is_enough(goal, sentinel) {
        return Decision::Present;
    }
    if !sentinel.is_of(goal.uri) {
        return if goal.replace { without_a_copy(known) } else { Decision::Conflict };
    }
    if !is_whole {
        return without_a_copy(known);
    }
    let is_enough = is_enough(goal, sentinel);
    let pin = goal.pin();
    match known {
        _ if pin == Some(sentinel.revision.as_str()) && is_enough => Decision::Present,
        Known::Nothing => Decision::Ask,
        Known::Revision(revision) if pin.unwrap_or(revision) != sentinel.revision => {
            Decision::Fetch
        }
        Known::Revision(_) if is_enough => Decision::Present,
        Known::Revision(_) if goal.replace => Decision::Fetch,
        Known::Revision(_) => Decision::Extend,
        // A pin is never satisfied by another commit.
        Known::Refusal if pin.is_none() && goal.may_be_stale && is_enough => Decision::Stale,
        Known::Refusal => Decision::Fail,
    }
}

/// The same where a whole revision is kept beside the directory.
pub fn decide_with_kept(
    goal: Goal<'_>,
    there: There<'_>,
    kept: &Sentinel,
    known: Known<'_>,
) -> Decision {
    let decided = decide(goal, there, known);
    // A branch is what the directory follows; a pin is the wish of one pod.
    let is_of_one_pod = goal.linked && goal.pin().is_some() && !goal.replace;
    let is_short = match decided {
        Decision::Ask | Decision::Fetch | Decision::Extend | Decision::Fail => true,
        // Another model is shown, and the pod's own is kept: nothing has to be taken away for it.
        Decision::Conflict => is_of_one_pod,
        _ => false,
    };
    if !is_short || !is_wanted_revision(goal, &kept.revision, known) {
        return decided;
    }
    if !kept.is_of(goal.uri) || !is_enough(goal, kept) {
        return decided;
    }
    let shown = match there {
        // It takes nothing from anybody. Whoever carries it out hashes it: what was wrong may have been removed.
        There::Nothing if goal.pin().is_some() => return Decision::Restore,
        There::Nothing => return decided,
        There::Damaged(shown) | There::Whole(shown) => shown,
    };
    if is_of_one_pod && (decided == Decision::Conflict || matches!(there, There::Whole(_))) {
        return Decision::Beside;
    }
    if goal.pin().is_none() && matches!(there, There::Damaged(_)) || !shown.is_of(goal.uri) {
        return decided;
    }
    // To go back must take nothing away that others have asked for, and nor may an extension.
    let loses =
        shown.revision == kept.revision || !shown.asked().all(|selection| kept.has(selection));
    if loses && !goal.replace { decided } else { Decision::Restore }
}

/// Whether `revision` is what is asked for, as far as that is known.
pub fn is_wanted_revision(goal: Goal<'_>, revision: &str, known: Known<'_>) -> bool {
    match (goal.pin(), known) {
        (Some(pin), _) => pin == revision,
        (None, Known::Revision(current)) => current == revision,
        (None, Known::Nothing | Known::Refusal) => false,
    }
}

/// Whether a copy has all that is wanted of its revision.
fn is_enough(goal: Goal<'_>, sentinel: &Sentinel) -> bool {
    if goal.signed.is_some_and(|accepted| !accepted.has(sentinel.signed.as_ref())) {
        return false;
    }
    if let Some(locked) = goal.locked {
        return if goal.replace { locked.is_exactly(sentinel) } else { locked.is_in(sentinel) };
    }
    let is_selected = if goal.replace {
        sentinel.is_exactly(goal.selection)
    } else {
        sentinel.has(goal.selection)
    };
    // What was not compared when it was fetched may be now: the source is asked for its digests.
    is_selected && (!goal.compared || sentinel.is_compared())
}

fn without_a_copy(known: Known<'_>) -> Decision {
    match known {
        Known::Nothing => Decision::Ask,
        Known::Revision(_) => Decision::Fetch,
        Known::Refusal => Decision::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LeftOut, RelPath, SentinelFile, Sha256, Signed};

    const OLD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const NEW: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn only(pattern: &str) -> Selection {
        Selection { include: vec![pattern.into()], ..Selection::default() }
    }

    /// A copy of `hf://org/name` at the old revision, which has `a.json`, `b.json` and `c.json`.
    fn copy(selection: Selection, also: Vec<Selection>, has: &[&str]) -> Sentinel {
        let uri = SourceUri::parse("hf://org/name").expect("a source");
        let all = ["a.json", "b.json", "c.json"];
        let file = |path: &&str| SentinelFile {
            path: (*path).into(),
            size: 1,
            sha256: Sha256([0; 32]),
            verified_by: "sha256".into(),
            published: None,
            validator: None,
            xet_hash: None,
            stored: None,
            structure: None,
        };
        let left =
            |path: &&str| LeftOut { path: (*path).into(), size: 1, why: "not included".into() };
        let mut sentinel = Sentinel::new(
            &uri,
            uri.source_name(),
            OLD.into(),
            selection,
            "now".into(),
            has.iter().map(file).collect(),
            all.iter().filter(|path| !has.contains(path)).map(left).collect(),
        );
        sentinel.also = also;
        sentinel
    }

    fn goal<'a>(uri: &'a SourceUri, selection: &'a Selection) -> Goal<'a> {
        Goal {
            uri,
            selection,
            may_be_stale: true,
            replace: false,
            compared: false,
            signed: None,
            linked: false,
            locked: None,
        }
    }

    #[test]
    fn what_follows_from_goal_copy_and_source() {
        use Decision::*;
        let everything = || copy(Selection::default(), vec![], &["a.json", "b.json", "c.json"]);
        let (only_a, both) = (
            copy(only("a.json"), vec![], &["a.json"]),
            copy(only("b.json"), vec![only("a.json")], &["a.json", "b.json"]),
        );
        let all = Selection::default();
        let (main, pinned, moved) =
            ("hf://org/name", format!("hf://org/name@{OLD}"), format!("hf://org/name@{NEW}"));
        let other = "hf://org/other";
        let (a, b, c) = (only("a.json"), only("b.json"), only("*.json"));
        let renamed = Sentinel { renamed_to: Some(other.into()), ..everything() };
        let everything = everything();
        // (what is asked for, with which selection, copy, [nothing known, old, new, refusal]); the last
        // two columns: the same with --replace, and with --if-stale=fail, where that differs.
        type Row<'a> = (&'a str, &'a Selection, There<'a>, [Decision; 4]);
        let rows: Vec<Row<'_>> = vec![
            // Nothing, or nothing that counts.
            (main, &all, There::Nothing, [Ask, Fetch, Fetch, Fail]),
            (&pinned, &all, There::Nothing, [Ask, Fetch, Fetch, Fail]),
            (main, &all, There::Damaged(&everything), [Ask, Fetch, Fetch, Fail]),
            (&pinned, &all, There::Damaged(&everything), [Ask, Fetch, Fetch, Fail]),
            // A whole copy of everything.
            (main, &all, There::Whole(&everything), [Ask, Present, Fetch, Stale]),
            (&pinned, &all, There::Whole(&everything), [Present, Present, Present, Present]),
            (&moved, &all, There::Whole(&everything), [Ask, Fetch, Fetch, Fail]),
            // A narrower wish lies there as well.
            (main, &a, There::Whole(&everything), [Ask, Present, Fetch, Stale]),
            (&pinned, &a, There::Whole(&everything), [Present, Present, Present, Present]),
            // A part of it: what is asked for, more, something else.
            (main, &a, There::Whole(&only_a), [Ask, Present, Fetch, Stale]),
            (main, &all, There::Whole(&only_a), [Ask, Extend, Fetch, Fail]),
            (main, &b, There::Whole(&only_a), [Ask, Extend, Fetch, Fail]),
            (&pinned, &a, There::Whole(&only_a), [Present, Present, Present, Present]),
            (&pinned, &b, There::Whole(&only_a), [Ask, Extend, Extend, Fail]),
            // Two parts, of two pods: each finds its own.
            (main, &a, There::Whole(&both), [Ask, Present, Fetch, Stale]),
            (main, &b, There::Whole(&both), [Ask, Present, Fetch, Stale]),
            (main, &c, There::Whole(&both), [Ask, Extend, Fetch, Fail]),
            // Another model.
            (other, &all, There::Whole(&everything), [Conflict; 4]),
            (other, &all, There::Damaged(&everything), [Conflict; 4]),
            (other, &all, There::Whole(&renamed), [Ask, Present, Fetch, Stale]),
        ];
        let known = [Known::Nothing, Known::Revision(OLD), Known::Revision(NEW), Known::Refusal];
        for (n, (uri, selection, there, expected)) in rows.iter().enumerate() {
            let uri = SourceUri::parse(uri).expect("a source");
            let goal = goal(&uri, selection);
            assert_eq!(known.map(|known| decide(goal, *there, known)), *expected, "row {n}");
            // Who may not be stale fails in place of that, and nothing else changes.
            let strict = Goal { may_be_stale: false, ..goal };
            let expected = expected.map(|it| if it == Stale { Fail } else { it });
            assert_eq!(known.map(|known| decide(strict, *there, known)), expected, "row {n}");
        }
        // With --replace there is no conflict and no union: exactly this selection, or it is fetched.
        let rows: Vec<Row<'_>> = vec![
            (other, &all, There::Whole(&everything), [Ask, Fetch, Fetch, Fail]),
            (other, &all, There::Damaged(&everything), [Ask, Fetch, Fetch, Fail]),
            (main, &all, There::Whole(&everything), [Ask, Present, Fetch, Stale]),
            (&pinned, &all, There::Whole(&everything), [Present, Present, Present, Present]),
            (main, &a, There::Whole(&everything), [Ask, Fetch, Fetch, Fail]),
            (&pinned, &a, There::Whole(&everything), [Ask, Fetch, Fetch, Fail]),
            (&pinned, &b, There::Whole(&both), [Ask, Fetch, Fetch, Fail]),
            (main, &a, There::Whole(&only_a), [Ask, Present, Fetch, Stale]),
        ];
        for (n, (uri, selection, there, expected)) in rows.iter().enumerate() {
            let uri = SourceUri::parse(uri).expect("a source");
            let goal = Goal { replace: true, ..goal(&uri, selection) };
            assert_eq!(known.map(|known| decide(goal, *there, known)), *expected, "replace {n}");
        }
        // A copy with a file that was compared with nothing, where that is asked for.
        let mut unproved = everything.clone();
        unproved.files[1].verified_by = "unpublished".into();
        let rows: Vec<Row<'_>> = vec![
            (main, &all, There::Whole(&everything), [Ask, Present, Fetch, Stale]),
            (main, &all, There::Whole(&unproved), [Ask, Extend, Fetch, Fail]),
            (&pinned, &all, There::Whole(&unproved), [Ask, Extend, Extend, Fail]),
        ];
        for (n, (uri, selection, there, expected)) in rows.iter().enumerate() {
            let uri = SourceUri::parse(uri).expect("a source");
            let goal = Goal { compared: true, ..goal(&uri, selection) };
            assert_eq!(known.map(|known| decide(goal, *there, known)), *expected, "compared {n}");
        }
    }

    #[test]
    fn a_copy_counts_as_signed_by_its_record_alone() {
        use Decision::*;
        let by = |by: &str| Accepted {
            method: "key",
            by: vec![by.into()],
            file: RelPath::parse("model.sig").expect("a path"),
            ignored: Vec::new(),
        };
        let unsigned = copy(Selection::default(), vec![], &["a.json", "b.json", "c.json"]);
        let record = Signed {
            method: "key".into(),
            by: "aa".into(),
            certificate: None,
            file: "model.sig".into(),
            ignored: Vec::new(),
            verified_at: "now".into(),
        };
        let signed = Sentinel { signed: Some(record), ..unsigned.clone() };
        let (all, main) =
            (Selection::default(), SourceUri::parse("hf://org/name").expect("a source"));
        let pinned = SourceUri::parse(&format!("hf://org/name@{OLD}")).expect("a source");
        let known = [Known::Nothing, Known::Revision(OLD), Known::Revision(NEW), Known::Refusal];
        let (ours, other) = (by("aa"), by("bb"));
        for (n, (uri, accepted, sentinel, expected)) in [
            (&main, &ours, &signed, [Ask, Present, Fetch, Stale]),
            (&pinned, &ours, &signed, [Present, Present, Present, Present]),
            (&main, &ours, &unsigned, [Ask, Extend, Fetch, Fail]),
            (&pinned, &ours, &unsigned, [Ask, Extend, Extend, Fail]),
            (&main, &other, &signed, [Ask, Extend, Fetch, Fail]),
            (&pinned, &other, &signed, [Ask, Extend, Extend, Fail]),
        ]
        .into_iter()
        .enumerate()
        {
            let goal = Goal { signed: Some(accepted), ..goal(uri, &all) };
            let decided = known.map(|known| decide(goal, There::Whole(sentinel), known));
            assert_eq!(decided, expected, "row {n}");
        }
        // What is kept beside it must be signed as well.
        let shown = Sentinel { revision: NEW.into(), ..unsigned.clone() };
        let goal = Goal { signed: Some(&ours), ..goal(&pinned, &all) };
        let with = |kept| decide_with_kept(goal, There::Whole(&shown), kept, Known::Nothing);
        assert_eq!((with(&unsigned), with(&signed)), (Ask, Restore));
    }

    /// The old revision is kept, and the new one is shown unless the row says otherwise.
    #[test]
    fn what_follows_where_a_revision_is_kept() {
        use Decision::*;
        let (all, a, b) = (Selection::default(), only("a.json"), only("b.json"));
        let files = ["a.json", "b.json", "c.json"];
        let at = |revision: &str, sentinel| Sentinel { revision: revision.into(), ..sentinel };
        let everything = || copy(Selection::default(), vec![], &files);
        let (kept, kept_a) = (everything(), copy(only("a.json"), vec![], &["a.json"]));
        let (shown, shown_a) = (at(NEW, everything()), at(NEW, kept_a.clone()));
        let shown_both = at(NEW, copy(only("b.json"), vec![only("a.json")], &["a.json", "b.json"]));
        let foreign = Sentinel { source: "hf://org/other".into(), ..shown.clone() };
        let mut unproved = kept.clone();
        unproved.files[1].verified_by = "unpublished".into();
        let (main, pinned) = ("hf://org/name", format!("hf://org/name@{OLD}"));
        let other_pin = format!("hf://org/name@{}", "c".repeat(40));
        // (what is asked for, with which selection, what is shown, what is kept, [nothing known, old,
        // new, refusal]), first without a link, then with one.
        type Row<'a> = (&'a str, &'a Selection, There<'a>, &'a Sentinel, [[Decision; 4]; 2]);
        let same = |decisions| [decisions, decisions];
        let rows: Vec<Row<'_>> = vec![
            (&pinned, &all, There::Whole(&shown), &kept, [[Restore; 4], [Beside; 4]]),
            (&pinned, &a, There::Whole(&shown), &kept, [[Restore; 4], [Beside; 4]]),
            // What was removed or is damaged is shown again; nobody is led beside it.
            (&pinned, &all, There::Nothing, &kept, same([Restore; 4])),
            (&pinned, &all, There::Damaged(&shown), &kept, same([Restore; 4])),
            (&pinned, &a, There::Damaged(&shown_both), &kept_a, same([Ask, Fetch, Fetch, Fail])),
            (&pinned, &all, There::Damaged(&kept), &kept, same([Ask, Fetch, Fetch, Fail])),
            (&other_pin, &all, There::Nothing, &kept, same([Ask, Fetch, Fetch, Fail])),
            (&pinned, &b, There::Nothing, &kept_a, same([Ask, Fetch, Fetch, Fail])),
            (main, &all, There::Damaged(&shown), &kept, same([Ask, Fetch, Fetch, Fail])),
            // A branch that went back.
            (main, &all, There::Whole(&shown), &kept, same([Ask, Restore, Present, Stale])),
            (main, &all, There::Nothing, &kept, same([Ask, Fetch, Fetch, Fail])),
            // What is kept is not what is wanted.
            (&other_pin, &all, There::Whole(&shown), &kept, same([Ask, Fetch, Fetch, Fail])),
            (&pinned, &all, There::Whole(&shown), &kept_a, same([Ask, Fetch, Fetch, Fail])),
            (&pinned, &b, There::Whole(&shown), &kept_a, same([Ask, Fetch, Fetch, Fail])),
            // Another model is shown: only who is led beside it needs nothing of the directory.
            (&pinned, &all, There::Whole(&foreign), &kept, [[Conflict; 4], [Beside; 4]]),
            (&pinned, &all, There::Damaged(&foreign), &kept, [[Conflict; 4], [Beside; 4]]),
            (&pinned, &b, There::Whole(&foreign), &kept_a, same([Conflict; 4])),
            (&other_pin, &all, There::Whole(&foreign), &kept, same([Conflict; 4])),
            (main, &all, There::Whole(&foreign), &kept, same([Conflict; 4])),
            (&pinned, &all, There::Whole(&shown), &foreign, same([Ask, Fetch, Fetch, Fail])),
            // Nothing that others have asked for is taken away.
            (
                &pinned,
                &a,
                There::Whole(&shown_both),
                &kept_a,
                [[Ask, Fetch, Fetch, Fail], [Beside; 4]],
            ),
            (&pinned, &a, There::Whole(&shown_a), &kept_a, [[Restore; 4], [Beside; 4]]),
            // The same revision is shown with less.
            (
                &pinned,
                &all,
                There::Whole(&kept_a),
                &kept,
                [[Ask, Extend, Extend, Fail], [Beside; 4]],
            ),
            // It is shown with all that is wanted.
            (&pinned, &all, There::Whole(&kept), &kept, same([Present; 4])),
        ];
        let known = [Known::Nothing, Known::Revision(OLD), Known::Revision(NEW), Known::Refusal];
        for (n, (uri, selection, there, kept, expected)) in rows.iter().enumerate() {
            let uri = SourceUri::parse(uri).expect("a source");
            for (linked, expected) in [false, true].into_iter().zip(expected) {
                let goal = Goal { linked, ..goal(&uri, selection) };
                let found = known.map(|known| decide_with_kept(goal, *there, kept, known));
                assert_eq!(found, *expected, "row {n}, linked: {linked}");
            }
        }
        let uri = SourceUri::parse(&pinned).expect("a source");
        let linked = Goal { linked: true, ..goal(&uri, &all) };
        let there = There::Whole(&shown);
        let decided = |goal, kept| decide_with_kept(goal, there, kept, Known::Nothing);
        // Who requires digests is not led to what was compared with nothing.
        assert_eq!(decided(Goal { compared: true, ..linked }, &unproved), Ask);
        assert_eq!(decided(Goal { compared: true, ..linked }, &kept), Beside);
        // The directory is to become exactly this.
        let exactly = Goal { replace: true, ..linked };
        assert_eq!(decided(exactly, &kept), Restore);
        assert_eq!(decided(Goal { selection: &a, ..exactly }, &kept), Ask);
        let there = There::Whole(&foreign);
        assert_eq!(decide_with_kept(exactly, there, &kept, Known::Nothing), Ask);
    }
}
