//! The volume: publication, conflicts, space, several processes, and what a killed run leaves.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::process::Mounted;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

fn large(seed: u64) -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(24 << 20, seed))
}

#[test]
fn an_empty_directory_is_filled_and_stays_the_same_directory() {
    // As an emptyDir at /mnt/models, or a subPath, is handed to an init container.
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let family = volume.path("mnt-models");
    std::fs::create_dir(&family).unwrap();
    let inode = std::fs::metadata(&family).unwrap().ino();
    let fetch_there = || {
        let mut command = weightlift();
        command.args(["fetch", "hf://org/tiny"]).arg(&family).env("HF_ENDPOINT", hub.url());
        command.run()
    };
    let run = fetch_there().assert_success();
    assert_eq!(run.stdout, format!("{}\n", family.display()));
    assert_tree(&family, &tiny_selected());
    assert_eq!(list(&family.join(".weightlift/attempts")), Vec::<std::path::PathBuf>::new());
    hub.log().clear();
    fetch_there().assert_success();
    assert_eq!(hub.requests().len(), 1);
    let new =
        tiny_selected().with("new/file.json", "{}").without("README.md").without("modules.json");
    hub.move_branch(REPO, "main", new.clone());
    fetch_there().assert_success();
    assert_tree(&family, &new);
    assert_eq!(std::fs::metadata(&family).unwrap().ino(), inode);
    assert_eq!(list(volume.path("").as_path()).len(), 1, "something beside the directory");
}

#[test]
fn a_mount_point_is_filled() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let family = volume.family("tiny");
    std::fs::create_dir_all(&family).unwrap();
    let mounted = Mounted::tmpfs(&family, "size=64m");
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert_tree(&family, &tiny_selected());
    drop(mounted);
    assert_eq!(list(&family), Vec::<std::path::PathBuf>::new(), "written below the mount");
}

#[test]
fn a_publication_file_by_file_that_was_cut_off_is_finished() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let family = volume.family("tiny");
    for when in [1, 3, 6, 9, 13, 16] {
        let _ = std::fs::remove_dir_all(volume.root());
        std::fs::create_dir_all(&family).unwrap();
        let inject = format!("renameat:signal=KILL:when={when}");
        let killed = strace(&fetch(&hub, &volume, &["hf://org/tiny"]), "renameat", &inject);
        assert_ne!(killed.code, 0, "not killed at {when}");
        let run = fetch(&hub, &volume, &["hf://org/tiny"]).run();
        assert_eq!(run.code, 0, "after a kill at {when}: {}", run.stderr);
        volume.assert_holds("tiny", &tiny_selected());
    }
}

#[test]
fn foreign_files_at_the_family_path_are_a_conflict_and_untouched() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let family = volume.family("tiny");
    std::fs::create_dir_all(&family).unwrap();
    std::fs::write(family.join("mine.txt"), "mine").unwrap();
    let before = std::fs::metadata(&family).unwrap().mtime_nsec();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(16);
    assert_eq!(std::fs::read_to_string(family.join("mine.txt")).unwrap(), "mine");
    assert_eq!(list(&family).len(), 1);
    assert_eq!(std::fs::metadata(&family).unwrap().mtime_nsec(), before);

    std::fs::remove_dir_all(&family).unwrap();
    std::fs::write(&family, "a file").unwrap();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(16);
    assert_eq!(std::fs::read_to_string(&family).unwrap(), "a file");

    std::fs::remove_file(&family).unwrap();
    let elsewhere = volume.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &family).unwrap();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(16);
    assert_eq!(list(&elsewhere).len(), 0);
    assert_eq!(hub.requests().len(), 0, "conflicts are seen before anybody is asked");
}

#[test]
fn a_model_is_not_published_into_another_model() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny", "a"]).run().assert_success();
    fetch(&hub, &volume, &["hf://org/tiny", "a/b"]).run().assert_code(16);
    fetch(&hub, &volume, &["hf://org/tiny", "c/d"]).run().assert_success();
    fetch(&hub, &volume, &["hf://org/tiny", "c"]).run().assert_code(16);
    volume.assert_holds("a", &tiny_selected());
    volume.assert_holds("c/d", &tiny_selected());
}

#[test]
fn links_that_somebody_planted_are_not_followed() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let outside = volume.path("outside");
    std::fs::create_dir_all(volume.root()).unwrap();
    std::fs::create_dir(&outside).unwrap();
    symlink(&outside, volume.root().join(".weightlift")).unwrap();
    assert_ne!(fetch(&hub, &volume, &["hf://org/tiny"]).run().code, 0);
    assert_eq!(list(&outside).len(), 0);
    std::fs::remove_file(volume.root().join(".weightlift")).unwrap();
    symlink(&outside, volume.root().join("embeddings")).unwrap();
    fetch(&hub, &volume, &["hf://org/tiny", "embeddings/x"]).run().assert_code(16);
    std::fs::create_dir(volume.root().join(".weightlift")).unwrap();
    symlink(&outside, volume.root().join(".weightlift/attempts")).unwrap();
    assert_ne!(fetch(&hub, &volume, &["hf://org/tiny"]).run().code, 0);
    assert_eq!(list(&outside).len(), 0);
}

#[test]
fn a_sentinel_of_a_later_version_is_refused_and_kept() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let sentinel = volume.family("tiny/.weightlift-complete.json");
    std::fs::write(&sentinel, "{\"format\": 99}").unwrap();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(16).assert_says("format 99");
    assert_eq!(std::fs::read_to_string(&sentinel).unwrap(), "{\"format\": 99}");
}

#[test]
fn a_damaged_model_is_fetched_again() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    std::fs::remove_file(volume.family("tiny/config.json")).unwrap();
    fetch(&hub, &volume, &["hf://org/tiny"])
        .run()
        .assert_success()
        .assert_says("`config.json` is missing");
    volume.assert_holds("tiny", &tiny_selected());
}

#[test]
fn without_exchange_the_family_is_a_relative_link_replaced_in_one_step() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let inject = "renameat2:error=EINVAL";
    let run = |source: &str, dest: &str| {
        strace(&fetch(&hub, &volume, &[source, dest]), "renameat2", inject).assert_success()
    };
    run("hf://org/tiny", "emb/tiny");
    let link = volume.family("emb/tiny");
    let first = std::fs::read_link(&link).unwrap();
    assert!(first.starts_with("../.weightlift/revisions"), "{}", first.display());
    volume.assert_holds("emb/tiny", &tiny_selected());
    hub.log().clear();
    run("hf://org/tiny", "emb/tiny");
    assert_eq!(hub.requests().len(), 1);
    let new = Tree::new().with("config.json", "{}");
    hub.move_branch(REPO, "main", new.clone());
    run("hf://org/tiny", "emb/tiny");
    volume.assert_holds("emb/tiny", &new);
    assert_tree(&volume.family("emb").join(first), &tiny_selected());
}

#[test]
fn a_volume_that_cannot_publish_in_one_step_is_refused_unless_allowed() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    // An update where directories can be neither exchanged nor linked.
    let first = fetch(&hub, &volume, &["hf://org/tiny"]);
    strace(&first, "symlinkat", "symlinkat:error=EPERM").assert_success();
    let new = Tree::new().with("config.json", "{}");
    hub.move_branch(REPO, "main", new.clone());
    let calls = "renameat2,symlinkat";
    let run = |arguments: &[&str]| {
        let command = fetch(&hub, &volume, arguments);
        strace_all(&command, calls, &["renameat2:error=EINVAL", "symlinkat:error=EPERM"])
    };
    run(&["hf://org/tiny"]).assert_code(14).assert_says("--allow-degraded");
    volume.assert_holds("tiny", &tiny_selected());
    run(&["hf://org/tiny", "--allow-degraded"]).assert_success();
    volume.assert_holds("tiny", &new);
}

#[test]
fn space_is_checked_before_the_first_byte() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (FakeHub::serving(REPO, large(1)), Volume::new());
    std::fs::create_dir_all(volume.root()).unwrap();
    let _mounted = Mounted::tmpfs(&volume.root(), "size=16m");
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(15);
    assert!(run.last_line().contains("free"), "{}", run.stderr);
    assert_eq!(hub.count("*", "/resolve/"), 0);
    volume.assert_clean();
    // It fits after a while.
    assert!(
        Command::new("mount")
            .args(["-o", "remount,size=64m"])
            .arg(volume.root())
            .status()
            .unwrap()
            .success()
    );
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &large(1));
}

#[test]
fn inodes_are_checked_before_the_first_byte() {
    if !is_root() {
        return;
    }
    let tree = (0..100).fold(Tree::new(), |tree, n| tree.with(&format!("f{n}"), "x"));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    std::fs::create_dir_all(volume.root()).unwrap();
    let _mounted = Mounted::tmpfs(&volume.root(), "size=64m,nr_inodes=80");
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(15);
    assert!(run.last_line().contains("inodes"), "{}", run.stderr);
    assert_eq!(hub.count("*", "/resolve/"), 0);
}

#[test]
fn a_disk_that_fills_up_meanwhile_is_no_space_and_nothing_is_published() {
    if !has("strace") {
        return;
    }
    for (calls, inject) in [
        ("pwrite64", "pwrite64:error=ENOSPC:when=20+"),
        ("fallocate", "fallocate:error=EDQUOT"),
        ("fsync", "fsync:error=ENOSPC:when=2"),
    ] {
        let (hub, volume) = (FakeHub::serving(REPO, large(1)), Volume::new());
        strace(&fetch(&hub, &volume, &["hf://org/tiny"]), calls, inject).assert_code(15);
        assert!(!volume.family("tiny").exists(), "{inject}");
    }
}

#[test]
fn a_failed_sync_is_never_success_and_the_file_is_not_trusted_again() {
    if !has("strace") {
        return;
    }
    for when in 1..=6 {
        let (hub, volume) = (hub_of_tiny(), Volume::new());
        let inject = format!("fsync:error=EIO:when={when}");
        // One worker, so that it is a file of the model each time.
        let command = fetch(&hub, &volume, &["hf://org/tiny", "--connections", "1"]);
        strace(&command, "fsync", &inject).assert_code(22);
        assert!(!volume.family("tiny").exists(), "fsync {when}");
        fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
        volume.assert_holds("tiny", &tiny_selected());
    }
}

#[test]
fn a_failed_sync_of_many_small_files_is_never_success_and_none_is_trusted_again() {
    if !has("strace") || !is_root() {
        return;
    }
    let small = |tree: Tree, n: usize| tree.with(&format!("d/{n}.json"), format!("{{{n}}}"));
    let tree = (0..100).fold(Tree::new(), small);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    std::fs::create_dir_all(volume.root()).unwrap();
    let _mounted = Mounted::tmpfs(&volume.root(), "size=64m");
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    strace(&command, "syncfs", "syncfs:error=EIO").assert_code(22);
    assert!(!volume.family("tiny").exists());
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert!(!run.stderr.contains("are here already"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree);
}

#[test]
fn filesystems_without_fallocate_work() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (FakeHub::serving(REPO, large(1)), Volume::new());
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    strace(&command, "fallocate", "fallocate:error=EOPNOTSUPP").assert_success();
    volume.assert_holds("tiny", &large(1));
}

#[test]
fn a_killed_run_is_continued() {
    let tree = large(1);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 4 << 20 }));
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "2"];
    let mut kills = 0;
    for _ in 0..3 {
        let before = hub.bytes_sent_for("xet-bridge");
        let running = fetch(&hub, &volume, &arguments).start();
        eventually("some megabytes arrive", || {
            hub.bytes_sent_for("xet-bridge") > before + (5 << 20)
        });
        running.signal("-KILL");
        assert_eq!(running.wait().code, -1);
        assert!(!volume.family("tiny").exists());
        kills += 1;
    }
    hub.clear_script();
    // Other connections and another chunk size do not lose what is there.
    let run =
        fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "2MiB"]).run().assert_success();
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree);
    volume.assert_clean();
    // Per kill at most connections × chunk are lost, and what was on its way in socket buffers.
    let lost = hub.bytes_sent_for("xet-bridge") - (24 << 20);
    assert!(lost <= kills * (2 + 6) * (1 << 20), "{lost} bytes were fetched twice");
}

#[test]
fn what_a_killed_run_left_is_not_trusted_blindly() {
    let tree = large(1);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 6 << 20 }));
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "2"];
    let running = fetch(&hub, &volume, &arguments).start();
    eventually("some megabytes arrive", || hub.bytes_sent_for("xet-bridge") > 6 << 20);
    running.signal("-KILL");
    drop(running.wait());
    hub.clear_script();
    let file = volume.attempts()[0].join("tree/big.bin");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    fetch(&hub, &volume, &arguments)
        .run()
        .assert_success()
        .assert_says("the bytes that were here are damaged");
    volume.assert_holds("tiny", &tree);
}

#[test]
fn after_a_reboot_only_chunks_that_match_their_checksum_are_used() {
    let tree = large(1);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 6 << 20 }));
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "2"];
    let running = fetch(&hub, &volume, &arguments).start();
    eventually("some megabytes arrive", || hub.bytes_sent_for("xet-bridge") > 8 << 20);
    running.signal("-KILL");
    drop(running.wait());
    hub.clear_script();
    // The journal as a run before the last boot would have left it, and a chunk that never
    // reached the disk.
    let attempt = volume.attempts()[0].clone();
    let journal = std::fs::read_to_string(attempt.join("journal")).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let (head, rest) = journal.split_once('\n').unwrap();
    let json = head[9..].replace(boot.trim(), "an-earlier-boot");
    assert_ne!(json, head[9..]);
    let checksum = Blob::bytes(json.clone()).crc32c();
    std::fs::write(attempt.join("journal"), format!("{checksum:08x} {json}\n{rest}")).unwrap();
    let mut bytes = std::fs::read(attempt.join("tree/big.bin")).unwrap();
    bytes[..1 << 20].fill(0);
    std::fs::write(attempt.join("tree/big.bin"), bytes).unwrap();
    let before = hub.bytes_sent_for("xet-bridge");
    let run = fetch(&hub, &volume, &arguments).run().assert_success();
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
    assert!(!run.stderr.contains("damaged"), "the zeros were not seen in time: {}", run.stderr);
    assert!(hub.bytes_sent_for("xet-bridge") - before < 24 << 20);
    volume.assert_holds("tiny", &tree);
}

#[test]
fn sixteen_processes_cause_one_download() {
    let tree = large(3);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 8 << 20 }));
    let runs: Vec<_> = (0..16).map(|_| fetch(&hub, &volume, &["hf://org/tiny"]).start()).collect();
    let mut waited = 0;
    for run in runs {
        let run = run.wait().assert_success();
        assert_eq!(run.stdout, format!("{}\n", volume.family("tiny").display()));
        waited += usize::from(run.stderr.contains("waiting for "));
    }
    volume.assert_holds("tiny", &tree);
    volume.assert_clean();
    let sent = hub.body_bytes();
    assert!(sent as f64 <= 1.02 * tree.total_bytes() as f64, "{sent} bytes");
    assert!(waited >= 10, "only {waited} said that they wait");
}

#[test]
fn without_any_lock_eight_processes_all_succeed() {
    if !has("strace") {
        return;
    }
    let tree = large(4);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    let runs: Vec<_> = std::thread::scope(|scope| {
        let start = |_| {
            scope.spawn(|| {
                let command = fetch(
                    &hub,
                    &volume,
                    &["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "8"],
                );
                strace(&command, "flock", "flock:retval=0")
            })
        };
        let threads: Vec<_> = (0..8).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for run in runs {
        run.assert_success();
    }
    volume.assert_holds("tiny", &tree);
    weightlift().arg("verify").arg(volume.family("tiny")).run().assert_success();
}

#[test]
fn a_volume_without_locks_works_with_a_warning() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    strace(&command, "flock", "flock:error=ENOLCK").assert_success().assert_says("no usable locks");
    volume.assert_holds("tiny", &tiny_selected());
}

#[test]
fn a_waiter_takes_over_at_once_from_a_holder_that_died() {
    let tree = large(5);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 1 << 20 }));
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "2"];
    let holder = fetch(&hub, &volume, &arguments).start();
    eventually("the holder fetches", || hub.bytes_sent_for("xet-bridge") > 3 << 20);
    let waiter = fetch(&hub, &volume, &["hf://org/tiny"]).start();
    std::thread::sleep(Duration::from_secs(2));
    hub.clear_script();
    holder.signal("-KILL");
    let killed = Instant::now();
    let run = waiter.wait().assert_success();
    assert!(killed.elapsed() < Duration::from_secs(15), "{:?}", killed.elapsed());
    assert!(run.stderr.contains("waiting for "), "{}", run.stderr);
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree);
}

#[test]
fn a_waiter_goes_on_alone_when_the_holder_is_frozen() {
    let tree = large(6);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    hub.script(
        Rule::on("GET", "").at("cdn").times(8).then(Fault::Drip { bytes_per_second: 1 << 20 }),
    );
    let holder =
        fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "8"])
            .start();
    eventually("the holder fetches", || hub.bytes_sent_for("xet-bridge") > 3 << 20);
    holder.signal("-STOP");
    fetch(&hub, &volume, &["hf://org/tiny", "--takeover-after", "3s"])
        .run()
        .assert_success()
        .assert_says("has made no progress");
    volume.assert_holds("tiny", &tree);
    // The zombie wakes up, finds the model, and does no harm.
    holder.signal("-CONT");
    holder.wait().assert_success();
    volume.assert_holds("tiny", &tree);
    weightlift().arg("verify").arg(volume.family("tiny")).run().assert_success();
}

#[test]
fn where_there_is_no_room_for_two_a_waiter_waits_on() {
    if !is_root() {
        return;
    }
    let tree = large(6);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    std::fs::create_dir_all(volume.root()).unwrap();
    let _mounted = Mounted::tmpfs(&volume.root(), "size=32m");
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 1 << 20 }));
    let holder =
        fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "8"])
            .start();
    eventually("the holder fetches", || hub.bytes_sent_for("xet-bridge") > 3 << 20);
    holder.signal("-STOP");
    let waiter = fetch(&hub, &volume, &["hf://org/tiny", "--takeover-after", "2s"]).start();
    std::thread::sleep(Duration::from_secs(5));
    hub.clear_script();
    holder.signal("-CONT");
    holder.wait().assert_success();
    waiter.wait().assert_success().assert_says("still waiting");
    volume.assert_holds("tiny", &tree);
}

#[test]
fn a_waiter_does_not_wait_for_ever() {
    let (hub, volume) = (FakeHub::serving(REPO, large(7)), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 1 << 20 }));
    let holder =
        fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "8"])
            .start();
    eventually("the holder fetches", || hub.bytes_sent_for("xet-bridge") > 1 << 20);
    holder.signal("-STOP");
    let run =
        fetch(&hub, &volume, &["hf://org/tiny", "--lock-timeout", "2s"]).run().assert_code(23);
    assert!(run.last_line().contains("--lock-timeout"), "{}", run.stderr);
    holder.signal("-CONT");
    drop(holder);
}

#[test]
fn sigterm_saves_the_state_and_ends_in_time() {
    let tree = large(8);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 2 << 20 }));
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let running =
            fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "8"])
                .start();
        let before = hub.bytes_sent_for("xet-bridge");
        eventually("bytes arrive", || hub.bytes_sent_for("xet-bridge") > before + (3 << 20));
        running.signal(signal);
        let signalled = Instant::now();
        let run = running.wait().assert_code(code);
        assert!(signalled.elapsed() < Duration::from_secs(10));
        assert!(run.last_line().contains("the next run resumes"), "{}", run.stderr);
    }
    hub.clear_script();
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree);
}

#[test]
fn verify_names_the_bad_files() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let family = volume.family("tiny");
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let verify = |paths: &[&Path]| weightlift().arg("verify").args(paths).run();
    let run = verify(&[&family]).assert_success();
    assert_eq!(run.stdout, format!("{}\n", family.display()));
    let shard = family.join("model-00002-of-00002.safetensors");
    let mut bytes = std::fs::read(&shard).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x10;
    std::fs::write(&shard, &bytes).unwrap();
    std::fs::remove_file(family.join("1_Pooling/config.json")).unwrap();
    let run = verify(&[&family]).assert_code(12);
    assert_eq!(run.stdout, "");
    for bad in ["model-00002-of-00002.safetensors", "1_Pooling/config.json"] {
        assert!(run.last_line().contains(bad), "{}", run.stderr);
    }
    assert!(!run.stderr.contains("model-00001"), "{}", run.stderr);
    verify(&[&volume.path("nothing")]).assert_code(10);
    verify(&[&volume.root()]).assert_code(10);
}

/// A family directory that was handed to us empty, published into file by file.
fn in_place(volume: &Volume) -> std::path::PathBuf {
    let family = volume.family("tiny");
    std::fs::create_dir_all(&family).unwrap();
    family
}

#[test]
fn a_finished_publication_in_place_is_not_taken_apart_by_the_next_update() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let family = in_place(&volume);
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    // As a kill right after the sentinel would leave it.
    let list: Vec<_> = tiny_selected()
        .iter()
        .map(|(path, blob)| {
            let identity = if path.ends_with(".safetensors") {
                format!("sha256:{}", blob.sha256())
            } else {
                format!("git-sha1:{}", blob.git_sha1())
            };
            serde_json::json!({"path": path, "identity": identity})
        })
        .collect();
    let publishing = serde_json::json!({"attempt": "self~gone", "files": list});
    std::fs::write(family.join(".weightlift/publishing.json"), publishing.to_string()).unwrap();
    let new = tiny_selected()
        .with("config.json", "{}")
        .with_blob("big.onnx", Blob::synthetic(8 << 20, 1));
    hub.move_branch(REPO, "main", new.clone());
    hub.script(
        Rule::on("GET", "big.onnx").at("cdn").then(Fault::Drip { bytes_per_second: 1 << 20 }),
    );
    let running = fetch(&hub, &volume, &["hf://org/tiny"]).start();
    eventually("the update fetches", || hub.bytes_sent_for("xet-bridge") > 2 << 20);
    assert_tree(&family, &tiny_selected());
    running.signal("-KILL");
    drop(running.wait());
    weightlift().arg("verify").arg(&family).run().assert_success();
    hub.clear_script();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert_tree(&family, &new);
}

#[test]
fn a_zombie_cannot_mix_revisions_in_place() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let family = in_place(&volume);
    // Frozen in the middle of its moves, by a stop that strace delivers.
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let zombie = std::thread::scope(|scope| {
        let inject = "renameat:signal=STOP:when=9";
        let zombie = scope.spawn(|| strace(&command, "renameat", inject));
        eventually("the zombie has moved some files", || list(&family).len() > 3);
        std::thread::sleep(Duration::from_millis(500));
        let new = Tree::new().with("config.json", "{}").with("README.md", "new");
        hub.move_branch(REPO, "main", new.clone());
        let mut second = fetch(&hub, &volume, &["hf://org/tiny", "--takeover-after", "2s"]);
        // The lock of the publication is the frozen one's: it is waited for, but not for ever.
        second.run().assert_success();
        assert_tree(&family, &new);
        let pid = zombie_pid(&volume);
        assert!(Command::new("kill").args(["-CONT", &pid]).status().unwrap().success());
        let run = zombie.join().unwrap();
        assert_tree(&family, &new);
        run
    });
    assert_ne!(zombie.code, 0, "{}", zombie.stderr);
    weightlift().arg("verify").arg(&family).run().assert_success();
}

/// The stopped process that fetches into `volume`.
fn zombie_pid(volume: &Volume) -> String {
    let root = volume.root().display().to_string();
    let stopped = |pid: &str| {
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let is_ours = read("cmdline").contains(&root) && !read("cmdline").starts_with("strace");
        is_ours
            && read("status")
                .lines()
                .any(|line| line.starts_with("State:\tT") || line.starts_with("State:\tt"))
    };
    let mut found = None;
    for entry in std::fs::read_dir("/proc").unwrap() {
        let pid = entry.unwrap().file_name().to_string_lossy().into_owned();
        if pid.bytes().all(|byte| byte.is_ascii_digit()) && stopped(&pid) {
            found = Some(pid);
        }
    }
    found.expect("a stopped process")
}

#[test]
fn somebody_elses_file_in_a_filled_directory_is_not_overwritten() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let family = in_place(&volume);
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    std::fs::write(family.join("NOTES.md"), "mine").unwrap();
    hub.move_branch(REPO, "main", tiny_selected().with("NOTES.md", "theirs"));
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(16);
    assert_eq!(std::fs::read_to_string(family.join("NOTES.md")).unwrap(), "mine");
    assert_tree(&family, &tiny_selected().with("NOTES.md", "mine"));
}

#[test]
fn an_empty_file_with_a_wrong_digest_ends_and_does_not_hang() {
    let entry =
        serde_json::json!({"type": "file", "path": "empty", "size": 0, "oid": "1".repeat(40)});
    let hub = FakeHub::builder().repo(REPO, tiny()).raw_tree_entry(REPO, entry).start();
    fetch(&hub, &Volume::new(), &["hf://org/tiny"]).run().assert_code(12);
}

#[test]
fn many_small_files_need_few_descriptors() {
    if !has("prlimit") {
        return;
    }
    let tree = (0..1_500).fold(Tree::new(), |tree, n| tree.with(&format!("d/f{n}.json"), "{}"));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let mut limited = Command::new("prlimit");
    limited.args(["--nofile=256", "--"]).arg(command.get_program()).args(command.get_args());
    limited
        .env_clear()
        .env("HF_ENDPOINT", hub.url())
        .env("PATH", std::env::var_os("PATH").unwrap());
    limited.run().assert_success();
    volume.assert_holds("tiny", &tree);
}

#[test]
fn a_link_publication_that_was_cut_off_is_finished_without_fetching_again() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (FakeHub::serving(REPO, large(9)), Volume::new());
    // Links instead of exchanges, and a kill at each of the renames of the publication, which come after
    // three of the probe.
    for when in 6..=7 {
        let _ = std::fs::remove_dir_all(volume.root());
        let kill = format!("renameat:signal=KILL:when={when}");
        let command = fetch(&hub, &volume, &["hf://org/tiny"]);
        let killed = strace_all(&command, "renameat,renameat2", &["renameat2:error=EINVAL", &kill]);
        assert_ne!(killed.code, 0, "not killed at {when}");
        let before = hub.bytes_sent_for("xet-bridge");
        fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
        volume.assert_holds("tiny", &large(9));
        assert_eq!(
            hub.bytes_sent_for("xet-bridge"),
            before,
            "fetched again after a kill at {when}"
        );
    }
}

#[test]
fn a_stray_file_among_the_attempts_is_ignored() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    std::fs::create_dir_all(volume.root().join(".weightlift/attempts")).unwrap();
    std::fs::write(volume.root().join(".weightlift/attempts/tiny~stray"), "x").unwrap();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &tiny_selected());
}

#[test]
fn sigterm_ends_the_process_also_when_nobody_reads_its_output() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(24 << 20, 1));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 1 << 20 }));
    // A full pipe that nobody reads, as standard error.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let filler = std::thread::spawn(move || {
        use std::io::Write;
        let _ = writer.write_all(&vec![b'x'; 1 << 20]);
    });
    std::thread::sleep(Duration::from_millis(200));
    let stderr = std::fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader)));
    let mut child = fetch(&hub, &volume, &["hf://org/tiny"])
        .stdout(std::process::Stdio::null())
        .stderr(stderr.unwrap())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let signalled = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if signalled.elapsed() > Duration::from_secs(15) {
            let _ = child.kill();
            panic!("still alive 15 s after SIGTERM");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status.code(), Some(143));
    drop(reader);
    drop(filler.join());
}

/// Runs `command` under strace with one fault injected, in all its threads.
fn strace(command: &Command, calls: &str, inject: &str) -> Run {
    strace_all(command, calls, &[inject])
}

fn strace_all(command: &Command, calls: &str, injects: &[&str]) -> Run {
    let trace = format!("trace={calls}");
    let injects: Vec<String> = injects.iter().map(|inject| format!("inject={inject}")).collect();
    let mut wrapper = vec!["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace];
    wrapper.extend(injects.iter().flat_map(|inject| ["-e", inject.as_str()]));
    under(&wrapper, command).run()
}
