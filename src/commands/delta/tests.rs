//! Updates of a model in a directory of its own, from a source whose store tells what files are made of.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

use async_trait::async_trait;

use super::*;
use crate::cli::{Cli, Command, SourceArgs};
use crate::commands::run_state::RunState;
use crate::content::{Body, ChunkedId, ChunkedPath, FilePart, Term};
use crate::engine::{self, Stop};
use crate::model::{
    Digest, ModelDir, RelPath, RemoteFile, SENTINEL, Selection, Sentinel, SentinelFile, Sha256,
    Snapshot, SourceUri,
};
use crate::report::Screen;
use crate::volume::Destination;

const REPO: &str = "org/model";
const NEW: &str = "1111111111111111111111111111111111111111";
const OLD: &str = "0000000000000000000000000000000000000000";

/// Chunks as their content ends them: 64 KiB in the mean.
struct Chunks {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Chunks {
    fn of(block: u8) -> Arc<Self> {
        static KNOWN: LazyLock<Mutex<HashMap<u8, Arc<Chunks>>>> = LazyLock::new(Mutex::default);
        let mut known = KNOWN.lock().expect("unpoisoned");
        known.entry(block).or_insert_with(|| Arc::new(Self::new(block.into()))).clone()
    }

    fn new(seed: u64) -> Self {
        let mut bytes = vec![0; 8 << 20];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        let (mut ends, mut hash, mut start) = (Vec::new(), 0_u64, 0);
        for (at, byte) in bytes.iter().enumerate() {
            hash = (hash << 1).wrapping_add(gearhash::DEFAULT_TABLE[*byte as usize]);
            let len = at + 1 - start;
            if (len >= 8 << 10 && hash >> 48 == 0) || len == 128 << 10 {
                ends.push(at + 1);
                (hash, start) = (0, at + 1);
            }
        }
        Self { bytes, ends }
    }

    fn bytes(&self, chunks: &Range<u32>) -> &[u8] {
        let start = |n: u32| if n == 0 { 0 } else { self.ends[n as usize - 1] };
        &self.bytes[start(chunks.start)..start(chunks.end)]
    }
}

/// A file of the repo: its name at the store is the number of its recipe.
type Parts = Vec<(u8, Range<u32>)>;

fn content(parts: &Parts) -> Vec<u8> {
    parts.iter().flat_map(|(of, chunks)| Chunks::of(*of).bytes(chunks).to_vec()).collect()
}

fn recipe(parts: &Parts) -> Recipe {
    let term = |(of, chunks): &(u8, Range<u32>)| {
        let len = Chunks::of(*of).bytes(chunks).len() as u32;
        Term { block: [*of; 32], chunks: chunks.clone(), len }
    };
    Recipe { terms: parts.iter().map(term).collect() }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

fn file(path: &str, content: &[u8], id: Option<ChunkedId>) -> RemoteFile {
    RemoteFile {
        path: RelPath::parse(path).expect("a path"),
        size: content.len() as u64,
        digest: Some(Digest::Sha256(sha256(content))),
        validator: None,
        xet_hash: id.map(Box::new),
    }
}

/// What the store was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Recipes(String, Vec<ChunkedId>),
    Listed(String),
}

#[derive(Default)]
struct Scripted {
    recipes: HashMap<ChunkedId, Recipe>,
    listed: Vec<ChunkedPath>,
    asked: Mutex<Vec<Asked>>,
    is_down: bool,
    /// A revision that may not be read.
    refuses: Option<&'static str>,
    /// The files of the new revision, and what was read of them.
    files: PathBuf,
    read: Mutex<Vec<(String, Range<u64>)>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the store is closed")]
struct Closed;

impl crate::net::Problem for Closed {}

#[async_trait]
impl ChunkStore for Scripted {
    fn hub(&self) -> String {
        "https://hub.example".into()
    }

    async fn recipes(&self, files: &[ChunkedFile]) -> Result<Vec<Option<Recipe>>, SourceError> {
        let ids = files.iter().map(|file| file.id).collect();
        let revision = files[0].revision.clone();
        assert!(files.iter().all(|file| file.revision == revision && file.repo == REPO));
        self.asked.lock().expect("unpoisoned").push(Asked::Recipes(revision, ids));
        if let Some(revision) = self.refuses
            && files[0].revision == revision
        {
            return Err(SourceError::Access(Closed.into()));
        }
        if self.is_down {
            return Err(SourceError::Unusable(Closed.into()));
        }
        Ok(files.iter().map(|file| self.recipes.get(&file.id).cloned()).collect())
    }

    async fn listed(&self, repo: &str, revision: &str) -> Result<Vec<ChunkedPath>, SourceError> {
        assert_eq!(repo, REPO);
        self.asked.lock().expect("unpoisoned").push(Asked::Listed(revision.into()));
        Ok(self.listed.clone())
    }
}

#[async_trait]
impl Source for Scripted {
    async fn revision(&self) -> Result<String, SourceError> {
        Ok(NEW.into())
    }

    async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        Err(SourceError::Access(Closed.into()))
    }

    async fn read(
        &self,
        _: &reqwest::Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let path = file.path.to_string();
        let opened = File::open(self.files.join(&path)).expect("it is there");
        self.read.lock().expect("unpoisoned").push((path.clone(), range.clone()));
        Ok(FilePart::new(opened, path, range).into())
    }

    fn chunk_store(&self) -> Option<&dyn ChunkStore> {
        Some(self)
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Scripted {
    fn read_bytes(&self) -> u64 {
        self.read.lock().expect("unpoisoned").iter().map(|(_, range)| range.end - range.start).sum()
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().expect("unpoisoned"))
    }
}

/// A root with models on it, and what the source has.
struct Scene {
    dir: tempfile::TempDir,
    source: Scripted,
    new: Vec<RemoteFile>,
    ids: u8,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let files = dir.path().join("hub");
        std::fs::create_dir(&files).expect("made");
        std::fs::create_dir(dir.path().join("root")).expect("made");
        let source = Scripted { files, ..Scripted::default() };
        Self { dir, source, new: Vec::new(), ids: 0 }
    }

    fn id(&mut self, parts: &Parts) -> ChunkedId {
        self.ids += 1;
        self.source.recipes.insert([self.ids; 32], recipe(parts));
        [self.ids; 32]
    }

    /// A file of the new revision.
    fn lists(mut self, path: &str, parts: &Parts) -> Self {
        let (id, content) = (self.id(parts), content(parts));
        std::fs::write(self.source.files.join(path), &content).expect("written");
        self.new.push(file(path, &content, Some(id)));
        self
    }

    fn path(&self, family: &str, path: &str) -> PathBuf {
        self.dir.path().join("root").join(family).join(path)
    }

    /// Publishes a model of the repo, with or without the names of its files at the store.
    fn has(mut self, family: &str, files: &[(&str, Parts)], has_names: bool) -> Self {
        let mut listed = Vec::new();
        std::fs::create_dir(self.path(family, "")).expect("made");
        for (path, parts) in files {
            let (id, content) = (self.id(parts), content(parts));
            std::fs::write(self.path(family, path), &content).expect("written");
            let file = file(path, &content, has_names.then_some(id));
            if !has_names {
                let (path, size) = (file.path.clone(), file.size);
                self.source.listed.push(ChunkedPath { path, size, id });
            }
            let sha256 = Sha256(sha256(&content));
            listed.push(SentinelFile::new(&file, sha256, file.digest.as_ref(), None));
        }
        let uri = SourceUri::parse(&format!("hf://{REPO}")).expect("a source");
        let (name, revision) = (uri.source_name(), OLD.to_owned());
        let selection = Selection::default();
        let sentinel =
            Sentinel::new(&uri, name, revision, selection, "now".into(), listed, Vec::new());
        let sentinel = Sentinel { hub: Some("https://hub.example".into()), ..sentinel };
        let out = File::create(self.path(family, SENTINEL)).expect("made");
        sentinel.write(out).expect("written");
        self
    }

    fn store(&self) -> Store {
        let family = ModelDir::parse("m").expect("a family");
        Store::open(Destination { root: self.dir.path().join("root"), family }).expect("a store")
    }

    fn begin(&self) -> Staging {
        let name = format!("hf://{REPO}");
        let snapshot = Snapshot::new(name, NEW.into(), Vec::new(), Vec::new());
        let mut staging =
            Staging::begin(&self.store(), &snapshot, self.new.clone()).expect("an attempt");
        staging.adopt(&self.store(), &[], &outside(&|| true)).expect("adopted");
        staging
    }

    /// Copies what is here, until `go_on` says no.
    fn copy(&self, staging: &mut Staging, go_on: &dyn Fn() -> bool) -> u64 {
        let (screen, stop) = (Screen::default(), Stop::default());
        let state = RunState::new(Instant::now(), None);
        let args = source_args();
        let ask = Asker::new(&args, false, Arc::default(), &screen, &stop, &state);
        let progress = Progress::default();
        let counted = |bytes| _ = progress.done_bytes.fetch_add(bytes, Relaxed);
        let outside = Surroundings { copied: &counted, ..outside(go_on) };
        let look = Look {
            ask: &ask,
            chunks: &self.source,
            progress: &progress,
            outside: &outside,
            is_away: Cell::new(false),
            until: Cell::new(Instant::now() + LEAST_TIME),
            is_about_others: Cell::new(false),
        };
        let numbers = staging.divisible();
        let store = self.store();
        let copied = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(look.copy(&store, staging, numbers))
            .expect("a volume that can be written to");
        assert_eq!(progress.done_bytes.into_inner(), copied);
        copied
    }

    /// Fetches the rest, and compares all files with those of the source.
    fn fetch(&self, staging: &Staging) -> Progress {
        let (screen, stop) = (Screen::default(), Stop::default());
        let args = fetch_args();
        let options = args.transfer_options(&engine::Share::default(), 1);
        let http = crate::net::http::Http::new(crate::net::http::Deadlines::default());
        let plan = staging.plan();
        let progress = Arc::new(Progress::default());
        progress.done_bytes.store(plan.total_bytes() - plan.missing_bytes(), Relaxed);
        progress.reused_bytes.store(plan.total_bytes() - plan.missing_bytes(), Relaxed);
        let proofs = vec![None; plan.files.len()];
        let (http, source) = (http.expect("settings"), &self.source);
        engine::run(
            source,
            &http,
            staging,
            &plan,
            &options,
            &progress,
            &screen,
            &stop,
            proofs,
            |_| true,
        )
        .expect("fetched");
        for (n, file) in self.new.iter().enumerate() {
            let mut is = vec![0; file.size as usize];
            staging.open(n).expect("opened").read_at(&mut is, 0).expect("read");
            assert!(is == self.wanted(n), "{}", file.path);
        }
        Arc::into_inner(progress).expect("nobody else has it")
    }

    fn wanted(&self, n: usize) -> Vec<u8> {
        std::fs::read(self.source.files.join(self.new[n].path.as_str())).expect("read")
    }

    /// What is in `staging` of file `n` is right where it is said to be there.
    fn assert_right(&self, staging: &Staging, n: usize) {
        let wanted = self.wanted(n);
        let mut is = vec![0; wanted.len()];
        staging.open(n).expect("opened").read_at(&mut is, 0).expect("read");
        let plan = staging.plan();
        for (_, gap) in plan.missing.iter().filter(|(of, _)| *of == n) {
            is[gap.start as usize..gap.end as usize]
                .copy_from_slice(&wanted[gap.start as usize..gap.end as usize]);
        }
        assert!(is == wanted);
    }
}

fn outside(go_on: &dyn Fn() -> bool) -> Surroundings<'_> {
    Surroundings { say: &|_| {}, go_on, reads: &|_| {}, worked: &|_| {}, copied: &|_| {} }
}

fn fetch_args() -> Box<crate::cli::FetchArgs> {
    let words = ["weightlift", "fetch", "hf://org/model", "--retry-timeout", "1s"];
    let parsed = Cli::parse_from_outside(&words.map(Into::into)).expect("arguments");
    match parsed.command {
        Command::Fetch(args) => args,
        other => panic!("{other:?}"),
    }
}

fn source_args() -> SourceArgs {
    fetch_args().source
}

fn len(of: u8, chunks: Range<u32>) -> u64 {
    Chunks::of(of).bytes(&chunks).len() as u64
}

fn modified(path: &Path) -> std::time::SystemTime {
    std::fs::metadata(path).expect("it is there").modified().expect("a time")
}

#[test]
fn an_edit_in_the_middle_fetches_the_chunks_around_it_alone() {
    // The middle of a block that the old file has as a whole: its chunks are looked for by their content.
    let new = vec![(1, 0..20), (2, 0..2), (1, 23..50), (1, 52..90)];
    let scene = Scene::new().has("m", &[("a", vec![(1, 0..95)])], true).lists("a", &new);
    let old = scene.path("m", "a");
    let (content, time) = (std::fs::read(&old).expect("read"), modified(&old));
    let mut staging = scene.begin();
    let copied = scene.copy(&mut staging, &|| true);
    let expected = len(1, 0..20) + len(1, 23..50) + len(1, 52..90);
    assert_eq!(copied, expected);
    assert_eq!(staging.plan().missing_bytes(), len(2, 0..2));
    scene.assert_right(&staging, 0);
    let progress = scene.fetch(&staging);
    assert_eq!(scene.source.read_bytes(), len(2, 0..2));
    assert_eq!(progress.reused_bytes.into_inner(), expected);
    assert!(std::fs::read(&old).expect("read") == content && modified(&old) == time);
}

#[test]
fn bytes_that_lie_at_other_offsets_are_copied_right() {
    // Behind a new head nothing is at the same place in a block of the filesystem; behind one of whole blocks
    // the bytes could be shared.
    for shift in [1, 4096, 8192 + 7] {
        let mut scene = Scene::new().has("m", &[("a", vec![(1, 0..40), (3, 4..30)])], true);
        let head = vec![7; shift];
        let mut content = head.clone();
        let rest = vec![(1, 0..40), (3, 4..30)];
        content.extend(super::tests::content(&rest));
        let mut recipe = recipe(&rest);
        recipe.terms.insert(0, Term { block: [9; 32], chunks: 0..1, len: shift as u32 });
        scene.source.recipes.insert([99; 32], recipe);
        std::fs::write(scene.source.files.join("a"), &content).expect("written");
        scene.new.push(file("a", &content, Some([99; 32])));
        let mut staging = scene.begin();
        assert_eq!(scene.copy(&mut staging, &|| true), (content.len() - shift) as u64);
        scene.assert_right(&staging, 0);
        scene.fetch(&staging);
        assert_eq!(scene.source.read_bytes(), shift as u64);
    }
}

#[test]
fn a_file_that_was_changed_on_the_volume_is_thrown_away_and_fetched() {
    for changed in [0, 1_000_000] {
        let new = vec![(1, 0..40), (2, 0..2)];
        let scene = Scene::new().has("m", &[("a", vec![(1, 0..40)])], true).lists("a", &new);
        let old = scene.path("m", "a");
        let mut content = std::fs::read(&old).expect("read");
        content[changed] ^= 1;
        std::fs::write(&old, &content).expect("written");
        let mut staging = scene.begin();
        assert_eq!(scene.copy(&mut staging, &|| true), len(1, 0..40));
        let progress = scene.fetch(&staging);
        let size = scene.new[0].size;
        assert_eq!(scene.source.read_bytes(), len(2, 0..2) + size);
        assert_eq!(progress.reused_bytes.into_inner(), 0);
        assert_eq!(progress.done_bytes.into_inner(), size);
    }
}

#[test]
fn what_a_killed_run_has_copied_is_not_copied_again() {
    let new = vec![(1, 0..40), (2, 0..2), (3, 0..40)];
    let old = [("a", vec![(1, 0..40), (3, 0..40)])];
    let scene = Scene::new().has("m", &old, true).lists("a", &new);
    let mut first = scene.begin();
    let asked = std::cell::Cell::new(0);
    // It ends in the middle of the second piece.
    let go_on = || {
        asked.set(asked.get() + 1);
        asked.get() < 7
    };
    let before = scene.copy(&mut first, &go_on);
    assert_eq!(before, len(1, 0..40));
    drop(first);
    let mut second = scene.begin();
    assert_eq!(second.plan().missing_bytes(), len(2, 0..2) + len(3, 0..40));
    assert_eq!(scene.copy(&mut second, &|| true), len(3, 0..40));
    scene.assert_right(&second, 0);
    assert_eq!(scene.copy(&mut second, &|| true), 0);
    scene.fetch(&second);
}

#[test]
fn a_link_and_a_file_of_another_size_are_no_candidates() {
    for replace in [
        (|path: &Path| {
            let aside = path.with_extension("aside");
            std::fs::rename(path, &aside).expect("renamed");
            std::os::unix::fs::symlink(&aside, path).expect("linked");
        }) as fn(&Path),
        |path| {
            let content = std::fs::read(path).expect("read");
            std::fs::write(path, &content[..content.len() - 1]).expect("written");
        },
        |path| std::fs::remove_file(path).expect("removed"),
    ] {
        let old = [("a", vec![(1, 0..40)])];
        let scene = Scene::new().has("m", &old, true).lists("a", &vec![(1, 0..40), (2, 0..2)]);
        replace(&scene.path("m", "a"));
        let mut staging = scene.begin();
        assert_eq!(scene.copy(&mut staging, &|| true), 0);
        scene.fetch(&staging);
    }
}

#[test]
fn the_store_is_asked_in_one_call_a_revision_and_further_only_where_much_is_missing() {
    let parts = |of| vec![(of, 0..40)];
    let old = [("b", parts(1)), ("a", parts(2)), ("other", parts(3))];
    let scene = Scene::new()
        .has("m", &old, true)
        .has("n", &[("a", parts(4))], true)
        .lists("a", &vec![(2, 0..40), (7, 0..9)])
        .lists("b", &vec![(1, 0..40), (8, 0..9)]);
    let mut staging = scene.begin();
    scene.copy(&mut staging, &|| true);
    let of_new = Asked::Recipes(NEW.into(), vec![[5; 32], [6; 32]]);
    let same_paths = Asked::Recipes(OLD.into(), vec![[1; 32], [2; 32]]);
    assert_eq!(scene.source.asked(), [of_new, same_paths]);
    scene.fetch(&staging);
    // Nothing is missing but what is too small, or what is here.
    let scene = Scene::new().has("m", &[("a", parts(1))], true).lists("a", &parts(1));
    scene.copy(&mut scene.begin(), &|| true);
    assert_eq!(scene.source.asked(), []);
}

#[test]
fn other_files_and_other_models_serve_what_the_same_path_has_not() {
    let all = |of| vec![(of, 0..110)];
    let scene = Scene::new()
        .has("m", &[("a", vec![(1, 0..40)]), ("other", all(3))], true)
        .has("n", &[("a", all(4))], true)
        .lists("a", &vec![(1, 0..40), (3, 0..110), (4, 0..110), (5, 0..110), (6, 0..110)]);
    let mut staging = scene.begin();
    let expected = len(1, 0..40) + len(3, 0..110) + len(4, 0..110);
    assert_eq!(scene.copy(&mut staging, &|| true), expected);
    scene.assert_right(&staging, 0);
    scene.fetch(&staging);
}

#[test]
fn a_sentinel_without_names_is_made_up_for_by_one_listing() {
    let scene = Scene::new()
        .has("m", &[("a", vec![(1, 0..40)])], false)
        .lists("a", &vec![(1, 0..40), (2, 0..2)]);
    let mut staging = scene.begin();
    assert_eq!(scene.copy(&mut staging, &|| true), len(1, 0..40));
    let asked = scene.source.asked();
    assert_eq!(asked.iter().filter(|it| **it == Asked::Listed(OLD.into())).count(), 1);
    scene.fetch(&staging);
}

#[test]
fn without_an_answer_of_the_store_all_is_fetched() {
    let mut scene = Scene::new()
        .has("m", &[("a", vec![(1, 0..40)])], true)
        .lists("a", &vec![(1, 0..40), (2, 0..2)]);
    scene.source.is_down = true;
    let mut staging = scene.begin();
    assert_eq!(scene.copy(&mut staging, &|| true), 0);
    assert_eq!(scene.source.asked().len(), 1);
    scene.fetch(&staging);
    assert_eq!(scene.source.read_bytes(), scene.new[0].size);
}

#[test]
fn a_revision_that_may_not_be_read_keeps_no_other_from_being_asked() {
    let mut scene = Scene::new()
        .has("m", &[("a", vec![(1, 0..40)]), ("b", vec![(3, 0..110)])], true)
        .has("n", &[("a", vec![(4, 0..110)])], true)
        .lists("a", &vec![(1, 0..40), (3, 0..110), (4, 0..110), (5, 0..110), (6, 0..110)]);
    scene.source.refuses = Some(OLD);
    scene.copy(&mut scene.begin(), &|| true);
    assert_eq!(scene.source.asked().len(), 4);
    // Where it is away, one question is enough.
    scene.source.refuses = None;
    scene.source.is_down = true;
    scene.copy(&mut scene.begin(), &|| true);
    assert_eq!(scene.source.asked().len(), 1);
}

#[test]
fn a_file_without_a_digest_that_proves_it_is_fetched() {
    let mut scene = Scene::new()
        .has("m", &[("a", vec![(1, 0..40)])], true)
        .lists("a", &vec![(1, 0..40), (2, 0..2)]);
    scene.new[0].digest = None;
    let mut staging = scene.begin();
    assert_eq!((staging.divisible(), scene.copy(&mut staging, &|| true)), (vec![], 0));
}
