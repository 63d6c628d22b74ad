//! What survives a power cut: shown by the system calls that are made, and that may fail.

use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

fn large() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(24 << 20, 1))
}

/// A fetch that takes some twelve seconds.
fn slow() -> FakeHub {
    let hub = FakeHub::serving(REPO, large());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 2 << 20 }));
    hub
}

const ARGUMENTS: [&str; 5] = ["hf://org/tiny", "--connections", "1", "--chunk-size", "1MiB"];

#[test]
fn what_arrives_is_made_durable_every_few_seconds_the_data_before_its_record() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (slow(), Volume::new());
    let log = volume.path("calls");
    let wrapper =
        ["strace", "-f", "-y", "-qq", "-e", "trace=fdatasync", "-o", log.to_str().unwrap()];
    under(&wrapper, &fetch(&hub, &volume, &ARGUMENTS)).run().assert_success();
    let calls = std::fs::read_to_string(log).unwrap();
    let kinds: Vec<&str> = calls
        .lines()
        .filter(|line| line.contains("fdatasync("))
        .map(|line| if line.contains("/journal>") { "journal" } else { "data" })
        .collect();
    assert!(kinds.len() >= 4, "{calls}");
    assert!(kinds.chunks(2).all(|pair| pair == ["data", "journal"]), "{calls}");
    volume.assert_holds("tiny", &large());
}

#[test]
fn a_file_that_cannot_be_made_durable_on_the_way_is_thrown_away() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (slow(), Volume::new());
    let wrapper = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:error=EIO:when=1",
    ];
    under(&wrapper, &fetch(&hub, &volume, &ARGUMENTS)).run().assert_code(22);
    hub.clear_script();
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    // A second sync would have said that all is well, and reading it back shows the page cache.
    assert!(!run.stderr.contains("are here already"), "{}", run.stderr);
    volume.assert_holds("tiny", &large());
}

#[test]
fn a_publication_that_was_cut_off_before_its_last_sync_is_made_durable_by_the_next_run() {
    if !has("strace") {
        return;
    }
    for in_place in [false, true] {
        let (hub, volume) = (FakeHub::serving(REPO, large()), Volume::new());
        if in_place {
            std::fs::create_dir_all(volume.family("tiny")).unwrap();
        }
        fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
        let syncs = || {
            let log = volume.path("calls");
            let wrapper = ["strace", "-f", "-qq", "-e", "trace=fsync", "-o", log.to_str().unwrap()];
            under(&wrapper, &fetch(&hub, &volume, &["hf://org/tiny"])).run().assert_success();
            std::fs::read_to_string(log).unwrap().matches("fsync(").count()
        };
        assert_eq!(syncs(), 0, "a warm start is free");
        let state = if in_place { volume.family("tiny") } else { volume.root() };
        let name = if in_place { "self" } else { "tiny" };
        let attempt = state.join(format!(".weightlift/attempts/{name}~0123456789abcdef"));
        std::fs::create_dir(attempt).unwrap();
        assert!(syncs() > usize::from(in_place));
    }
}
