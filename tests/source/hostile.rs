//! Repos that mean harm: nothing outside the family is touched, nothing of them is trusted.

use std::time::Duration;

use crate::support::measure::with_peak_memory;
use crate::support::process::ends_within;
use crate::support::*;
use serde_json::json;
use weightlift_fakes::{Blob, FakeHub, FakeS3, Fault, Rule, Tree};

#[test]
fn names_that_leave_the_directory_or_reach_for_us_are_refused() {
    for name in [
        "../x",
        "a/../../x",
        "/etc/cron.d/x",
        "a\nb",
        "a\u{1b}[2Jb",
        "a\u{202e}b",
        "a\\..\\b",
        "./a",
        "a//b",
        ".weightlift-complete.json",
        ".weightlift/locks/tiny.lock",
        ".WEIGHTLIFT/x",
    ] {
        let entry = json!({"type": "file", "path": name, "size": 2, "oid": "0".repeat(40)});
        let hub = FakeHub::builder().repo(REPO, tiny()).raw_tree_entry(REPO, entry).start();
        let volume = Volume::new();
        let run = fetch(&hub, &volume, &["hf://org/tiny"]).run();
        assert_eq!(run.code, 13, "{name:?}: {}", run.stderr);
        assert!(!volume.family("tiny").exists());
        assert_eq!(list(&volume.path("")).len(), 1, "something beside the root: {name:?}");
    }
}

/// What is not fetched is not judged: neither its name, nor what it has in common with another.
#[test]
fn names_that_cannot_be_used_are_no_harm_where_they_are_not_selected() {
    for name in ["a\u{200d}b.png", "../x.png", "/x.png", ".weightlift/x.png", "config.json/x.png"] {
        let entry = json!({"type": "file", "path": name, "size": 2, "oid": "0".repeat(40)});
        let hub = FakeHub::builder().repo(REPO, tiny()).raw_tree_entry(REPO, entry).start();
        let volume = Volume::new();
        let run = fetch(&hub, &volume, &["hf://org/tiny", "--exclude", "*.png"]).run();
        run.assert_success();
        volume.assert_holds("tiny", &tiny_selected());
        let volume = Volume::new();
        fetch(&hub, &volume, &["hf://org/tiny", "--include", "*.json"]).run().assert_success();
        let run = fetch(&hub, &Volume::new(), &["hf://org/tiny"]).run().assert_code(13);
        assert!(run.last_line().contains("`--exclude`") || name.starts_with("config"));
    }
}

#[test]
fn listings_that_are_no_tree_are_refused() {
    for name in ["config.json", "config.json/x", "1_Pooling"] {
        let entry = json!({"type": "file", "path": name, "size": 2, "oid": "0".repeat(40)});
        let hub = FakeHub::builder().repo(REPO, tiny()).raw_tree_entry(REPO, entry).start();
        fetch(&hub, &Volume::new(), &["hf://org/tiny"]).run().assert_code(13);
    }
}

#[test]
fn digests_that_are_paths_are_no_digests() {
    for oid in ["../../etc/passwd", "", "sha256:zz"] {
        let lfs = json!({"oid": oid, "size": 2, "pointerSize": 100});
        let entry = json!({"type": "file", "path": "x.bin", "size": 2, "lfs": lfs});
        let hub = FakeHub::builder().repo(REPO, tiny()).raw_tree_entry(REPO, entry).start();
        fetch(&hub, &Volume::new(), &["hf://org/tiny"]).run().assert_code(20);
    }
}

#[test]
fn submodules_and_directories_are_not_made() {
    let entry = json!({"type": "submodule", "path": "sub", "size": 0, "oid": "0".repeat(40)});
    let hub = FakeHub::builder().repo(REPO, tiny()).raw_tree_entry(REPO, entry).start();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &tiny_selected());
}

#[test]
fn a_file_that_claims_the_size_of_the_world_does_not_fit() {
    let size = u64::MAX / 2;
    let entry = json!({"type": "file", "path": "x", "size": size, "oid": "0".repeat(40)});
    let hub = FakeHub::builder().repo(REPO, tiny()).raw_tree_entry(REPO, entry).start();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(15);
    volume.assert_clean();
}

#[test]
fn bad_safetensors_that_match_their_digest_are_the_publishers_fault() {
    let mut seen = 0;
    for path in list(&fixture("bad")).into_iter().filter(|path| path.is_file()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let tree = Tree::new().with("model.safetensors", std::fs::read(&path).unwrap());
        let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
        let run = fetch(&hub, &volume, &["hf://org/tiny"]).run();
        seen += 1;
        if name.starts_with("unknown-dtype") {
            run.assert_success().assert_says("was not checked");
            volume.assert_holds("tiny", &tree);
            continue;
        }
        assert!(run.last_line().contains("is what the source published"), "{name}: {}", run.stderr);
        run.assert_code(12);
        assert!(!volume.family("tiny").exists(), "{name} was published");
    }
    assert!(seen >= 9, "only {seen} fixtures");
}

#[test]
fn an_index_that_names_a_shard_that_is_not_there_is_refused() {
    let tree = Tree::from_dir(&fixture("bad/missing-shard")).unwrap();
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(12);
    assert!(run.last_line().contains("the model is incomplete"), "{}", run.stderr);
    assert!(!volume.family("tiny").exists());
}

/// Each of them is looked for among all files: that must not be a walk through them.
#[test]
fn indexes_that_name_every_file_are_read_in_time() {
    let directory = format!("{}/", "d".repeat(240)).repeat(10);
    let shards: serde_json::Map<_, _> =
        (0..8_000).map(|n| (n.to_string(), format!("{n}.bin").into())).collect();
    let index = json!({ "weight_map": shards }).to_string();
    let tree =
        (0..8_000).fold(Tree::new(), |tree, n| tree.with(&format!("{directory}{n}.bin"), ""));
    let tree = (0..60).fold(tree, |tree, n| {
        tree.with(&format!("{directory}{n}.safetensors.index.json"), index.as_str())
    });
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    let running = fetch(&hub, &volume, &["hf://org/tiny", "--all"]).start();
    // Some seconds; a walk for each of them takes minutes.
    ends_within(Duration::from_secs(60), running).assert_success();
}

#[test]
fn an_index_that_points_elsewhere_is_refused() {
    for shard in ["../x", "/etc/passwd", "a/../../x", "http://evil.example/x", "a\u{1b}[2J"] {
        let index = json!({"weight_map": {"a": shard}}).to_string();
        let tree = tiny_selected().with("model.safetensors.index.json", index);
        let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
        fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(12);
        assert!(!volume.family("tiny").exists(), "{shard}");
    }
}

#[test]
fn an_index_that_would_fill_the_memory_is_refused_without_doing_so() {
    let many: String = (0..400_000).map(|n| format!(",\"{n}\":\"shard-{n}\"")).collect();
    let long = "x".repeat(40_000_000);
    for (index, why) in [
        (format!("{{\"weight_map\":{{\"a\":\"model.safetensors\"{many}}}}}"), "`shard-0`"),
        (format!("{{\"weight_map\":{{\"a\":\"{long}\"}}}}"), "more than 64 KiB"),
        (format!("{{\"{long}\":0,\"weight_map\":{{}}}}"), "more than 64 KiB"),
        (format!("{{\"x\":{}}}", "[".repeat(10_000_000)), "not a valid index"),
    ] {
        let tree = Tree::new()
            .with("model.safetensors", empty_safetensors())
            .with_blob("model.safetensors.index.json", Blob::bytes(index));
        let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
        let (run, peak) = with_peak_memory(&mut fetch(&hub, &volume, &["hf://org/tiny"]));
        run.assert_code(12).assert_says(why);
        assert!(peak < 48 << 20, "peak RSS {} KiB", peak >> 10);
    }
}

#[test]
fn headers_that_are_parsed_cost_no_memory_either() {
    // Eight files end at about the same time, each with as large a header as is parsed, and JSON
    // that would be much larger in memory.
    let numbers = ",0".repeat((8 << 19) - 100);
    let shape =
        format!("{{\"a\":{{\"dtype\":\"U8\",\"shape\":[0{numbers}],\"data_offsets\":[0,0]}}}}");
    let tensor = |n| format!(",\"{n}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}");
    let many = format!("{{\"__metadata__\":{{}}{}}}", (0..140_000).map(tensor).collect::<String>());
    let tree = (0..8).fold(Tree::new(), |tree, n| {
        let header = if n % 2 == 0 { &shape } else { &many };
        assert!(header.len() <= 8 << 20, "{} bytes are not parsed", header.len());
        tree.with_blob(&format!("{n}.safetensors"), Blob::bytes(with_length(header)))
    });
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    let (run, peak) = with_peak_memory(&mut fetch(&hub, &volume, &["hf://org/tiny"]));
    assert!(!run.stderr.contains("not checked"), "{}", run.stderr);
    run.assert_success();
    volume.assert_holds("tiny", &tree);
    assert!(peak < 56 << 20, "peak RSS {} KiB", peak >> 10);
}

fn with_length(header: &str) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file
}

fn empty_safetensors() -> Vec<u8> {
    with_length("{}")
}

#[test]
fn a_hostile_header_costs_no_memory() {
    // The largest header the format allows, all of it JSON that would become a large tree.
    let mut header = String::from("{\"__metadata__\":{");
    while header.len() < 60_000_000 {
        header.push_str("\"k");
        header.push_str(&header.len().to_string());
        header.push_str("\":\"\",");
    }
    header.push_str("\"end\":\"\"}}");
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    let tree = Tree::new().with_blob("model.safetensors", Blob::bytes(file));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    let mut command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let (run, peak) = with_peak_memory(&mut command);
    run.assert_success();
    assert!(peak < 48 << 20, "peak RSS {} KiB", peak >> 10);
}

#[test]
fn sizes_that_cannot_be_added_up_are_refused() {
    let entry =
        |path: &str| json!({"type": "file", "path": path, "size": u64::MAX, "oid": "0".repeat(40)});
    let hub = FakeHub::builder().repo(REPO, tiny());
    let hub = hub.raw_tree_entry(REPO, entry("x")).raw_tree_entry(REPO, entry("y")).start();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(13);
    assert_eq!(volume.attempts().len(), 0);
}

#[test]
fn a_name_that_is_nested_without_end_is_refused() {
    let path = "d/".repeat(1_000) + "x";
    let entry = json!({"type": "file", "path": path, "size": 2, "oid": "0".repeat(40)});
    let hub = FakeHub::builder().repo(REPO, tiny()).raw_tree_entry(REPO, entry).start();
    fetch(&hub, &Volume::new(), &["hf://org/tiny"]).run().assert_code(13);
}

#[test]
fn answers_of_the_hub_that_are_bombs_or_nonsense_end_in_an_error() {
    let oid = "0".repeat(40);
    let entry =
        |more: &str| format!("[{{\"type\":\"file\",\"path\":\"x\",\"oid\":\"{oid}\"{more}}}]");
    let deep = |n| "[".repeat(n) + &"]".repeat(n);
    for (listing, code) in [
        (entry(&format!(",\"size\":{}", deep(100_000))).into_bytes(), 20),
        (entry(",\"size\":1,\"path\":\"../../x\"").into_bytes(), 20),
        (entry(",\"size\":1e400").into_bytes(), 20),
        (entry(",\"size\":18446744073709551616").into_bytes(), 20),
        (entry(",\"size\":-1").into_bytes(), 20),
        (b"[{\"type\":\"file\",\"path\":\"\xff\",\"size\":1}]".to_vec(), 20),
        (deep(1_000_000).into_bytes(), 20),
        (vec![b' '; 65 << 20], 13),
    ] {
        let (hub, volume) = (hub_of_tiny(), Volume::new());
        hub.script(Rule::on("GET", "/tree/").then(Fault::ReplaceBody(listing)));
        let mut command = fetch(&hub, &volume, &["hf://org/tiny"]);
        command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s").run().assert_code(code);
        assert!(!volume.family("tiny").exists());
    }
    // What nobody asks for may be as deep as it likes.
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let info = format!("{{\"sha\":\"{}\",\"x\":{}}}", hub.commit(REPO), deep(1_000_000));
    hub.script(Rule::on("GET", "/revision/").then(Fault::ReplaceBody(info.into_bytes())));
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
}

/// Each entry is a few bytes there and would be a hundred and more in memory.
#[test]
fn a_page_of_millions_of_entries_costs_little_memory() {
    let entries = r#"{"type":"","path":""},"#.repeat((64 << 20) / 23);
    let page = format!("[{}]", entries.trim_end_matches(','));
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    hub.script(Rule::on("GET", "/tree/").then(Fault::ReplaceBody(page.into_bytes())));
    let (run, peak) = with_peak_memory(&mut fetch(&hub, &volume, &["hf://org/tiny"]));
    run.assert_code(13).assert_says("lists more than 1000000 files");
    // The page itself is 64 MiB.
    assert!(peak < 128 << 20, "peak RSS {} KiB", peak >> 10);
    let xml = |object: &str, bytes: usize| {
        let objects = object.repeat(bytes / object.len());
        format!("<?xml version=\"1.0\"?><ListBucketResult>{objects}</ListBucketResult>")
    };
    for (xml, says) in [
        (xml("<Contents/>", 31 << 20), "more than 4.2 MB"),
        (xml("<Contents/>", 4_000_000), "more than 131072 tags"),
        (xml("<Contents><Key>m/</Key></Contents>", 4_000_000), "more than 131072 tags"),
    ] {
        let s3 = FakeS3::builder().object("models", "m/a", Blob::bytes("a"));
        let (s3, volume) = (s3.credentials(ACCESS_KEY, SECRET_KEY).start(), Volume::new());
        s3.script(Rule::on("GET", "list-type=2").then(Fault::ReplaceBody(xml.into_bytes())));
        let (run, peak) = with_peak_memory(&mut fetch_s3(&s3, &volume, &["s3://models/m/"]));
        run.assert_code(13).assert_says(says);
        assert!(peak < 48 << 20, "{says}: peak RSS {} KiB", peak >> 10);
    }
}

/// As long as S3 makes them: keys of 1,000 bytes and more, of which each is three when encoded.
#[test]
fn the_longest_page_of_s3_is_read() {
    let directory = format!("m{}", format!("/{}", "\u{e9}".repeat(126)).repeat(3));
    let key = |n: usize| format!("{directory}/{n:04}{}", "\u{e9}".repeat(124));
    let s3 = (0..1_000).fold(FakeS3::builder().bucket("models"), |s3, n| {
        s3.object("models", &key(n), Blob::bytes(""))
    });
    let (s3, volume) = (s3.credentials(ACCESS_KEY, SECRET_KEY).start(), Volume::new());
    fetch_s3(&s3, &volume, &["s3://models/m/"]).run().assert_success();
    assert_eq!(list(&volume.family(&directory)).len(), 1_000);
    assert_eq!(s3.count("GET", "list-type=2"), 1);
    assert!(s3.bytes_sent_for("list-type=2") > 3 << 20);
}

#[test]
fn listings_of_s3_that_are_bombs_or_nonsense_end_in_an_error() {
    let list = |head: &str, contents: &str| {
        format!(
            "<?xml version=\"1.0\"?>{head}<ListBucketResult><IsTruncated>false</IsTruncated>\
             {contents}</ListBucketResult>"
        )
    };
    let object = |key: &str, size: &str| {
        format!("<Contents><Key>{key}</Key><Size>{size}</Size><ETag>\"e\"</ETag></Contents>")
    };
    let lol: String = (1..12)
        .map(|n| format!("<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10)))
        .collect();
    let bomb = format!("<!DOCTYPE l [<!ENTITY l0 \"lol\">{lol}]>");
    let file = "<!DOCTYPE l [<!ENTITY f SYSTEM \"file:///etc/passwd\">]>";
    let more = "<IsTruncated>true</IsTruncated>";
    for (xml, codes) in [
        (list(&bomb, &object("m/&l11;", "1")), [20, 13]),
        (list(file, &object("m/&f;", "1")), [20, 13]),
        (list("", &object("m/../../x", "1")), [13, 13]),
        (list("", &object("m/a&#27;[2J", "1")), [13, 20]),
        (list("", &object("n/a", "1")), [20, 20]),
        (list("", &object("m/a", "-1")), [20, 20]),
        (list("", &object("m/a", "99999999999999999999")), [20, 20]),
        (list("", &(object("m/a", "1") + &object("m/a", "2"))), [13, 20]),
        (list("", &(object("m/a", "9223372036854775807").repeat(3))), [13, 20]),
        (list("", &(more.to_owned() + &object("m/a", "1"))), [20, 20]),
        ("<a>".repeat(100_000), [20, 20]),
        (format!("<ListBucketResult {}/>", "a=\"\" ".repeat(100_000)), [20, 10]),
    ] {
        let s3 = FakeS3::builder().object("models", "m/a", Blob::bytes("a"));
        let (s3, volume) = (s3.credentials(ACCESS_KEY, SECRET_KEY).start(), Volume::new());
        s3.script(
            Rule::on("GET", "list-type=2").then(Fault::ReplaceBody(xml.clone().into_bytes())),
        );
        let mut command = fetch_s3(&s3, &volume, &["s3://models/m/"]);
        let (run, peak) = with_peak_memory(command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s"));
        let start: String = xml.chars().take(300).collect();
        assert!(codes.contains(&run.code), "{start}: {}", run.stderr);
        assert!(peak < 48 << 20, "{start}: peak RSS {} KiB", peak >> 10);
        assert!(!volume.family("m").exists());
    }
}

#[test]
fn a_redirect_from_https_to_http_is_not_followed() {
    if !has("openssl") {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let pages = volume.path("pages");
    let page = pages.join("api/models/org/tiny/revision/main");
    std::fs::create_dir_all(page.parent().unwrap()).unwrap();
    let target = format!("{}/api/models/org/tiny/revision/main", hub.url());
    let redirect = |to: &str| {
        format!(
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    };
    let server = TlsServer::start(&volume, &pages);
    for (to, code) in [(target.as_str(), 13), ("//169.254.169.254/x", 13)] {
        std::fs::write(&page, redirect(to)).unwrap();
        let mut command = weightlift();
        command.args(["fetch", "hf://org/tiny", "--root"]).arg(volume.root());
        command.env("HF_ENDPOINT", server.url()).env("SSL_CERT_FILE", volume.path("cert.pem"));
        command.env("WEIGHTLIFT_RETRY_TIMEOUT", "2s").env("HF_TOKEN", TOKEN);
        command.run().assert_code(code).assert_says("not followed");
    }
    assert_eq!(hub.requests().len(), 0);
}

/// Serves the files of a directory, which are whole answers, over TLS.
struct TlsServer(std::process::Child, u16);

impl TlsServer {
    fn start(volume: &Volume, pages: &std::path::Path) -> Self {
        let (key, certificate) = (volume.path("key.pem"), volume.path("cert.pem"));
        let null = std::process::Stdio::null;
        let made = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(null())
            .status();
        assert!(made.unwrap().success());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = std::process::Command::new("openssl")
            .args(["s_server", "-quiet", "-HTTP", "-accept", &format!("127.0.0.1:{port}"), "-key"])
            .arg(&key)
            .arg("-cert")
            .arg(&certificate)
            .current_dir(pages)
            .stdin(null())
            .stdout(null())
            .stderr(null())
            .spawn();
        let server = Self(server.unwrap(), port);
        eventually("the TLS server listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        server
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.1)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
