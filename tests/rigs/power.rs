//! Power cuts: a fetch onto ext4 and xfs in an image file, a shutdown of the filesystem without a
//! flush of its log at a chosen system call, and a look at what is there after the next mount.
//!
//! What the disk has at a cut is what was synced, and what the filesystem has written by itself. So a
//! neighbour syncs a file of its own at a random call before the cut, which makes all names durable
//! and no bytes: the order of the two is what a publication must get right.
//!
//! Every round has its own seed, printed when it fails. `WEIGHTLIFT_TEST_SEED=<seed>
//! WEIGHTLIFT_TEST_CUTS=1` repeats it; `WEIGHTLIFT_TEST_CUTS=2000 cargo test --test rigs power:: --
//! --nocapture` is the long form.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::support::scene::{
    Layout, assert_verifies, begins_publication, chunked, holds, many_small, new, old,
};
use crate::support::tracer::{Act, Call, traced};
use crate::support::*;
use weightlift_fakes::{FakeHub, Tree};

/// Rounds per filesystem; each has a cut or two in the middle, and one right after its success.
const ROUNDS: u64 = 70;

#[test]
fn a_power_cut_on_ext4_leaves_nothing_or_all_and_takes_no_success_back() {
    cut_on("ext4", "64M", &["-q", "-F"]);
}

#[test]
fn a_power_cut_on_xfs_leaves_nothing_or_all_and_takes_no_success_back() {
    cut_on("xfs", "320M", &["-q", "-f"]);
}

/// What was there, and what is fetched.
struct Scene {
    layout: Layout,
    old: Option<Tree>,
    new: Tree,
    /// Another model on the volume, which has files of the new one.
    giver: Option<Tree>,
    /// More flags of the fetch.
    flags: &'static [&'static str],
    hub: FakeHub,
    /// The disk before the fetch.
    image: PathBuf,
    /// How many calls change the volume, and the first of them that publishes.
    calls: usize,
    publication: usize,
}

/// What happens in one round: runs that end before their time, and then one that does not.
#[derive(Debug)]
struct Round {
    scene: usize,
    cuts: Vec<Cut>,
}

#[derive(Debug)]
struct Cut {
    /// The call before which the run ends; after the last one, the run has ended by itself.
    at: usize,
    /// The call before which a neighbour syncs a file of its own.
    neighbour: Option<usize>,
    /// The run is only killed; the power stays on.
    only_killed: bool,
    /// The kernel that goes on is another one.
    reboot: bool,
}

fn cut_on(kind: &str, size: &str, options: &[&str]) {
    let mkfs = format!("mkfs.{kind}");
    if !is_root() || !has(&mkfs) || !has("unshare") || !has("python3") {
        return;
    }
    let Some(disk) = Disk::made(kind, size, options) else {
        return;
    };
    let scenes = [
        Scene::on(&disk, "first", Layout::Exchange, None, new()),
        Scene::on(&disk, "update", Layout::Exchange, Some(old()), new()),
        Scene::on(&disk, "filled", Layout::InPlace, None, new()),
        Scene::on(&disk, "refilled", Layout::InPlace, Some(old()), new()),
        Scene::on(&disk, "link", Layout::Links, None, new()),
        Scene::on(&disk, "relink", Layout::Links, Some(old()), new()),
        Scene::on(&disk, "alone", Layout::LinksAlone, Some(old()), new()),
        Scene::on(&disk, "cache", Layout::HfCache, None, new()),
        Scene::on(&disk, "recache", Layout::HfCache, Some(old()), new()),
        Scene::on(&disk, "small", Layout::Links, None, many_small()),
        Scene::on(&disk, "reuse", Layout::Links, None, new()),
        Scene::on(&disk, "pruned", Layout::Links, Some(old()), new()),
        {
            let [old, new] = chunked();
            Scene::on(&disk, "chunks", Layout::Links, Some(old), new)
        },
    ];
    let variable = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let first = variable("WEIGHTLIFT_TEST_SEED")
        .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() * 10_000);
    let rounds = variable("WEIGHTLIFT_TEST_CUTS").unwrap_or(ROUNDS);
    eprintln!("{kind}: {rounds} rounds from seed {first}");
    let mut tally = Tally::default();
    for seed in first..first + rounds {
        let round = Round::chosen(seed, &scenes);
        let what = format!("{kind}, WEIGHTLIFT_TEST_SEED={seed}, {round:?}");
        scenes[round.scene].round(&disk, &round, &what, &mut tally);
    }
    eprintln!("{kind}: {:?}", tally.0);
}

impl Round {
    fn chosen(seed: u64, scenes: &[Scene]) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let scene = dice.usize(..scenes.len());
        let times = 1 + usize::from(dice.u8(..3) == 0);
        let cuts = (0..times).map(|_| Cut::chosen(&mut dice, &scenes[scene])).collect();
        Self { scene, cuts }
    }
}

impl Cut {
    fn chosen(dice: &mut fastrand::Rng, scene: &Scene) -> Self {
        // Publication is where the order counts.
        let from = if dice.u8(..3) == 0 { 0 } else { scene.publication };
        let at = dice.usize(from..scene.calls + 3);
        let neighbour = match dice.u8(..3) {
            0 => None,
            1 => Some(at),
            _ => Some(dice.usize(..at + 1)),
        };
        let only_killed = dice.u8(..3) == 0;
        Self { at, neighbour, only_killed, reboot: !only_killed && dice.u8(..4) != 0 }
    }
}

impl Scene {
    fn on(disk: &Disk, name: &str, layout: Layout, old: Option<Tree>, new: Tree) -> Self {
        let first = old.clone().unwrap_or_else(|| new.clone());
        let of_giver = new.clone().with("config.json", "{\"of\": \"another\"}");
        let hub = FakeHub::builder().repo(REPO, first).repo("org/giver", of_giver.clone());
        let hub = if name == "chunks" { hub.xet().xet_xorb_chunks(3).start() } else { hub.start() };
        let giver = (name == "reuse").then_some(of_giver);
        let flags: &[&str] = if name == "pruned" { &["--keep-revisions", "0"] } else { &[] };
        let image = disk.volume.path(&format!("{name}.img"));
        let mut scene =
            Self { layout, old, new, giver, flags, hub, image, calls: 0, publication: 0 };
        copy(&disk.empty, &disk.image);
        disk.mount();
        if layout == Layout::InPlace {
            std::fs::create_dir_all(disk.family()).unwrap();
        }
        if scene.old.is_some() {
            scene.run(disk, false, |_| Act::Pass).assert_success();
            scene.hub.move_branch(REPO, "main", scene.new.clone());
        }
        if scene.giver.is_some() {
            let fetched = fetch(&scene.hub, &disk.volume, &["hf://org/giver", "giver"]).run();
            fetched.assert_success();
        }
        disk.unmount();
        copy(&disk.image, &scene.image);
        // Once without a cut, to know what comes when.
        disk.mount();
        let mut calls = Vec::new();
        let count = |call: &Call| {
            calls.extend(call.changes().then(|| call.clone()));
            Act::Pass
        };
        scene.run(disk, false, count).assert_success();
        disk.unmount();
        scene.calls = calls.len();
        scene.publication = calls.iter().position(begins_publication).unwrap();
        scene
    }

    fn run(&self, disk: &Disk, reboot: bool, mut decide: impl FnMut(&Call) -> Act) -> Run {
        let mut command = fetch(&self.hub, &disk.volume, &["hf://org/tiny", "--connections", "1"]);
        command.args(self.layout.arguments()).args(self.flags);
        if reboot {
            self.age_attempts(disk);
            command = disk.after_reboot(&command);
        }
        traced(&command, &disk.mounted, |call| {
            self.layout.refuses(call).unwrap_or_else(|| decide(call))
        })
    }

    fn round(&self, disk: &Disk, round: &Round, what: &str, tally: &mut Tally) {
        copy(&self.image, &disk.image);
        disk.mount();
        let (mut reboot, mut is_complete) = (false, false);
        for cut in &round.cuts {
            is_complete |= self.cut(disk, cut, reboot, tally);
            self.assert_absent_or_whole(disk, is_complete, what);
            reboot = cut.reboot;
        }
        let next = self.run(disk, reboot, |_| Act::Pass);
        assert_eq!(next.code, 0, "after {what}: {}", next.stderr);
        let is_warm = !next.stderr.lines().last().unwrap_or_default().contains("fetched");
        tally.count(if is_warm { "warm starts" } else { "fetches that went on" });
        let left = list(&self.state(disk).join("attempts")).len();
        if !is_warm && left > 0 {
            // What a cut has left without a journal must not fill the volume for ever.
            assert!(!reboot, "after {what}: {left} attempts are left");
            tally.count("attempts left without a reboot");
        }
        disk.cut();
        tally.count("cuts after success");
        disk.unmount();
        disk.mount();
        let what = format!("the last success after {what}: {}", next.stderr);
        self.assert_absent_or_whole(disk, true, &what);
        disk.unmount();
    }

    /// A run that ends before its time, if it comes so far; whether it was a success instead.
    fn cut(&self, disk: &Disk, cut: &Cut, reboot: bool, tally: &mut Tally) -> bool {
        let mut seen = 0;
        let run = self.run(disk, reboot, |call| {
            if !call.changes() {
                return Act::Pass;
            }
            seen += 1;
            if cut.neighbour == Some(seen - 1) {
                disk.neighbour_syncs();
            }
            if seen - 1 != cut.at {
                return Act::Pass;
            }
            if !cut.only_killed {
                disk.cut();
            }
            Act::Kill
        });
        if run.code == 0 {
            disk.cut();
        } else {
            assert_eq!(run.code, -1, "{cut:?}: {}", run.stderr);
        }
        if run.code == 0 || !cut.only_killed {
            disk.unmount();
            disk.mount();
        }
        tally.count(match run.code {
            0 => "cuts after success",
            _ if cut.only_killed => "kills",
            _ => "cuts",
        });
        run.code == 0
    }

    /// This kernel has run since before the cut; after a real one they would be older than it.
    fn age_attempts(&self, disk: &Disk) {
        for attempt in list(&self.state(disk).join("attempts")) {
            let attempt = std::fs::File::open(attempt).unwrap();
            attempt.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
    }

    fn state(&self, disk: &Disk) -> PathBuf {
        let base = if self.layout == Layout::InPlace { disk.family() } else { disk.volume.root() };
        base.join(".weightlift")
    }

    fn assert_absent_or_whole(&self, disk: &Disk, is_complete: bool, what: &str) {
        let root = disk.volume.root();
        if let Some(giver) = &self.giver {
            let there = holds(&root.join("giver"), giver);
            assert!(there, "{what}: the other model is not what it was");
        }
        let (family, is_shown) = (self.layout.shown(&root), self.layout.is_shown(&root));
        assert!(is_shown || !is_complete, "{what}: a success was taken back");
        if is_shown {
            assert_verifies(&family, what);
            let is_old = self.old.as_ref().is_some_and(|old| holds(&family, old));
            let is_new = holds(&family, &self.new);
            assert!(is_new || (is_old && !is_complete), "{what}: not what it should be");
        } else if self.layout == Layout::InPlace {
            assert!(family.is_dir(), "{what}: the directory is gone");
        } else {
            assert!(self.old.is_none(), "{what}: there is no model any more");
            assert!(family.symlink_metadata().is_err(), "{what}: no sentinel");
        }
    }
}

/// How often each thing has happened.
#[derive(Default)]
struct Tally(BTreeMap<&'static str, usize>);

impl Tally {
    fn count(&mut self, of: &'static str) {
        *self.0.entry(of).or_default() += 1;
    }
}

/// A filesystem in an image file, in memory where that can be.
struct Disk {
    volume: Volume,
    /// Where it is mounted: the root of the models.
    mounted: PathBuf,
    kind: String,
    empty: PathBuf,
    image: PathBuf,
    switch: std::cell::RefCell<Switch>,
}

impl Disk {
    /// `None`, and said why, where no image can be mounted.
    fn made(kind: &str, size: &str, options: &[&str]) -> Option<Self> {
        let volume = Volume::in_memory();
        let (empty, image) = (volume.path("empty.img"), volume.path("disk.img"));
        let mounted = volume.root();
        std::fs::create_dir(&mounted).unwrap();
        succeed(Command::new("truncate").args(["-s", size]).arg(&empty));
        let mut mkfs = Command::new(format!("mkfs.{kind}"));
        succeed(mkfs.args(options).arg(&empty).stdout(Stdio::null()));
        let switch = std::cell::RefCell::new(Switch::new());
        let disk = Self { volume, mounted, kind: kind.to_owned(), empty, image, switch };
        copy(&disk.empty, &disk.image);
        if !disk.mounting().status().unwrap().success() {
            skip(&format!("no image of {kind} can be mounted here"));
            return None;
        }
        disk.unmount();
        Some(disk)
    }

    fn family(&self) -> PathBuf {
        self.volume.family("tiny")
    }

    fn mount(&self) {
        succeed(&mut self.mounting());
    }

    fn mounting(&self) -> Command {
        let mut mount = Command::new("mount");
        mount.args(["-t", &self.kind, "-o", "loop"]).args([&self.image, &self.mounted]);
        mount
    }

    /// Returns when the kernel has forgotten the filesystem. Until then, a mount of the image would
    /// give the old one, cut as it is; a process in another mount namespace may hold it for a while.
    fn unmount(&self) {
        eventually("unmounted", || {
            let mut umount = Command::new("umount");
            umount.arg(&self.mounted).stderr(Stdio::null()).status().unwrap().success()
        });
        let is_ours = |device: &PathBuf| {
            let file = std::fs::read_to_string(device.join("loop/backing_file"));
            file.is_ok_and(|file| Path::new(file.trim_end()) == self.image)
        };
        let is_attached = || list(Path::new("/sys/block")).iter().any(is_ours);
        eventually("no loop device has the image", || !is_attached());
    }

    /// Nothing reaches the disk any more.
    fn cut(&self) {
        self.switch.borrow_mut().cut(&self.mounted);
    }

    /// Somebody else on this volume syncs a file, and with it the names of all others.
    fn neighbour_syncs(&self) {
        let mut file = std::fs::File::create(self.mounted.join("neighbour")).unwrap();
        file.write_all(b"somebody else's").unwrap();
        file.sync_all().unwrap();
    }

    /// `command` under what looks to it as another boot of the kernel.
    fn after_reboot(&self, command: &Command) -> Command {
        let id = self.volume.path("boot_id");
        let number = fastrand::u64(..);
        std::fs::write(&id, format!("{number:016x}-another-boot\n")).unwrap();
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        under(&["unshare", "-m", "sh", "-c", script, id.to_str().unwrap()], command)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        let _ = umount.arg("-l").arg(&self.mounted).stderr(Stdio::null()).status();
    }
}

/// A process that shuts filesystems down when it is told to.
struct Switch {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl Switch {
    /// The `GOINGDOWN` of xfs, which ext4 has as well, with the flag not to flush the log.
    const SCRIPT: &str = "
import fcntl, os, struct, sys
for line in sys.stdin:
    opened = os.open(line.rstrip('\\n'), os.O_RDONLY)
    fcntl.ioctl(opened, 0x8004587D, struct.pack('I', 2))
    os.close(opened)
    print('cut', flush=True)
";

    fn new() -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", Self::SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = python.spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, answers }
    }

    fn cut(&mut self, mounted: &Path) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{}", mounted.display()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "cut\n");
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn copy(from: &Path, to: &Path) {
    succeed(Command::new("cp").arg("--sparse=always").args([from, to]));
}

#[track_caller]
fn succeed(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}
