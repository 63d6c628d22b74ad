//! Models from a registry, through the binary: what is pinned, who is told which secret, and what a layer
//! becomes.

use crate::support::*;
use serde_json::json;
use weightlift_fakes::{Access, Blob, FakeRegistry, Fault, Layer, Rule, Tree};

const NAME: &str = "org/tiny";

fn tiny_registry() -> FakeRegistry {
    FakeRegistry::serving(NAME, "v1", &tiny())
}

/// A directory for DOCKER_CONFIG with `entry` for the registry.
fn config(volume: &Volume, file: &str, registry: &FakeRegistry, entry: &str) -> std::path::PathBuf {
    let dir = volume.path("docker");
    std::fs::create_dir_all(&dir).unwrap();
    let auths = format!(r#"{{"auths":{{"{}":{entry}}}}}"#, registry.host());
    std::fs::write(dir.join(file), auths).unwrap();
    dir
}

fn user() -> String {
    format!(r#"{{"username":"me","password":"{PASSWORD}"}}"#)
}

/// Credentials go to the registry and to its token server, tokens to the registry.
#[track_caller]
fn assert_discreet(registry: &FakeRegistry) {
    for request in registry.requests() {
        let shown = format!("{request:?}");
        let authorization = request.header("authorization").unwrap_or_default();
        match request.origin {
            "store" => assert!(authorization.is_empty(), "{shown}"),
            "auth" => assert!(!authorization.starts_with("Bearer"), "{shown}"),
            _ => {}
        }
        assert!(!request.target.contains("CANARY"), "{shown}");
    }
}

#[test]
fn the_fixture_is_published_byte_for_byte_and_a_second_run_asks_for_the_tag_only() {
    let (registry, volume) = (tiny_registry(), Volume::new());
    let arguments = ["m", "--all", "--chunk-size", "1MiB"];
    let run = fetch_oci(&registry, &volume, "org/tiny:v1", &arguments).run().assert_success();
    assert!(run.stdout.ends_with("/m\n"), "{}", run.stdout);
    volume.assert_holds("m", &tiny());
    volume.assert_clean();
    registry.log().clear();
    fetch_oci(&registry, &volume, "org/tiny:v1", &arguments).run().assert_success();
    let asked: Vec<String> = registry.requests().iter().map(|it| it.method.clone()).collect();
    assert_eq!(asked, ["HEAD"]);
}

#[test]
fn a_digest_is_a_pin_that_a_warm_start_asks_nobody_about() {
    let (registry, volume) = (tiny_registry(), Volume::new());
    let digest = registry.digest(NAME, "v1");
    let reference = format!("org/tiny@{digest}");
    let fetch = |more: &[&str]| {
        let arguments = [&["m", "--expect-revision", &digest], more].concat();
        fetch_oci(&registry, &volume, &reference, &arguments).run()
    };
    let link = volume.path("current");
    fetch(&["--link", link.to_str().unwrap()]).assert_success();
    volume.assert_holds("m", &tiny_selected());
    assert_tree(&link, &tiny_selected());
    registry.log().clear();
    fetch(&[]).assert_success();
    assert_eq!(registry.requests().len(), 0);
    // The tag is for the reader: the digest counts.
    let other = format!("org/tiny:other@{digest}");
    fetch_oci(&registry, &volume, &other, &["m"]).run().assert_success();
    assert_eq!(registry.requests().len(), 0);
    weightlift().arg("verify").arg(volume.family("m")).run().assert_success();
}

#[test]
fn a_tag_that_moves_is_an_update_and_the_old_revision_is_kept_until_it_is_pruned() {
    let (registry, volume) = (tiny_registry(), Volume::new());
    fetch_oci(&registry, &volume, "org/tiny:v1", &["m"]).run().assert_success();
    let old = registry.digest(NAME, "v1");
    let tree = tiny_selected().with("new.json", "{}");
    let layers: Vec<Layer> =
        tree.iter().map(|(path, blob)| Layer::file(path, blob.clone())).collect();
    registry.push(NAME, "v1", &layers);
    registry.log().clear();
    fetch_oci(&registry, &volume, "org/tiny:v1", &["m"]).run().assert_success();
    volume.assert_holds("m", &tree);
    // What is the same is here already: one blob is read.
    assert_eq!(registry.log().count("GET", "/blobs/"), 1);
    // The old one is kept, and is there without a request.
    registry.log().clear();
    let link = volume.path("current");
    let arguments = ["m", "--link", link.to_str().unwrap()];
    fetch_oci(&registry, &volume, &format!("org/tiny@{old}"), &arguments).run().assert_success();
    assert_tree(&link, &tiny_selected());
    assert_eq!(registry.requests().len(), 0);
    std::fs::remove_file(&link).unwrap();
    let mut prune = weightlift();
    prune.args(["prune", "--keep-revisions", "0", "--yes", "--root"]).arg(volume.root());
    prune.run().assert_success();
    volume.assert_holds("m", &tree);
}

#[test]
fn a_models_file_is_pinned_to_the_digest_and_fetched_by_the_lock_file() {
    let (registry, volume) = (tiny_registry(), Volume::new());
    let uri = format!("oci://{}/org/tiny:v1", registry.host());
    let (models, lock) = (volume.path("models.yaml"), volume.path("models.lock"));
    std::fs::write(&models, format!("version: 1\nmodels:\n  - name: m\n    source: {uri}\n"))
        .unwrap();
    let pin = |more: &[&str]| {
        let mut pin = weightlift();
        pin.arg("pin").args(more).arg("--models").arg(&models).arg("--locked").arg(&lock).run()
    };
    pin(&[]).assert_success();
    let digest = registry.digest(NAME, "v1");
    assert!(std::fs::read_to_string(&lock).unwrap().contains(&digest));
    registry.push(NAME, "v1", &[Layer::file("other.json", Blob::bytes("{}"))]);
    let mut fetch = weightlift();
    fetch.arg("fetch").arg("--root").arg(volume.root()).arg("--locked").arg(&lock);
    fetch.run().assert_success();
    volume.assert_holds("m", &tiny_selected());
    pin(&["--check"]).assert_code(16);
}

#[test]
fn each_kind_of_login_works_and_no_secret_goes_anywhere_else() {
    let refresh = format!(r#"{{"identitytoken":"{PASSWORD}"}}"#);
    for (access, file, entry) in [
        (Access::Open, "config.json", None),
        (Access::AnyToken, "config.json", None),
        (Access::user("me", PASSWORD), "config.json", Some(user())),
        (Access::user("me", PASSWORD), ".dockerconfigjson", Some(user())),
        (Access::refresh(PASSWORD), "config.json", Some(refresh)),
        (
            Access::Basic { user: "me".into(), password: PASSWORD.into() },
            "config.json",
            Some(user()),
        ),
    ] {
        for is_direct in [false, true] {
            let mut builder =
                FakeRegistry::builder().access(access.clone()).tree(NAME, "v1", &tiny());
            if is_direct {
                builder = builder.direct();
            }
            let (registry, volume) = (builder.start(), Volume::new());
            let mut command = fetch_oci(&registry, &volume, "org/tiny:v1", &["m"]);
            if let Some(entry) = &entry {
                command.env("DOCKER_CONFIG", config(&volume, file, &registry, entry));
            }
            command.run().assert_success();
            volume.assert_holds("m", &tiny_selected());
            assert_discreet(&registry);
            assert!(registry.log().count("*", "/token") <= 1, "{access:?}");
        }
    }
}

#[test]
fn a_token_that_expires_is_renewed_once() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(8 << 20, 9));
    let builder = FakeRegistry::builder().access(Access::user("me", PASSWORD)).direct();
    let (registry, volume) = (builder.tree(NAME, "v1", &tree).start(), Volume::new());
    let drip = Fault::Drip { bytes_per_second: 4 << 20 };
    registry.script(Rule::on("GET", "/blobs/").then(drip));
    let arguments = ["m", "--chunk-size", "1MiB", "--connections", "2"];
    let mut command = fetch_oci(&registry, &volume, "org/tiny:v1", &arguments);
    command.env("DOCKER_CONFIG", config(&volume, "config.json", &registry, &user()));
    let running = command.start();
    eventually("bytes are read", || registry.log().count("GET", "/blobs/") > 2);
    registry.expire_tokens();
    running.wait().assert_success();
    volume.assert_holds("m", &tree);
    assert_eq!(registry.log().count("GET", "/token"), 2);
    assert_discreet(&registry);
}

#[test]
fn a_private_artifact_says_where_credentials_are_looked_for() {
    let registry = FakeRegistry::builder()
        .access(Access::user("me", PASSWORD))
        .tree(NAME, "v1", &tiny())
        .start();
    let volume = Volume::new();
    let fetch = || fetch_oci(&registry, &volume, "org/tiny:v1", &["m"]);
    fetch().run().assert_code(11).assert_says("mount a pull secret");
    let dir = config(&volume, "config.json", &registry, r#"{"username":"me","password":"wrong"}"#);
    fetch().env("DOCKER_CONFIG", &dir).run().assert_code(11).assert_says("config.json`");
    std::fs::write(dir.join("config.json"), r#"{"credsStore":"desktop"}"#).unwrap();
    let run = fetch().env("DOCKER_CONFIG", &dir).run().assert_code(11);
    run.assert_says("credential helper `desktop`, which weightlift does not run");
    std::fs::write(dir.join("config.json"), format!(r#"{{"auths":"{PASSWORD}"}}"#)).unwrap();
    fetch()
        .env("DOCKER_CONFIG", &dir)
        .run()
        .assert_code(11)
        .assert_says("not JSON in Docker's format");
    let absent = volume.path("absent");
    fetch().env("REGISTRY_AUTH_FILE", absent).run().assert_code(11).assert_says("cannot be read");
}

#[test]
fn credentials_are_not_sent_to_a_realm_on_another_host_in_the_clear() {
    let registry = FakeRegistry::builder().access(Access::user("me", PASSWORD));
    let (registry, volume) = (registry.tree(NAME, "v1", &tiny()).start(), Volume::new());
    let dir = config(&volume, "config.json", &registry, &user());
    for (realm, says) in [
        ("http://localhost:9/token", "not safe to send credentials to"),
        ("http://169.254.169.254/latest", "link-local"),
    ] {
        let challenge = format!("Bearer realm=\"{realm}\"");
        let headers = [("WWW-Authenticate", challenge.as_str())];
        registry.script(Rule::on("*", "/manifests/").then(Fault::status_with(401, &headers, "")));
        let mut command = fetch_oci(&registry, &volume, "org/tiny:v1", &["m"]);
        command.env("DOCKER_CONFIG", &dir).run().assert_code(13).assert_says(says);
        registry.clear_script();
    }
    assert_discreet(&registry);
}

#[test]
fn a_registry_elsewhere_is_asked_over_tls_unless_the_user_names_it() {
    let (registry, volume) = (tiny_registry(), Volume::new());
    let port = registry.host().rsplit_once(':').unwrap().1.to_owned();
    let uri = format!("oci://localhost.localdomain:{port}/org/tiny:v1");
    let fetch = || {
        let mut command = weightlift();
        command.arg("fetch").arg("--root").arg(volume.root()).args([&uri, "m"]);
        command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s");
        command
    };
    let run = fetch().run();
    assert_ne!(run.code, 0);
    assert_eq!(registry.requests().len(), 0, "{}", run.stderr);
    // The machine may not know the name; what matters is how it is asked.
    let proxied = fetch()
        .env("HTTP_PROXY", format!("http://{}", registry.host()))
        .env("WEIGHTLIFT_OCI_PLAIN_HTTP", "other.example, localhost.localdomain")
        .run();
    assert!(!registry.requests().is_empty(), "{}", proxied.stderr);
}

#[test]
fn an_index_leads_to_the_artifact_and_is_what_is_pinned() {
    let (volume, tree) = (Volume::new(), Tree::new().with("config.json", "{}"));
    let first = FakeRegistry::serving(NAME, "one", &tree);
    let digest = first.digest(NAME, "one");
    let entry = |digest: &str, architecture: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let absent = format!("sha256:{}", "ab".repeat(32));
    let index = json!({"schemaVersion": 2, "manifests": [entry(&absent, "arm64"), entry(&digest, "amd64")]});
    let several = json!({"schemaVersion": 2, "manifests": [entry(&absent, "s390x"), entry(&digest, "arm64")]});
    let kind = "application/vnd.oci.image.index.v1+json";
    let registry = FakeRegistry::builder()
        .tree(NAME, "one", &tree)
        .manifest(NAME, "all", kind, &index)
        .manifest(NAME, "several", kind, &several)
        .start();
    let run = fetch_oci(&registry, &volume, "org/tiny:all", &["m", "--output", "json"]).run();
    let run = run.assert_success();
    assert!(run.stdout.contains(&registry.digest(NAME, "all")), "{}", run.stdout);
    volume.assert_holds("m", &tree);
    let run = fetch_oci(&registry, &volume, "org/tiny:several", &["n"]).run().assert_code(10);
    run.assert_says("name one of them by its digest");
}

#[test]
fn the_artifacts_of_other_tools_are_read_and_what_is_none_is_named() {
    let volume = Volume::new();
    let layer = |media_type: &str, content: &str| Layer::new(media_type, Blob::bytes(content));
    let title = "org.opencontainers.image.title";
    let registry = FakeRegistry::builder()
        .artifact(
            NAME,
            "docker",
            &[
                layer("application/vnd.docker.ai.gguf.v3", "gguf"),
                layer("application/vnd.docker.ai.license", "license"),
            ],
        )
        .artifact(NAME, "oras", &[layer("text/plain", "a").annotated(title, "d/a.txt")])
        .artifact(
            NAME,
            "chart",
            &[layer("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "x")],
        )
        .artifact(NAME, "hostile", &[layer("text/plain", "a").annotated(title, "../../a")])
        .artifact(
            NAME,
            "twice",
            &[
                layer("text/plain", "a").annotated(title, "a"),
                layer("text/plain", "bc").annotated(title, "a"),
            ],
        )
        .start();
    let fetch = |tag: &str| {
        fetch_oci(&registry, &volume, &format!("org/tiny:{tag}"), &[tag, "--all"]).run()
    };
    fetch("docker").assert_success();
    volume
        .assert_holds("docker", &Tree::new().with("model.gguf", "gguf").with("LICENSE", "license"));
    fetch("oras").assert_success();
    volume.assert_holds("oras", &Tree::new().with("d/a.txt", "a"));
    let run = fetch("chart").assert_code(10);
    run.assert_says("`application/vnd.cncf.helm.chart.content.v1.tar+gzip`");
    fetch("hostile").assert_code(13).assert_says("leaves its directory");
    fetch("twice").assert_code(13).assert_says("lists `a` twice");
}

#[test]
fn a_mirror_has_the_bytes_of_a_registry_by_their_digest() {
    let (registry, volume) = (tiny_registry(), Volume::new());
    let hub = hub_of_tiny();
    let uri = format!("oci://{}/org/tiny:v1", registry.host());
    fetch(&hub, &volume, &["hf://org/tiny", "m", "--also", &uri]).run().assert_success();
    volume.assert_holds("m", &tiny_selected());
    assert!(registry.log().count("GET", "/blobs/") > 0);
}
