//! Processes that are traced, frozen, put on another node or told to end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Run, Running, Volume, binary, eventually, has, is_root, skip, under};

/// Lets what is started from now on obey SIGHUP, also where the tests run under `nohup`: what is ignored
/// stays so in a child, what is caught does not.
pub fn hear_hangups() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = u64::from_str_radix(ignored.unwrap_or("0").trim(), 16).unwrap();
        if ignored & 1 == 1 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            let _inside = runtime.enter();
            let _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).unwrap();
        }
    });
}

/// `command` under strace, in all its threads, with `injects` into `calls`.
pub fn straced(command: &Command, calls: &str, injects: &[&str]) -> Command {
    let trace = format!("trace={calls}");
    let injects: Vec<String> = injects.iter().map(|inject| format!("inject={inject}")).collect();
    let mut wrapper = vec!["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace];
    wrapper.extend(injects.iter().flat_map(|inject| ["-e", inject.as_str()]));
    under(&wrapper, command)
}

/// `command` as the last arguments of a shell script, which ends with `exec "$@"`.
pub fn in_shell(script: &str, command: &Command) -> Command {
    under(&["sh", "-c", &format!("{script}\nexec \"$@\""), "sh"], command)
}

/// The processes that work on `volume` with the binary under test, whatever started them.
pub fn working_on(volume: &Volume) -> Vec<i32> {
    let (binary, root) = (binary().display().to_string(), volume.root().display().to_string());
    let is_one = |pid: &i32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        words.next() == Some(&binary) && words.any(|word| word.starts_with(&root))
    };
    let entries = std::fs::read_dir("/proc").unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.parse().ok()).filter(is_one).collect()
}

/// The one process that works on `volume`, as soon as there is one.
#[track_caller]
pub fn worker_on(volume: &Volume) -> i32 {
    eventually("a process works on the volume", || working_on(volume).len() == 1);
    working_on(volume)[0]
}

/// Sends `signal`, such as `-TERM`; whether the process was still there.
pub fn signal(pid: i32, signal: &str) -> bool {
    let mut kill = Command::new("kill");
    kill.args([signal, &pid.to_string()]).output().unwrap().status.success()
}

/// Waits for the end of `running`, which was asked to end just now.
#[track_caller]
pub fn ends_within(bound: Duration, mut running: Running) -> Run {
    let asked = Instant::now();
    while running.is_running() {
        assert!(asked.elapsed() < bound, "still there after {bound:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    running.wait()
}

/// The same for a process `pid` below a tracer, `running`, which may keep one of its threads in a
/// delayed system call for much longer; then the exit code is the one that it has told.
#[track_caller]
pub fn ends_traced_within(bound: Duration, pid: i32, mut running: Running) -> Run {
    let asked = Instant::now();
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().unwrap_or_default().chars().next().unwrap_or('X')
    };
    while running.is_running() {
        // All others have been ended, so this one is dead but for its tracer.
        if matches!(state(), 'Z' | 'X') || threads() == 1 && state() == 't' {
            std::thread::sleep(Duration::from_millis(200));
            if running.is_running() {
                running.signal("-KILL");
                let mut run = running.wait();
                let told =
                    run.stderr.rsplit_once("[exit ").and_then(|(_, told)| told.split_once(','));
                run.code = told.expect("no last line").0.parse().unwrap();
                return run;
            }
        }
        assert!(asked.elapsed() < bound, "still there after {bound:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    running.wait()
}

/// What the heartbeat of a family says of its holder; null if there is none.
pub fn heartbeat(volume: &Volume, family: &str) -> serde_json::Value {
    let path = volume.root().join(format!(".weightlift/owners/{family}.json"));
    // It is replaced in one step, so it is whole whenever it is there.
    std::fs::read(path)
        .map_or(serde_json::Value::Null, |json| serde_json::from_slice(&json).unwrap())
}

/// A second node on this machine: a mount namespace in which the kernel has another boot id.
pub struct Node {
    name: String,
    boot_id: PathBuf,
}

impl Node {
    pub fn new(volume: &Volume, name: &str) -> Self {
        let boot_id = volume.path(&format!("boot-id-of-{name}"));
        std::fs::write(&boot_id, format!("00000000-{name}\n")).unwrap();
        Self { name: name.into(), boot_id }
    }

    /// `command` on this node. It runs as a child of the wrapper's own process.
    pub fn run(&self, command: &Command) -> Command {
        let mount = format!(
            "mount --bind '{}' /proc/sys/kernel/random/boot_id || exit 99\nexport NODE_NAME={} POD_NAME=pod-of-{}",
            self.boot_id.display(),
            self.name,
            self.name
        );
        under(&["unshare", "--mount"], &in_shell(&mount, command))
    }
}

/// A cgroup whose processes can be frozen, all at once and without a signal.
pub struct Freezer {
    dir: PathBuf,
    mounted: Option<tempfile::TempDir>,
    is_v2: bool,
}

impl Freezer {
    /// `None`, and said why, where none can be made.
    pub fn new() -> Option<Self> {
        let name = format!("weightlift-freezer-{}", std::process::id());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in mounts.lines() {
            let [_, path, kind, options, ..] = line.split(' ').collect::<Vec<_>>()[..] else {
                continue;
            };
            let is_v2 = kind == "cgroup2";
            if is_v2 || kind == "cgroup" && options.split(',').any(|it| it == "freezer") {
                let dir = Path::new(path).join(&name);
                let file = if is_v2 { "cgroup.freeze" } else { "freezer.state" };
                if std::fs::create_dir(&dir).is_ok() {
                    if dir.join(file).is_file() {
                        return Some(Self { dir, mounted: None, is_v2 });
                    }
                    let _ = std::fs::remove_dir(&dir);
                }
            }
        }
        // A hierarchy that nobody has mounted.
        let mounted = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "cgroup", "-o", "freezer", "none"]).arg(mounted.path());
        let dir = mounted.path().join(name);
        if mount.output().is_ok_and(|output| output.status.success()) {
            let freezer = Self { dir, mounted: Some(mounted), is_v2: false };
            if std::fs::create_dir(&freezer.dir).is_ok() {
                return Some(freezer);
            }
        }
        skip("no cgroup with a freezer can be made here");
        None
    }

    pub fn take(&self, pid: i32) {
        std::fs::write(self.dir.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    pub fn freeze(&self) {
        let (file, value) =
            if self.is_v2 { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
        std::fs::write(self.dir.join(file), value).unwrap();
    }

    pub fn thaw(&self) {
        let (file, value) =
            if self.is_v2 { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
        let _ = std::fs::write(self.dir.join(file), value);
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        let started = Instant::now();
        while std::fs::remove_dir(&self.dir).is_err() && started.elapsed() < Duration::from_secs(5)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(mounted) = &self.mounted {
            let _ = Command::new("umount").arg(mounted.path()).status();
        }
    }
}

/// A filesystem that is unmounted at the end.
pub struct Mounted(pub PathBuf);

impl Mounted {
    pub fn tmpfs(at: &Path, options: &str) -> Self {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(at)
            .status()
            .unwrap();
        assert!(status.success());
        Self(at.to_owned())
    }

    /// A fresh ext4 of so many `bytes` on a loop device, in the file `image`, at `dir`, which is made. `None`, and said why, where that cannot be.
    pub fn ext4(bytes: u64, image: &Path, dir: &Path) -> Option<Self> {
        if !is_root() || !has("mkfs.ext4") || !has("mount") {
            return None;
        }
        std::fs::File::create(image).unwrap().set_len(bytes).unwrap();
        std::fs::create_dir(dir).unwrap();
        let done = |command: &mut Command| command.output().unwrap().status.success();
        assert!(done(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image)));
        if !done(Command::new("mount").args(["-o", "loop"]).args([image, dir])) {
            skip("no loop device can be mounted here");
            return None;
        }
        Some(Self(dir.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
