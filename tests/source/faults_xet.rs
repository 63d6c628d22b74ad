//! What a Xet store may tell that is not so, and what becomes of it.
//!
//! | what the store does | what happens |
//! |---|---|
//! | an answer that contradicts itself, or none that can be read | the bridge brings the file; without it exit 20, 11 or 13 |
//! | a chunk that is damaged, or longer than any | the same; no memory is taken for it |
//! | right numbers and wrong bytes | seen by the SHA-256 of the file; fetched again by the bridge |
//! | another form of what is right | read as it is |

use crate::support::measure::with_peak_memory;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree, XetLie};

/// What packs well, so that LZ4 is what the store takes, and what does not.
fn tree() -> Tree {
    Tree::new()
        .with("config.json", "{}")
        .with("text.bin", b"weights and biases, ".repeat(150_000))
        .with_blob("noise.bin", Blob::synthetic(3 << 20, 4))
}

struct Lie {
    name: &'static str,
    lie: XetLie,
    /// The bytes are right all the same.
    is_harmless: bool,
}

fn lie(name: &'static str, lie: XetLie) -> Lie {
    Lie { name, lie, is_harmless: false }
}

fn lies() -> Vec<Lie> {
    vec![
        lie("a longer term", XetLie::LongerTerm),
        lie("a shorter term", XetLie::ShorterTerm),
        Lie { is_harmless: true, ..lie("a term too many", XetLie::ExtraTerm) },
        lie("a term too few", XetLie::MissingTerm),
        lie("a term that ends before it begins", XetLie::ReversedTerm),
        lie("a term behind its xorb", XetLie::TermBehindXorb),
        lie("an offset behind the term", XetLie::FarOffset),
        lie("the longest terms", XetLie::LongestTerms),
        lie("the largest numbers", XetLie::HugestNumbers),
        lie("links to files", XetLie::LinksTo("file:///etc/passwd?".into())),
        lie("links to the node", XetLie::LinksTo("http://169.254.169.254".into())),
        lie("no link", XetLie::MissingXorb),
        lie("a range that lacks a chunk", XetLie::UncoveredTerm),
        Lie { is_harmless: true, ..lie("ranges of all chunks", XetLie::WideRanges) },
        lie("a range that ends before it begins", XetLie::ReversedFetchRange),
        lie("a range that cuts a chunk", XetLie::CutChunk),
        lie("an answer without an end", XetLie::HugeAnswer(40 << 20)),
        lie("a byte flipped", XetLie::FlippedByte),
        lie("another version of a chunk", XetLie::ChunkVersion),
        lie("another scheme", XetLie::ChunkScheme),
        lie("the longest data", XetLie::LongestCompressed),
        lie("the longest chunk", XetLie::LongestUncompressed),
        lie("a bomb", XetLie::Bomb),
        Lie { is_harmless: true, ..lie("blocks of 4 MiB", XetLie::LargeBlocks) },
        lie("the end of the xorb", XetLie::Footer),
        lie("a store on the node", XetLie::CasAt("http://169.254.169.254/".into())),
        lie("a store that is a file", XetLie::CasAt("file:///etc/".into())),
        lie("a store with a user", XetLie::CasAt("http://user:hunter2@127.0.0.1:9/".into())),
        lie("a store that is not there", XetLie::CasAt("http://127.0.0.1:9/".into())),
    ]
}

fn hub(scheme: u8) -> FakeHub {
    FakeHub::builder().repo(REPO, tree()).xet().xet_scheme(scheme).start()
}

fn by_chunks(hub: &FakeHub, volume: &Volume) -> std::process::Command {
    let mut command = fetch(hub, volume, &["hf://org/tiny", "--all", "--xet", "always"]);
    command.env("WEIGHTLIFT_RETRY_DELAY", "25ms").env("WEIGHTLIFT_RETRY_TIMEOUT", "20s");
    command
}

/// Every lie, about chunks that are stored as they are and about chunks that are packed.
#[test]
fn no_lie_of_the_store_reaches_the_volume_and_the_bridge_brings_the_file() {
    for Lie { name, lie, is_harmless } in lies() {
        for scheme in [0, 1] {
            let (hub, volume) = (hub(scheme), Volume::new());
            hub.xet_lie(lie.clone());
            let (run, peak) = with_peak_memory(&mut by_chunks(&hub, &volume));
            assert_eq!(run.code, 0, "{name}, {scheme}: {}", run.stderr);
            volume.assert_holds("tiny", &tree());
            volume.assert_clean();
            assert!(!run.stderr.contains("hunter2"), "{name}: {}", run.stderr);
            assert!(peak < 64 << 20, "{name}, {scheme}: {peak} bytes of memory");
            let told = hub.xet_lies_told();
            // Some are about packed chunks only.
            assert!(told > 0 || scheme == 0, "{name}: nothing was told");
            let by_bridge = hub.bytes_sent_for("xet-bridge") > 0;
            assert!(by_bridge != (is_harmless || told == 0), "{name}, {scheme}: {}", run.stderr);
        }
    }
}

/// Where there is no bridge either, the run ends, says which way said what, and publishes nothing; a store that
/// tells the truth again is enough.
#[test]
fn where_the_bridge_is_gone_a_lie_ends_the_run() {
    for Lie { name, lie, is_harmless } in lies() {
        if is_harmless {
            continue;
        }
        let (hub, volume) = (hub(1), Volume::new());
        hub.script(Rule::on("GET", "").at("cdn").then(Fault::status_with(403, &[], "blocked")));
        hub.xet_lie(lie);
        let run = by_chunks(&hub, &volume).env("WEIGHTLIFT_RETRY_TIMEOUT", "2s").run();
        assert!([11, 12, 13, 20].contains(&run.code), "{name}: {} {}", run.code, run.stderr);
        assert!(!volume.family("tiny").exists(), "{name}");
        hub.xet_honest();
        by_chunks(&hub, &volume).run().assert_success();
        volume.assert_holds("tiny", &tree());
    }
}

/// A store that signs all of a xorb for each term of it is slow, and brings the file. Terms lie one behind the
/// other in the wrong order, so that no range can be read on.
#[test]
fn a_store_that_brings_too_much_is_read_all_the_same() {
    let parts: Vec<Vec<u8>> = (0..6).map(|n| Blob::synthetic(900_000, 40 + n).to_vec()).collect();
    let backwards: Vec<u8> = parts.iter().rev().flatten().copied().collect();
    let tree = Tree::new().with("a.bin", parts.concat()).with("b.bin", backwards);
    let hub = FakeHub::builder().repo(REPO, tree.clone()).xet().start();
    hub.xet_lie(XetLie::WideRanges);
    let volume = Volume::new();
    by_chunks(&hub, &volume).run().assert_success();
    volume.assert_holds("tiny", &tree);
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 0);
}

/// A store that lies for a while is asked again.
#[test]
fn a_lie_that_is_told_once_costs_a_try() {
    for (name, lie) in [
        ("a longer term", XetLie::LongerTerm),
        ("a cut chunk", XetLie::CutChunk),
        ("a version", XetLie::ChunkVersion),
    ] {
        let (hub, volume) = (hub(1), Volume::new());
        hub.xet_lie_times(lie, 1);
        by_chunks(&hub, &volume).run().assert_success();
        volume.assert_holds("tiny", &tree());
        assert_eq!(hub.bytes_sent_for("xet-bridge"), 0, "{name}");
    }
}
