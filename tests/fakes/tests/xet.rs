//! The chunk store, as a client sees it.

mod client;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use client::xet::{Reader, assemble, fetch, id_in, ranges};
use client::{get, request};
use serde_json::{Value, json};
use weightlift_fakes::{Blob, FakeHub, FakeHubBuilder, Tree};

const REPO: &str = "org/tiny";
const PATH: &str = "model.safetensors";
const SIZE: usize = 3_000_000;

/// Bytes that compress badly, by their groups, and well.
fn weights() -> Vec<u8> {
    let noise = Blob::synthetic(1_000_000, 1).to_vec();
    let floats = noise[..750_000].chunks(3).flat_map(|it| [it[0], it[1], it[2], 63]);
    let text = b"a line of text\n".iter().copied().cycle().take(1_000_000);
    noise.iter().copied().chain(floats).chain(text).collect()
}

fn tree() -> Tree {
    Tree::new().with("config.json", "{}").with(PATH, weights())
}

fn hub_with(change: impl FnOnce(FakeHubBuilder) -> FakeHubBuilder) -> FakeHub {
    change(FakeHub::builder().repo(REPO, tree()).xet()).start()
}

fn id(hub: &FakeHub, revision: &str, path: &str) -> String {
    id_in(hub, REPO, revision, path)
}

fn xorbs(answer: &Value) -> BTreeSet<String> {
    ranges(answer).into_iter().map(|(xorb, ..)| xorb).collect()
}

fn terms(answer: &Value) -> &[Value] {
    answer["terms"].as_array().expect("terms")
}

#[test]
fn a_reader_gets_the_file_in_both_versions_whole_and_in_parts() {
    let hub = hub_with(|builder| builder.xet_xorb_chunks(7));
    let (reader, id) = (Reader::new(&hub, REPO, "main"), id(&hub, "main", PATH));
    for version in [1, 2] {
        assert!(reader.read(version, &id, None) == weights(), "version {version}");
        for range in [0..1, 0..SIZE, 8_000..300_000, 1_499_999..2_500_001, SIZE - 1..SIZE] {
            let part = reader.read(version, &id, Some(range.clone()));
            assert!(part == weights()[range.clone()], "{range:?} in version {version}");
        }
    }
    assert!(xorbs(&reader.reconstruction(2, &id, None)).len() > 3);
    assert!(hub.bytes_sent_for("/xorbs/default/") > 0);
    assert!(hub.count("GET", "/v1/reconstructions/") >= 6);
    assert_eq!(hub.count("GET", "/xet-read-token/main"), 1);
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 0);
}

#[test]
fn a_chunk_has_the_scheme_that_is_smallest_or_the_one_asked_for() {
    let schemes = |hub: &FakeHub| {
        let reader = Reader::new(hub, REPO, "main");
        let answer = reader.reconstruction(2, &id(hub, "main", PATH), None);
        let fetched = fetch(&answer);
        assert!(assemble(&answer["terms"], &fetched) == weights());
        let chunks = fetched.values().flat_map(|chunks| chunks.values());
        chunks.map(|chunk| chunk.scheme).collect::<BTreeSet<u8>>()
    };
    assert_eq!(schemes(&hub_with(|builder| builder)), BTreeSet::from([0, 1, 2]));
    for scheme in [0, 1, 2] {
        let hub = hub_with(|builder| builder.xet_scheme(scheme));
        assert_eq!(schemes(&hub), BTreeSet::from([scheme]));
    }
}

#[test]
fn a_range_is_answered_with_the_chunks_that_it_touches() {
    let hub = hub_with(|builder| builder);
    let (reader, id) = (Reader::new(&hub, REPO, "main"), id(&hub, "main", PATH));
    let ends = FakeHub::xet_chunks(&Blob::bytes(weights()));
    assert_eq!(*ends.last().expect("chunks"), SIZE as u64);
    let (start, end) = (ends[1] + 5, ends[2] + 1);
    let answer = reader.reconstruction(2, &id, Some(&format!("bytes={start}-{}", end - 1)));
    assert_eq!(answer["offset_into_first_range"], 5);
    assert_eq!(terms(&answer).len(), 1);
    assert_eq!(terms(&answer)[0]["range"], json!({"start": 2, "end": 4}));
    assert_eq!(terms(&answer)[0]["unpacked_length"], ends[3] - ends[1]);

    let beyond = reader.reconstruction(2, &id, Some(&format!("bytes={}-99999999", SIZE - 1)));
    assert!(assemble(&beyond["terms"], &fetch(&beyond)).ends_with(&weights()[SIZE - 1..]));
    let path = format!("/v2/reconstructions/{id}");
    let behind = [("Range", "bytes=3000000-3000001")];
    assert_eq!(reader.ask("GET", &path, &behind, "").status, 416);
}

#[test]
fn one_fetched_range_serves_several_terms() {
    let noise = Blob::synthetic(600_000, 9).to_vec();
    let content = [noise.clone(), noise[..300_000].to_vec(), vec![0; 400_000]].concat();
    let tree = Tree::new().with(PATH, content.clone());
    let hub = FakeHub::builder().repo(REPO, tree).xet().start();
    let (reader, id) = (Reader::new(&hub, REPO, "main"), id(&hub, "main", PATH));
    let answer = reader.reconstruction(2, &id, None);
    assert_eq!(ranges(&answer).len(), 1, "{answer}");
    assert!(terms(&answer).len() > 3, "{answer}");
    assert!(assemble(&answer["terms"], &fetch(&answer)) == content);
    assert!(hub.bytes_sent_for("/xorbs/") < 700_000);
}

#[test]
fn gaps_between_ranges_are_not_fetched_and_a_link_can_be_good_for_several() {
    let noise = Blob::synthetic(2_000_000, 9).to_vec();
    let ends = FakeHub::xet_chunks(&Blob::bytes(noise.clone()));
    let cut = |from: usize, to: usize| &noise[ends[from] as usize..ends[to] as usize];
    let other = [cut(1, 3), cut(8, 9), cut(5, 6)].concat();
    for (most, links) in [(500, 1), (2, 2)] {
        let tree = Tree::new().with("a.bin", noise.clone()).with("b.bin", other.clone());
        let builder = FakeHub::builder().repo(REPO, tree).xet().xet_ranges_per_link(most);
        let hub = builder.start();
        let reader = Reader::new(&hub, REPO, "main");
        assert!(reader.read(2, &id(&hub, "main", "a.bin"), None) == noise);
        let answer = reader.reconstruction(2, &id(&hub, "main", "b.bin"), None);
        let found: Vec<_> = ranges(&answer).into_iter().map(|(_, _, chunks, _)| chunks).collect();
        assert_eq!(found, [2..4, 6..7, 9..10]);
        let urls: BTreeSet<_> = ranges(&answer).into_iter().map(|(_, url, ..)| url).collect();
        assert_eq!(urls.len(), links);
        assert!(assemble(&answer["terms"], &fetch(&answer)) == other);
        assert_eq!(ranges(&reader.reconstruction(1, &id(&hub, "main", "b.bin"), None)).len(), 3);
    }
}

#[test]
fn a_later_commit_names_the_same_xorbs_for_what_it_has_in_common() {
    let hub = hub_with(|builder| builder);
    let old = (hub.commit(REPO), id(&hub, "main", PATH));
    let mut changed = weights();
    changed.splice(1000..1000, *b"a longer head");
    let tree = Tree::new().with(PATH, changed.clone());
    let new = hub.move_branch(REPO, "main", tree);
    let new = (new, id(&hub, "main", PATH));
    let before = Reader::new(&hub, REPO, &old.0).reconstruction(2, &old.1, None);
    let reader = Reader::new(&hub, REPO, &new.0);
    let after = reader.reconstruction(2, &new.1, None);
    assert!(assemble(&after["terms"], &fetch(&after)) == changed);
    let fresh = &xorbs(&after) - &xorbs(&before);
    assert!(xorbs(&after).is_superset(&xorbs(&before)));
    assert_eq!(fresh.len(), 1);

    let old_content = weights();
    let known: BTreeSet<&[u8]> = cut(&old_content).into_iter().collect();
    let unknown = cut(&changed).into_iter().filter(|chunk| !known.contains(chunk));
    let unknown = unknown.map(|chunk| chunk.len() as u64).sum::<u64>();
    assert!((1..300_000).contains(&unknown), "{unknown}");
    assert_eq!(hub.xet_new_bytes(REPO, PATH, &old.0, &new.0), unknown);
    assert_eq!(hub.xet_new_bytes(REPO, PATH, &old.0, &old.0), 0);
    let own = terms(&after).iter().filter(|it| fresh.contains(it["hash"].as_str().expect("text")));
    assert_eq!(own.map(|it| it["unpacked_length"].as_u64().expect("length")).sum::<u64>(), unknown);
}

fn cut(content: &[u8]) -> Vec<&[u8]> {
    let ends = FakeHub::xet_chunks(&Blob::bytes(content)).into_iter().map(|end| end as usize);
    let mut start = 0;
    ends.map(|end| &content[std::mem::replace(&mut start, end)..end]).collect()
}

#[test]
fn a_batch_answers_for_all_files_at_once() {
    let more = Blob::synthetic(500_000, 77);
    let tree = tree().with_blob("more.bin", more.clone());
    let hub = FakeHub::builder().repo(REPO, tree).xet().start();
    let reader = Reader::new(&hub, REPO, "main");
    let ids = [id(&hub, "main", PATH), id(&hub, "main", "more.bin")];
    let keys = json!([
        {"prefix": "default", "hash": ids[0]},
        {"prefix": "default", "hash": ids[1]},
    ]);
    let answer = reader.ask("POST", "/v1/reconstructions", &[], &keys.to_string()).json();
    let fetched = fetch(&answer);
    assert!(assemble(&answer["files"][&ids[0]], &fetched) == weights());
    assert!(assemble(&answer["files"][&ids[1]], &fetched) == more.to_vec());

    assert_eq!(reader.ask("POST", "/v1/reconstructions", &[], "{}").status, 400);
    let unknown = json!([{"prefix": "default", "hash": "ab".repeat(32)}]);
    let answer = reader.ask("POST", "/v1/reconstructions", &[], &unknown.to_string());
    assert_eq!(answer.status, 404);
}

#[test]
fn the_size_of_a_file_is_told_without_its_chunks() {
    let hub = hub_with(|builder| builder);
    let reader = Reader::new(&hub, REPO, "main");
    let path = format!("/v1/files/{}", id(&hub, "main", PATH));
    let answer = reader.ask("HEAD", &path, &[], "");
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("3000000")));
}

#[test]
fn an_old_store_knows_version_1_only() {
    let hub = hub_with(FakeHubBuilder::xet_v1_only);
    let (reader, id) = (Reader::new(&hub, REPO, "main"), id(&hub, "main", PATH));
    assert_eq!(reader.ask("GET", &format!("/v2/reconstructions/{id}"), &[], "").status, 404);
    assert!(reader.read(1, &id, None) == weights());
}

#[test]
fn the_hub_gives_tokens_to_those_who_may_read_and_only_with_a_store() {
    let token = |hub: &FakeHub, repo: &str, revision: &str, headers: &[(&str, &str)]| {
        let url = format!("{}/api/models/{repo}/xet-read-token/{revision}", hub.url());
        request("GET", &url, headers, "")
    };
    let member = [("Authorization", "Bearer hf_member")];
    let mut builder = FakeHub::builder().token("hf_member").xet();
    for repo in ["org/open", "org/private", "org/gated", "org/granted"] {
        builder = builder.repo(repo, tree());
    }
    let builder = builder.private("org/private").gated("org/gated").gated("org/granted");
    let hub = builder.granted("org/granted").start();
    for (repo, stranger, known) in [
        ("org/open", 200, 200),
        ("org/private", 401, 200),
        ("org/gated", 401, 403),
        ("org/granted", 401, 200),
        ("org/none", 401, 404),
    ] {
        assert_eq!(token(&hub, repo, "main", &[]).status, stranger, "{repo}");
        assert_eq!(token(&hub, repo, "main", &member).status, known, "{repo}");
    }
    assert_eq!(token(&hub, "org/open", "nowhere", &[]).status, 404);
    let whole = token(&hub, "org/open", "main", &[]);
    let answer = whole.json();
    assert_eq!(answer["casUrl"], hub.cas_url());
    assert_eq!(whole.header("x-xet-cas-url"), Some(hub.cas_url().as_str()));
    assert_eq!(whole.header("x-xet-access-token"), answer["accessToken"].as_str());
    let expires = whole.header("x-xet-token-expiration").and_then(|it| it.parse().ok());
    assert_eq!(expires, answer["exp"].as_u64());
    assert!(answer["exp"].as_u64().is_some_and(|exp| exp > 1_700_000_000), "{answer}");

    let plain = FakeHub::builder().repo(REPO, tree()).xet_hashes().start();
    assert_eq!(token(&plain, REPO, "main", &[]).status, 404);
}

#[test]
fn the_store_refuses_other_tokens_other_files_and_files_that_do_not_exist() {
    let other = Tree::new().with("other.bin", Blob::synthetic(100_000, 5).to_vec());
    let builder = FakeHub::builder().token("hf_member").xet().repo(REPO, tree());
    let hub = builder.repo("org/other", other.clone()).start();
    let id = id(&hub, "main", PATH);
    let status = |reader: &Reader, id: &str| {
        let paths = [format!("/v2/reconstructions/{id}"), format!("/v1/reconstructions/{id}")];
        let [two, one] = paths.map(|path| reader.ask("GET", &path, &[], "").status);
        assert_eq!(two, one);
        assert_eq!(reader.ask("HEAD", &format!("/v1/files/{id}"), &[], "").status, one);
        one
    };
    let reader = Reader::new(&hub, REPO, "main");
    assert_eq!(status(&reader, &id), 200);
    assert_eq!(status(&reader, &"ab".repeat(32)), 404);
    assert_eq!(status(&reader, "short"), 400);
    assert_eq!(status(&Reader::new(&hub, "org/other", "main"), &id), 403);
    let old = Reader::new(&hub, REPO, "main");
    hub.move_branch(REPO, "main", other);
    assert_eq!(status(&Reader::new(&hub, REPO, "main"), &id), 403);
    assert_eq!(status(&old, &id), 200);

    let with_the_hubs = Reader { token: "hf_member".to_owned(), ..old };
    assert_eq!(status(&with_the_hubs, &id), 401);
    let none = get(&format!("{}/v2/reconstructions/{id}", hub.cas_url()));
    assert_eq!(none.status, 401);
    let leaked = |it: &&weightlift_fakes::Logged| {
        it.origin == "cas" && it.header("authorization") == Some("Bearer hf_member")
    };
    assert_eq!(hub.requests().iter().filter(leaked).count(), 3);
}

#[test]
fn a_token_expires() {
    let hub = hub_with(|builder| builder.xet_token_lifetime(Duration::from_millis(1)));
    let (reader, id) = (Reader::new(&hub, REPO, "main"), id(&hub, "main", PATH));
    thread::sleep(Duration::from_millis(5));
    assert_eq!(reader.ask("GET", &format!("/v2/reconstructions/{id}"), &[], "").status, 401);
}
