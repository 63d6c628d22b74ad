//! Many faults in one test: each row has a fake and a volume of its own, and the rows run side by
//! side.
//!
//! Whatever a row is about, it also checks how many requests were made, that no secret went where
//! it does not belong, and that the next run completes once the fault is over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;

use super::*;
use weightlift_fakes::{
    Blob, FakeAzureBuilder, FakeGcsBuilder, FakeModelScope, FakeWeb, Logged, Rule,
};

/// What happens, and the check of what becomes of it.
pub struct Row {
    name: &'static str,
    check: Box<dyn FnOnce() + Send>,
}

/// Rows wait more than they work.
const AT_ONCE: usize = 12;

/// How long a run tries, and its first wait between two tries. A run that is to recover need not wait as one
/// does that must not ask too often.
type Patience = (&'static str, &'static str);
const RECOVERS: Patience = ("20s", "25ms");
const FAILS: Patience = ("2s", "250ms");

/// Runs all rows, and fails with the names of those that failed.
#[track_caller]
pub fn check(rows: impl IntoIterator<Item = Row>) {
    let waiting = Mutex::new(rows.into_iter().collect::<Vec<_>>().into_iter());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap().next();
                    let Some(Row { name, check }) = next else { return };
                    if catch_unwind(AssertUnwindSafe(check)).is_err() {
                        eprintln!("this was the row: {name}");
                        failed.lock().unwrap().push(name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "failed rows: {failed:#?}");
}

/// A row with a check of its own.
pub fn row(name: &'static str, check: impl FnOnce() + Send + 'static) -> Row {
    Row { name, check: Box::new(check) }
}

/// A place that holds `model()` for the usual rows.
pub trait Place {
    fn script(&self, rule: Rule);
    fn clear_script(&self);
    fn requests(&self) -> Vec<Logged>;
    fn fetch(&self, volume: &Volume) -> Command;
    /// Whether a request may carry what it carries.
    fn assert_discreet(&self, request: &Logged);
}

/// One large file, which is read in chunks of 1 MiB, and a small one.
pub fn model() -> Tree {
    Tree::new().with("config.json", "{\"a\": 1}").with_blob("big.bin", Blob::synthetic(BIG, 9))
}

pub const BIG: u64 = (4 << 20) + 11;
const ARGUMENTS: [&str; 5] = ["m", "--chunk-size", "1MiB", "--connections", "2"];

impl Place for FakeHub {
    fn script(&self, rule: Rule) {
        FakeHub::script(self, rule);
    }

    fn clear_script(&self) {
        FakeHub::clear_script(self);
    }

    fn requests(&self) -> Vec<Logged> {
        FakeHub::requests(self)
    }

    fn fetch(&self, volume: &Volume) -> Command {
        let mut command = fetch(self, volume, &[&["hf://org/tiny"], &ARGUMENTS[..]].concat());
        command.env("HF_TOKEN", TOKEN);
        command
    }

    fn assert_discreet(&self, request: &Logged) {
        let has_token = request.headers.iter().any(|(_, value)| value.contains(TOKEN));
        assert_eq!(has_token, request.origin == "hub", "the token: {request:?}");
        assert!(!request.target.contains(TOKEN), "{request:?}");
    }
}

impl Place for FakeS3 {
    fn script(&self, rule: Rule) {
        FakeS3::script(self, rule);
    }

    fn clear_script(&self) {
        FakeS3::clear_script(self);
    }

    fn requests(&self) -> Vec<Logged> {
        FakeS3::requests(self)
    }

    fn fetch(&self, volume: &Volume) -> Command {
        fetch_s3(self, volume, &[&["s3://models/llama/"], &ARGUMENTS[..]].concat())
    }

    fn assert_discreet(&self, request: &Logged) {
        let shown = format!("{request:?}");
        assert!(!shown.contains(SECRET_KEY), "{shown}");
    }
}

/// A bucket with `model()` below `llama/`.
pub fn bucket() -> FakeS3 {
    let builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    let put = |builder: weightlift_fakes::FakeS3Builder, (path, blob): (&str, &Blob)| {
        builder.object("models", &format!("llama/{path}"), blob.clone())
    };
    model().iter().fold(builder, put).start()
}

impl Place for FakeWeb {
    fn script(&self, rule: Rule) {
        FakeWeb::script(self, rule);
    }

    fn clear_script(&self) {
        FakeWeb::clear_script(self);
    }

    fn requests(&self) -> Vec<Logged> {
        FakeWeb::requests(self)
    }

    fn fetch(&self, volume: &Volume) -> Command {
        let mut command = weightlift();
        command.arg("fetch").arg("--root").arg(volume.root());
        command.arg(format!("{}/llama/", self.url())).args(ARGUMENTS);
        command.env("NETRC", web_login(volume).1);
        command
    }

    fn assert_discreet(&self, request: &Logged) {
        assert!(request.header("authorization").is_some(), "no login: {request:?}");
    }
}

impl Place for FakeModelScope {
    fn script(&self, rule: Rule) {
        FakeModelScope::script(self, rule);
    }

    fn clear_script(&self) {
        FakeModelScope::clear_script(self);
    }

    fn requests(&self) -> Vec<Logged> {
        FakeModelScope::requests(self)
    }

    fn fetch(&self, volume: &Volume) -> Command {
        let mut command = weightlift();
        command.arg("fetch").arg("--root").arg(volume.root()).arg("ms://org/llama").args(ARGUMENTS);
        command.env("MODELSCOPE_ENDPOINT", self.url()).env("MODELSCOPE_API_TOKEN", TOKEN);
        command
    }

    fn assert_discreet(&self, request: &Logged) {
        let has_token = request.headers.iter().any(|(_, value)| value.contains(TOKEN));
        assert_eq!(has_token, request.origin == "modelscope", "the token: {request:?}");
    }
}

/// A user for web servers of this machine as `user:password`, and the netrc file that says so.
pub fn web_login(volume: &Volume) -> (String, std::path::PathBuf) {
    let netrc = volume.path("netrc");
    let others = "machine example.org login other password other\n";
    let own = format!("machine 127.0.0.1 login reader password {WEB_PASSWORD}\n");
    std::fs::write(&netrc, [others, &own].concat()).unwrap();
    (format!("reader:{WEB_PASSWORD}"), netrc)
}

/// A fault, from its script on.
pub struct Case {
    name: &'static str,
    place: Box<dyn FnOnce() -> Box<dyn Place> + Send>,
    rules: Vec<Rule>,
    variables: Vec<(&'static str, String)>,
    for_ever: bool,
}

/// A fault of a Hub, or of its CDN.
pub fn hub(name: &'static str) -> Case {
    Case::at(name, || Box::new(FakeHub::serving(REPO, model())))
}

/// A fault of ModelScope, or of the storage behind it.
pub fn modelscope(name: &'static str) -> Case {
    Case::at(name, || {
        Box::new(FakeModelScope::builder().model("org/llama", model()).token(TOKEN).start())
    })
}

/// A fault of a web server.
pub fn web(name: &'static str) -> Case {
    Case::at(name, || {
        let user = format!("reader:{WEB_PASSWORD}");
        Box::new(FakeWeb::builder().with_sums("llama", &model()).user(&user).start())
    })
}

/// A bucket of Google's, and the metadata server that gives the token for it.
pub struct GcsPlace {
    pub gcs: FakeGcs,
    metadata: Server,
}

/// One that holds `model()`.
pub fn gcs_bucket() -> FakeGcsBuilder {
    let put = |builder: FakeGcsBuilder, (path, blob): (&str, &Blob)| {
        builder.object("models", &format!("llama/{path}"), blob.clone())
    };
    model().iter().fold(FakeGcs::builder().bucket("models").token(TOKEN), put)
}

impl Place for GcsPlace {
    fn script(&self, rule: Rule) {
        self.gcs.script(rule);
    }

    fn clear_script(&self) {
        self.gcs.clear_script();
    }

    fn requests(&self) -> Vec<Logged> {
        self.gcs.requests()
    }

    fn fetch(&self, volume: &Volume) -> Command {
        let arguments = [&["gs://models/llama/"], &ARGUMENTS[..]].concat();
        fetch_gs(&self.gcs, Some(&self.metadata), volume, &arguments)
    }

    fn assert_discreet(&self, request: &Logged) {
        assert!(!request.target.contains(TOKEN), "{request:?}");
    }
}

/// A fault of Google's storage.
pub fn gcs(name: &'static str) -> Case {
    Case::at(name, || Box::new(GcsPlace { gcs: gcs_bucket().start(), metadata: google_metadata() }))
}

impl Place for FakeAzure {
    fn script(&self, rule: Rule) {
        FakeAzure::script(self, rule);
    }

    fn clear_script(&self) {
        FakeAzure::clear_script(self);
    }

    fn requests(&self) -> Vec<Logged> {
        FakeAzure::requests(self)
    }

    fn fetch(&self, volume: &Volume) -> Command {
        let arguments = [&["az://models/weights/llama/"], &ARGUMENTS[..]].concat();
        let mut command = fetch_az(self, volume, &arguments);
        command.env("AZURE_STORAGE_KEY", AZURE_KEY);
        command
    }

    fn assert_discreet(&self, request: &Logged) {
        let has_key = request.headers.iter().any(|(_, value)| value.contains(AZURE_KEY));
        assert!(!has_key && !request.target.contains(AZURE_KEY), "{request:?}");
    }
}

/// A container of Azure's that holds `model()`.
pub fn container() -> FakeAzureBuilder {
    let put = |builder: FakeAzureBuilder, (path, blob): (&str, &Blob)| {
        builder.object("weights", &format!("llama/{path}"), blob.clone())
    };
    model().iter().fold(FakeAzure::builder(AZURE_ACCOUNT).key(AZURE_KEY), put)
}

/// A fault of Azure's storage.
pub fn az(name: &'static str) -> Case {
    Case::at(name, || Box::new(container().start()))
}

/// A fault of an S3.
pub fn s3(name: &'static str) -> Case {
    Case::at(name, || Box::new(bucket()))
}

impl Case {
    pub fn at(name: &'static str, place: impl FnOnce() -> Box<dyn Place> + Send + 'static) -> Self {
        let (rules, variables) = (Vec::new(), Vec::new());
        Self { name, place: Box::new(place), rules, variables, for_ever: false }
    }

    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// The next run meets the same: it is not looked at.
    pub fn for_ever(mut self) -> Self {
        self.for_ever = true;
        self
    }

    /// The run gets over it, with so many requests at most.
    pub fn recovers(self, most_requests: usize) -> Row {
        self.recovers_saying(most_requests, &[])
    }

    pub fn recovers_saying(mut self, most_requests: usize, words: &'static [&'static str]) -> Row {
        row(self.name, move || {
            let (place, volume) = (self.start(), Volume::new());
            let run = self.run(place.as_ref(), &volume, RECOVERS).assert_success();
            for word in words {
                assert!(run.stderr.contains(word), "`{word}` is not in: {}", run.stderr);
            }
            volume.assert_holds("m", &model());
            volume.assert_clean();
            assert_bounded(place.as_ref(), most_requests, &run);
        })
    }

    /// The run ends with `code`, and with `words` in its last line, and publishes nothing.
    pub fn fails(mut self, code: i32, most_requests: usize, words: &'static [&'static str]) -> Row {
        row(self.name, move || {
            let (place, volume) = (self.start(), Volume::new());
            let run = self.run(place.as_ref(), &volume, FAILS).assert_code(code);
            for word in words {
                assert!(run.last_line().contains(word), "`{word}` is not in: {}", run.stderr);
            }
            assert!(!volume.family("m").exists(), "published: {}", run.stderr);
            assert_bounded(place.as_ref(), most_requests, &run);
            if !self.for_ever {
                place.clear_script();
                self.run(place.as_ref(), &volume, RECOVERS).assert_success();
                volume.assert_holds("m", &model());
                volume.assert_clean();
            }
        })
    }

    fn start(&mut self) -> Box<dyn Place> {
        let nobody: Box<dyn FnOnce() -> Box<dyn Place> + Send> = Box::new(|| unreachable!());
        let place = std::mem::replace(&mut self.place, nobody)();
        self.rules.drain(..).for_each(|rule| place.script(rule));
        place
    }

    fn run(&self, place: &dyn Place, volume: &Volume, (patience, delay): Patience) -> Run {
        let mut command = place.fetch(volume);
        command.env("WEIGHTLIFT_RETRY_DELAY", delay);
        command.env("WEIGHTLIFT_RETRY_TIMEOUT", patience).env("WEIGHTLIFT_STALL_TIMEOUT", "1s");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.run()
    }
}

#[track_caller]
fn assert_bounded(place: &dyn Place, most: usize, run: &Run) {
    let requests = place.requests();
    let shown = || requests.iter().map(|r| format!("{} {} {}", r.method, r.status, r.target));
    assert!(
        requests.len() <= most,
        "{} requests, more than {most}: {:#?}\n{}",
        requests.len(),
        shown().collect::<Vec<_>>(),
        run.stderr
    );
    requests.iter().for_each(|request| place.assert_discreet(request));
}
