//! Runs the built binary as a user would, in a clean environment, on a volume of its own.

#![allow(dead_code, clippy::unwrap_used)]

pub mod cluster;
pub mod measure;
pub mod own_network;
pub mod process;
#[cfg(target_arch = "x86_64")]
pub mod scene;
pub mod schema;
pub mod table;
pub mod terminal;
pub mod tls;
#[cfg(target_arch = "x86_64")]
pub mod tracer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use weightlift_fakes::{
    FakeAzure, FakeGcs, FakeHub, FakeRegistry, FakeS3, Request, Response, Server, Tree,
};

pub const REPO: &str = "org/tiny";
pub const TOKEN: &str = "hf_CANARYcanaryCANARYcanary";
pub const AZURE_ACCOUNT: &str = "models";
/// That of the emulators, which everybody knows.
pub const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
pub const ACCESS_KEY: &str = "AKIDCANARYCANARY";
pub const SECRET_KEY: &str = "secretCANARYsecretCANARYsecretCANARY";

pub const WEB_PASSWORD: &str = "netrcCANARYnetrcCANARY";
/// Of a user of a registry.
pub const PASSWORD: &str = "passwordCANARYpasswordCANARY";

/// The fixture model, every format of it.
pub fn tiny() -> Tree {
    Tree::from_dir(&fixture("tiny")).unwrap()
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A directory that is removed at the end, with a root below it.
pub struct Volume {
    dir: tempfile::TempDir,
}

impl Volume {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// The same in memory, where a sync costs nothing, if the machine has a place with a gigabyte.
    pub fn in_memory() -> Self {
        let shared = "/dev/shm";
        let df = Command::new("df").args(["--output=avail", "-k", shared]).output().unwrap();
        let free = String::from_utf8_lossy(&df.stdout);
        let free = free.lines().last().and_then(|free| free.trim().parse::<u64>().ok());
        if free.is_some_and(|kib| kib >= 1 << 20)
            && let Ok(dir) = tempfile::tempdir_in(shared)
        {
            return Self { dir };
        }
        Self::new()
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("models")
    }

    pub fn family(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What attempts have left in the working area.
    pub fn attempts(&self) -> Vec<PathBuf> {
        list(&self.root().join(".weightlift/attempts"))
    }

    /// Fails unless the family holds exactly `tree` and a sentinel.
    pub fn assert_holds(&self, name: &str, tree: &Tree) {
        assert_tree(&self.family(name), tree);
    }

    /// Fails if anything of an attempt is left.
    pub fn assert_clean(&self) {
        assert_eq!(self.attempts(), Vec::<PathBuf>::new());
        assert_eq!(list(&self.root().join(".weightlift/owners")), Vec::<PathBuf>::new());
    }
}

pub fn list(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The files below `dir` with their content, the sentinel and the working area left out.
pub fn files_below(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, above: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for path in list(dir) {
            let name = format!("{above}{}", path.file_name().unwrap().to_str().unwrap());
            if name == ".weightlift-complete.json" || name == ".weightlift" || name == "lost+found"
            {
                continue;
            }
            if path.is_dir() {
                walk(&path, &format!("{name}/"), found);
            } else {
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, "", &mut found);
    found
}

/// Fails unless `dir` holds exactly the files of `tree`, byte for byte, and a sentinel.
pub fn assert_tree(dir: &Path, tree: &Tree) {
    let found = files_below(dir);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let expected: Vec<&str> = tree.iter().map(|(name, _)| name).collect();
    assert_eq!(names, expected, "files in {}", dir.display());
    for (name, blob) in tree.iter() {
        assert!(found[name] == blob.to_vec(), "{name} differs");
    }
    assert!(dir.join(".weightlift-complete.json").is_file(), "no sentinel");
}

/// The fixture as the default selection takes it.
pub fn tiny_selected() -> Tree {
    ["pytorch_model.bin", "onnx/model.onnx", "original/consolidated.00.pth"]
        .into_iter()
        .fold(tiny(), |tree, path| tree.without(path))
}

/// The binary with nothing of the caller's environment.
pub fn weightlift() -> Command {
    process::hear_hangups();
    let mut command = Command::new(binary());
    command.env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    // All that the tests do has to work in the sandbox as well.
    if let Some(sandbox) = std::env::var_os("WEIGHTLIFT_TEST_SANDBOX") {
        command.env("WEIGHTLIFT_SANDBOX", sandbox);
    }
    command
}

/// The binary under test: the one that cargo has just built, or a release build to be checked.
pub fn binary() -> PathBuf {
    std::env::var_os("WEIGHTLIFT_TEST_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_weightlift").into(), PathBuf::from)
}

/// Copies the binary under test to `path`. By another process: a file that is open for writing here, while
/// another test forks, is busy when it is to be executed.
pub fn copy_binary(path: &Path) {
    assert!(Command::new("cp").arg(binary()).arg(path).status().unwrap().success());
}

/// `weightlift fetch --root <volume> <arguments>` against a fake Hub.
pub fn fetch(hub: &FakeHub, volume: &Volume, arguments: &[&str]) -> Command {
    let mut command = weightlift();
    command.arg("fetch").arg("--root").arg(volume.root()).args(arguments);
    command.env("HF_ENDPOINT", hub.url());
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "20s");
    command
}

/// The same against a fake S3, with credentials.
pub fn fetch_s3(s3: &FakeS3, volume: &Volume, arguments: &[&str]) -> Command {
    let mut command = weightlift();
    command.arg("fetch").arg("--root").arg(volume.root()).args(arguments);
    command.args(["--s3-path-style", "--s3-endpoint", &s3.url()]);
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command.env("AWS_REGION", "us-east-1");
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "20s");
    command
}

/// The same against a fake registry, for the artifact `reference`, such as `org/tiny:v1`.
pub fn fetch_oci(
    registry: &FakeRegistry,
    volume: &Volume,
    reference: &str,
    arguments: &[&str],
) -> Command {
    let mut command = weightlift();
    command.arg("fetch").arg("--root").arg(volume.root());
    command.arg(format!("oci://{}/{reference}", registry.host())).args(arguments);
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "20s");
    command
}

/// The same against a fake of Google's storage, with what `metadata` gives, if that is there.
pub fn fetch_gs(
    gcs: &FakeGcs,
    metadata: Option<&Server>,
    volume: &Volume,
    arguments: &[&str],
) -> Command {
    let mut command = weightlift();
    command.arg("fetch").arg("--root").arg(volume.root()).args(arguments);
    command.env("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE", gcs.url());
    // Nobody listens there.
    let host = metadata.map_or("127.0.0.1:9".to_owned(), |it| format!("127.0.0.1:{}", it.port()));
    command.env("GCE_METADATA_HOST", &host).env("GCE_METADATA_IP", &host);
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "20s");
    command
}

/// The metadata server of a node of Google's, which gives `TOKEN`.
pub fn google_metadata() -> Server {
    google_metadata_on(0)
}

pub fn google_metadata_on(port: u16) -> Server {
    let server = Server::start_on(port, |request: &Request| {
        let is_asked = request.header("metadata-flavor") == Some("Google")
            && request.path == "/computeMetadata/v1/instance/service-accounts/default/token";
        if !is_asked {
            return Response::text(404, "no");
        }
        let answer = serde_json::json!({
            "access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer",
        });
        Response::json(200, &answer).header("Metadata-Flavor", "Google")
    });
    server.unwrap()
}

/// The same against a fake of Azure's storage, with no credentials.
pub fn fetch_az(azure: &FakeAzure, volume: &Volume, arguments: &[&str]) -> Command {
    let mut command = weightlift();
    command.arg("fetch").args(arguments).env("WEIGHTLIFT_ROOT", volume.root());
    command.env("AZURE_STORAGE_ENDPOINT", azure.url());
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "20s");
    command
}

pub fn hub_of_tiny() -> FakeHub {
    FakeHub::serving(REPO, tiny())
}

/// A finished run.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn from(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let run = Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        run.assert_inert();
        run.assert_readable();
        run
    }

    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn assert_success(self) -> Self {
        self.assert_code(0)
    }

    /// The last line of standard error, which a person reads first.
    pub fn last_line(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }

    #[track_caller]
    pub fn assert_says(self, what: &str) -> Self {
        assert!(self.stderr.contains(what), "`{what}` is not in: {}", self.stderr);
        self
    }

    /// What every run owes: each whole line that is an object is one of those that docs describe, and the last one
    /// of a run that fails says why.
    fn assert_readable(&self) {
        let objects = |text: &str| -> Vec<serde_json::Value> {
            let is_whole = |line: &&str| line.starts_with("{\"") && line.ends_with('\n');
            let lines = text.split_inclusive('\n').filter(is_whole);
            lines.map(|line| serde_json::from_str(line).expect(line)).collect()
        };
        objects(&self.stderr).iter().for_each(|line| schema::LOG.assert_holds(line));
        let told = objects(&self.stdout);
        told.iter().for_each(|line| schema::OUTPUT.assert_holds(line));
        if let Some(last) = told.last()
            && !matches!(self.code, 0 | -1)
        {
            assert_eq!((&last["status"], &last["code"]), (&"failed".into(), &self.code.into()));
        }
    }

    /// What every run for programs owes: if it fails, standard output says so.
    fn assert_told(self) -> Self {
        let is_told = matches!(self.code, 0 | -1) || self.stdout.contains("\"status\":\"failed\"");
        assert!(is_told, "{}: {}\n{}", self.code, self.stdout, self.stderr);
        self
    }

    /// What every run owes: no control characters but line ends, and no secret.
    fn assert_inert(&self) {
        for text in [&self.stdout, &self.stderr] {
            let acts = |c: &char| {
                c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            };
            let control = text.chars().find(|c| acts(c) && *c != '\n');
            assert_eq!(control, None, "{text:?}");
            for secret in [
                TOKEN,
                SECRET_KEY,
                AZURE_KEY,
                PASSWORD,
                "token-CANARY",
                "netrcCANARY",
                "cmVhZGVyOm5",
                "X-Amz-Signature",
                "Signature=",
            ] {
                assert!(!text.contains(secret), "{text}");
            }
        }
    }
}

pub trait Runs {
    fn run(&mut self) -> Run;
    /// Starts it in the background.
    fn start(&mut self) -> Running;
}

impl Runs for Command {
    fn run(&mut self) -> Run {
        let run = Run::from(&self.output().unwrap());
        let arguments: Vec<_> = self.get_args().collect();
        let is_for_programs = arguments.windows(2).any(|it| it == ["--output", "json"]);
        if is_for_programs { run.assert_told() } else { run }
    }

    fn start(&mut self) -> Running {
        let child = self.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child: Some(child) }
    }
}

/// A process that is killed if the test ends first.
pub struct Running {
    child: Option<Child>,
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.as_ref().unwrap().id() as i32
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn wait(mut self) -> Run {
        let child = self.child.take().unwrap();
        Run::from(&child.wait_with_output().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `command` as the last arguments of `wrapper`, with its environment and a search path.
pub fn under(wrapper: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(wrapper[0]);
    wrapped.args(&wrapper[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(name, value);
        }
    }
    wrapped.env("PATH", std::env::var_os("PATH").unwrap());
    wrapped
}

/// Waits until `condition` holds; fails after half a minute.
#[track_caller]
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a tool is there; where it is not, the test says so and is skipped. CI has them all, and
/// says so by `WEIGHTLIFT_TEST_NO_SKIP`.
pub fn has(tool: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()));
    found || skip(&format!("`{tool}` is not installed"))
}

pub fn is_root() -> bool {
    // The owner of our own process directory.
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0) || skip("this needs root")
}

/// How often a random test is repeated: `short`, or as `WEIGHTLIFT_TEST_ROUNDS` says.
pub fn rounds(short: usize) -> usize {
    let set = std::env::var("WEIGHTLIFT_TEST_ROUNDS").ok();
    set.map_or(short, |rounds| rounds.parse().expect("WEIGHTLIFT_TEST_ROUNDS is a number"))
}

/// Where a random test begins: anew each time, or where `WEIGHTLIFT_TEST_SEED` says.
pub fn seed() -> u64 {
    let set = std::env::var("WEIGHTLIFT_TEST_SEED").ok();
    set.map_or_else(
        || fastrand::u64(..),
        |seed| seed.parse().expect("WEIGHTLIFT_TEST_SEED is a number"),
    )
}

/// Prints why a test is skipped; always false.
pub fn skip(why: &str) -> bool {
    assert!(std::env::var_os("WEIGHTLIFT_TEST_NO_SKIP").is_none(), "must not be skipped: {why}");
    eprintln!("skipped: {why}");
    false
}

/// Tells threads of a scope that it is over, also where the test fails in between: the scope waits for them.
pub struct Ends<'a>(pub &'a std::sync::atomic::AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}
