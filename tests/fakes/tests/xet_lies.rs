//! What a chunk store that lies says, next to what it says otherwise.

mod client;

use client::get_range;
use client::xet::{Reader, id_in, ranges, unpacked};
use serde_json::{Value, json};
use weightlift_fakes::{Blob, FakeHub, Tree, XetLie};

const REPO: &str = "org/tiny";

/// A hub with one file, which has three terms in two xorbs and repeats the first xorb's beginning.
fn hub(scheme: u8) -> FakeHub {
    let noise = Blob::synthetic(600_000, 4).to_vec();
    let mut ends = FakeHub::xet_chunks(&Blob::bytes(noise.clone()));
    // Where the noise ends there is no boundary any more once something follows.
    ends.pop();
    let whole = ends[ends.len() - 1] as usize;
    let content = [&noise[..whole], &noise[..ends[0] as usize]].concat();
    let tree = Tree::new().with("model.bin", content);
    let builder = FakeHub::builder().repo(REPO, tree).xet().xet_scheme(scheme);
    builder.xet_xorb_chunks(ends.len() - 2).start()
}

fn id(hub: &FakeHub) -> String {
    id_in(hub, REPO, "main", "model.bin")
}

fn answer(hub: &FakeHub) -> Value {
    Reader::new(hub, REPO, "main").reconstruction(2, &id(hub), None)
}

/// The truth and the lie.
fn both(hub: &FakeHub, lie: XetLie) -> (Value, Value) {
    let truth = answer(hub);
    hub.xet_lie_times(lie, 1);
    (truth, answer(hub))
}

/// Every (first byte, last byte) of an answer's fetch ranges.
fn bytes(answer: &Value) -> Vec<(u64, u64)> {
    let bounds = |range: String| {
        let (start, end) = range[6..].split_once('-').expect("two bounds");
        (start.parse().expect("a number"), end.parse().expect("a number"))
    };
    ranges(answer).into_iter().map(|(_, _, _, range)| bounds(range)).collect()
}

#[test]
fn a_store_lies_so_often_and_can_be_made_honest() {
    let hub = hub(0);
    let truth = answer(&hub)["terms"].clone();
    hub.xet_lie_times(XetLie::ExtraTerm, 2);
    let told = [0; 3].map(|_| answer(&hub)["terms"] != truth);
    assert_eq!((told, hub.xet_lies_told()), ([true, true, false], 2));
    hub.xet_lie(XetLie::MissingTerm);
    assert_ne!(answer(&hub)["terms"], truth);
    hub.xet_honest();
    assert_eq!(answer(&hub)["terms"], truth);
    assert_eq!(hub.xet_lies_told(), 3);
}

#[test]
fn a_lie_about_terms_changes_nothing_else() {
    let hub = hub(0);
    let truth = answer(&hub)["terms"].clone();
    assert_eq!(truth.as_array().expect("terms").len(), 3);
    let length = truth[1]["unpacked_length"].as_u64().expect("a number");
    let chunks = |start: u64, end: u64| json!({"start": start, "end": end});
    let (start, end) = (0, truth[1]["range"]["end"].as_u64().expect("a number"));
    assert_eq!(truth[1]["range"], chunks(start, end));
    let with = |field: &str, value: Value| {
        let mut terms = truth.clone();
        terms[1][field] = value;
        terms
    };
    let all = |changes: &[(&str, &str, Value)]| {
        let mut terms = truth.clone();
        for term in terms.as_array_mut().expect("terms") {
            for (field, inner, value) in changes {
                let field = &mut term[*field];
                *(if inner.is_empty() { field } else { &mut field[*inner] }) = value.clone();
            }
        }
        terms
    };
    for (lie, expected) in [
        (XetLie::LongerTerm, with("unpacked_length", json!(length + 1))),
        (XetLie::ShorterTerm, with("unpacked_length", json!(length - 1))),
        (XetLie::ReversedTerm, with("range", chunks(end, start))),
        (XetLie::TermBehindXorb, with("range", chunks(start + 100_000, end + 100_000))),
        (XetLie::ExtraTerm, json!([truth[0], truth[1], truth[2], truth[2]])),
        (XetLie::MissingTerm, json!([truth[0], truth[2]])),
        (XetLie::LongestTerms, all(&[("unpacked_length", "", json!(u32::MAX))])),
        (
            XetLie::HugestNumbers,
            all(&[("unpacked_length", "", json!(u64::MAX)), ("range", "end", json!(u64::MAX))]),
        ),
    ] {
        let changes_ranges = lie == XetLie::HugestNumbers;
        let (before, after) = both(&hub, lie.clone());
        assert_eq!(after["terms"], expected, "{lie:?}");
        assert_eq!(bytes(&after) == bytes(&before), !changes_ranges, "{lie:?}");
    }
}

#[test]
fn a_lie_about_terms_is_told_in_every_version() {
    let hub = hub(0);
    let (reader, id) = (Reader::new(&hub, REPO, "main"), id(&hub));
    let truth = answer(&hub)["terms"].clone();
    hub.xet_lie(XetLie::MissingTerm);
    let expected = json!([truth[0], truth[2]]);
    assert_eq!(reader.reconstruction(1, &id, None)["terms"], expected);
    let key = json!([{"prefix": "default", "hash": id}]).to_string();
    let batch = reader.ask("POST", "/v1/reconstructions", &[], &key).json();
    assert_eq!(batch["files"][&id], expected);
}

#[test]
fn a_lie_about_what_to_fetch_leaves_the_terms_as_they_are() {
    let hub = hub(0);
    let (truth, cut) = both(&hub, XetLie::CutChunk);
    let honest = bytes(&truth);
    let early: Vec<(u64, u64)> = honest.iter().map(|(start, end)| (*start, end - 10)).collect();
    assert_eq!(bytes(&cut), early);
    let (_, url, _, range) = ranges(&cut).remove(0);
    let body = get_range(&url, &range).body.len() as u64;
    assert_eq!(body, early[0].1 - early[0].0 + 1);

    let (_, reversed) = both(&hub, XetLie::ReversedFetchRange);
    let turned: Vec<(u64, u64)> = honest.iter().map(|(start, end)| (*end, *start)).collect();
    assert_eq!(bytes(&reversed), turned);

    let (_, uncovered) = both(&hub, XetLie::UncoveredTerm);
    let chunks = |answer: &Value| {
        let chunks = ranges(answer).into_iter().map(|(_, _, chunks, _)| chunks);
        chunks.map(|chunks| (chunks.start, chunks.end)).collect::<Vec<_>>()
    };
    let fewer: Vec<_> = chunks(&truth).iter().map(|(start, end)| (*start, end - 1)).collect();
    assert_eq!(chunks(&uncovered), fewer);
    assert!(bytes(&uncovered)[0].1 < honest[0].1);

    let (_, missing) = both(&hub, XetLie::MissingXorb);
    let named = |answer: &Value| answer["xorbs"].as_object().expect("xorbs").len();
    assert_eq!((named(&truth), named(&missing)), (2, 1));
    assert!(missing["xorbs"].get(truth["terms"][1]["hash"].as_str().expect("a hash")).is_none());

    for lie in [cut, reversed, uncovered, missing] {
        assert_eq!(lie["terms"], truth["terms"]);
    }
    let (_, huge) = both(&hub, XetLie::HugestNumbers);
    assert!(bytes(&huge).iter().all(|(_, end)| *end == u64::MAX));
}

#[test]
fn links_and_the_store_itself_can_be_elsewhere() {
    let hub = hub(0);
    for origin in ["file:///etc/passwd?", "http://169.254.169.254"] {
        let (truth, lie) = both(&hub, XetLie::LinksTo(origin.to_owned()));
        let url = |answer: &Value| ranges(answer).remove(0).1;
        assert!(url(&truth).starts_with(&hub.transfer_url()));
        assert!(url(&lie).starts_with(&format!("{origin}/xorbs/default/")));
    }
    hub.xet_lie_times(XetLie::CasAt("http://169.254.169.254".to_owned()), 1);
    assert_eq!(Reader::new(&hub, REPO, "main").cas_url, "http://169.254.169.254");
    assert_eq!(Reader::new(&hub, REPO, "main").cas_url, hub.cas_url());
}

#[test]
fn an_offset_can_lie_behind_its_term_and_an_answer_can_be_huge() {
    let hub = hub(0);
    let (truth, far) = both(&hub, XetLie::FarOffset);
    let length = truth["terms"][0]["unpacked_length"].as_u64().expect("a number");
    assert_eq!(far["offset_into_first_range"], length + 1);

    let (_, huge) = both(&hub, XetLie::HugeAnswer(2_000_000));
    let terms = huge["terms"].as_array().expect("terms");
    assert!(huge.to_string().len() > 2_000_000);
    assert!(terms.len() > 10_000 && terms[terms.len() - 3] == truth["terms"][0]);
    let (reader, id) = (Reader::new(&hub, REPO, "main"), id(&hub));
    hub.xet_lie(XetLie::HugeAnswer(2_000_000));
    let key = json!([{"prefix": "default", "hash": id}]).to_string();
    let batch = reader.ask("POST", "/v1/reconstructions", &[], &key);
    assert!(batch.json()["files"][&id].as_array().is_some_and(|terms| terms.len() > 10_000));
}

/// The serialised first xorb and its middle chunk: as it is, and as the lie has it.
fn chunk(hub: &FakeHub, lie: XetLie) -> (Vec<u8>, Vec<u8>) {
    let answer = answer(hub);
    let first = answer["terms"][0]["hash"].as_str().expect("a hash");
    let (_, url, chunks, range) =
        ranges(&answer).into_iter().find(|(xorb, ..)| xorb == first).expect("a range");
    let truth = get_range(&url, &range).body;
    hub.xet_lie_times(lie, 1);
    let told = get_range(&url, &range).body;
    assert!(get_range(&url, &range).body == truth);
    let start = (0..chunks.end / 2).fold(0, |at, _| at + 8 + stored(&truth[at..]));
    let end = start + 8 + stored(&truth[start..]);
    assert!(truth[..start] == told[..start] && truth[end..] == told[end..]);
    (truth[start..end].to_vec(), told[start..end].to_vec())
}

/// The compressed length in a header.
fn stored(header: &[u8]) -> usize {
    u32::from_le_bytes([header[1], header[2], header[3], 0]) as usize
}

#[test]
fn a_header_of_a_chunk_can_say_what_is_not_so() {
    let hub = hub(0);
    for (lie, at, bytes) in [
        (XetLie::ChunkVersion, 0, &[1][..]),
        (XetLie::ChunkScheme, 4, &[3]),
        (XetLie::LongestCompressed, 1, &[255, 255, 255]),
        (XetLie::LongestUncompressed, 5, &[255, 255, 255]),
        (XetLie::Footer, 0, b"XETBLOB\x01"),
    ] {
        let (mut truth, told) = chunk(&hub, lie.clone());
        assert!(truth != told, "{lie:?}");
        truth[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(truth == told, "{lie:?}");
    }
}

#[test]
fn a_byte_of_a_chunk_can_be_another() {
    for scheme in [0, 1] {
        let (truth, told) = chunk(&hub(scheme), XetLie::FlippedByte);
        let places: Vec<usize> = (0..truth.len()).filter(|at| truth[*at] != told[*at]).collect();
        assert_eq!(places.len(), 1);
        assert!(places[0] > 8);
    }
}

#[test]
fn a_frame_can_be_a_bomb_or_declare_large_blocks() {
    for scheme in [0, 1, 2] {
        let (truth, bomb) = chunk(&hub(scheme), XetLie::Bomb);
        assert_eq!((bomb[4], &bomb[1..4], &bomb[5..8]), (1, &truth[1..4], &truth[5..8]));
        assert_eq!(unpacked(&bomb[8..]).len(), (bomb.len() - 8) * 200);
    }
    let (truth, large) = chunk(&hub(1), XetLie::LargeBlocks);
    assert!(truth[8..] != large[8..]);
    assert_eq!(large[8 + 5], 0x70);
    assert!(unpacked(&large[8..]) == unpacked(&truth[8..]));
}
