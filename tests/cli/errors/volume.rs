//! Volumes that are full, closed or taken, and runs that others delay or end.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::support::process::Mounted;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

fn hub() -> FakeHub {
    let tree =
        Tree::new().with("config.json", "{}").with_blob("w.bin", Blob::synthetic(300_000, 1));
    FakeHub::builder().repo(REPO, tree.clone()).repo("org/other", tree).start()
}

fn page(name: &'static str, hub: &FakeHub, volume: &Volume) -> Page {
    let mut page = Page::new(name);
    page.place(hub.url(), "https://hub.example");
    page.volume(volume);
    page
}

fn mounted(volume: &Volume, options: &str) -> Mounted {
    std::fs::create_dir_all(volume.root()).unwrap();
    Mounted::tmpfs(&volume.root(), options)
}

/// `command` as a user without rights, from a copy of the binary that this user may run.
fn as_another_user(volume: &Volume, command: &Command) -> Command {
    let copy = volume.path("weightlift");
    copy_binary(&copy);
    std::fs::set_permissions(volume.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut other = Command::new(&copy);
    other.args(command.get_args()).env_clear();
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other.uid(65_532).gid(65_532);
    other
}

#[test]
fn the_volume_does_not_take_the_model() {
    let (hub, volume) = (hub(), Volume::new());
    let mut page = page("volume", &hub, &volume);
    let fetch = |arguments: &[&str]| fetch(&hub, &volume, arguments);
    let tiny = ["hf://org/tiny"];
    let mounts = ["a full volume", "no inodes left", "a read-only volume", "no write permission"];
    if is_root() {
        let mount = mounted(&volume, "size=64k");
        page.case(mounts[0], 15, &mut fetch(&tiny));
        drop(mount);
        let mount = mounted(&volume, "size=64m,nr_inodes=8");
        page.case(mounts[1], 15, &mut fetch(&tiny));
        drop(mount);
        let mount = mounted(&volume, "size=1m,ro");
        page.case(mounts[2], 14, &mut fetch(&tiny));
        drop(mount);
        std::fs::set_permissions(volume.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
        page.case(mounts[3], 14, &mut as_another_user(&volume, &fetch(&tiny)));
    } else {
        mounts.iter().for_each(|title| page.skip(title));
    }
    std::fs::create_dir_all(volume.family("notes")).unwrap();
    std::fs::write(volume.family("notes").join("mine.txt"), "mine").unwrap();
    page.case("files of somebody else at DEST", 16, &mut fetch(&["hf://org/tiny", "notes"]));
    std::fs::write(volume.family("file"), "mine").unwrap();
    page.case("a file at DEST", 16, &mut fetch(&["hf://org/tiny", "file"]));
    page.case(
        "no directory to adopt from",
        14,
        &mut fetch(&["hf://org/tiny", "--adopt", "/mnt/old"]),
    );
    page.case(
        "no directory to link in",
        14,
        &mut fetch(&["hf://org/tiny", "--link", "/pod/model"]),
    );
    fetch(&tiny).run().assert_success();
    page.case("another model at DEST", 16, &mut fetch(&["hf://org/other", "tiny"]));
    page.case("a DEST inside of a model", 16, &mut fetch(&["hf://org/other", "tiny/other"]));
    let mut list = weightlift();
    list.args(["list", "--root"]).arg(volume.path("elsewhere"));
    page.case("a root that does not exist", 10, &mut list);
    page.compare();
}

/// Waits until a fetch holds the lock of `family`.
fn holds(volume: &Volume, family: &str) {
    let owner = volume.root().join(format!(".weightlift/owners/{family}.json"));
    eventually("the holder has the lock", || owner.exists());
}

#[test]
fn another_process_is_in_the_way_or_time_is_over() {
    let (hub, volume) = (hub(), Volume::new());
    let mut page = page("time", &hub, &volume);
    let tiny = ["hf://org/tiny"];
    hub.script(Rule::on("GET", "w.bin").then(Fault::HangBeforeHeaders(Duration::from_secs(600))));
    let mut holder = fetch(&hub, &volume, &tiny);
    let mut holder =
        holder.env("POD_NAME", "download-x7k2p").env("NODE_NAME", "gpu-node-3").start();
    holds(&volume, "tiny");
    page.case(
        "another pod is fetching the model",
        23,
        &mut fetch(&hub, &volume, &["hf://org/tiny", "--lock-timeout", "0s"]),
    );
    let mut wait = weightlift();
    wait.arg("wait").arg(volume.family("tiny")).args(["--timeout", "1s"]);
    page.case("a wait that is over", 23, &mut wait);
    assert!(holder.is_running());
    holder.signal("-TERM");
    let run = holder.wait();
    page.record("a pod that is deleted", 143, "$ weightlift fetch hf://org/tiny", run);
    hub.clear_script();
    hub.script(Rule::on("GET", "").then(Fault::HangBeforeHeaders(Duration::from_secs(600))));
    page.case(
        "a deadline that has passed",
        23,
        &mut fetch(&hub, &volume, &["hf://org/tiny", "--deadline", "1s"]),
    );
    page.compare();
}
