//! `https://host/path/`: directories of a web server with a list of digests beside the files, and single files.

use std::process::Command;

use crate::support::table::web_login;
use crate::support::*;
use weightlift_fakes::{
    Blob, FakeHub, FakeS3, FakeWeb, Fault, Response, Rule, Server, Tree, Writes,
};

const MIB: u64 = 1 << 20;
const SENTINEL: &str = ".weightlift-complete.json";

fn tree() -> Tree {
    Tree::new()
        .with("config.json", "{\"a\": 1}")
        .with("empty", "")
        .with("sub/we ird+a%[1]é#?&.json", "odd")
        .with_blob("big.bin", Blob::synthetic(3 * MIB + 7, 5))
}

fn site() -> FakeWeb {
    FakeWeb::builder().with_sums("llama", &tree()).start()
}

fn fetch(volume: &Volume, arguments: &[&str]) -> Command {
    let mut command = weightlift();
    command.arg("fetch").arg("--root").arg(volume.root()).args(arguments);
    command.args(["--chunk-size", "1MiB", "--connections", "2"]);
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "2s").env("WEIGHTLIFT_RETRY_DELAY", "25ms");
    command
}

fn sentinel(volume: &Volume, family: &str) -> serde_json::Value {
    let text = std::fs::read(volume.family(family).join(SENTINEL)).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Serves what a volume holds of a family, as a web server on that volume would.
fn served(volume: &Volume, family: &str) -> FakeWeb {
    let tree = Tree::from_dir(&volume.family(family)).unwrap();
    let put = |web: weightlift_fakes::FakeWebBuilder, (path, blob): (&str, &Blob)| {
        web.file(&format!("{family}/{path}"), blob.clone())
    };
    tree.iter().fold(FakeWeb::builder(), put).start()
}

#[test]
fn a_directory_with_sums_is_fetched_compared_and_warm_by_one_request() {
    let (web, volume) = (site(), Volume::new());
    let source = format!("{}/llama/", web.url());
    fetch(&volume, &[&source]).run().assert_success();
    volume.assert_holds("llama", &tree());
    volume.assert_clean();
    let told = sentinel(&volume, "llama");
    assert_eq!(told["source"], source.as_str());
    for file in told["files"].as_array().unwrap() {
        assert_eq!(file["verified_by"], "sha256", "{file}");
    }
    web.log().clear();
    fetch(&volume, &[&source]).run().assert_success().assert_says("nothing to do");
    // A sentinel is looked for first.
    assert_eq!((web.requests().len(), web.count("GET", "SHA256SUMS")), (2, 1));
    // An update fetches what has changed.
    let updated = tree().with("config.json", "{\"a\": 22}");
    web.put("llama/config.json", Blob::bytes("{\"a\": 22}"));
    let sums: String =
        updated.iter().map(|(path, blob)| format!("{}  {path}\n", blob.sha256())).collect();
    web.put("llama/SHA256SUMS", Blob::bytes(sums));
    fetch(&volume, &[&source]).run().assert_success();
    volume.assert_holds("llama", &updated);
    assert_eq!(web.count("GET", "big.bin"), 0);
}

#[test]
fn a_family_directory_that_a_web_server_shows_is_fetched_by_its_sentinel() {
    let (hub, first, volume) = (hub_of_tiny(), Volume::new(), Volume::new());
    crate::support::fetch(&hub, &first, &["hf://org/tiny", "m"]).run().assert_success();
    let web = served(&first, "m");
    let source = format!("{}/m/", web.url());
    fetch(&volume, &[&source]).run().assert_success();
    volume.assert_holds("m", &tiny_selected());
    assert_eq!((web.count("HEAD", ""), web.count("GET", "SHA256SUMS")), (0, 0));
    web.log().clear();
    fetch(&volume, &[&source]).run().assert_success().assert_says("nothing to do");
    assert_eq!((web.requests().len(), web.count("GET", SENTINEL)), (1, 1));
}

#[test]
fn what_mirror_wrote_is_fetched_over_plain_http() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let s3 = FakeS3::builder().bucket("models").writable(Writes::default()).start();
    let mut mirror = weightlift();
    mirror.args(["mirror", "hf://org/tiny", "s3://models/m/", "--s3-anonymous"]);
    mirror.args(["--s3-path-style", "--s3-endpoint", &s3.url()]);
    mirror.env("HF_ENDPOINT", hub.url()).env("AWS_REGION", "us-east-1").run().assert_success();
    s3.log().clear();
    fetch(&volume, &[&format!("{}/models/m/", s3.url())]).run().assert_success();
    volume.assert_holds("m", &tiny_selected());
    assert_eq!(s3.count("GET", "list-type"), 0);
    for file in sentinel(&volume, "m")["files"].as_array().unwrap() {
        assert_eq!(file["verified_by"], "sha256", "{file}");
    }
}

#[test]
fn a_mirror_that_is_being_written_is_not_read() {
    let (hub, first, volume) = (hub_of_tiny(), Volume::new(), Volume::new());
    crate::support::fetch(&hub, &first, &["hf://org/tiny", "m"]).run().assert_success();
    let mut text = sentinel(&first, "m");
    text["mirror"] = serde_json::json!({"at": "s3://models/m/", "state": "writing"});
    let web = served(&first, "m");
    web.put(&format!("m/{SENTINEL}"), Blob::bytes(text.to_string()));
    let run = fetch(&volume, &[&format!("{}/m/", web.url())]).run().assert_code(20);
    run.assert_says("is being written by `weightlift mirror`");
}

#[test]
fn one_file_with_its_digest_is_pinned_and_warm_without_a_request() {
    let (web, volume) = (site(), Volume::new());
    let file = format!("{}/llama/big.bin", web.url());
    let pinned = format!("{file}#sha256={}", tree().blob("big.bin").unwrap().sha256());
    fetch(&volume, &[&pinned]).run().assert_success();
    let only = Tree::new().with_blob("big.bin", tree().blob("big.bin").unwrap().clone());
    volume.assert_holds("big.bin", &only);
    assert_eq!(web.count("GET", "SHA256SUMS"), 0);
    web.log().clear();
    fetch(&volume, &[&pinned]).run().assert_success().assert_says("nothing to do");
    assert_eq!(web.requests().len(), 0);
    // Another digest is another revision, and what is there is not of it.
    let other = format!("{file}#sha256={}", "0".repeat(64));
    fetch(&volume, &[&other]).run().assert_code(12).assert_says("sha256:");
    volume.assert_holds("big.bin", &only);
}

#[test]
fn one_file_without_a_digest_is_fetched_with_a_warning_or_refused() {
    let (web, volume) = (site(), Volume::new());
    let file = format!("{}/llama/big.bin", web.url());
    fetch(&volume, &["--require-digests", &file, "m"]).run().assert_code(12);
    let run = fetch(&volume, &[&file, "m"]).run().assert_success();
    run.assert_says("could not be compared with a published digest");
    web.log().clear();
    fetch(&volume, &[&file, "m"]).run().assert_success().assert_says("nothing to do");
    assert_eq!((web.requests().len(), web.count("HEAD", "big.bin")), (1, 1));
    // Of the same size; a later run sees it, and one that is on its way ends.
    web.put("llama/big.bin", Blob::synthetic(3 * MIB + 7, 6));
    fetch(&volume, &[&file, "m"]).run().assert_success();
    web.put("llama/big.bin", Blob::synthetic(3 * MIB + 7, 7));
    let replaced = Fault::add_headers(&[("ETag", "\"another\"")]);
    web.script(Rule::on("GET", "big.bin").skip(1).then(replaced));
    fetch(&Volume::new(), &[&file, "m"]).run().assert_code(20).assert_says("was replaced while");
}

#[test]
fn a_directory_without_a_list_is_refused_with_what_to_put_there() {
    let volume = Volume::new();
    let web = FakeWeb::builder().file("llama/big.bin", Blob::bytes("x")).start();
    let run = fetch(&volume, &[&format!("{}/llama/", web.url())]).run().assert_code(10);
    run.assert_says("neither `.weightlift-complete.json` nor `SHA256SUMS`")
        .assert_says("sha256sum");
    // One that is written without its slash is told from a file.
    let run = fetch(&volume, &[&format!("{}/llama", web.url())]).run().assert_code(10);
    run.assert_says("is a directory; write `http").assert_says("/llama/`");
    fetch(&volume, &[&format!("{}/llama/none.bin", web.url())]).run().assert_code(10);
}

#[test]
fn odd_servers_are_got_along_with() {
    let with = |name: &str, web: FakeWeb| {
        let volume = Volume::new();
        let run = fetch(&volume, &[&format!("{}/llama/", web.url())]).run();
        assert_eq!(run.code, 0, "{name}: {}", run.stderr);
        volume.assert_holds("llama", &tree());
    };
    let builder = || FakeWeb::builder().with_sums("llama", &tree());
    with("no HEAD", builder().without_head().start());
    with("no ETags", builder().without_etags().start());
    let web = site();
    web.script(Rule::on("GET", SENTINEL).then(Fault::status(403)));
    with("names with a dot are hidden", web);
    let web = site();
    let page = b"<!DOCTYPE html><html>not found</html>".to_vec();
    web.script(Rule::on("GET", SENTINEL).then(Fault::status_with(
        200,
        &[("Content-Type", "text/html")],
        std::str::from_utf8(&page).unwrap(),
    )));
    with("a page for what is not there", web);
    let web = site();
    web.script(Rule::on("GET", "big.bin").then(Fault::IgnoreRange));
    with("no ranges", web);
    let web = site();
    web.script(Rule::on("HEAD", "").then(Fault::drop_headers(&["Content-Length"])));
    with("HEAD without a length", web);
}

#[test]
fn a_login_goes_to_the_host_of_source_only() {
    let (volume, elsewhere) = (Volume::new(), site());
    let (user, netrc) = web_login(&volume);
    let web = FakeWeb::builder()
        .with_sums("llama", &tree())
        .user(&user)
        .files_at(&elsewhere.url())
        .start();
    let source = format!("{}/llama/", web.url());
    let run = fetch(&volume, &[&source]).run().assert_code(11);
    run.assert_says("machine HOST login USER password PASSWORD");
    fetch(&volume, &[&source]).env("NETRC", &netrc).run().assert_success();
    volume.assert_holds("llama", &tree());
    let has_login = |requests: Vec<weightlift_fakes::Logged>| {
        requests.iter().filter(|it| it.header("authorization").is_some()).count()
    };
    assert_eq!(has_login(elsewhere.requests()), 0);
    assert!(has_login(web.requests()) > 4 && elsewhere.requests().len() > 4);
    // As curl finds it: in the home directory.
    let home = volume.path("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::copy(&netrc, home.join(".netrc")).unwrap();
    fetch(&volume, &[&source, "m"]).env("HOME", &home).run().assert_success();
    // Neither a wrong one nor a broken file is repeated.
    std::fs::write(&netrc, "machine 127.0.0.1 login me password netrcCANARY").unwrap();
    let run = fetch(&volume, &[&source, "n"]).env("NETRC", &netrc).run().assert_code(11);
    run.assert_says("check the login in the netrc file");
    std::fs::write(&netrc, "machine 127.0.0.1 login me netrcCANARY").unwrap();
    let run = fetch(&volume, &[&source, "n"]).env("NETRC", &netrc).run().assert_code(2);
    run.assert_says("line 1 is not understood");
    fetch(&volume, &[&source, "n"]).env("NETRC", "/nonexistent").run().assert_code(2);
}

#[test]
fn a_login_is_not_sent_where_it_could_be_read() {
    let volume = Volume::new();
    let netrc = volume.path("netrc");
    std::fs::write(&netrc, "default login me password netrcCANARY").unwrap();
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = asked.clone();
    // A proxy sees what would go to another machine.
    let proxy = Server::start(move |request| {
        seen.lock().unwrap().push(request.clone());
        Response::text(404, "nothing")
    });
    let run = fetch(&volume, &["http://models.example/m/"])
        .env("NETRC", &netrc)
        .env("HTTP_PROXY", proxy.url())
        .run()
        .assert_code(10);
    run.assert_says("is not sent, because http would expose it");
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_file_that_the_list_names_and_the_server_lacks_ends_the_run_unless_it_is_left_out() {
    let (web, volume) = (site(), Volume::new());
    web.remove("llama/config.json");
    let source = format!("{}/llama/", web.url());
    let run = fetch(&volume, &[&source]).run().assert_code(20);
    run.assert_says("which the list next to it names").assert_says("`--exclude`");
    fetch(&volume, &[&source, "--exclude", "config.json"]).run().assert_success();
    volume.assert_holds("llama", &tree().without("config.json"));
    assert_eq!(web.count("HEAD", "config.json"), 1);
}

#[test]
fn lists_that_cannot_be_used_are_named() {
    let long = "x".repeat((16 << 20) + 1);
    let hostile = format!("{}  ../../etc/passwd\n", "0".repeat(64));
    for (name, content, code, words) in [
        ("SHA256SUMS", "nothing of the kind", 12, "without the SHA-256 sum of a file"),
        ("SHA256SUMS", long.as_str(), 13, "more than 16"),
        ("SHA256SUMS", hostile.as_str(), 13, "leaves its directory"),
        (SENTINEL, "{}", 12, "not usable"),
        (SENTINEL, "{\"format\": 9}", 12, "newer weightlift"),
    ] {
        let (web, volume) = (site(), Volume::new());
        web.put(&format!("llama/{name}"), Blob::bytes(content));
        let run = fetch(&volume, &[&format!("{}/llama/", web.url())]).run();
        assert!(run.code == code && run.stderr.contains(words), "{name} {code}: {}", run.stderr);
        assert!(!volume.family("llama").exists());
    }
    let (web, volume) = (site(), Volume::new());
    web.put(&format!("llama/{SENTINEL}"), Blob::bytes("{}"));
    let source = format!("{}/llama/", web.url());
    fetch(&volume, &[&source, "--exclude", SENTINEL]).run().assert_success();
    volume.assert_holds("llama", &tree());
}

#[test]
fn a_web_server_is_another_place_of_the_same_bytes() {
    let (web, volume) = (site(), Volume::new());
    let hub = FakeHub::builder().repo("org/llama", tree()).lfs_threshold(MIB).start();
    let prefix = format!("{}/", web.url());
    for (flag, place) in [("--also", format!("{prefix}llama/")), ("--mirror", prefix)] {
        let (before, volume) = (web.count("GET", "big.bin"), Volume::new());
        let mut command = fetch(&volume, &["hf://org/llama", flag, &place]);
        command.env("HF_ENDPOINT", hub.url()).run().assert_success();
        volume.assert_holds("llama", &tree());
        assert!(web.count("GET", "big.bin") > before, "{flag}");
    }
    assert_eq!(hub.bytes_sent_for("big.bin"), 0);
    // And the other way around.
    let mut command =
        fetch(&volume, &[&format!("{}/llama/", web.url()), "--also", "hf://org/llama"]);
    web.script(Rule::on("GET", "big.bin").then(Fault::status(500)));
    command.env("HF_ENDPOINT", hub.url()).run().assert_success();
    volume.assert_holds("llama", &tree());
}

#[test]
fn a_lock_file_names_what_a_web_server_holds() {
    let (web, volume) = (site(), Volume::new());
    let (models, lock) = (volume.path("models.yaml"), volume.path("models.lock"));
    let file = format!("{}/llama/big.bin", web.url());
    let listed = format!(
        "version: 1\nmodels:\n  - source: {0}/llama/\n  - source: {file}\n    name: one\n",
        web.url()
    );
    std::fs::write(&models, listed).unwrap();
    let mut pin = weightlift();
    pin.arg("pin").arg("--models").arg(&models).current_dir(lock.parent().unwrap());
    pin.run().assert_success();
    web.log().clear();
    fetch(&volume, &["--locked", lock.to_str().unwrap()]).run().assert_success();
    volume.assert_holds("llama", &tree());
    assert_eq!((web.count("HEAD", ""), web.count("GET", "SHA256SUMS")), (0, 0));
    assert_eq!(files_below(&volume.family("one")).len(), 1);
    pin.arg("--check").run().assert_success();
    web.put("llama/big.bin", Blob::synthetic(3 * MIB + 7, 6));
    pin.run().assert_code(16);
}

#[test]
fn an_address_that_holds_a_secret_is_refused_and_not_repeated() {
    for (source, words) in [
        ("https://me:netrcCANARY@host/m/", "a user or a password"),
        ("https://netrcCANARY@host/m/", "a user or a password"),
        ("https://me:netrc/CANARY@host/m/", "a user or a password"),
        ("https://me:netrc?CANARY@host/m/", "a user or a password"),
        ("https://me:netrc#CANARY@host/m/", "a user or a password"),
        ("https://host/m.bin?X-Amz-Signature=netrcCANARY", "has a query"),
        ("https://host/m.bin?sig=netrcCANARY#sha256=0", "has a query"),
        ("https://host/m.bin#md5=0", "64 hexadecimal digits"),
        ("https://host/m/#sha256=", "64 hexadecimal digits"),
        ("https://host/a/../m/", "`..` in its path"),
        ("https://host/a/%2e%2e/m/", "`..` in its path"),
        ("https://host/a//m/", "an empty part"),
        ("https://host/a%2Fm", "not a file name"),
        ("https:///m/", "names no host"),
        ("https://huggingface.co/org/m", "did you mean `hf://org/m`?"),
    ] {
        let run = weightlift().args(["fetch", source, "/tmp/x"]).run().assert_code(2);
        assert!(run.stderr.contains(words), "{source}: {}", run.stderr);
        assert!(!run.stderr.contains("CANARY"), "{source}: {}", run.stderr);
    }
}

/// nginx on a directory, until it is dropped.
struct Nginx {
    child: std::process::Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Nginx {
    fn of(root: &std::path::Path) -> Option<Self> {
        let places = ["/usr/sbin/nginx", "/usr/bin/nginx"];
        let Some(nginx) = places.into_iter().find(|it| std::path::Path::new(it).is_file()) else {
            skip("`nginx` is not installed");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let at = dir.path().display();
        let config = format!(
            "daemon off; pid {at}/pid; error_log {at}/errors; worker_processes 1;\n\
             {}events {{}}\nhttp {{ access_log off; gzip on; gzip_types *; gzip_min_length 1;\n\
             client_body_temp_path {at}/a; proxy_temp_path {at}/b; fastcgi_temp_path {at}/c;\n\
             uwsgi_temp_path {at}/d; scgi_temp_path {at}/e;\n\
             server {{ listen 127.0.0.1:{port}; root {}; }} }}\n",
            // Its workers would give up being root, and the files are root's alone.
            if is_root() { "user root;\n" } else { "" },
            root.display()
        );
        std::fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new(nginx);
        command.arg("-p").arg(dir.path()).arg("-c").arg(dir.path().join("nginx.conf"));
        command.arg("-e").arg(dir.path().join("errors"));
        let child = command.spawn().unwrap();
        let nginx = Self { child, port, _dir: dir };
        let answers = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        eventually("nginx listens", answers);
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it by this signal only.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

#[test]
fn nginx_serves_a_volume_and_a_directory_with_sums() {
    let (hub, first, volume) = (hub_of_tiny(), Volume::new(), Volume::new());
    crate::support::fetch(&hub, &first, &["hf://org/tiny", "m"]).run().assert_success();
    let plain = first.root().join("plain dir");
    let mut sums = String::new();
    for (path, blob) in tree().iter() {
        let at = plain.join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, blob.to_vec()).unwrap();
        sums += &format!("{}  {path}\n", blob.sha256());
    }
    std::fs::write(plain.join("SHA256SUMS"), sums).unwrap();
    let Some(nginx) = Nginx::of(&first.root()) else { return };
    let at = |path: &str| format!("http://127.0.0.1:{}/{path}", nginx.port);
    fetch(&volume, &[&at("m/")]).run().assert_success();
    volume.assert_holds("m", &tiny_selected());
    fetch(&volume, &[&at("plain%20dir/"), "p"]).run().assert_success();
    volume.assert_holds("p", &tree());
    fetch(&volume, &[&at("plain%20dir/big.bin"), "f"]).run().assert_success();
    fetch(&volume, &[&at("m"), "n"]).run().assert_code(10).assert_says("is a directory");
    fetch(&volume, &[&at("none/"), "n"]).run().assert_code(10);
}

/// Where the list is all that tells what is there, a line that is not understood could be a file.
#[test]
fn a_strange_line_of_a_list_ends_the_run_and_those_of_bsd_are_read() {
    let sum = |blob: &Blob| blob.sha256();
    let (a, b) = (Blob::bytes("{}"), Blob::synthetic(MIB, 3));
    let list = format!("{}  config.json\nSHA256 (big.bin) = {}\n", sum(&a), sum(&b));
    let site = |list: String| {
        let builder =
            FakeWeb::builder().file("m/config.json", a.clone()).file("m/big.bin", b.clone());
        builder.file("m/SHA256SUMS", Blob::bytes(list)).start()
    };
    let (there, volume) = (site(list.clone()), Volume::new());
    fetch(&volume, &[&format!("{}/m/", there.url())]).run().assert_success();
    volume.assert_holds(
        "m",
        &Tree::new().with_blob("config.json", a.clone()).with_blob("big.bin", b.clone()),
    );
    let (there, volume) = (site(format!("{list}{}\n", "0".repeat(40))), Volume::new());
    let run = fetch(&volume, &[&format!("{}/m/", there.url())]).run().assert_code(12);
    run.assert_says("lines that are not the SHA-256 sum of a file: 1");
    assert!(!volume.family("m").exists());
}

#[test]
fn an_answer_that_does_not_tell_its_version_is_not_taken_for_the_listed_one() {
    let there = FakeWeb::builder().file("m/one.bin", Blob::synthetic(3 * MIB, 3)).start();
    let gone = vec!["ETag".to_owned(), "Last-Modified".to_owned()];
    let untold = Rule::on("GET", "one.bin").when_header("range", "bytes=");
    there.script(untold.then(Fault::DropHeaders(gone)));
    let volume = Volume::new();
    fetch(&volume, &[&format!("{}/m/one.bin", there.url())]).run().assert_code(20);
    assert!(!volume.family("one.bin").exists());
}
