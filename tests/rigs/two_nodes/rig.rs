//! Two nodes with one NFS volume, in a kernel that runs as a process (User-mode Linux).
//!
//! A test that asks for [`nodes`] is run twice: outside, where it boots the kernel, once for all
//! tests of the binary, and looks how it went; and inside, where it gets the nodes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::support::{Run, Runs, binary, has, skip};
use weightlift_fakes::FakeHub;

/// Set inside, to the processes that hold the namespaces of the nodes.
const NODES: &str = "RIG_NODES";
/// Before the names of the tests that are run among the nodes.
const MODULE: &str = "nfs::";
/// How often each scenario is run; more by hand than in CI.
const ROUNDS: &str = "WEIGHTLIFT_TEST_ROUNDS";
/// Bound on a boot and one round of all scenarios.
const ROUND_TAKES_AT_MOST: Duration = Duration::from_secs(600);

/// A node of the cluster: a host name, a network to the server, mounts, a boot.
pub struct Node {
    pub name: &'static str,
    pid: u32,
}

pub struct Nodes {
    pub a: Node,
    pub b: Node,
    pub rounds: u64,
}

/// What the kernel says on processors with AMX, before its first process.
const UNKNOWN_PROCESSOR: &str = "ptrace set fp regs failed";

/// The nodes, if this is the kernel that has them. Outside it fails unless the test `name` has
/// passed inside.
#[track_caller]
pub fn nodes(name: &str) -> Option<Nodes> {
    if let Ok(pids) = std::env::var(NODES) {
        let mut pids = pids.split(' ').map(|pid| pid.parse().unwrap());
        let mut node = |name| Node { name, pid: pids.next().unwrap() };
        return Some(Nodes { a: node("node-a"), b: node("node-b"), rounds: rounds() });
    }
    let tools = ["linux.uml", "modprobe", "rpc.mountd", "rpcbind", "mkfs.ext4", "ip", "nsenter"];
    if !tools.iter().all(|tool| has(tool)) {
        return None;
    }
    if !cfg!(target_arch = "x86_64") {
        skip("User-mode Linux is for x86_64");
        return None;
    }
    static LOG: OnceLock<String> = OnceLock::new();
    let log = LOG.get_or_init(boot);
    if log.contains(UNKNOWN_PROCESSOR) {
        // No package mends that, so it is one also where nothing may be skipped.
        eprintln!(
            "skipped: user-mode Linux cannot run here: the FPU state of this processor is larger than it knows"
        );
        return None;
    }
    for line in log.lines().filter(|line| line.starts_with(&format!("{name}: "))) {
        eprintln!("{line}");
    }
    let full = format!("{MODULE}{name}");
    assert!(passed(log).any(|test| test == full), "{name} has not passed:\n{log}");
    None
}

/// The tests that passed inside: what is listed at the end, where no other process writes.
fn passed(log: &str) -> impl Iterator<Item = &str> {
    let list = log.rsplit_once("\nsuccesses:\n").map_or("", |(_, list)| list);
    list.lines().map_while(|line| line.strip_prefix("    "))
}

fn rounds() -> u64 {
    std::env::var(ROUNDS).map_or(1, |rounds| rounds.parse().unwrap())
}

/// Runs this test binary among the nodes, with the filter that it was given; returns the log.
fn boot() -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut filter: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if filter.is_empty() {
        filter.push(MODULE.into());
    }
    std::fs::write(dir.path().join("arguments"), filter.join(" ")).unwrap();
    let disk = dir.path().join("disk");
    std::fs::File::create(&disk).unwrap().set_len(2 << 30).unwrap();
    let init = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rigs/two_nodes/init");
    let mut kernel = Command::new("linux.uml");
    kernel.args(["mem=1024M", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"]);
    kernel.args(["con=null", "con0=null,fd:1", "umid=nodes"]);
    kernel.arg(format!("uml_dir={}/", dir.path().display()));
    kernel.arg(format!("ubd0={}", disk.display()));
    // What the kernel does not know becomes the environment of `init`.
    kernel.arg(format!("init={}", init.display()));
    kernel.arg(format!("RIG_DIR={}", dir.path().display()));
    kernel.arg(format!("RIG_TEST={}", std::env::current_exe().unwrap().display()));
    kernel.arg(format!("WEIGHTLIFT_TEST_BIN={}", binary().display()));
    kernel.arg(format!("{ROUNDS}={}", rounds()));
    // Its memory is a file there.
    kernel.env("TMPDIR", if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" });
    let console = dir.path().join("console");
    let output = std::fs::File::create(&console).unwrap();
    kernel.stdin(Stdio::null()).stderr(output.try_clone().unwrap()).stdout(output);
    let mut kernel = Kernel::start(kernel);
    let ended = kernel.wait(ROUND_TAKES_AT_MOST * rounds() as u32);
    drop(kernel);
    let read = |path: &Path| {
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    };
    let log = read(&dir.path().join("log"));
    if ended && log.contains("\nend: ") {
        return log;
    }
    format!("{log}\nnot ended in order; the console:\n{}", read(&console))
}

/// The kernel and all its processes, which are processes of this machine.
struct Kernel(std::process::Child);

impl Kernel {
    fn start(mut command: Command) -> Self {
        use std::os::unix::process::CommandExt;
        Self(command.process_group(0).spawn().unwrap())
    }

    /// Whether it has switched itself off in time.
    fn wait(&mut self, at_most: Duration) -> bool {
        let started = Instant::now();
        while started.elapsed() < at_most {
            if self.0.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        false
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

impl Node {
    /// `/volume` as this node sees it.
    pub fn path(&self, below: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/volume", self.pid)).join(below)
    }

    /// The binary on this node, with nothing of the caller's environment.
    pub fn weightlift(&self) -> Command {
        let mut command = self.command(&binary().display().to_string());
        command.env_clear().env("HOME", "/nonexistent");
        command
    }

    /// `weightlift fetch` of the test model into `root`, an absolute path on this node.
    pub fn fetch(&self, hub: &FakeHub, root: &str, arguments: &[&str]) -> Command {
        let mut command = self.weightlift();
        command.args(["fetch", "--root", root, "hf://org/tiny"]).args(arguments);
        command.env("HF_ENDPOINT", hub.url()).env("WEIGHTLIFT_RETRY_TIMEOUT", "60s");
        command
    }

    pub fn verify(&self, family: &str) -> Run {
        self.weightlift().args(["verify", family]).run()
    }

    /// Has everything that this node has written so far reach the server.
    pub fn sync(&self) {
        assert!(self.try_sync());
    }

    /// The same, unless the server refuses it: while the node was lost, it may have given its open
    /// files away.
    pub fn try_sync(&self) -> bool {
        self.command("sync").args(["-f", "/volume"]).run().code == 0
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("/usr/bin/nsenter");
        let pid = self.pid.to_string();
        command.args(["--target", &pid, "--mount", "--root", "--uts", "--", program]);
        command.stdin(Stdio::null());
        command
    }

    /// Cuts the node off from the server until the guard is dropped.
    pub fn cut_off(&self) -> CutOff<'_> {
        self.set_link("down");
        CutOff(self)
    }

    fn set_link(&self, state: &str) {
        let set = Command::new("ip").args(["link", "set", self.name, state]).status();
        assert!(set.unwrap().success());
    }
}

pub struct CutOff<'a>(&'a Node);

impl CutOff<'_> {
    pub fn heal(self) {}
}

impl Drop for CutOff<'_> {
    fn drop(&mut self) {
        self.0.set_link("up");
    }
}

/// Forgets what the kernel has in memory of any file.
pub fn drop_caches() {
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// Stops the server and starts it again, as after an update of it.
pub fn restart_server() {
    for threads in ["0", "8"] {
        assert!(Command::new("rpc.nfsd").arg(threads).status().unwrap().success());
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Removes a root on a volume, at the server.
pub fn remove(root: &str) {
    let name = root.rsplit('/').next().unwrap();
    std::fs::remove_dir_all(Path::new("/export").join(name)).unwrap();
}
