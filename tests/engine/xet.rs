//! What reading by the chunks of a Xet store costs, and that a killed read goes on.

use std::time::Duration;

use crate::support::measure::with_peak_memory;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;

fn hub_of(tree: &Tree, scheme: u8) -> FakeHub {
    FakeHub::builder().repo(REPO, tree.clone()).xet().xet_scheme(scheme).start()
}

/// Each connection has a chunk, packed and unpacked, and the terms of 64 MiB: no more, however large the file.
#[test]
fn sixty_four_connections_by_chunks_stay_in_64_mib() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(400 * MIB, 8));
    let (hub, volume) = (hub_of(&tree, 1), Volume::new());
    // As slow as connections are that are worth so many.
    hub.script(Rule::on("GET", "/xorbs/").then(Fault::Drip { bytes_per_second: 1_000_000 }));
    let arguments = ["hf://org/tiny", "--all", "--xet", "always", "--connections", "64"];
    let (run, peak) = with_peak_memory(&mut fetch(&hub, &volume, &arguments));
    run.assert_success();
    volume.assert_holds("tiny", &tree);
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 0);
    let connections: std::collections::BTreeSet<usize> = hub
        .requests()
        .iter()
        .filter(|it| it.target.contains("/xorbs/"))
        .map(|it| it.connection)
        .collect();
    eprintln!("{} connections, {} MiB", connections.len(), peak / MIB);
    assert!(connections.len() >= 48, "{} connections", connections.len());
    assert!(peak < 64 * MIB, "{peak} bytes");
}

#[test]
fn a_killed_read_by_chunks_goes_on_where_it_was() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(64 * MIB, 9));
    let (hub, volume) = (hub_of(&tree, 0), Volume::new());
    let command = || fetch(&hub, &volume, &["hf://org/tiny", "--all", "--xet", "always"]);
    let rounds = rounds(4);
    for n in 0..rounds {
        hub.clear_script();
        hub.script(Rule::on("GET", "/xorbs/").then(Fault::Drip { bytes_per_second: 1 << 20 }));
        let running = command().args(["--connections", "4"]).start();
        std::thread::sleep(Duration::from_millis(900 + 300 * n as u64));
        running.signal("-KILL");
        assert_eq!(running.wait().code, -1);
        assert!(!volume.family("tiny").exists());
    }
    hub.clear_script();
    let run = command().run().assert_success();
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree);
    // What was on its way, a chunk that was begun, and the chunk that a piece begins in.
    let (sent, size) = (hub.bytes_sent_for("/xorbs/"), tree.total_bytes());
    let lost = rounds as u64 * 4 * 3 * MIB;
    assert!(sent <= size + lost, "{sent} bytes for {size}");
}
