//! What survives a power cut: shown by the system calls that are made, and that may fail.

#![allow(clippy::unwrap_used)]

mod support;

use support::*;
use weightlift_fakes::{Blob, FakeHub, Tree};

fn large() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(24 << 20, 1))
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
