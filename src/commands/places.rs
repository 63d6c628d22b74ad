//! Which directories the models of a run are published below, and what these say of those who share them. Asked on
//! threads of their own, all at once: a volume that does not answer holds up nobody but its own models.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::Place;
use crate::model::hf_cache::CachedModel;
use crate::volume::{Destination, Store};

/// Where one model is published.
pub type Target = (Destination, Option<CachedModel>);

/// What is not known by then counts for nothing.
pub const TIME_FOR_PLACES: Duration = Duration::from_secs(3);

/// Without an answer for so long, another thread goes on with the rest.
const STALLED_AFTER: Duration = Duration::from_millis(50);
const STACK_BYTES: usize = 512 << 10;

/// What is known of the places of `targets`, each once.
#[derive(Debug, Default)]
pub struct Places {
    pub known: Vec<(PathBuf, Place)>,
    /// Paths of models that were looked for and not found out about in time.
    pub silent: Vec<PathBuf>,
}

/// Looks at all of `targets`, for no longer than `time`.
pub fn places(targets: &[Target], time: Duration) -> Places {
    let targets: Arc<[Target]> = in_turn(targets, |(destination, _)| &destination.root).into();
    let roots = Mutex::new(BTreeSet::new());
    let answers = answers(targets.clone(), time, move |target| place(target, &roots));
    let mut found = Places::default();
    for ((destination, _), answer) in targets.iter().zip(answers) {
        match answer {
            Answer::Given(place) => found.known.extend(place),
            Answer::Awaited => found.silent.push(destination.path()),
            Answer::NotAsked => {}
        }
    }
    let mut seen = BTreeSet::new();
    found.known.retain(|(path, _)| seen.insert(path.clone()));
    found
}

/// The place of the models of `store`.
pub fn place_of(store: &Store) -> Option<(PathBuf, Place)> {
    Some((store.base_path(), store.place()?))
}

/// That of one model; `None` if it is a root that is known already, or cannot be told.
fn place(target: &Target, roots: &Mutex<BTreeSet<PathBuf>>) -> Option<(PathBuf, Place)> {
    let (destination, cache) = target;
    let roots = || roots.lock().unwrap_or_else(PoisonError::into_inner);
    let is_directory =
        || std::fs::symlink_metadata(destination.path()).is_ok_and(|found| found.is_dir());
    // Only a directory may be filled in place, or be a volume of its own.
    if destination.family.path().parent().is_none()
        && !is_directory()
        && roots().contains(&destination.root)
    {
        return None;
    }
    // Where it cannot be opened the fetch of that model says why.
    let store = match cache.clone() {
        Some(cache) => Store::open_in_cache(destination.clone(), cache),
        None => Store::open(destination.clone()),
    };
    let found = place_of(&store.ok()?)?;
    roots().insert(found.0.clone());
    Some(found)
}

/// The first of each root, then the second of each, and so on: a root with many models that does not answer comes
/// before few of others.
fn in_turn<T: Clone>(all: &[T], root: impl Fn(&T) -> &Path) -> Vec<T> {
    let mut before: BTreeMap<&Path, usize> = BTreeMap::new();
    let turn_of = |one| {
        let turn = before.entry(root(one)).or_default();
        *turn += 1;
        *turn
    };
    let turns: Vec<usize> = all.iter().map(turn_of).collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|n| turns[*n]);
    order.into_iter().map(|n| all[n].clone()).collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer<A> {
    Given(A),
    /// A thread hangs there.
    Awaited,
    NotAsked,
}

/// What `ask` says of each of `all` within `time`. One thread asks; each time that it hangs, another one goes on.
fn answers<T: Send + Sync + 'static, A: Send + 'static>(
    all: Arc<[T]>,
    time: Duration,
    ask: impl Fn(&T) -> A + Send + Sync + 'static,
) -> Vec<Answer<A>> {
    let until = Instant::now() + time;
    let (tell, told) = mpsc::channel();
    let (next, ask) = (Arc::new(AtomicUsize::new(0)), Arc::new(ask));
    let start = || {
        let (all, next, ask, tell) = (all.clone(), next.clone(), ask.clone(), tell.clone());
        let work = move || {
            loop {
                let n = next.fetch_add(1, SeqCst);
                let Some(one) = all.get(n) else { return };
                if tell.send((n, ask(one))).is_err() {
                    return;
                }
            }
        };
        // Not waited for: it may hang in the kernel.
        std::thread::Builder::new().name("place".into()).stack_size(STACK_BYTES).spawn(work)
    };
    let mut answers: Vec<Answer<A>> = all.iter().map(|_| Answer::NotAsked).collect();
    let mut missing = all.len();
    if missing > 0 && start().is_err() {
        return all.iter().map(|one| Answer::Given(ask(one))).collect();
    }
    while missing > 0 {
        let left = until.saturating_duration_since(Instant::now());
        match told.recv_timeout(left.min(STALLED_AFTER)) {
            Ok((n, answer)) => {
                answers[n] = Answer::Given(answer);
                missing -= 1;
            }
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {
                if next.load(SeqCst) < all.len() {
                    // Without one more thread, those that are there may still answer.
                    let _ = start();
                }
            }
            Err(_) => break,
        }
    }
    // From here on nobody begins another one.
    let asked = next.fetch_add(all.len(), SeqCst);
    for answer in answers.iter_mut().take(asked).filter(|it| matches!(it, Answer::NotAsked)) {
        *answer = Answer::Awaited;
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelDir;

    #[test]
    fn what_does_not_answer_keeps_nobody_from_being_asked() {
        // The sender lives as long as the test: who listens hangs.
        let (_never, silence) = mpsc::channel::<()>();
        let silence = Mutex::new(silence);
        let (first, last) = (Answer::Awaited, Answer::Given(4));
        let all: Arc<[u32]> = [1, 2, 0, 3].into();
        let found = answers(all, Duration::from_secs(2), move |n| {
            if *n == 1 {
                let _ = silence.lock().map(|silence| silence.recv());
            }
            n + 1
        });
        assert_eq!(found, [first, Answer::Given(3), Answer::Given(1), last]);
    }

    #[test]
    fn all_are_asked_once() {
        let counts: Arc<[AtomicUsize]> = (0..300).map(|_| AtomicUsize::new(0)).collect();
        let all: Arc<[usize]> = (0..300).collect();
        let counted = counts.clone();
        let found =
            answers(all, Duration::from_secs(60), move |n| counted[*n].fetch_add(1, SeqCst));
        assert!(found.iter().all(|answer| *answer == Answer::Given(0)));
        assert!(counts.iter().all(|count| count.load(SeqCst) == 1));
        assert_eq!(answers(Arc::from([0; 0]), Duration::ZERO, |_| ()), []);
    }

    #[test]
    fn each_root_has_its_turn() {
        let all = ["/a/1", "/a/2", "/a/3", "/b/1", "/c/1", "/b/2"].map(PathBuf::from);
        let turns = in_turn(&all, |path| path.parent().unwrap_or(path));
        assert_eq!(turns, ["/a/1", "/b/1", "/c/1", "/a/2", "/b/2", "/a/3"].map(PathBuf::from));
    }

    #[test]
    fn a_root_is_a_place_once_and_what_is_filled_in_place_another() {
        let at = tempfile::tempdir().expect("a directory");
        let root = at.path().to_owned();
        std::fs::write(root.join("file"), "in the way").expect("written");
        std::fs::create_dir(root.join("own")).expect("it is new");
        let target = |name: &str| {
            let family = ModelDir::parse(name).expect("a name");
            (Destination { root: root.clone(), family }, None)
        };
        let targets = ["file", "a", "own", "b", "c"].map(target);
        let found = places(&targets, Duration::from_secs(60));
        let paths: Vec<PathBuf> = found.known.into_iter().map(|(path, _)| path).collect();
        assert_eq!((paths, found.silent), (vec![root.clone(), root.join("own")], vec![]));
        let roots = Mutex::new(BTreeSet::new());
        let told = targets.map(|target| place(&target, &roots).map(|(path, _)| path));
        assert_eq!(told, [None, Some(root.clone()), Some(root.join("own")), None, None]);
    }
}
