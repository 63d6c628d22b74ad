//! The hub and the CDN, as a client sees them.

mod client;

use client::{absolute, get, get_following, get_range, request};
use serde_json::{Value, json};
use weightlift_fakes::{Blob, FakeHub, FakeHubBuilder, Fault, Rule, Tree};

const REPO: &str = "org/tiny";
const WEIGHTS: u64 = 3_000_000;

fn tree() -> Tree {
    Tree::new()
        .with("config.json", "hello\n")
        .with("empty.txt", "")
        .with("sub/dir/vocab.txt", "a\nb\n")
        .with_blob("model.safetensors", Blob::synthetic(WEIGHTS, 1))
}

fn hub_with(change: impl FnOnce(FakeHubBuilder) -> FakeHubBuilder) -> FakeHub {
    change(FakeHub::builder().repo(REPO, tree())).start()
}

fn api(hub: &FakeHub, rest: &str) -> String {
    format!("{}/api/models/{REPO}{rest}", hub.url())
}

fn file(hub: &FakeHub, path: &str) -> String {
    format!("{}/{REPO}/resolve/main/{path}", hub.url())
}

/// The CDN's URL for the weights, asked for with these headers.
fn signed(hub: &FakeHub, headers: &[(&str, &str)]) -> String {
    let answer = request("GET", &file(hub, "model.safetensors"), headers, "");
    answer.header("location").expect("a redirect").to_owned()
}

#[test]
fn a_small_file_is_a_relative_redirect_away_and_pinned_to_the_commit() {
    let hub = FakeHub::serving(REPO, tree());
    let first = request("HEAD", &file(&hub, "config.json"), &[], "");
    let location = first.header("location").expect("a redirect");
    assert_eq!(first.status, 307);
    assert_eq!(first.header("x-repo-commit"), Some(hub.commit(REPO).as_str()));
    let prefix = format!("/api/resolve-cache/models/{REPO}/{}/config.json?", hub.commit(REPO));
    assert!(location.starts_with(&prefix), "{location}");
    assert!(location.contains("etag=%22ce013625"), "{location}");

    let second = get(&absolute(&hub.url(), location));
    assert_eq!((second.status, second.text().as_str()), (200, "hello\n"));
    assert_eq!(second.header("etag"), Some("\"ce013625030ba8dba906f756967f9e9ca394464a\""));
    assert_eq!(second.header("x-repo-commit"), Some(hub.commit(REPO).as_str()));
    assert_eq!(get_following(&file(&hub, "config.json"), &[("Range", "bytes=1-2")]).text(), "el");
}

#[test]
fn an_empty_file_is_served_directly() {
    let hub = FakeHub::serving(REPO, tree());
    let answer = get(&file(&hub, "empty.txt"));
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(get_range(&file(&hub, "empty.txt"), "bytes=0-").status, 416);
}

#[test]
fn a_large_file_is_on_the_cdn_and_what_is_known_of_it_on_the_redirect() {
    let hub = FakeHub::serving(REPO, tree());
    let blob = Blob::synthetic(WEIGHTS, 1);
    let first = request("HEAD", &file(&hub, "model.safetensors"), &[], "");
    assert_eq!(first.status, 302);
    assert_eq!(first.header("x-linked-size"), Some("3000000"));
    assert_eq!(first.header("x-linked-etag"), Some(format!("\"{}\"", blob.sha256()).as_str()));
    assert_eq!(first.header("x-xet-hash"), None);
    let location = first.header("location").expect("a redirect");
    assert!(location.starts_with(&format!("{}/xet-bridge-us/", hub.cdn_url())), "{location}");
    assert_ne!(hub.url(), hub.cdn_url());

    let whole = get(location);
    assert_ne!(whole.header("etag"), first.header("x-linked-etag"));
    assert_eq!((whole.status, whole.body), (200, blob.to_vec()));
    let part = get_range(location, "bytes=100-199");
    assert_eq!((part.status, part.content_range()), (206, "bytes 100-199/3000000"));
    assert_eq!(part.body, blob.to_vec()[100..200]);
    assert_eq!(request("HEAD", location, &[], "").status, 403);
    assert_eq!(hub.bytes_sent_for("/xet-bridge-us/"), WEIGHTS + 100);
    assert_eq!(hub.count("GET", "model.safetensors"), 2);
}

#[test]
fn a_large_file_is_on_the_callers_own_server_if_there_is_one() {
    let hub = hub_with(|hub| hub.external_cdn("http://cdn.test/"));
    let answer = get(&file(&hub, "model.safetensors"));
    let location = format!("http://cdn.test/{REPO}/model.safetensors");
    assert_eq!((answer.status, answer.header("location")), (302, Some(location.as_str())));
    let digest = format!("\"{}\"", Blob::synthetic(WEIGHTS, 1).sha256());
    assert_eq!(answer.header("x-linked-etag"), Some(digest.as_str()));
    assert_eq!(get_following(&file(&hub, "config.json"), &[]).text(), "hello\n");
}

#[test]
fn the_cdn_wants_no_token_and_no_forged_url() {
    let hub = FakeHub::serving(REPO, tree());
    let url = signed(&hub, &[]);
    assert_eq!(request("GET", &url, &[("Authorization", "Bearer hf_x")], "").status, 400);
    assert_eq!(get(&url.replace("Signature=", "Signature=0")).status, 403);
    assert_eq!(get(&url.replace("/xet-bridge-us/", "/xet-bridge-us/0")).status, 403);
    let leaked = hub.requests().into_iter().filter(|it| it.origin == "cdn");
    assert_eq!(leaked.filter(|it| it.header("authorization").is_some()).count(), 1);
}

#[test]
fn urls_expire_after_so_many_requests() {
    let hub = hub_with(|builder| builder.expire_urls_after_requests(2));
    let url = signed(&hub, &[]);
    assert_eq!(get_range(&url, "bytes=0-0").status, 206);
    assert_eq!(get_range(&url, "bytes=1-1").status, 206);
    let expired = get_range(&url, "bytes=2-2");
    assert_eq!(expired.status, 403);
    assert!(expired.text().contains("<Message>Request has expired</Message>"));
    assert_eq!(get_range(&signed(&hub, &[]), "bytes=2-2").status, 206);
}

#[test]
fn urls_expire_with_age() {
    let hub = hub_with(|builder| builder.expire_urls_after(std::time::Duration::from_millis(50)));
    let url = signed(&hub, &[]);
    assert_eq!(get_range(&url, "bytes=0-0").status, 206);
    std::thread::sleep(std::time::Duration::from_millis(80));
    assert_eq!(get_range(&url, "bytes=0-0").status, 403);
}

#[test]
fn a_url_signed_for_a_range_is_good_for_that_range_only() {
    let hub = hub_with(FakeHubBuilder::sign_ranges);
    let range = [("Range", "bytes=10-19")];
    let url = signed(&hub, &range);
    assert_eq!(request("GET", &url, &range, "").status, 206);
    let other = get_range(&url, "bytes=20-29");
    assert_eq!((other.status, other.text().as_str()), (403, "Auth failed: invalid range"));
    assert_eq!(get(&url).status, 403);
    assert_eq!(get_range(&signed(&hub, &[]), "bytes=0-0").status, 403);
    assert_eq!(get_following(&file(&hub, "model.safetensors"), &range).status, 206);
}

#[test]
fn a_listing_names_folders_files_and_digests() {
    let hub = FakeHub::serving(REPO, tree());
    let weights = Blob::synthetic(WEIGHTS, 1);
    let entries = get(&api(&hub, "/tree/main?recursive=true&expand=false")).json();
    let paths: Vec<&Value> =
        entries.as_array().expect("a list").iter().map(|it| &it["path"]).collect();
    let wanted =
        ["config.json", "empty.txt", "model.safetensors", "sub", "sub/dir", "sub/dir/vocab.txt"];
    assert_eq!(paths, wanted);
    let small = json!({"type": "file", "oid": "ce013625030ba8dba906f756967f9e9ca394464a", "size": 6, "path": "config.json"});
    assert_eq!(entries[0], small);
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {WEIGHTS}\n",
        weights.sha256()
    );
    assert_eq!(entries[2]["oid"], Blob::bytes(pointer.clone()).git_sha1());
    let lfs = json!({"oid": weights.sha256(), "size": WEIGHTS, "pointerSize": pointer.len()});
    assert_eq!(entries[2]["lfs"], lfs);
    assert_eq!(entries[3]["type"], "directory");

    let top = get(&api(&hub, "/tree/main")).json();
    assert_eq!(top.as_array().map(Vec::len), Some(4));
    let below = get(&api(&hub, "/tree/main/sub%2Fdir")).json();
    assert_eq!(below[0]["path"], "sub/dir/vocab.txt");
    assert_eq!(get(&api(&hub, "/tree/main/nowhere")).header("x-error-code"), Some("EntryNotFound"));
}

#[test]
fn a_long_listing_comes_in_pages_with_raw_entries_last() {
    let raw: Vec<Value> =
        (0..4).map(|n| json!({"type": "file", "path": "../../evil", "oid": n})).collect();
    let hub = hub_with(|builder| {
        let builder = builder.page_size(3);
        raw.iter().fold(builder, |builder, entry| builder.raw_tree_entry(REPO, entry.clone()))
    });
    let mut url = api(&hub, "/tree/main?recursive=true");
    let mut entries = Vec::new();
    let mut pages = 0;
    loop {
        let page = get(&url);
        entries.extend(page.json().as_array().expect("a list").clone());
        pages += 1;
        let Some(link) = page.header("link") else {
            break;
        };
        assert!(link.ends_with(">; rel=\"next\""), "{link}");
        url = link[1..link.find('>').expect("a link")].to_owned();
        assert!(url.starts_with(&api(&hub, "/tree/main?recursive=true&cursor=")), "{url}");
    }
    assert_eq!((pages, entries.len()), (4, 10));
    assert_eq!(entries[6..], raw);
}

#[test]
fn a_description_has_the_commit_and_with_blobs_the_digests() {
    let hub = FakeHub::serving(REPO, tree());
    let plain = get(&api(&hub, "")).json();
    assert_eq!(plain["sha"], hub.commit(REPO));
    assert_eq!(plain["siblings"][0], json!({"rfilename": "config.json"}));
    let full = get(&api(&hub, "/revision/main?blobs=true")).json();
    assert_eq!(full["siblings"][2]["lfs"]["sha256"], Blob::synthetic(WEIGHTS, 1).sha256());
    let some = get(&api(&hub, "?expand=sha")).json();
    assert_eq!(some.as_object().map(serde_json::Map::len), Some(3));
}

#[test]
fn chosen_paths_can_be_asked_about_in_a_form_or_in_json() {
    let hub = FakeHub::serving(REPO, tree());
    let url = api(&hub, "/paths-info/main");
    let form =
        request("POST", &url, &[], "paths=config.json&paths=sub%2Fdir&paths=none&expand=false");
    assert_eq!(form.json().as_array().map(Vec::len), Some(2));
    assert_eq!(form.json()[1]["type"], "directory");
    let json = request("POST", &url, &[], r#"{"paths":["model.safetensors"]}"#);
    assert_eq!(json.json()[0]["lfs"]["size"], WEIGHTS);
}

#[test]
fn a_moved_branch_leaves_old_commits_as_they_were() {
    let hub = FakeHub::serving(REPO, tree());
    let old = hub.commit(REPO);
    let new = hub.move_branch(REPO, "main", tree().with("config.json", "new\n"));
    assert_eq!((new.len(), hub.commit(REPO)), (40, new.clone()));
    assert_ne!(old, new);
    assert_eq!(get_following(&file(&hub, "config.json"), &[]).text(), "new\n");
    let pinned = file(&hub, "config.json").replace("/main/", &format!("/{old}/"));
    assert_eq!(get_following(&pinned, &[]).text(), "hello\n");
    assert_eq!(hub.move_branch(REPO, "main", tree()), old);

    let pull = hub.move_branch(REPO, "refs/pr/1", tree().with("x", "y"));
    assert_eq!(get(&api(&hub, "/revision/refs%2Fpr%2F1")).json()["sha"], pull);
    assert_eq!(FakeHub::serving("other/name", tree()).commit("other/name"), old);
}

#[test]
fn missing_things_have_the_codes_of_the_hub() {
    let hub = hub_with(|builder| builder.token("hf_good"));
    let code = |url: &str, headers: &[(&str, &str)]| {
        let answer = request("GET", url, headers, "");
        assert!(answer.json()["error"].is_string());
        assert!(answer.header("x-request-id").is_some());
        assert!(answer.header("ratelimit").is_some_and(|it| it.contains(";r=")));
        (answer.status, answer.header("x-error-code").unwrap_or("none").to_owned())
    };
    let missing = format!("{}/api/models/org/missing", hub.url());
    assert_eq!(code(&missing, &[]), (401, "RepoNotFound".into()));
    assert_eq!(
        code(&missing, &[("Authorization", "Bearer hf_good")]),
        (404, "RepoNotFound".into())
    );
    assert_eq!(code(&api(&hub, "/revision/none"), &[]), (404, "RevisionNotFound".into()));
    assert_eq!(code(&file(&hub, "none.txt"), &[]), (404, "EntryNotFound".into()));
    let wrong = request("GET", &api(&hub, ""), &[("Authorization", "Bearer hf_bad")], "");
    assert_eq!(wrong.status, 401);
    assert_eq!(
        wrong.header("x-error-message"),
        Some("Invalid credentials in Authorization header")
    );
}

#[test]
fn private_hides_and_gated_refuses_files() {
    let good = [("Authorization", "Bearer hf_good")];
    let hub = hub_with(|builder| builder.token("hf_good").private(REPO));
    assert_eq!(get(&api(&hub, "")).header("x-error-code"), Some("RepoNotFound"));
    assert_eq!(get(&file(&hub, "config.json")).status, 401);
    assert_eq!(request("GET", &api(&hub, ""), &good, "").status, 200);
    // Served directly: a shared cache is no place for private files.
    assert_eq!(request("GET", &file(&hub, "config.json"), &good, "").status, 200);

    let hub = hub_with(|builder| builder.token("hf_good").gated(REPO));
    assert_eq!(get(&api(&hub, "/tree/main")).status, 200);
    for (headers, status) in [(&[] as &[_], 401), (&good, 403)] {
        let answer = request("GET", &file(&hub, "model.safetensors"), headers, "");
        assert_eq!((answer.status, answer.header("x-error-code")), (status, Some("GatedRepo")));
        assert_eq!(request("GET", &api(&hub, "/auth-check"), headers, "").status, status);
    }
    let hub = hub_with(|builder| builder.gated(REPO).gated_listings());
    assert_eq!(get(&api(&hub, "/tree/main")).header("x-error-code"), Some("GatedRepo"));
    let hub = hub_with(|builder| builder.token("hf_good").gated(REPO).granted(REPO));
    assert_eq!(request("GET", &file(&hub, "model.safetensors"), &good, "").status, 302);
    assert_eq!(get(&file(&hub, "model.safetensors")).status, 401);
}

#[test]
fn a_renamed_repository_is_a_relative_redirect_away() {
    let hub = hub_with(|builder| builder.renamed("old/name", REPO));
    let answer = get(&format!("{}/api/models/old/name/tree/main?recursive=true", hub.url()));
    assert_eq!(answer.status, 307);
    assert_eq!(answer.header("location"), Some("/api/models/org/tiny/tree/main?recursive=true"));
    let old = format!("{}/old/name/resolve/main/config.json", hub.url());
    assert_eq!(get_following(&old, &[]).text(), "hello\n");
}

#[test]
fn mirrors_lack_headers_or_the_cdn() {
    let hub = hub_with(FakeHubBuilder::mirror_without_headers);
    let answer = request("HEAD", &file(&hub, "model.safetensors"), &[], "");
    assert_eq!(answer.status, 302);
    for name in ["x-repo-commit", "x-linked-size", "x-linked-etag", "etag"] {
        assert_eq!(answer.header(name), None);
    }
    assert_eq!(get_following(&file(&hub, "config.json"), &[]).header("etag"), None);

    let hub = hub_with(FakeHubBuilder::lfs_direct);
    let answer = get_range(&file(&hub, "model.safetensors"), "bytes=5-9");
    assert_eq!((answer.status, answer.content_range()), (206, "bytes 5-9/3000000"));
    assert_eq!(answer.header("x-linked-size"), Some("3000000"));
}

#[test]
fn xet_hashes_are_named_only_when_wanted() {
    let hub = hub_with(FakeHubBuilder::xet_hashes);
    let answer = request("HEAD", &file(&hub, "model.safetensors"), &[], "");
    let hash = answer.header("x-xet-hash").expect("a hash");
    assert!(answer.header("link").is_some_and(|link| link.ends_with("rel=\"xet-auth\"")));
    assert_eq!(get(&api(&hub, "/tree/main")).json()[2]["xetHash"], hash);
    assert_eq!(request("HEAD", &file(&hub, "config.json"), &[], "").header("x-xet-hash"), None);
    let plain = FakeHub::serving(REPO, tree());
    assert!(get(&api(&plain, "/tree/main")).json()[2].get("xetHash").is_none());
}

#[test]
fn size_makes_lfs_where_the_name_does_not() {
    let hub = hub_with(|builder| builder.lfs_threshold(4));
    assert_eq!(get(&file(&hub, "config.json")).status, 302);
    assert_eq!(get(&file(&hub, "sub/dir/vocab.txt")).status, 302);
    assert_eq!(get(&file(&hub, "empty.txt")).status, 200);
}

#[test]
fn a_rule_finds_a_file_on_the_cdn_by_its_name() {
    let hub = FakeHub::serving(REPO, tree());
    hub.script(Rule::on("GET", "model.safetensors").at("cdn").once().then(Fault::status(500)));
    let url = signed(&hub, &[]);
    assert_eq!(
        [get_range(&url, "bytes=0-0").status, get_range(&url, "bytes=0-0").status],
        [500, 206]
    );
    assert_eq!(hub.faults_applied(), 1);
}

#[test]
fn a_terabyte_costs_nothing_when_its_digest_is_given() {
    let blob = Blob::synthetic(1 << 40, 1).announcing_sha256(&"ab".repeat(32));
    let hub = FakeHub::serving("canonical", Tree::new().with_blob("big.gguf", blob));
    let url = format!("{}/canonical/resolve/main/big.gguf", hub.url());
    let tail = get_following(&url, &[("Range", "bytes=1099511627770-")]);
    assert_eq!((tail.status, tail.body.len()), (206, 6));
    assert_eq!(get(&format!("{}/api/models/canonical", hub.url())).json()["id"], "canonical");
}

#[test]
fn the_control_port_counts_clears_and_slows_and_leaves_no_trace_in_the_log() {
    let hub = FakeHub::serving(REPO, tree());
    assert_eq!(get(&signed(&hub, &[])).body.len() as u64, WEIGHTS);
    let counts = || -> Value {
        let answer = get(&format!("{}/-/counts", hub.url()));
        serde_json::from_str(&answer.text()).expect("counts are JSON")
    };
    let commit = hub.commit(REPO);
    let counted = counts();
    assert_eq!((&counted["requests"], &counted["cdn_bytes"]), (&json!(2), &json!(WEIGHTS)));
    assert_eq!(counted["bytes_sent_twice"], 0);
    assert_eq!(counted["repositories"][REPO]["main"], commit.as_str());
    let weights = &counted["repositories"][REPO]["commits"][&commit]["model.safetensors"];
    assert_eq!(weights["size"], WEIGHTS);
    assert_eq!(weights["sha256"], Blob::synthetic(WEIGHTS, 1).sha256());

    get(&signed(&hub, &[]));
    assert_eq!(counts()["bytes_sent_twice"], WEIGHTS);
    assert_eq!(get(&format!("{}/-/clear", hub.url())).status, 200);
    assert_eq!(counts()["requests"], 0);
    assert_eq!(get(&format!("{}/-/speed/1000000000", hub.url())).status, 200);
    get(&signed(&hub, &[]));
    assert_eq!(hub.faults_applied(), 1);
    assert_eq!(get(&format!("{}/-/speed/0", hub.url())).status, 200);
    get(&signed(&hub, &[]));
    assert_eq!(hub.faults_applied(), 1);
    assert_eq!(get(&format!("{}/-/speed/fast", hub.url())).status, 400);
}

#[test]
fn a_repository_that_is_named_twice_has_two_commits_and_main_is_the_last() {
    let newer = tree().with("config.json", "changed\n");
    let hub = FakeHub::builder().repo(REPO, tree()).repo(REPO, newer).start();
    let older = FakeHub::serving(REPO, tree()).commit(REPO);
    let at = |revision: &str| {
        let url = format!("{}/{REPO}/resolve/{revision}/config.json", hub.url());
        get_following(&url, &[]).text()
    };
    assert_eq!((at("main").as_str(), at(&older).as_str()), ("changed\n", "hello\n"));
}

#[test]
fn a_hub_that_listens_everywhere_names_its_cdn_as_it_is_told_to() {
    let hub = hub_with(|builder| builder.everywhere().public_cdn("http://cdn.example:81/"));
    assert!(signed(&hub, &[]).starts_with("http://cdn.example:81/xet-bridge-us/"));
    let port = hub.url().rsplit(':').next().expect("a port").to_owned();
    // Any address of 127/8 is this machine's, and none but 127.0.0.1 is listened at without the flag.
    let other = format!("http://127.0.0.2:{port}/{REPO}/resolve/main/empty.txt");
    assert_eq!(get(&other).status, 200);
}
