//! A reader of the chunk store that trusts every answer: it panics where one makes no sense.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;

use lz4_flex::frame::FrameDecoder;
use serde_json::Value;
use weightlift_fakes::FakeHub;

use super::{Answer, get, get_range, request};

/// Access to the files of one commit.
pub struct Reader {
    pub cas_url: String,
    pub token: String,
}

/// A chunk as it was stored, and the file's bytes of it.
pub struct Chunk {
    pub scheme: u8,
    pub data: Vec<u8>,
}

/// The chunks of each xorb that were fetched, by their number.
pub type Fetched = BTreeMap<String, BTreeMap<u64, Chunk>>;

impl Reader {
    pub fn new(hub: &FakeHub, repo: &str, revision: &str) -> Self {
        let answer =
            get(&format!("{}/api/models/{repo}/xet-read-token/{revision}", hub.url())).json();
        let text = |name: &str| answer[name].as_str().expect("text").to_owned();
        Self { cas_url: text("casUrl"), token: text("accessToken") }
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let token = format!("Bearer {}", self.token);
        let headers = [&[("Authorization", token.as_str())], headers].concat();
        request(method, &format!("{}{path}", self.cas_url), &headers, body)
    }

    /// The whole answer to a question about a file, in version 2 or 1.
    pub fn reconstruction(&self, version: u8, id: &str, range: Option<&str>) -> Value {
        let headers: Vec<(&str, &str)> = range.iter().map(|range| ("Range", *range)).collect();
        let answer = self.ask("GET", &format!("/v{version}/reconstructions/{id}"), &headers, "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// The bytes of a range that ends before the file does, or of the whole file.
    pub fn read(&self, version: u8, id: &str, range: Option<Range<usize>>) -> Vec<u8> {
        let header = range.as_ref().map(|it| format!("bytes={}-{}", it.start, it.end - 1));
        let answer = self.reconstruction(version, id, header.as_deref());
        let fetched = fetch(&answer);
        let bytes = assemble(&answer["terms"], &fetched);
        let skipped = answer["offset_into_first_range"].as_u64().expect("a number") as usize;
        let length = range.map_or(bytes.len() - skipped, |range| range.len());
        bytes[skipped..skipped + length].to_vec()
    }
}

/// The xet hash that the hub lists for a file.
pub fn id_in(hub: &FakeHub, repo: &str, revision: &str, path: &str) -> String {
    let listing = get(&format!("{}/api/models/{repo}/tree/{revision}", hub.url())).json();
    let mut entries = listing.as_array().expect("a listing").iter();
    let entry = entries.find(|it| it["path"] == path).expect("the file");
    entry["xetHash"].as_str().expect("a hash").to_owned()
}

/// Every xorb, URL, run of chunks and `Range` of an answer of either version.
pub fn ranges(answer: &Value) -> Vec<(String, String, Range<u64>, String)> {
    let mut found = Vec::new();
    let mut add = |xorb: &String, url: &Value, chunks: &Value, bytes: &Value| {
        let url = url.as_str().expect("a URL").to_owned();
        let chunks = number(&chunks["start"])..number(&chunks["end"]);
        let bytes = format!("bytes={}-{}", bytes["start"], bytes["end"]);
        found.push((xorb.clone(), url, chunks, bytes));
    };
    for (xorb, entries) in answer["xorbs"].as_object().into_iter().flatten() {
        for entry in entries.as_array().expect("entries") {
            for range in entry["ranges"].as_array().expect("ranges") {
                add(xorb, &entry["url"], &range["chunks"], &range["bytes"]);
            }
        }
    }
    for (xorb, entries) in answer["fetch_info"].as_object().into_iter().flatten() {
        for entry in entries.as_array().expect("entries") {
            add(xorb, &entry["url"], &entry["range"], &entry["url_range"]);
        }
    }
    found
}

pub fn fetch(answer: &Value) -> Fetched {
    let mut fetched = Fetched::new();
    for (xorb, url, chunks, range) in ranges(answer) {
        let answer = get_range(&url, &range);
        assert_eq!(answer.status, 206, "{}", answer.text());
        let decoded = decode(&answer.body);
        assert_eq!(decoded.len() as u64, chunks.end - chunks.start);
        fetched.entry(xorb).or_default().extend(chunks.zip(decoded));
    }
    fetched
}

pub fn assemble(terms: &Value, fetched: &Fetched) -> Vec<u8> {
    let mut bytes = Vec::new();
    for term in terms.as_array().expect("terms") {
        let chunks = &fetched[term["hash"].as_str().expect("a hash")];
        let before = bytes.len() as u64;
        for number in number(&term["range"]["start"])..number(&term["range"]["end"]) {
            bytes.extend(&chunks[&number].data);
        }
        assert_eq!(bytes.len() as u64 - before, number(&term["unpacked_length"]));
    }
    bytes
}

/// All chunks of a run of serialised ones.
pub fn decode(mut bytes: &[u8]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    while let [version, a, b, c, scheme, x, y, z, rest @ ..] = bytes {
        assert_eq!(*version, 0);
        let stored = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
        let length = u32::from_le_bytes([*x, *y, *z, 0]) as usize;
        let data = match scheme {
            0 => rest[..stored].to_vec(),
            1 => unpacked(&rest[..stored]),
            2 => regrouped(&unpacked(&rest[..stored])),
            other => panic!("scheme {other}"),
        };
        assert_eq!(data.len(), length);
        chunks.push(Chunk { scheme: *scheme, data });
        bytes = &rest[stored..];
    }
    assert!(bytes.is_empty(), "{} bytes are left", bytes.len());
    chunks
}

pub fn unpacked(frame: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    FrameDecoder::new(frame).read_to_end(&mut data).expect("an LZ4 frame");
    data
}

fn regrouped(groups: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; groups.len()];
    let places = (0..4).flat_map(|group| (group..groups.len()).step_by(4));
    places.zip(groups).for_each(|(place, byte)| bytes[place] = *byte);
    bytes
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}
