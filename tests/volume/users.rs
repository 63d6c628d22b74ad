//! Several users on one volume, as pods with different UIDs have it: each may fetch, resume, update, repair and prune
//! what another has left, if the root says by its mode that their group shares it.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::process::{Mounted, signal, straced, worker_on};
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;

/// A process as a pod starts it: without capabilities.
#[derive(Clone, Copy, Debug)]
struct User {
    uid: u32,
    gid: u32,
    /// Supplementary group.
    group: Option<u32>,
}

/// How the root of a volume is shared, and two users who share it.
#[derive(Clone, Copy, Debug)]
struct Way {
    name: &'static str,
    mode: u32,
    group: u32,
    users: [User; 2],
}

const fn user(uid: u32, gid: u32, group: Option<u32>) -> User {
    User { uid, gid, group }
}

/// `fsGroup`: the kubelet gives the root to a group, with set-group-ID; pods have it beside their own.
const FS_GROUP: Way = Way {
    name: "fsGroup",
    mode: 0o2775,
    group: 7_000,
    users: [user(7_001, 7_001, Some(7_000)), user(7_002, 7_002, Some(7_000))],
};
/// OpenShift: random users with group 0, on a volume that the kubelet does not change.
const GROUP_ZERO: Way = Way {
    name: "group 0",
    mode: 0o775,
    group: 0,
    users: [user(1_000_660_000, 0, None), user(1_000_770_000, 0, None)],
};
/// No group shares it: the first user alone has the volume.
const OWNER_ONLY: Way = Way { name: "owner only", mode: 0o755, ..FS_GROUP };
const SHARED: [Way; 2] = [FS_GROUP, GROUP_ZERO];

/// A volume, and a Hub.
struct Team {
    hub: FakeHub,
    volume: Volume,
    _mounted: Option<Mounted>,
}

impl Team {
    /// The root is a directory in memory.
    fn new(way: Way) -> Self {
        Self::on(way, Volume::in_memory(), None)
    }

    fn on(way: Way, volume: Volume, mounted: Option<Mounted>) -> Self {
        std::fs::set_permissions(volume.path(""), PermissionsExt::from_mode(0o755)).unwrap();
        copy_binary(&volume.path("weightlift"));
        std::fs::create_dir_all(volume.root()).unwrap();
        give(&volume.root(), way);
        Self { hub: FakeHub::serving(REPO, revision(1)), volume, _mounted: mounted }
    }

    fn run_as(&self, user: User, command: &Command) -> Command {
        let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--reuid", &uid, "--regid", &gid, "--inh-caps=-all"]);
        match user.group {
            Some(group) => wrapped.args(["--groups", &group.to_string()]),
            None => wrapped.arg("--clear-groups"),
        };
        wrapped.arg(self.volume.path("weightlift")).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                wrapped.env(name, value);
            }
        }
        wrapped.env("PATH", std::env::var_os("PATH").unwrap());
        wrapped
    }

    fn fetch(&self, user: User, arguments: &[&str]) -> Command {
        let mut all = vec!["hf://org/tiny"];
        all.extend(arguments);
        self.run_as(user, &fetch(&self.hub, &self.volume, &all))
    }

    fn other(&self, user: User, arguments: &[&str]) -> Command {
        let mut command = weightlift();
        command.args(arguments);
        self.run_as(user, &command)
    }

    fn show(&self, n: u64) {
        self.hub.move_branch(REPO, "main", revision(n));
        self.hub.log().clear();
    }

    fn root(&self) -> String {
        self.volume.root().display().to_string()
    }
}

fn give(path: &Path, way: Way) {
    let owner = if way.name == OWNER_ONLY.name { way.users[0].uid } else { 0 };
    chown(path, Some(owner), Some(way.group)).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(way.mode)).unwrap();
}

fn revision(n: u64) -> Tree {
    Tree::new()
        .with("config.json", format!("{{\"revision\": {n}}}"))
        .with_blob("parts/weights.bin", Blob::synthetic(300_000, n))
        .with_blob("same.bin", Blob::synthetic(200_000, 77))
}

fn large() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(24 * MIB, 2))
}

fn may_be_several_users() -> bool {
    is_root() && has("setpriv")
}

/// Warnings, but for the one about the kind of file that these models have.
fn warnings(run: &Run) -> Vec<&str> {
    let lines = run.stderr.lines().filter(|line| line.starts_with("warning: "));
    lines.filter(|line| !line.contains("can run code")).collect()
}

/// `umask` in the shell that starts `command`.
fn with_umask(umask: &str, command: &Command) -> Command {
    under(&["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"], command)
}

/// The permission bits of all that lies below `at`: those of files, and those of directories.
fn modes(at: &Path) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let (mut files, mut directories) = (BTreeSet::new(), BTreeSet::new());
    for path in list(at) {
        let stat = std::fs::symlink_metadata(&path).unwrap();
        if stat.is_dir() {
            directories.insert(stat.mode() & 0o7777);
            let (below, inner) = modes(&path);
            files.extend(below);
            directories.extend(inner);
        } else if stat.is_file() {
            files.insert(stat.mode() & 0o7777);
        }
    }
    (files, directories)
}

fn set(modes: &[u32]) -> BTreeSet<u32> {
    modes.iter().copied().collect()
}

/// Every step of a model's life, each by another user than the one before.
fn life(team: &Team, way: Way) {
    let [a, b] = way.users;
    let text = format!("{way:?}");
    team.fetch(a, &[]).run().assert_success();
    team.volume.assert_holds("tiny", &revision(1));
    let (files, directories) = modes(&team.volume.root().join(".weightlift"));
    assert_eq!(files, set(&[0o664]), "{text}");
    assert_eq!(directories, set(&[0o775 | way.mode & 0o2000]), "{text}");
    let warm = team.fetch(b, &[]).run().assert_success();
    assert!(warm.stderr.contains("nothing to do"), "{text}: {}", warm.stderr);

    // An update takes what has not changed by a second name, which the kernel gives to those only who may write.
    team.show(2);
    let run = team.fetch(b, &[]).run().assert_success();
    assert!(!run.stderr.contains("warning: this volume"), "{text}: {}", run.stderr);
    team.volume.assert_holds("tiny", &revision(2));
    assert_eq!(team.hub.count("*", "same.bin"), 0, "{text}");
    let same = std::fs::metadata(team.volume.family("tiny/same.bin")).unwrap();
    assert_eq!((same.uid(), same.nlink()), (a.uid, 2), "{text}: copied");

    // Another model that has the same files shares them: whoever may change the one may change the other.
    team.fetch(a, &["copy"]).run().assert_success();
    assert_eq!(team.hub.bytes_sent_for("xet-bridge"), 300_000, "{text}");
    let [one, other] = ["tiny", "copy"].map(|family| {
        std::fs::metadata(team.volume.family(family).join("parts/weights.bin")).unwrap()
    });
    assert_eq!((one.uid(), one.ino()), (b.uid, other.ino()), "{text}: copied");
    std::fs::remove_file(team.volume.family("copy")).unwrap();
    let copies = team.volume.root().join(".weightlift/revisions/copy");
    std::fs::remove_dir_all(copies).unwrap();

    // Back, and there again: no byte, whoever has published what is kept.
    for (user, n) in [(a, 1), (b, 2), (a, 1)] {
        team.show(n);
        let run = team.fetch(user, &["--output", "json"]).run().assert_success();
        assert!(run.stdout.contains("\"status\":\"restored\""), "{text}: {}", run.stdout);
        assert_eq!(team.hub.count("*", "/resolve/"), 0, "{text}");
        team.volume.assert_holds("tiny", &revision(n));
    }

    // Damage in what the one has published is mended by the other.
    let weights = team.volume.family("tiny/parts/weights.bin");
    let mut bytes = std::fs::read(&weights).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let family = team.volume.family("tiny").display().to_string();
    team.other(b, &["verify", &family]).run().assert_code(12);
    let run = team.fetch(b, &["--recheck", "--output", "json"]).run().assert_success();
    assert!(run.stdout.contains("\"status\":\"repaired\""), "{text}: {}", run.stdout);
    team.volume.assert_holds("tiny", &revision(1));
    team.other(a, &["verify", &family]).run().assert_success();

    // What is kept goes at an update or by `prune`, whoever has published it.
    team.show(3);
    team.fetch(a, &["--keep-revisions", "1"]).run().assert_success();
    let kept = || list(&team.volume.root().join(".weightlift/revisions/tiny")).len();
    assert_eq!(kept(), 2, "{text}");
    let prune = ["prune", "--root", &team.root(), "--keep-revisions", "0", "--yes"];
    let run = team.other(b, &prune).run().assert_success();
    assert_eq!((run.stdout.lines().count(), kept()), (1, 1), "{text}: {}", run.stderr);
    let run = team.other(b, &["list", "--root", &team.root()]).run().assert_success();
    assert!(!run.stderr.contains("not read"), "{text}: {}", run.stderr);
    team.volume.assert_holds("tiny", &revision(3));
    team.volume.assert_clean();
}

#[test]
fn two_users_of_one_group_do_for_each_other_all_that_a_model_needs() {
    if !may_be_several_users() {
        return;
    }
    for way in SHARED {
        life(&Team::new(way), way);
        let volume = Volume::new();
        let Some(mounted) = Mounted::ext4(64 * MIB, &volume.path("image"), &volume.root()) else {
            return;
        };
        life(&Team::on(way, volume, Some(mounted)), way);
    }
}

/// Starts a slow fetch and returns when a part of it has come.
fn slow(team: &Team, user: User, arguments: &[&str]) -> Running {
    let drip = Fault::Drip { bytes_per_second: 4 * MIB };
    team.hub.script(Rule::on("GET", "").at("cdn").then(drip));
    let mut all = vec!["--chunk-size", "1MiB", "--connections", "2"];
    all.extend(arguments);
    let running = team.fetch(user, &all).start();
    eventually("some chunks arrive", || {
        let in_place = team.volume.family("tiny/.weightlift/attempts");
        let areas = [team.volume.root().join(".weightlift/attempts"), in_place];
        let attempts = areas.iter().flat_map(|area| list(area));
        let journals = attempts.filter_map(|it| std::fs::read_to_string(it.join("journal")).ok());
        journals.map(|text| text.matches("\"chunk\"").count()).any(|chunks| chunks >= 3)
    });
    running
}

#[test]
fn what_one_user_leaves_another_goes_on_with() {
    if !may_be_several_users() {
        return;
    }
    for way in SHARED {
        for kind in ["plain", "in place", "cache"] {
            for users in [way.users, [way.users[1], way.users[0]]] {
                let text = format!("{} {kind}", way.name);
                let team = Team::new(way);
                team.hub.move_branch(REPO, "main", large());
                let layout: &[&str] = if kind == "cache" { &["--layout", "hf-cache"] } else { &[] };
                if kind == "in place" {
                    std::fs::create_dir(team.volume.family("tiny")).unwrap();
                    give(&team.volume.family("tiny"), way);
                }
                let running = slow(&team, users[0], layout);
                running.signal("-KILL");
                running.wait();
                team.hub.clear_script();
                let before = team.hub.bytes_sent_for("xet-bridge");
                let run = team.fetch(users[1], layout).run().assert_success();
                assert!(run.stderr.contains("are here already"), "{text}: {}", run.stderr);
                assert_eq!(warnings(&run), [""; 0], "{text}");
                let again = team.hub.bytes_sent_for("xet-bridge") - before;
                assert!(again < 23 * MIB, "{text}: {again} bytes were fetched after the kill");
                match kind {
                    "cache" => {
                        let repo = team.volume.root().join("hub/models--org--tiny");
                        let repo = repo.display().to_string();
                        team.other(users[0], &["verify", &repo]).run().assert_success();
                        team.volume.assert_clean();
                    }
                    "in place" => {
                        team.volume.assert_holds("tiny", &large());
                        let attempts = team.volume.family("tiny/.weightlift/attempts");
                        assert_eq!(list(&attempts), Vec::<PathBuf>::new(), "{text}");
                    }
                    _ => {
                        team.volume.assert_holds("tiny", &large());
                        team.volume.assert_clean();
                    }
                }
            }
        }
    }
}

#[test]
fn an_update_that_one_user_is_killed_in_is_finished_by_another() {
    if !may_be_several_users() || !has("strace") {
        return;
    }
    let [a, b] = FS_GROUP.users;
    for kind in ["plain", "in place"] {
        for call in ["renameat", "renameat2", "unlinkat"] {
            for when in 1.. {
                let team = Team::new(FS_GROUP);
                if kind == "in place" {
                    std::fs::create_dir(team.volume.family("tiny")).unwrap();
                    give(&team.volume.family("tiny"), FS_GROUP);
                }
                team.fetch(a, &[]).run().assert_success();
                team.show(2);
                let kill = format!("{call}:signal=KILL:when={when}");
                let killed = straced(&team.fetch(a, &[]), call, &[&kill]).run();
                let text = format!("{kind} {kill}");
                let run = team.fetch(b, &[]).run();
                assert_eq!(run.code, 0, "{text}: {}", run.stderr);
                assert_eq!(warnings(&run), [""; 0], "{text}");
                team.volume.assert_holds("tiny", &revision(2));
                let family = team.volume.family("tiny").display().to_string();
                team.other(b, &["verify", &family]).run().assert_success();
                if killed.code == 0 {
                    break;
                }
                // The next revision leaves nothing of either.
                team.show(3);
                team.fetch(b, &[]).run().assert_success();
                team.volume.assert_holds("tiny", &revision(3));
                let inner = team.volume.family("tiny/.weightlift");
                assert_eq!(list(&inner.join("attempts")), Vec::<PathBuf>::new(), "{text}");
                team.volume.assert_clean();
                assert!(when < 60, "{text}: no end");
            }
        }
    }
}

#[test]
fn one_user_waits_for_the_fetch_of_another() {
    if !may_be_several_users() {
        return;
    }
    for way in SHARED {
        for users in [way.users, [way.users[1], way.users[0]]] {
            let team = Team::new(way);
            team.hub.move_branch(REPO, "main", large());
            let first = slow(&team, users[0], &[]);
            let second = team.fetch(users[1], &[]).start();
            first.wait().assert_success();
            let second = second.wait().assert_success();
            assert!(second.stderr.contains("waiting for pod"), "{}: {}", way.name, second.stderr);
            assert!(!second.stderr.contains("no usable locks"), "{}", second.stderr);
            let sent = team.hub.bytes_sent_for("xet-bridge");
            assert_eq!(sent, 24 * MIB, "{}: fetched twice", way.name);
            team.volume.assert_holds("tiny", &large());
        }
    }
}

#[test]
fn a_directory_that_is_filled_and_a_cache_are_updated_by_whoever_comes() {
    if !may_be_several_users() {
        return;
    }
    for way in SHARED {
        for kind in ["in place", "cache"] {
            let text = format!("{} {kind}", way.name);
            let team = Team::new(way);
            let layout: &[&str] = if kind == "cache" { &["--layout", "hf-cache"] } else { &[] };
            if kind == "in place" {
                std::fs::create_dir(team.volume.family("tiny")).unwrap();
                give(&team.volume.family("tiny"), way);
            }
            let [a, b] = way.users;
            for (n, user, other) in [(1, a, b), (2, b, a), (3, a, b)] {
                team.show(n);
                let run = team.fetch(user, layout).run().assert_success();
                assert_eq!(warnings(&run), [""; 0], "{text}");
                let is_new = n == 1;
                assert_eq!(team.hub.count("*", "same.bin") > 0, is_new, "{text}");
                let path = match kind {
                    "cache" => {
                        let commit = team.hub.commit(REPO);
                        team.volume.root().join("hub/models--org--tiny/snapshots").join(commit)
                    }
                    _ => team.volume.family("tiny"),
                };
                assert_eq!(files_below(&path), {
                    let tree = revision(n);
                    tree.iter().map(|(name, blob)| (name.to_owned(), blob.to_vec())).collect()
                });
                let path = path.display().to_string();
                team.other(other, &["verify", &path]).run().assert_success();
            }
        }
    }
}

#[test]
fn a_root_that_nobody_shares_keeps_its_permissions_and_says_whom_it_keeps_out() {
    if !may_be_several_users() {
        return;
    }
    let team = Team::new(OWNER_ONLY);
    let [a, b] = OWNER_ONLY.users;
    team.fetch(a, &[]).run().assert_success();
    let state = team.volume.root().join(".weightlift");
    assert_eq!(modes(&state), (set(&[0o644]), set(&[0o755])));
    team.fetch(b, &[]).run().assert_success().assert_says("nothing to do");
    team.show(2);
    let run = team.fetch(b, &[]).run().assert_code(14);
    let says =
        format!("is not writable for user {}, the user of this process (owner {}", b.uid, a.uid);
    assert!(run.last_line().contains(&says), "{}", run.stderr);
    team.volume.assert_holds("tiny", &revision(1));
    // As the page on Kubernetes says it: once the group may write to all of it, it is shared.
    let root = team.root();
    for command in [&["chgrp", "-R", "7000"][..], &["chmod", "-R", "g+rwX"]] {
        assert!(
            Command::new(command[0]).args(&command[1..]).arg(&root).status().unwrap().success()
        );
    }
    let find = ["-type", "d", "-exec", "chmod", "g+s", "{}", "+"];
    assert!(Command::new("find").arg(&root).args(find).status().unwrap().success());
    team.fetch(b, &[]).run().assert_success();
    team.volume.assert_holds("tiny", &revision(2));
}

#[test]
fn a_root_that_is_missing_is_made_as_the_directory_above_it_is_shared() {
    if !may_be_several_users() {
        return;
    }
    let team = Team::new(FS_GROUP);
    let [a, b] = FS_GROUP.users;
    let root = team.volume.root().join("llm/models");
    let run = |user, arguments: &[&str]| {
        let mut command = weightlift();
        command.args(["fetch", "hf://org/tiny", "--root"]).arg(&root).args(arguments);
        command.env("HF_ENDPOINT", team.hub.url());
        team.run_as(user, &command).run().assert_success()
    };
    run(a, &[]);
    assert_eq!(std::fs::metadata(&root).unwrap().mode() & 0o7777, 0o2775);
    team.show(2);
    run(b, &[]);
    assert_tree(&root.join("tiny"), &revision(2));
}

#[test]
fn a_umask_that_is_asked_for_counts_and_nothing_else() {
    if !may_be_several_users() {
        return;
    }
    for (way, umask, expected) in [
        (FS_GROUP, "0022", (0o644, 0o2755)),
        (FS_GROUP, "077", (0o600, 0o2700)),
        (FS_GROUP, "0", (0o666, 0o2777)),
        (OWNER_ONLY, "0002", (0o664, 0o775)),
    ] {
        for by_flag in [true, false] {
            let team = Team::new(way);
            let flag: &[&str] = if by_flag { &["--umask", umask] } else { &[] };
            let mut command = team.fetch(way.users[0], flag);
            if !by_flag {
                command.env("WEIGHTLIFT_UMASK", umask);
            }
            let run = command.run().assert_success();
            assert_eq!(warnings(&run), [""; 0], "{umask}");
            let expected = (set(&[expected.0]), set(&[expected.1]));
            assert_eq!(modes(&team.volume.root().join(".weightlift")), expected, "{umask}");
        }
    }
    let team = Team::new(FS_GROUP);
    for umask in ["0700", "u=rwx", "0o22", "1022", "9"] {
        let run = team.fetch(FS_GROUP.users[0], &["--umask", umask]).run().assert_code(2);
        assert!(run.last_line().contains("--umask"), "{umask}: {}", run.stderr);
    }
    assert_eq!(list(&team.volume.root()), Vec::<PathBuf>::new());
}

#[test]
fn where_all_may_write_users_without_a_common_group_share_by_the_umask() {
    if !may_be_several_users() {
        return;
    }
    let users = [user(7_001, 7_001, None), user(7_002, 7_002, None)];
    let way = Way { name: "all", mode: 0o777, group: 0, users };
    let team = Team::new(way);
    for (user, n) in [(users[0], 1), (users[1], 2), (users[0], 3)] {
        team.show(n);
        let run = team.fetch(user, &["--umask", "0"]).run().assert_success();
        assert_eq!(warnings(&run), [""; 0]);
        team.volume.assert_holds("tiny", &revision(n));
        assert_eq!(team.hub.count("*", "same.bin") > 0, n == 1);
    }
    // And no other way: nobody has asked for it.
    let team = Team::new(way);
    team.fetch(users[0], &[]).run().assert_success();
    assert_eq!(modes(&team.volume.root().join(".weightlift")), (set(&[0o644]), set(&[0o755])));
    team.show(2);
    team.fetch(users[1], &[]).run().assert_code(14);
}

#[test]
fn a_file_that_more_users_may_change_is_no_file_of_a_model_that_fewer_may() {
    if !may_be_several_users() {
        return;
    }
    let inode = |team: &Team, family: &str| {
        std::fs::metadata(team.volume.family(family).join("parts/weights.bin")).unwrap().ino()
    };
    let [a, b] = FS_GROUP.users;
    // What the group may change beside what it may not, and the other way round; and the same of both.
    for (first, second, is_shared) in [
        ("0002", "0022", false),
        ("0022", "0002", false),
        ("0", "0002", false),
        ("0022", "0022", true),
        ("0002", "0002", true),
    ] {
        let team = Team::new(FS_GROUP);
        team.fetch(a, &["--umask", first]).run().assert_success();
        let sent = team.hub.bytes_sent_for("xet-bridge");
        team.fetch(a, &["copy", "--umask", second]).run().assert_success();
        assert_eq!(inode(&team, "tiny") == inode(&team, "copy"), is_shared, "{first} {second}");
        assert_eq!(team.hub.bytes_sent_for("xet-bridge"), sent, "{first} {second}: fetched again");
    }
    // Nobody has a group in common, and all may change all.
    let way = Way {
        name: "all",
        mode: 0o777,
        group: 0,
        users: [user(a.uid, a.gid, None), user(b.uid, b.gid, None)],
    };
    let team = Team::new(way);
    team.fetch(way.users[0], &["--umask", "0"]).run().assert_success();
    team.fetch(way.users[1], &["copy", "--umask", "0"]).run().assert_success();
    assert_eq!(inode(&team, "tiny"), inode(&team, "copy"), "copied");
}

#[test]
fn the_umask_is_read_without_a_change() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (FakeHub::serving(REPO, revision(1)), Volume::in_memory());
    let trace = volume.path("trace");
    let calls = ["strace", "-f", "-qq", "-e", "trace=umask", "-o", trace.to_str().unwrap()];
    let command = with_umask("027", &fetch(&hub, &volume, &["hf://org/tiny", "--umask", "0026"]));
    under(&calls, &command).run().assert_success();
    // What the shell does last, and the one that was chosen.
    let trace = std::fs::read_to_string(&trace).unwrap();
    let masks: Vec<_> = trace.lines().filter_map(|line| line.split("umask(").nth(1)).collect();
    let masks: Vec<_> = masks.iter().filter_map(|line| line.split(')').next()).collect();
    assert!(masks.ends_with(&["027", "026"]), "{trace}");
}

#[test]
fn a_root_that_hangs_holds_up_its_own_models_and_no_others() {
    if !has("strace") {
        return;
    }
    for (umask, is_told) in [(&[][..], true), (&["--umask", "0022"], false)] {
        let (hub, volume) = (FakeHub::serving(REPO, revision(1)), Volume::in_memory());
        let [hung, well] = ["hung", "well"].map(|name| volume.root().join(name));
        std::fs::create_dir_all(&hung).unwrap();
        std::fs::create_dir_all(&well).unwrap();
        let [a, b] = [hung.join("a"), well.join("b")];
        let mut command = weightlift();
        command.arg("fetch").arg("hf://org/tiny").arg(&a).arg("hf://org/tiny").arg(&b).args(umask);
        command.env("HF_ENDPOINT", hub.url());
        let mut strace =
            vec!["strace", "-f", "-qq", "-o", "/dev/null", "-P", hung.to_str().unwrap()];
        strace.extend([
            "-e",
            "trace=?open,openat",
            "-e",
            "inject=?open,openat:delay_enter=600000000",
        ]);
        let running = under(&strace, &command).start();
        let pid = worker_on(&volume);
        eventually("the model of the other root is complete", || {
            b.join(".weightlift-complete.json").is_file()
        });
        assert_tree(&b, &revision(1));
        assert!(!a.exists(), "nothing has hung");
        signal(pid, "-KILL");
        running.signal("-KILL");
        let stderr = running.wait().stderr;
        let told = format!("`{}` did not answer within 3.0s", a.display());
        assert_eq!(stderr.contains(&told), is_told, "{stderr}");
        assert_eq!(stderr.contains("did not answer"), is_told, "{stderr}");
    }
}

#[test]
fn a_umask_that_hides_a_model_from_those_who_look_for_it_is_told() {
    if !may_be_several_users() {
        return;
    }
    for (way, umask, files, told) in [
        (OWNER_ONLY, "077", 0o600, "the umask is 0077, so other users cannot read the model"),
        (
            OWNER_ONLY,
            "027",
            0o640,
            "the umask is 0027, so users who are not in the group of its files cannot read the model",
        ),
        // The group shares it all the same; others were let into the root.
        (
            FS_GROUP,
            "077",
            0o660,
            "the umask is 0007, so users who are not in the group of its files cannot read the model",
        ),
        (Way { mode: 0o2770, ..FS_GROUP }, "077", 0o660, ""),
        (Way { mode: 0o700, ..OWNER_ONLY }, "077", 0o600, ""),
        (FS_GROUP, "022", 0o664, ""),
        (OWNER_ONLY, "022", 0o644, ""),
    ] {
        let team = Team::new(way);
        let command = team.fetch(way.users[0], &[]);
        let run = with_umask(umask, &command).run().assert_success();
        let warnings = run.stderr.matches("the umask is").count();
        assert_eq!(warnings, usize::from(!told.is_empty()), "{way:?} {umask}: {}", run.stderr);
        assert!(run.stderr.contains(told), "{way:?} {umask}: {}", run.stderr);
        let (found, _) = modes(&team.volume.root().join(".weightlift/revisions"));
        assert_eq!(found, set(&[files]), "{way:?} {umask}");
        // A warm start says nothing.
        let warm = with_umask(umask, &command).run().assert_success();
        assert!(!warm.stderr.contains("umask"), "{}", warm.stderr);
    }
}

#[test]
fn where_models_go_to_a_shared_root_and_to_one_of_its_own_nobody_is_let_in_unasked() {
    if !may_be_several_users() {
        return;
    }
    let team = Team::new(FS_GROUP);
    let own = team.volume.path("own");
    std::fs::create_dir(&own).unwrap();
    give(&own, OWNER_ONLY);
    let (shared, own) = (team.volume.family("a"), own.join("b"));
    let mut command = weightlift();
    command.arg("fetch").args(["hf://org/tiny"]).arg(&shared).arg("hf://org/tiny").arg(&own);
    command.env("HF_ENDPOINT", team.hub.url());
    let run = team.run_as(FS_GROUP.users[0], &command).run().assert_success();
    let line = format!("the group of `{}` may write there", team.root());
    assert_eq!(run.stderr.matches(&line).count(), 1, "{}", run.stderr);
    for root in [team.volume.root(), team.volume.path("own")] {
        assert_eq!(modes(&root.join(".weightlift/revisions")).0, set(&[0o644]));
    }
}

#[test]
fn what_prune_creates_keeps_nobody_of_the_group_out() {
    if !may_be_several_users() {
        return;
    }
    let team = Team::new(FS_GROUP);
    let [a, b] = FS_GROUP.users;
    for n in [1, 2] {
        team.show(n);
        team.fetch(a, &[]).run().assert_success();
    }
    let lock = team.volume.root().join(".weightlift/locks/tiny.lock");
    std::fs::remove_file(&lock).unwrap();
    let prune = ["prune", "--root", &team.root(), "--keep-revisions", "0", "--yes"];
    team.other(b, &prune).run().assert_success();
    let stat = std::fs::metadata(&lock).unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o777), (b.uid, 0o664));
    let at = ["prune", "--root", &team.root(), "--umask", "0022", "--keep-revisions", "0", "--yes"];
    team.show(3);
    team.fetch(a, &[]).run().assert_success();
    std::fs::remove_file(&lock).unwrap();
    team.other(b, &at).run().assert_success();
    assert_eq!(std::fs::metadata(&lock).unwrap().mode() & 0o777, 0o644);
}

// What another user has closed

/// An attempt of the first user that is killed, and has come to have these modes.
fn left_with(team: &Team, user: User, file_mode: u32, directory_mode: u32) -> PathBuf {
    let running = slow(team, user, &[]);
    running.signal("-KILL");
    running.wait();
    team.hub.clear_script();
    let left = team.volume.attempts().pop().unwrap();
    let change = |mode: u32, kind: &str| {
        let mode = format!("{mode:o}");
        let find = ["-type", kind, "-exec", "chmod", &mode, "{}", "+"];
        assert!(Command::new("find").arg(&left).args(find).status().unwrap().success());
    };
    change(file_mode, "f");
    change(directory_mode, "d");
    left
}

#[test]
fn an_attempt_that_another_user_has_closed_is_named_and_left_alone() {
    if !may_be_several_users() {
        return;
    }
    let [a, b] = FS_GROUP.users;
    // What can be read is copied; what cannot be is told.
    for (file_mode, directory_mode, is_readable) in
        [(0o644, 0o2755, true), (0o600, 0o2775, false), (0o600, 0o700, false)]
    {
        let team = Team::new(FS_GROUP);
        team.hub.move_branch(REPO, "main", large());
        let left = left_with(&team, a, file_mode, directory_mode);
        let text = format!("{file_mode:o} {directory_mode:o}");
        let list = ["list", "--root", &team.root()];
        let told = team.other(b, &list).run().assert_success();
        let name = left.file_name().unwrap().to_string_lossy().into_owned();
        let is_told = told.stdout.contains(&name) || told.stdout.contains("1 unfinished");
        assert!(is_told || told.stderr.contains("not read"), "{text}: {}", told.stdout);
        team.hub.log().clear();
        let run = team.fetch(b, &[]).run().assert_success();
        team.volume.assert_holds("tiny", &large());
        assert_eq!(run.stderr.contains("are here already"), is_readable, "{text}: {}", run.stderr);
        let warned = run.stderr.contains("an earlier attempt is not reused");
        assert_eq!(warned, !is_readable, "{text}: {}", run.stderr);
        assert!(left.is_dir(), "{text}");
        let prune = ["prune", "--root", &team.root(), "--older-than", "0s", "--yes"];
        let run = team.other(b, &prune).run().assert_success();
        assert!(left.is_dir(), "{text}: {}", run.stderr);
        assert!(run.stderr.contains(&name), "{text}: {}", run.stderr);
        // Its owner removes it.
        let run = team.other(a, &prune).run().assert_success();
        assert!(!left.exists(), "{text}: {}", run.stderr);
    }
}

#[test]
fn of_an_attempt_the_files_that_are_closed_are_left_alone_and_no_others() {
    if !may_be_several_users() {
        return;
    }
    let [a, b] = FS_GROUP.users;
    let tree = || {
        let blob = |n| Blob::synthetic(2 * MIB, n);
        let tree = Tree::new().with("config.json", "{}");
        tree.with_blob("a.bin", blob(1)).with_blob("b.bin", blob(2)).with_blob("c.bin", blob(3))
    };
    for closed in ["a.bin", "b.bin"] {
        // Whose directories may be changed, and whose may be read.
        for directory_mode in [0o2775, 0o2755] {
            let team = Team::new(FS_GROUP);
            team.hub.move_branch(REPO, "main", tree());
            let silent = Fault::HangBeforeHeaders(Duration::from_secs(600));
            team.hub.script(Rule::on("*", "c.bin").then(silent));
            let running = team.fetch(a, &["--chunk-size", "1MiB"]).start();
            let journal = |attempt: &PathBuf| std::fs::read_to_string(attempt.join("journal"));
            eventually("all but one arrive", || {
                let journals = team
                    .volume
                    .attempts()
                    .iter()
                    .filter_map(|it| journal(it).ok())
                    .collect::<String>();
                journals.matches("\"chunk\"").count() >= 5
            });
            running.signal("-KILL");
            running.wait();
            team.hub.clear_script();
            let left = team.volume.attempts().pop().unwrap();
            let set_mode = |path: &Path, mode| {
                std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
            };
            set_mode(&left.join("tree").join(closed), 0o600);
            set_mode(&left.join("tree"), directory_mode);
            set_mode(&left, directory_mode);
            team.hub.log().clear();
            let run = team.fetch(b, &[]).run().assert_success();
            let text = format!("{closed} {directory_mode:o}");
            team.volume.assert_holds("tiny", &tree());
            for name in ["a.bin", "b.bin"] {
                let is_fetched = team.hub.count("*", name) > 0;
                assert_eq!(is_fetched, name == closed, "{text}: {name}: {}", run.stderr);
            }
            let told = "1 file of an earlier attempt is not reused";
            assert_eq!(run.stderr.matches(told).count(), 1, "{text}: {}", run.stderr);
            assert_eq!(warnings(&run).len(), 1, "{text}: {}", run.stderr);
        }
    }
}

#[test]
fn a_closed_file_of_a_publication_that_was_cut_off_is_fetched_again() {
    if !may_be_several_users() || !has("strace") {
        return;
    }
    let [a, b] = FS_GROUP.users;
    let moved = |team: &Team| team.volume.family("tiny/same.bin").exists();
    let mut tried = 0;
    for call in ["renameat", "renameat2"] {
        for when in 1..60 {
            let team = Team::new(FS_GROUP);
            std::fs::create_dir(team.volume.family("tiny")).unwrap();
            give(&team.volume.family("tiny"), FS_GROUP);
            let kill = format!("{call}:signal=KILL:when={when}");
            let killed = straced(&team.fetch(a, &[]), call, &[&kill]).run();
            if killed.code == 0 {
                break;
            }
            if !moved(&team) || team.volume.family("tiny/.weightlift-complete.json").exists() {
                continue;
            }
            tried += 1;
            let mode = PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(team.volume.family("tiny/same.bin"), mode).unwrap();
            team.hub.log().clear();
            let run = team.fetch(b, &[]).run().assert_success();
            let told = "1 file of a publication that was cut off is not reused";
            assert_eq!(run.stderr.matches(told).count(), 1, "{kill}: {}", run.stderr);
            assert!(team.hub.count("*", "same.bin") > 0, "{kill}");
            team.volume.assert_holds("tiny", &revision(1));
            let family = team.volume.family("tiny").display().to_string();
            team.other(b, &["verify", &family]).run().assert_success();
        }
    }
    assert!(tried > 0, "no file was moved before the end");
}

#[test]
fn a_removal_that_another_user_has_begun_stops_nobody() {
    if !may_be_several_users() {
        return;
    }
    let team = Team::new(FS_GROUP);
    let [a, b] = FS_GROUP.users;
    team.fetch(a, &[]).run().assert_success();
    let gone = team.volume.root().join(".weightlift/attempts/tiny~0123456789abcdef~gone");
    std::fs::create_dir_all(gone.join("tree")).unwrap();
    for dir in [gone.clone(), gone.join("tree")] {
        chown(&dir, Some(a.uid), Some(7_000)).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
    }
    team.show(2);
    team.fetch(b, &[]).run().assert_success();
    team.volume.assert_holds("tiny", &revision(2));
    let prune = ["prune", "--root", &team.root(), "--yes"];
    team.other(b, &prune)
        .run()
        .assert_success()
        .assert_says("tiny~0123456789abcdef~gone`: Permission denied");
    team.show(3);
    team.fetch(a, &[]).run().assert_success();
    assert!(!gone.exists());
}

#[test]
fn locks_that_another_user_has_closed_stop_no_update() {
    if !may_be_several_users() {
        return;
    }
    let team = Team::new(FS_GROUP);
    let [a, b] = FS_GROUP.users;
    std::fs::create_dir(team.volume.family("tiny")).unwrap();
    give(&team.volume.family("tiny"), FS_GROUP);
    team.fetch(a, &[]).run().assert_success();
    let locks = list(&team.volume.family("tiny/.weightlift/locks"));
    assert_eq!(locks.len(), 2);
    // The one can still be locked by whoever may read it.
    for (mode, is_told) in [(0o644, false), (0o600, true)] {
        for lock in &locks {
            std::fs::set_permissions(lock, PermissionsExt::from_mode(mode)).unwrap();
        }
        let n = u64::from(mode);
        team.show(n);
        let run = team.fetch(b, &[]).run().assert_success();
        assert_eq!(run.stderr.contains("no usable locks"), is_told, "{}", run.stderr);
        team.volume.assert_holds("tiny", &revision(n));
    }
}

#[test]
fn what_another_team_has_closed_below_the_root_stops_nothing() {
    if !may_be_several_users() {
        return;
    }
    let team = Team::new(FS_GROUP);
    let [a, b] = FS_GROUP.users;
    let secret = team.volume.family("other-team");
    std::fs::create_dir(&secret).unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o700)).unwrap();
    let root = team.root();
    for n in [1, 2] {
        team.show(n);
        let user = if n == 1 { a } else { b };
        let mut plan = weightlift();
        plan.args(["plan", "hf://org/tiny", "--root", &root]).env("HF_ENDPOINT", team.hub.url());
        team.run_as(user, &plan).run().assert_success();
        team.fetch(user, &[]).run().assert_success();
        team.fetch(user, &["copy"]).run().assert_success();
        let adopt = ["adopted", "--adopt", &root];
        team.fetch(user, &adopt).run().assert_success();
    }
    for command in [&["list", "--root", &root][..], &["prune", "--root", &root, "--yes"]] {
        let run = team.other(b, command).run().assert_success();
        assert!(run.stderr.contains("other-team"), "{command:?}: {}", run.stderr);
        assert!(run.stderr.contains("Permission denied"), "{command:?}: {}", run.stderr);
    }
    for family in ["tiny", "copy", "adopted"] {
        team.volume.assert_holds(family, &revision(2));
    }
}

#[test]
fn what_is_closed_to_a_user_is_told_with_its_owner_and_mode_by_every_command() {
    if !may_be_several_users() {
        return;
    }
    // Anybody may write to the root; what the first user makes there is its own.
    let way = Way { name: "open", mode: 0o777, ..FS_GROUP };
    let users = [user(7_001, 7_001, None), user(7_002, 7_002, None)];
    let team = Team::new(way);
    let [a, b] = users;
    let root = team.root();
    let run = with_umask("022", &team.fetch(a, &["--umask", "022"])).run();
    run.assert_success();
    team.show(2);
    let of = |what: &str, path: &str, owner: u32, mode: &str| {
        format!(
            "`{root}{path}` is not {what} for user 7002, the user of this process (owner {owner}, group {owner}, \
             mode {mode})"
        )
    };
    let assert_says = |run: Run, says: &str| {
        let run = run.assert_code(14);
        assert!(run.stderr.contains(says), "{says}\n{}", run.stderr);
        assert!(
            !run.stderr.contains("os error") && run.stderr.contains("--umask"),
            "{}",
            run.stderr
        );
    };
    let fetched = team.fetch(b, &["--umask", "022"]).run();
    assert_says(fetched, &of("writable", "/.weightlift/attempts", 7_001, "0755"));
    // A root that may not even be looked into.
    chown(team.volume.root(), Some(7_001), Some(7_001)).unwrap();
    std::fs::set_permissions(team.volume.root(), PermissionsExt::from_mode(0o700)).unwrap();
    let readable = of("readable", "", 7_001, "0700");
    assert_says(team.fetch(b, &[]).run(), &readable);
    assert_says(team.other(b, &["list", "--root", &root]).run(), &readable);
    assert_says(team.other(b, &["prune", "--root", &root]).run(), &readable);
    let doctor = team.other(b, &["doctor", "--root", &root]).run();
    assert!(!doctor.stdout.contains("DEST"), "{}", doctor.stdout);
    let doctor = doctor.assert_code(14);
    assert!(doctor.stdout.contains(&readable), "{}", doctor.stdout);
    let family = team.volume.family("tiny").display().to_string();
    assert_says(team.other(b, &["verify", &family]).run(), &readable);
    assert_says(team.other(b, &["wait", &family, "--timeout", "1s"]).run(), &readable);
}
