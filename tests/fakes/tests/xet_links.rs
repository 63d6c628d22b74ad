//! The transfer host of the chunk store, as a client sees it, and rules for both.

mod client;

use std::thread;
use std::time::Duration;

use client::xet::{Reader, decode, id_in, ranges};
use client::{End, get, get_range, request};
use weightlift_fakes::{Blob, FakeHub, FakeHubBuilder, Fault, Rule, Tree};

const REPO: &str = "org/tiny";
const PATH: &str = "model.safetensors";

fn hub_with(change: impl FnOnce(FakeHubBuilder) -> FakeHubBuilder) -> FakeHub {
    let tree = Tree::new().with_blob(PATH, Blob::synthetic(2_000_000, 1));
    change(FakeHub::builder().repo(REPO, tree).xet()).start()
}

/// The link to the first range of the file, and that range.
fn link(hub: &FakeHub) -> (String, String) {
    let reader = Reader::new(hub, REPO, "main");
    let answer =
        reader.reconstruction(2, &id_in(hub, REPO, "main", PATH), Some("bytes=200000-900000"));
    let (_, url, _, range) = ranges(&answer).remove(0);
    (url, range)
}

/// The bounds of a range, moved.
fn moved(range: &str, start: i64, end: i64) -> String {
    let (first, last) = range[6..].split_once('-').expect("two bounds");
    let moved = |bound: &str, by: i64| bound.parse::<i64>().expect("a number") + by;
    format!("bytes={}-{}", moved(first, start), moved(last, end))
}

#[test]
fn a_link_is_good_for_the_signed_range_and_parts_of_it() {
    let hub = hub_with(|builder| builder);
    let (url, range) = link(&hub);
    assert!(url.starts_with(&format!("{}/xorbs/default/", hub.transfer_url())), "{url}");
    assert!(url.contains("X-Xet-Signed-Range=bytes%3D"), "{url}");
    let whole = get_range(&url, &range);
    assert_eq!((whole.status, decode(&whole.body).is_empty()), (206, false));
    assert!(whole.content_range().starts_with(&range.replace("bytes=", "bytes ")));
    let rest = get_range(&url, &moved(&range, 10, 0));
    assert!((rest.status, rest.body.as_slice()) == (206, &whole.body[10..]));
    for (start, end) in [(-1, 0), (0, 1), (-1, 1)] {
        let outside = get_range(&url, &moved(&range, start, end));
        assert_eq!(outside.status, 403);
        assert!(outside.text().contains("<Code>AccessDenied</Code>"), "{}", outside.text());
    }
    assert_eq!(get(&url).status, 403);
    assert_eq!(request("HEAD", &url, &[("Range", &range)], "").status, 403);
    assert_eq!(get_range(&url.replace("Signature=", "Signature=0"), &range).status, 403);
    assert_eq!(get_range(&url.replace("Range=bytes%3D", "Range=bytes%3D0"), &range).status, 403);
    let secret = [("Range", range.as_str()), ("Authorization", "Bearer hf_member")];
    assert_eq!(request("GET", &url, &secret, "").status, 400);

    let strict = hub_with(FakeHubBuilder::xet_whole_ranges);
    let (url, range) = link(&strict);
    assert_eq!(get_range(&url, &moved(&range, 10, 0)).status, 403);
    assert_eq!(get_range(&url, &range).status, 206);
}

#[test]
fn a_link_expires_with_time_and_with_use() {
    let hub = hub_with(|builder| builder.xet_link_lifetime(Duration::from_millis(1)));
    let (url, range) = link(&hub);
    thread::sleep(Duration::from_millis(5));
    let late = get_range(&url, &range);
    assert_eq!(late.status, 403);
    assert!(late.text().contains("Request has expired"), "{}", late.text());

    let hub = hub_with(|builder| builder.xet_requests_per_link(2));
    let (url, range) = link(&hub);
    assert_eq!([0; 3].map(|_| get_range(&url, &range).status), [206, 206, 403]);
    let (url, range) = link(&hub);
    assert_eq!(get_range(&url, &range).status, 206);
}

#[test]
fn rules_apply_to_tokens_reconstructions_and_xorbs() {
    let hub = hub_with(|builder| builder);
    let (url, range) = link(&hub);
    let whole = get_range(&url, &range).body;
    hub.script(Rule::on("GET", "xet-read-token").once().then(Fault::status(429)));
    let token = format!("{}/api/models/{REPO}/xet-read-token/main", hub.url());
    assert_eq!([0; 2].map(|_| get(&token).status), [429, 200]);
    hub.script(Rule::on("GET", "reconstructions").at("cas").once().then(Fault::status(503)));
    let file = format!("{}/v2/reconstructions/{}", hub.cas_url(), id_in(&hub, REPO, "main", PATH));
    assert_eq!([0; 2].map(|_| get(&file).status), [503, 401]);
    hub.script(Rule::on("GET", "xorbs/").at("transfer").once().then(Fault::ResetAfter(1000)));
    assert_eq!(get_range(&url, &range).end, End::Reset);
    hub.script(Rule::on("GET", "xorbs/").once().then(Fault::CutAfter(1000)));
    let cut = get_range(&url, &range);
    assert!((cut.end, cut.body.as_slice()) == (End::Short, &whole[..1000]));
    hub.script(Rule::on("GET", "xorbs/").once().then(Fault::Drip { bytes_per_second: 1 << 30 }));
    assert!(get_range(&url, &range).body == whole);
    assert_eq!(hub.faults_applied(), 5);
}
