//! What a volume cannot do is found out before a byte of a weight is asked for, and nothing is left.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use weightlift_fakes::{Blob, FakeHub, Tree};

use crate::support::process::straced;
use crate::support::*;

const MIB: u64 = 1 << 20;
/// As the manifests set it.
const USER: u32 = 65_532;

/// A mount, or an attribute, that is taken away at the end.
pub(super) struct Undone(Vec<String>);

impl Drop for Undone {
    fn drop(&mut self) {
        let _ = Command::new(&self.0[0]).args(&self.0[1..]).status();
    }
}

pub(super) fn done(command: &[&str], at: &Path) -> bool {
    Command::new(command[0]).args(&command[1..]).arg(at).status().unwrap().success()
}

pub(super) fn mounted(arguments: &[&str], at: &Path) -> Undone {
    std::fs::create_dir_all(at).unwrap();
    assert!(done(&[&["mount"], arguments].concat(), at), "{arguments:?}");
    Undone(vec!["umount".into(), "-l".into(), at.display().to_string()])
}

pub(super) fn tmpfs(at: &Path, options: &str) -> Undone {
    mounted(&["-t", "tmpfs", "-o", options, "tmpfs"], at)
}

pub(super) fn bound(at: &Path) -> Undone {
    std::fs::create_dir_all(at).unwrap();
    mounted(&["--bind", at.to_str().unwrap()], at)
}

/// `None`, and said why, where the filesystem has no attributes.
fn with_attribute(attribute: &str, at: &Path) -> Option<Undone> {
    if !done(&["chattr", &format!("+{attribute}")], at) {
        skip("the filesystem of the temporary directory has no attributes");
        return None;
    }
    Some(Undone(vec!["chattr".into(), format!("-{attribute}"), at.display().to_string()]))
}

fn hub() -> FakeHub {
    FakeHub::serving(REPO, model())
}

fn model() -> Tree {
    Tree::new()
        .with("config.json", "{}")
        .with("sub/notes.txt", "notes")
        .with_blob("weights.bin", Blob::synthetic(MIB, 1))
}

fn updated() -> Tree {
    model().with("config.json", "{\"new\": 1}")
}

/// Requests for the content of files.
fn asked(hub: &FakeHub) -> usize {
    let is_listing =
        |target: &str| target.starts_with("/api/") && !target.starts_with("/api/resolve-cache/");
    hub.requests().iter().filter(|request| !is_listing(&request.target)).count()
}

/// Refused before anything of a file was asked for, without leaving anything.
#[track_caller]
fn assert_refused(run: Run, hub: &FakeHub, volume: &Volume, code: i32, says: &str) {
    let run = run.assert_code(code).assert_says(says);
    assert_eq!(asked(hub), 0, "bytes were asked for: {}", run.stderr);
    volume.assert_clean();
    assert_eq!(trials(&volume.root()), Vec::<PathBuf>::new());
}

/// What the probe has put outside of the working area.
fn trials(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in list(root) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with(".weightlift-probe") {
            found.push(path);
        } else if path.is_dir() && !path.is_symlink() {
            found.extend(trials(&path));
        }
    }
    found
}

/// `command` as a user who is not root and has no capabilities.
pub(super) fn as_user(volume: &Volume, command: &Command) -> Command {
    let opened = std::fs::metadata(volume.path("")).unwrap().permissions().mode();
    std::fs::set_permissions(volume.path(""), PermissionsExt::from_mode(opened | 0o755)).unwrap();
    let user = USER.to_string();
    let copy = volume.path("weightlift");
    if !copy.exists() {
        copy_binary(&copy);
    }
    let mut as_user = Command::new("setpriv");
    as_user.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--inh-caps=-all"]);
    as_user.arg(copy).args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            as_user.env(name, value);
        }
    }
    as_user.env("PATH", std::env::var_os("PATH").unwrap());
    as_user
}

pub(super) fn give(path: &Path, owner: u32, mode: u32) {
    std::fs::create_dir_all(path).unwrap();
    chown(path, Some(owner), Some(owner)).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_mount_on_the_way_to_a_model_is_its_root() {
    if !is_root() {
        return;
    }
    for (mount, dest, is_bound) in
        [("a", "a/b", false), ("a", "a/b", true), ("a", "a/b/c", false), ("a/b", "a/b/c", false)]
    {
        let (hub, volume) = (hub(), Volume::new());
        let at = volume.family(mount);
        let _mount = if is_bound { bound(&at) } else { tmpfs(&at, "size=32m") };
        let run = |arguments: &[&str]| fetch(&hub, &volume, arguments).run();
        let first = run(&["hf://org/tiny", dest]).assert_success();
        assert_eq!(first.stdout, format!("{}\n", volume.family(dest).display()));
        volume.assert_holds(dest, &model());
        assert!(at.join(".weightlift/locks").is_dir(), "{mount} {dest}");
        assert!(!volume.root().join(".weightlift").exists(), "{mount} {dest}");
        hub.move_branch(REPO, "main", updated());
        run(&["hf://org/tiny", dest]).assert_success().assert_says("is kept at");
        volume.assert_holds(dest, &updated());
        assert_eq!(list(&at.join(".weightlift/attempts")), Vec::<PathBuf>::new());
        assert_eq!(trials(&volume.root()), Vec::<PathBuf>::new());
        hub.log().clear();
        run(&["hf://org/tiny", dest]).assert_success();
        assert_eq!(asked(&hub), 0, "a warm start");
        // Who mounts the inner volume alone finds the same.
        let mut inner = weightlift();
        inner.args(["fetch", "hf://org/tiny", &dest[mount.len() + 1..], "--root"]).arg(&at);
        inner.env("HF_ENDPOINT", hub.url()).run().assert_success().assert_says("nothing to do");
    }
}

#[test]
fn a_model_behind_a_mount_can_be_a_link() {
    if !is_root() || !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let _mount = tmpfs(&volume.family("a"), "size=32m");
    let run = || {
        let command = fetch(&hub, &volume, &["hf://org/tiny", "a/b/c"]);
        straced(&command, "renameat2", &["renameat2:error=EINVAL"]).run().assert_success()
    };
    run();
    volume.assert_holds("a/b/c", &model());
    hub.move_branch(REPO, "main", updated());
    run();
    volume.assert_holds("a/b/c", &updated());
    let target = std::fs::read_link(volume.family("a/b/c")).unwrap();
    assert!(target.starts_with("../.weightlift/revisions/b%2Fc"), "{}", target.display());
}

#[test]
fn space_is_that_of_the_mount_where_the_bytes_will_lie() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let at = volume.family("a");
    let _mount = tmpfs(&at, "size=512k");
    let run = fetch(&hub, &volume, &["hf://org/tiny", "a/b"]).run();
    assert_refused(run, &hub, &volume, 15, "enlarge the volume");
    assert_eq!(list(&at.join(".weightlift/attempts")), Vec::<PathBuf>::new());
}

#[test]
fn a_mount_below_the_root_that_is_read_only_is_refused() {
    if !is_root() {
        return;
    }
    for dest in ["a/b", "a/b/c"] {
        let (hub, volume) = (hub(), Volume::new());
        let at = volume.family("a");
        let _mount = bound(&at);
        assert!(done(&["mount", "-o", "remount,bind,ro"], &at));
        let run = fetch(&hub, &volume, &["hf://org/tiny", dest]).run();
        assert_refused(run, &hub, &volume, 14, "is read-only; mount it writable");
    }
}

#[test]
fn a_working_area_on_another_volume_is_refused() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let _mount = tmpfs(&volume.root().join(".weightlift"), "size=32m");
    for dest in ["tiny", "a/b"] {
        let run = fetch(&hub, &volume, &["hf://org/tiny", dest]).run();
        assert_refused(run, &hub, &volume, 14, "is on another volume, or under another quota");
        assert!(!volume.family(dest).exists());
    }
}

#[test]
fn a_mount_inside_a_directory_that_is_filled_is_refused() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let family = volume.family("tiny");
    std::fs::create_dir_all(&family).unwrap();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let _mount = tmpfs(&family.join("sub"), "size=32m");
    hub.log().clear();
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run();
    assert_refused(run, &hub, &volume, 14, "tiny/sub` is on another volume");
    assert!(family.join(".weightlift-complete.json").exists());
    assert_eq!(list(&family.join(".weightlift/attempts")), Vec::<PathBuf>::new());
}

/// Quotas by directory (projects of ext4 and xfs, CephFS) answer so to what comes from outside, and only
/// to that: the third rename is the first that really leaves the working area.
#[test]
fn a_quota_by_directory_that_nothing_can_be_moved_into_is_refused() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    // As a run leaves it that is killed in the middle of this.
    std::fs::create_dir_all(volume.family("a/.weightlift-probe~0123456789abcdef")).unwrap();
    let command = command_of(&hub, &volume);
    let run = straced(&command, "renameat", &["renameat:error=EXDEV:when=3"]).run();
    assert_refused(run, &hub, &volume, 14, "a` is on another volume, or under another quota");
    // One that lies beside the working area is not tried so.
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let names = volume.path("names");
    let traced = ["strace", "-f", "-qq", "-e", "trace=renameat", "-o", names.to_str().unwrap()];
    under(&traced, &command).run().assert_success();
    let names = std::fs::read_to_string(names).unwrap();
    assert_eq!(names.matches("\".weightlift-probe~").count(), 1, "{names}");
    assert!(names.contains("\".weightlift-probe~none\") = -1 ENOENT"), "{names}");
}

/// What `chattr` sets on the root, the directory above the model, or the model.
#[test]
fn attributes_that_keep_a_model_from_being_published_are_seen() {
    if !is_root() || !has("chattr") || !has("strace") {
        return;
    }
    #[derive(Clone, Copy, PartialEq)]
    enum Was {
        Nothing,
        /// As an earlier version has published it.
        Directory,
        Link,
    }
    for (attribute, at, was, refused) in [
        ("i", "", Was::Nothing, Some("is immutable")),
        ("i", "a", Was::Nothing, Some("a` is immutable")),
        ("i", "a", Was::Directory, Some("a` is immutable")),
        ("i", "a", Was::Link, Some("a` is immutable")),
        ("i", "a/b", Was::Directory, Some("a/b` is immutable")),
        // Of a revision nothing is changed.
        ("i", "a/b", Was::Link, None),
        ("a", "a", Was::Nothing, None),
        ("a", "a", Was::Directory, Some("a` is append-only")),
        ("a", "a", Was::Link, Some("a` is append-only")),
        ("a", "a/b", Was::Directory, Some("a/b` is append-only")),
    ] {
        let (hub, volume) = (hub(), Volume::new());
        // The working area is there, and so is the directory above the model.
        fetch(&hub, &volume, &["hf://org/tiny", "a/other"]).run().assert_success();
        let mut command = fetch(&hub, &volume, &["hf://org/tiny", "a/b"]);
        match was {
            Was::Nothing => {}
            Was::Link => drop(command.run().assert_success()),
            Was::Directory => {
                let run = straced(&command, "symlinkat", &["symlinkat:error=EPERM"]).run();
                run.assert_success();
            }
        }
        if was != Was::Nothing {
            hub.move_branch(REPO, "main", updated());
        }
        let shown = std::fs::canonicalize(volume.family(at)).unwrap();
        let Some(attribute) = with_attribute(attribute, &shown) else { return };
        hub.log().clear();
        let dest = if at.is_empty() { "tiny" } else { "a/b" };
        let run = fetch(&hub, &volume, &["hf://org/tiny", dest]).run();
        match refused {
            Some(says) => assert_refused(run, &hub, &volume, 14, says),
            None => assert_eq!(run.code, 0, "{}", run.stderr),
        }
        drop(attribute);
        if was != Was::Nothing {
            let shown = if refused.is_some() { model() } else { updated() };
            volume.assert_holds("a/b", &shown);
        }
    }
}

/// Whose the directories are, and with which mode; the working area is always ours.
#[test]
fn permissions_that_keep_a_model_from_being_published_are_seen() {
    if !is_root() || !has("setpriv") || !has("strace") {
        return;
    }
    type Given = (u32, u32);
    const OURS: Given = (USER, 0o755);
    for (above, family, revisions, refused) in [
        ((0, 0o755), None, OURS, Some("a` is not writable for user 65532")),
        ((1000, 0o700), None, OURS, Some("")),
        ((0, 0o1777), None, OURS, None),
        ((0, 0o777), None, OURS, None),
        ((0, 0o755), Some(OURS), OURS, Some("a` is not writable for user 65532")),
        ((0, 0o1777), Some((1000, 0o777)), OURS, Some("run as user 1000")),
        ((0, 0o1777), Some((0, 0o777)), OURS, Some("sticky directory")),
        ((0, 0o1777), Some(OURS), OURS, None),
        ((USER, 0o1755), Some((1000, 0o777)), OURS, None),
        ((0, 0o777), Some((1000, 0o755)), OURS, Some("a/b` is not writable for user 65532")),
        (OURS, Some(OURS), (1000, 0o755), Some("revisions/a%2Fb` is not writable")),
        (OURS, Some(OURS), OURS, None),
    ] {
        let (hub, volume) = (hub(), Volume::new());
        give(&volume.root(), USER, 0o755);
        let run = || as_user(&volume, &fetch(&hub, &volume, &["hf://org/tiny", "a/b"])).run();
        let other = fetch(&hub, &volume, &["hf://org/tiny", "other"]);
        as_user(&volume, &other).run().assert_success();
        give(&volume.family("a"), USER, 0o755);
        if let Some((owner, mode)) = family {
            // A directory, as an earlier version has published it.
            let first = fetch(&hub, &volume, &["hf://org/tiny", "a/b"]);
            let first = as_user(&volume, &first);
            straced(&first, "symlinkat", &["symlinkat:error=EPERM"]).run().assert_success();
            give(&volume.family("a/b"), owner, mode);
            hub.move_branch(REPO, "main", updated());
        }
        give(&volume.root().join(".weightlift/revisions"), USER, 0o755);
        give(&volume.root().join(".weightlift/revisions/a%2Fb"), revisions.0, revisions.1);
        give(&volume.family("a"), above.0, above.1);
        hub.log().clear();
        let run = run();
        match refused {
            Some(says) => assert_refused(run, &hub, &volume, 14, says),
            None => assert_eq!(run.code, 0, "{above:?} {family:?}: {}", run.stderr),
        }
    }
}

/// What a filesystem answers to a call, however often; for a first fetch, and for an update.
#[test]
fn what_a_volume_cannot_do_is_found_out_by_trying() {
    if !has("strace") {
        return;
    }
    const SMB: &[&str] = &["renameat2:error=EINVAL", "symlinkat:error=EOPNOTSUPP"];
    for (injects, arguments, of_first, of_update, says) in [
        (&["renameat:error=EXDEV"][..], &[][..], 14, 14, "cannot rename files"),
        (&["renameat:error=ENOSYS"], &[], 14, 14, "cannot rename files"),
        (&["renameat:error=EPERM"], &["--allow-degraded"], 14, 14, "cannot rename files"),
        (&["renameat:error=EIO"], &[], 22, 22, "Input/output error"),
        (&["fsync:error=EINVAL"], &[], 14, 14, "cannot make files durable"),
        (&["fsync:error=ENOSYS"], &[], 14, 14, "cannot make files durable"),
        (&["fsync:error=EPERM"], &["--allow-degraded"], 14, 14, "cannot make files durable"),
        (&["fsync:error=EIO"], &[], 22, 22, "Input/output error"),
        (&["fsync:error=EDQUOT"], &["--if-stale", "fail"], 15, 15, "quota"),
        (SMB, &[], 0, 14, "can neither exchange, rename nor link"),
        (SMB, &["--allow-degraded"], 0, 0, ""),
        (&["renameat2:error=ENOSYS"], &[], 0, 0, ""),
        (&["renameat2:error=EPERM"], &[], 0, 0, ""),
        (&["renameat2:error=EXDEV"], &[], 0, 0, ""),
        (&["symlinkat:error=EPERM"], &[], 0, 0, ""),
        (&["linkat:error=ENOSYS"], &[], 0, 0, ""),
        (&["linkat:error=EXDEV"], &[], 0, 0, ""),
        (&["linkat:error=EPERM"], &[], 0, 0, ""),
        (&["flock:error=ENOSYS"], &[], 0, 0, "no usable locks"),
    ] {
        let calls = "renameat,renameat2,symlinkat,linkat,fsync,flock";
        for (is_update, code) in [(false, of_first), (true, of_update)] {
            let (hub, volume) = (hub(), Volume::new());
            let mut command = fetch(&hub, &volume, &["hf://org/tiny"]);
            if is_update {
                // What has no links has never had any.
                let links = |inject: &&&str| inject.starts_with("symlinkat");
                let before: Vec<&str> = injects.iter().filter(links).copied().collect();
                straced(&command, "symlinkat", &before).run().assert_success();
                hub.move_branch(REPO, "main", updated());
                hub.log().clear();
            }
            let run = straced(command.args(arguments), calls, injects).run();
            if code == 0 {
                assert_eq!(run.code, 0, "{injects:?} {is_update}: {}", run.stderr);
                if of_first == of_update {
                    run.assert_says(says);
                }
                volume.assert_holds("tiny", &if is_update { updated() } else { model() });
                assert_eq!(volume.attempts(), Vec::<PathBuf>::new(), "{injects:?} {is_update}");
            } else {
                assert_refused(run, &hub, &volume, code, says);
            }
        }
    }
}

#[test]
fn a_volume_that_removes_nothing_is_refused() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let run = straced(&command, "unlinkat", &["unlinkat:error=EPERM"]).run();
    run.assert_code(14).assert_says("cannot remove files");
    assert_eq!(asked(&hub), 0);
    // Where it can, the next run goes on as if nothing had been.
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_clean();
}

#[test]
fn a_file_that_is_too_large_for_the_volume_is_refused_before_the_small_ones_come() {
    if !has("prlimit") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let run = under(&["prlimit", "--fsize=500000"], &command).run();
    assert_refused(run, &hub, &volume, 15, "cannot hold a file of 1.0 MB, as `weights.bin` is");
}

#[test]
fn a_name_that_is_too_long_for_the_volume_is_refused() {
    if !has("strace") {
        return;
    }
    let long = format!("{}.json", "x".repeat(150));
    let hub = FakeHub::serving(REPO, model().with(&long, "{}"));
    let volume = Volume::new();
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    // As eCryptfs: names of at most 143 bytes.
    let word = |number: u64| {
        let bytes = number.to_le_bytes().map(|byte| format!("\\x{byte:02x}"));
        bytes.concat()
    };
    let much = 1 << 30;
    let statfs = [0xf15f, 4096, much, much, much, much, much, 1, 143, 4096, 0].map(word).concat();
    let poke = format!("fstatfs:poke_exit=@arg2={}", statfs.replace("\\x", ""));
    let run = straced(&command, "fstatfs", &[&poke]).run();
    assert_refused(run, &hub, &volume, 14, "allows names of 143 bytes, and `xxx");
}

/// Whatever of the probe a kill leaves goes with the attempt, or is seen by the next one.
#[test]
fn what_a_kill_in_the_probe_leaves_is_removed_by_the_next_run() {
    if !has("strace") {
        return;
    }
    let kills: Vec<String> = [
        "mkdirat:signal=KILL:when=7",
        "mkdirat:signal=KILL:when=8",
        "mkdirat:signal=KILL:when=9",
        "renameat2:signal=KILL:when=1",
        "symlinkat:signal=KILL:when=1",
        "fsync:signal=KILL:when=1",
        "fsync:signal=KILL:when=2",
        "linkat:signal=KILL:when=1",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain((1..=3).map(|when| format!("renameat:signal=KILL:when={when}")))
    .chain((1..=6).map(|when| format!("unlinkat:signal=KILL:when={when}")))
    .collect();
    for kill in kills {
        let (hub, volume) = (hub(), Volume::new());
        std::fs::create_dir_all(volume.family("a")).unwrap();
        let command = fetch(&hub, &volume, &["hf://org/tiny", "a/b"]);
        let killed = straced(&command, kill.split(':').next().unwrap(), &[&kill]).run();
        assert_ne!(killed.code, 0, "not killed at {kill}");
        command_of(&hub, &volume).run().assert_success();
        volume.assert_holds("a/b", &model());
        assert_eq!(volume.attempts(), Vec::<PathBuf>::new(), "{kill}");
        volume.assert_clean();
        assert_eq!(trials(&volume.root()), Vec::<PathBuf>::new(), "{kill}");
    }
}

fn command_of(hub: &FakeHub, volume: &Volume) -> Command {
    fetch(hub, volume, &["hf://org/tiny", "a/b"])
}

#[test]
fn a_warm_start_tries_nothing() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    command_of(&hub, &volume).run().assert_success();
    let changed = || {
        let of = |path: &str| {
            let stat = std::fs::metadata(volume.root().join(path)).unwrap();
            (stat.mtime(), stat.mtime_nsec())
        };
        ["", "a", "a/b", ".weightlift", ".weightlift/attempts"].map(of)
    };
    let before = changed();
    command_of(&hub, &volume).run().assert_success().assert_says("nothing to do");
    assert_eq!(changed(), before);
    // Nor does it need to: all that the probe does is refused.
    let injects = ["mkdirat,renameat,renameat2,symlinkat,linkat,fsync,unlinkat:error=EPERM"];
    let calls = "mkdirat,renameat,renameat2,symlinkat,linkat,fsync,unlinkat";
    straced(&command_of(&hub, &volume), calls, &injects).run().assert_success();
}

#[test]
fn every_command_that_writes_says_the_same_of_a_read_only_mount_and_the_others_work() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let root = volume.root();
    let _mount = bound(&root);
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert!(done(&["mount", "-o", "remount,bind,ro"], &root));
    let says = format!(
        "error: `{}` is read-only; mount it writable, or let another pod fetch [exit 14, unusable]",
        root.display()
    );
    for arguments in [
        &["hf://org/tiny", "other"][..],
        &["hf://org/tiny", "a/b/c"],
        &["hf://org/tiny", "--all", "--replace", "--include", "*.json"],
        &["hf://org/tiny", "--layout", "hf-cache"],
    ] {
        let run = fetch(&hub, &volume, arguments).run().assert_code(14);
        assert_eq!(run.last_line(), says, "{arguments:?}");
    }
    // Nothing of weightlift's is there yet.
    let empty = volume.path("empty");
    let _mount = bound(&empty);
    assert!(done(&["mount", "-o", "remount,bind,ro"], &empty));
    for dest in [empty.clone(), empty.join("a"), empty.join("a/b")] {
        let mut command = weightlift();
        command.args(["fetch", "hf://org/tiny"]).arg(&dest).env("HF_ENDPOINT", hub.url());
        let run = command.run().assert_code(14);
        let says = says.replace(root.to_str().unwrap(), empty.to_str().unwrap());
        assert_eq!(run.last_line(), says, "{dest:?}");
    }
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success().assert_says("nothing to do");
    fetch(&hub, &volume, &["hf://org/tiny", "new", "--dry-run"]).run().assert_success();
    let family = volume.family("tiny");
    let command = |name: &str| {
        let mut command = weightlift();
        command.arg(name);
        command
    };
    for name in ["verify", "wait"] {
        command(name).arg(&family).run().assert_success();
    }
    for name in ["list", "prune"] {
        command(name).arg("--root").arg(&root).run().assert_success();
    }
    let link = root.join("link");
    let run = command("wait").arg(&family).arg("--link").arg(&link).run().assert_code(14);
    assert_eq!(run.last_line(), says);
    // What `prune` would remove was kept before.
    assert!(done(&["mount", "-o", "remount,bind,rw"], &root));
    hub.move_branch(REPO, "main", updated());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert!(done(&["mount", "-o", "remount,bind,ro"], &root));
    let mut prune = command("prune");
    prune.args(["--keep-revisions", "0", "--yes", "--root"]).arg(&root);
    let run = prune.run().assert_code(14);
    assert!(run.stderr.contains("is read-only; mount it writable"), "{}", run.stderr);
    assert!(!run.stderr.contains("os error"), "{}", run.stderr);
}

/// Whoever has a whole copy starts, also where the newer one cannot be written.
#[test]
fn a_whole_copy_on_a_volume_that_is_read_only_is_stale_once_the_branch_has_moved() {
    if !is_root() {
        return;
    }
    for layout in [&[][..], &["--layout", "hf-cache"]] {
        let (hub, volume) = (hub(), Volume::new());
        let root = volume.root();
        let _mount = bound(&root);
        let old = format!("hf://org/tiny@{}", hub.commit(REPO));
        let run = |arguments: &[&str]| fetch(&hub, &volume, &[arguments, layout].concat()).run();
        run(&["hf://org/tiny"]).assert_success();
        let new = format!("hf://org/tiny@{}", hub.move_branch(REPO, "main", updated()));
        assert!(done(&["mount", "-o", "remount,bind,ro"], &root));
        let stale = run(&["hf://org/tiny"]).assert_success();
        assert!(stale.last_line().starts_with("complete but stale"), "{}", stale.stderr);
        assert!(stale.stderr.contains("is read-only; using the complete copy"), "{}", stale.stderr);
        let refused = run(&["hf://org/tiny", "--if-stale=fail"]).assert_code(14);
        assert!(refused.stderr.contains("is read-only; mount it writable"), "{}", refused.stderr);
        // What is not there cannot be stale.
        run(&[&new]).assert_code(14);
        run(&[&old]).assert_success().assert_says("nothing to do");
    }
}
