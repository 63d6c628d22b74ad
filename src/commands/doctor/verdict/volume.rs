//! What follows from what a volume is, can do and holds.

use super::container::who;
use super::{Check, Failure, Question};
use crate::error::Class;
use crate::fs::access::Owned;
use crate::fs::nature::LockReach;
use crate::fs::space::Space;
use crate::model::{Message, text};
use crate::volume::{Condition, Lack, Obstacle, Trial};

/// Below this a model hardly fits.
const LITTLE_SPACE: u64 = 1 << 30;
/// Metadata, journal and sentinel need as much.
const LEAST_SPACE: u64 = 2 << 20;
const LITTLE_INODES: u64 = 1_000;
const LEAST_INODES: u64 = 32;

/// Who looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Us {
    pub user: u32,
    pub group: u32,
    pub groups: Vec<u32>,
}

/// What lies below a root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// How many, and bytes.
    pub models: (usize, u64),
    pub kept: (usize, u64),
    pub at_work: usize,
    /// Whose process is gone or silent.
    pub left: (usize, u64),
    pub volumes_below: Vec<String>,
    pub problems: Vec<String>,
}

/// Where there is no root; `above` is the directory above it that is there, and why it cannot be made there.
pub fn missing(root: &str, is_named: bool, above: &str, obstacle: Option<Obstacle>) -> Check {
    let question = Question::of_volume("root");
    let value = format!("`{root}` does not exist");
    match obstacle {
        _ if !is_named => question.warning(value, "name the directory of the models with --root"),
        None => question.warning(
            format!("{value}; a fetch makes it in `{above}`"),
            "check that the volume is mounted there",
        ),
        Some(_) => question.fails(
            Class::Unusable,
            format!("{value}, and cannot be made in `{above}`"),
            "mount the volume there, or give this user write permission (fsGroup)",
        ),
    }
}

pub fn judge(root: &str, found: &Condition, us: &Us) -> Vec<Check> {
    let mut checks = vec![kind(root, found)];
    let is_read_only = found.space.is_some_and(|space| space.is_read_only);
    checks.push(writable(root, is_read_only));
    checks.extend(found.space.map(space));
    checks.extend(found.space.and_then(inodes));
    checks.push(owner(root, found.owned, found.obstacle, us, is_read_only));
    if let Some((path, owned, obstacle)) = &found.state {
        let path = path.display().to_string();
        let owner = owner(&path, *owned, *obstacle, us, is_read_only);
        let question = Question::of_volume("working-area");
        checks.push(Check { question, ..owner });
    }
    checks
}

fn kind(root: &str, found: &Condition) -> Check {
    Question::of_volume("filesystem").ok(format!("`{root}` is on {}", found.nature.name))
}

fn writable(root: &str, is_read_only: bool) -> Check {
    let question = Question::of_volume("writable");
    match is_read_only {
        false => question.ok("mounted for writing"),
        true => question.warning(
            format!("`{root}` is mounted read-only; nothing was tried there"),
            "mount it for writing if this pod has to fetch; reading is enough to wait, verify and serve",
        ),
    }
}

fn space(space: Space) -> Check {
    let question = Question::of_volume("space");
    let value =
        format!("{} free of {}", text::size(space.free_bytes), text::size(space.total_bytes));
    let hint =
        "enlarge the volume, or remove what is not needed (`weightlift list`, `weightlift prune`)";
    match space.free_bytes {
        free if space.is_read_only || free >= LITTLE_SPACE => question.ok(value),
        free if free < LEAST_SPACE => question.fails(Class::NoSpace, value, hint),
        _ => question.warning(value, hint),
    }
}

fn inodes(space: Space) -> Option<Check> {
    let (free, total) = space.inodes?;
    let question = Question::of_volume("inodes");
    let value = format!("{free} free of {total}");
    let hint = "remove small files, or use a volume with more inodes";
    Some(match free {
        free if space.is_read_only || free >= LITTLE_INODES => question.ok(value),
        free if free < LEAST_INODES => question.fails(Class::NoSpace, value, hint),
        _ => question.warning(value, hint),
    })
}

fn owner(
    path: &str,
    owned: Owned,
    obstacle: Option<Obstacle>,
    us: &Us,
    is_read_only: bool,
) -> Check {
    let question = Question::of_volume("owner");
    let Owned { uid, gid, mode, .. } = owned;
    let we = who(us.user, us.group, &us.groups);
    let value =
        format!("`{path}` belongs to user {uid}, group {gid}, mode {mode:04o}; we are {we}");
    match obstacle {
        None => question.ok(value),
        // Told once; and whoever only reads need not own it.
        Some(_) if is_read_only => question.ok(value),
        Some(obstacle) => {
            // Whose it is was told, and nobody has named a DEST.
            let obstacle = match obstacle {
                Obstacle::Closed { user, .. } => Obstacle::Closed { user, owned: None },
                other => other,
            };
            let lack = Lack::Obstacle { path: path.into(), obstacle };
            let Message { what, hint } = lack.message();
            let hint = hint.unwrap_or_default().replace(", or choose another DEST", "");
            question.fails(Class::Unusable, format!("{value}: it {what}"), &hint)
        }
    }
}

/// What can be done on it.
pub fn operations(tried: &Trial) -> Check {
    let question = Question::of_volume("operations");
    let able = &tried.abilities;
    let all = [
        ("rename", able.renames_files && able.renames_directories),
        ("exchange", able.exchanges),
        ("symbolic link", able.symbolic_links),
        ("hard link", able.hard_links),
        ("shared blocks", tried.shares_blocks),
        ("allocate", tried.allocates),
        ("fsync", able.syncs),
        ("remove", able.removes),
    ];
    let named = |is: bool| {
        let of = all.iter().filter(|(_, works)| *works == is).map(|(name, _)| *name);
        of.collect::<Vec<_>>().join(", ")
    };
    let without = Some(named(false)).filter(|names| !names.is_empty());
    let without = without.map(|names| format!("; without: {names}")).unwrap_or_default();
    let value = format!("works: {}{without}", named(true));
    match &tried.way {
        Err(Lack::OneStep) => question.fails(
            Class::Unusable,
            format!("{value}: no way to let a model appear in one step"),
            "use a volume of another kind, or --allow-degraded to fill the directory file by file",
        ),
        Err(lack) => {
            let Message { what, hint } = lack.message();
            let class = match lack {
                Lack::Size { .. } => Class::NoSpace,
                _ => Class::Unusable,
            };
            question.fails(class, format!("{value}: {what}"), &hint.unwrap_or_default())
        }
        Ok(_) if !able.hard_links && !tried.shares_blocks => question.warning(
            value,
            "an update copies the files that it has in common with the older revision: it needs room \
             for both",
        ),
        Ok(_) => question.ok(value),
    }
}

/// Whether two processes, and two nodes, fetch a model once.
pub fn locks(reach: LockReach, works: bool) -> Check {
    let question = Question::of_volume("locks");
    match (works, reach) {
        (false, _) => question.warning(
            "no locks: pods that start together may fetch the same bytes",
            "use --lock kubernetes, or a volume with locks (NFS: mount without nolock)",
        ),
        (true, LockReach::OneNode) => {
            question.ok("work; the filesystem is that of one node at a time")
        }
        (true, LockReach::EveryNode) => question.ok("work, and are seen by every node"),
        (true, LockReach::Unknown) => question.warning(
            "work on this node; other nodes may not see them",
            "use --lock kubernetes where several nodes fetch onto this volume",
        ),
    }
}

pub fn content(found: &Content) -> Vec<Check> {
    let many = |(count, bytes): (usize, u64), what: &str| {
        format!("{} ({})", text::count(count, what), text::size(bytes))
    };
    let mut value = format!(
        "{}, {}, {}",
        many(found.models, "model"),
        many(found.kept, "kept revision"),
        many(found.left, "attempt") + " left by runs that have ended",
    );
    if found.at_work > 0 {
        value += &format!(", {} at work", text::count(found.at_work, "attempt"));
    }
    let question = Question::of_volume("content");
    let mut checks = vec![match (found.problems.first(), found.left) {
        (Some(first), _) => question.warning(
            format!("{value}; not read: {first}"),
            "look at that with `weightlift list`",
        ),
        (None, (0, _)) => question.ok(value),
        (None, _) => question.warning(
            value,
            "a fetch of the same model resumes them; `weightlift prune` removes those that are dead",
        ),
    }];
    if !found.volumes_below.is_empty() {
        let below = found.volumes_below.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        checks.push(
            Question::of_volume("mounts")
                .ok(format!("other volumes are mounted below, each a root of its own: {below}")),
        );
    }
    checks
}

/// The sentence of what kept something from being looked at.
pub fn not_looked_at(name: &'static str, failure: Failure) -> Check {
    Question::of_volume(name).failed(failure)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::fs::nature::Nature;
    use crate::volume::{Abilities, Way};

    const FAILS: Verdict = Verdict::Fails(Class::Unusable);
    const FULL: Verdict = Verdict::Fails(Class::NoSpace);

    fn us() -> Us {
        Us { user: 65_532, group: 65_532, groups: vec![2_000] }
    }

    fn condition() -> Condition {
        Condition {
            nature: Nature { name: "ext4".into(), reach: LockReach::OneNode },
            space: Some(Space {
                free_bytes: 10 << 30,
                total_bytes: 20 << 30,
                inodes: Some((5_000, 6_000)),
                is_read_only: false,
            }),
            owned: Owned { uid: 0, gid: 2_000, mode: 0o775, ..Owned::default() },
            obstacle: None,
            state: None,
        }
    }

    fn trial() -> Trial {
        let abilities = Abilities::all();
        Trial { abilities, way: Ok(Way::Link), shares_blocks: false, allocates: true }
    }

    #[track_caller]
    fn assert_verdict(checks: &[Check], name: &str, expected: Verdict) {
        let check = checks.iter().find(|it| it.question.name == name).expect(name);
        assert_eq!(check.verdict, expected, "{check:?}");
        assert_eq!(check.hint.is_some(), expected != Verdict::Ok, "{check:?}");
    }

    #[test]
    fn what_a_volume_is_decides() {
        let of = |change: &dyn Fn(&mut Condition)| {
            let mut found = condition();
            change(&mut found);
            judge("/m", &found, &us())
        };
        let with_space =
            |change: fn(&mut Space)| of(&|found| found.space.iter_mut().for_each(change));
        assert!(of(&|_| ()).iter().all(|it| it.verdict == Verdict::Ok));
        for (name, checks, expected) in [
            ("space", with_space(|it| it.free_bytes = 0), FULL),
            ("space", with_space(|it| it.free_bytes = 100 << 20), Verdict::Warning),
            ("space", with_space(|it| it.free_bytes = 1 << 30), Verdict::Ok),
            ("inodes", with_space(|it| it.inodes = Some((31, 99))), FULL),
            ("inodes", with_space(|it| it.inodes = Some((999, 9_999))), Verdict::Warning),
            ("writable", with_space(|it| it.is_read_only = true), Verdict::Warning),
            (
                "owner",
                of(&|it| it.obstacle = Some(Obstacle::Closed { user: 65_532, owned: None })),
                FAILS,
            ),
            ("owner", of(&|it| it.obstacle = Some(Obstacle::Immutable)), FAILS),
            (
                "working-area",
                of(&|it| {
                    let obstacle = Some(Obstacle::Closed { user: 65_532, owned: None });
                    it.state = Some(("/m/.weightlift".into(), Owned::default(), obstacle));
                }),
                FAILS,
            ),
            (
                "working-area",
                of(&|it| it.state = Some(("/m/.weightlift".into(), Owned::default(), None))),
                Verdict::Ok,
            ),
        ] {
            assert_verdict(&checks, name, expected);
        }
        // What is only read needs no room, and is closed to everybody.
        let read_only = of(&|found| {
            found.space.iter_mut().for_each(|it| (it.is_read_only, it.free_bytes) = (true, 0));
            found.obstacle = Some(Obstacle::ReadOnly);
        });
        assert_verdict(&read_only, "owner", Verdict::Ok);
        assert_verdict(&read_only, "space", Verdict::Ok);
        let of_another = of(&|found| {
            found.space.iter_mut().for_each(|it| it.is_read_only = true);
            found.obstacle = Some(Obstacle::Closed { user: 65_532, owned: None });
        });
        assert_verdict(&of_another, "owner", Verdict::Ok);
        // Where nothing is told nothing is said.
        let silent = of(&|found| found.space = None);
        assert!(silent.iter().all(|it| it.question.name != "space"));
    }

    #[test]
    fn a_root_that_is_not_there_can_be_made_or_not() {
        let closed = Some(Obstacle::Closed { user: 1, owned: None });
        for (is_named, obstacle, expected) in [
            (true, None, Verdict::Warning),
            (true, closed, FAILS),
            (false, None, Verdict::Warning),
            (false, closed, Verdict::Warning),
        ] {
            let check = missing("/m", is_named, "/", obstacle);
            assert_verdict(&[check], "root", expected);
        }
    }

    #[test]
    fn what_a_volume_can_do_decides() {
        let of = |change: &dyn Fn(&mut Trial)| {
            let mut tried = trial();
            change(&mut tried);
            [operations(&tried)]
        };
        for (checks, expected) in [
            (of(&|_| ()), Verdict::Ok),
            (of(&|it| it.abilities.exchanges = false), Verdict::Ok),
            (of(&|it| it.abilities.hard_links = false), Verdict::Warning),
            (
                of(&|it| {
                    it.abilities.hard_links = false;
                    it.shares_blocks = true;
                }),
                Verdict::Ok,
            ),
            (of(&|it| it.way = Err(Lack::OneStep)), FAILS),
            (of(&|it| it.way = Err(Lack::Sync)), FAILS),
            (of(&|it| it.way = Err(Lack::Removal)), FAILS),
            (of(&|it| it.way = Err(Lack::Size { bytes: 1, name: "x".into() })), FULL),
        ] {
            assert_verdict(&checks, "operations", expected);
        }
        assert!(
            of(&|it| it.allocates = false)[0].value.ends_with("without: shared blocks, allocate")
        );
        for (works, reach, expected) in [
            (true, LockReach::OneNode, Verdict::Ok),
            (true, LockReach::EveryNode, Verdict::Ok),
            (true, LockReach::Unknown, Verdict::Warning),
            (false, LockReach::OneNode, Verdict::Warning),
        ] {
            assert_verdict(&[locks(reach, works)], "locks", expected);
        }
    }

    #[test]
    fn what_lies_there_decides() {
        for (found, expected) in [
            (
                Content { models: (2, 9), kept: (1, 4), at_work: 1, ..Content::default() },
                Verdict::Ok,
            ),
            (Content { left: (1, 5), ..Content::default() }, Verdict::Warning),
            (Content { problems: vec!["x".into()], ..Content::default() }, Verdict::Warning),
        ] {
            assert_verdict(&content(&found), "content", expected);
        }
        let found = Content { volumes_below: vec!["/m/a".into()], ..Content::default() };
        assert_verdict(&content(&found), "mounts", Verdict::Ok);
    }
}
