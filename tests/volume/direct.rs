//! Writes past the page cache: the bytes are the same, whatever becomes of the run and of the filesystem.

use std::process::Command;
use std::time::Duration;

use crate::support::own_network::in_own_network;
use crate::support::process::{Mounted, straced};
use crate::support::tls::{Authority, Front, Handshake};
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;
const BYTES: u64 = 48 * MIB + 12_345;

fn model() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(BYTES, 5))
}

/// A fetch over one connection, so that the file is one stream.
fn fetch_in(hub: &FakeHub, volume: &Volume, direct_io: &str) -> Command {
    fetch(hub, volume, &["hf://org/tiny", "--connections", "1", "--direct-io", direct_io])
}

/// Runs it under strace; returns how often a file was opened for direct I/O, and the sizes of what was written
/// there.
fn direct_writes(command: &Command, volume: &Volume) -> (usize, Vec<u64>) {
    let trace = volume.path("trace");
    let wrapper =
        ["strace", "-f", "-qq", "-e", "trace=open,openat,pwrite64", "-o", trace.to_str().unwrap()];
    under(&wrapper, command).run().assert_success();
    let text = std::fs::read_to_string(trace).unwrap();
    // One thread may be interrupted by another's line: `<unfinished ...>`, and the result later.
    let opened: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("|O_DIRECT|"))
        .filter_map(|line| line.rsplit_once("= ").map(|(_, fd)| fd.trim()))
        .collect();
    let written = text.lines().filter_map(|line| {
        let (_, call) = line.split_once("pwrite64(")?;
        let (fd, rest) = call.split_once(',')?;
        let size = rest.rsplit_once(" = ").map(|(call, _)| call).unwrap_or(rest);
        let mut numbers = size.trim_end_matches([')', ' ']).rsplit(", ");
        numbers.next()?;
        opened.contains(&fd).then(|| numbers.next()?.parse().ok())?
    });
    (opened.len(), written.collect())
}

#[test]
fn a_file_that_is_one_stream_goes_past_the_page_cache_in_whole_blocks() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (FakeHub::serving(REPO, model()), Volume::new());
    let (opened, written) = direct_writes(&fetch_in(&hub, &volume, "on"), &volume);
    assert_eq!(opened, 1);
    // All but the end, and the first block if the header was looked at before it was complete.
    assert!(written.len() >= 46 && written.iter().all(|size| *size == MIB), "{written:?}");
    volume.assert_holds("tiny", &model());

    for (way, hub) in [("off", &hub), ("auto", &hub)] {
        let volume = Volume::new();
        let (opened, _) = direct_writes(&fetch_in(hub, &volume, way), &volume);
        assert!(way == "auto" || opened == 0, "{way}: {opened}");
        volume.assert_holds("tiny", &model());
    }
}

#[test]
fn auto_goes_past_the_cache_where_writers_are_held_back_and_whole_blocks_are_far_better() {
    in_own_network(
        "direct::auto_goes_past_the_cache_where_writers_are_held_back_and_whole_blocks_are_far_better",
        || {
            if !has("strace") {
                return;
            }
            // A disk that is as fast as memory, and that nobody else writes to.
            let memory = tempfile::tempdir_in("/dev/shm").unwrap();
            let (image, mounted) = (memory.path().join("image"), memory.path().join("mounted"));
            let Some(_mounted) = Mounted::ext4(160 * MIB, &image, &mounted) else { return };
            let big = Tree::new().with_blob("big.bin", Blob::synthetic(80 * MIB, 6));
            let hub = FakeHub::builder().repo(REPO, big.clone()).lfs_direct().start();
            let (authority, volume) = (Authority::new("known"), Volume::new());
            let config = authority.certify("IP:127.0.0.1", 2020, 2049);
            let port = hub.url().rsplit(':').next().unwrap().parse().unwrap();
            let front = Front::start(config, port, |_| Handshake::Done);
            let mut command = weightlift();
            command.args(["fetch", "hf://org/tiny", "--connections", "1", "--chunk-size", "1GiB"]);
            command.arg("--root").arg(&mounted);
            command.env("HF_ENDPOINT", front.url()).env("SSL_CERT_FILE", authority.path());
            // Each write takes 4 ms more, and what can be read at once is far less than a block.
            std::fs::write("/proc/sys/net/ipv4/tcp_rmem", "4096 16384 32768").unwrap();
            let trace = volume.path("trace");
            let slow = [
                "strace",
                "-f",
                "-qq",
                "-e",
                "trace=open,openat,pwrite64",
                "-e",
                "inject=pwrite64:delay_enter=4000",
                "-o",
                trace.to_str().unwrap(),
            ];
            under(&slow, &command).run().assert_success();
            let trace = std::fs::read_to_string(trace).unwrap();
            assert_eq!(trace.matches("|O_DIRECT|").count(), 1);
            let blocks = trace.lines().filter(|line| line.contains(", 1048576, ")).count();
            // Held back for two windows of 16 MiB, tried in the next two, kept for the fifth.
            assert!(blocks >= 44, "{blocks}");
            let mut verify = weightlift();
            verify.arg("verify").arg(mounted.join("tiny")).run().assert_success();
        },
    );
}

#[test]
fn a_filesystem_that_refuses_direct_io_gets_the_bytes_in_the_usual_way() {
    if !has("strace") {
        return;
    }
    let hub = FakeHub::serving(REPO, model());
    // At the open; at the third write, as a disk with larger blocks would; on a full disk it is an error as ever.
    let volume = Volume::new();
    let command = fetch_in(&hub, &volume, "on");
    straced(&command, "pwrite64", &["pwrite64:error=EINVAL:when=3"]).run().assert_success();
    volume.assert_holds("tiny", &model());

    let volume = Volume::new();
    let command = fetch_in(&hub, &volume, "on");
    let run = straced(&command, "pwrite64", &["pwrite64:error=ENOSPC:when=5+"]).run();
    run.assert_code(15);
    // What could not be written is not taken for written.
    let run = fetch_in(&hub, &volume, "on").run().assert_success();
    assert!(!run.stderr.contains("is damaged"), "{}", run.stderr);
    volume.assert_holds("tiny", &model());
}

#[test]
fn a_run_that_is_killed_goes_on_from_what_was_written_past_the_cache() {
    let (hub, volume) = (FakeHub::serving(REPO, model()), Volume::new());
    hub.script(Rule::on("GET", "big.bin").then(Fault::Drip { bytes_per_second: 24_000_000 }));
    for _ in 0..2 {
        let mut child = fetch_in(&hub, &volume, "on").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(900));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let before = hub.bytes_sent_for("big.bin");
    fetch_in(&hub, &volume, "on").run().assert_success();
    volume.assert_holds("tiny", &model());
    // Each kill loses what was not noted, and what was on its way.
    let sent = hub.bytes_sent_for("big.bin");
    assert!(before > 16 * MIB && sent <= BYTES + 2 * 14 * MIB, "{before} {sent} of {BYTES}");
}
