//! The main job against a Hub: what is published, what it costs, and what is said.

use std::time::{Duration, Instant};

use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

#[test]
fn a_repo_is_published_whole_with_its_sub_directories() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert_eq!(run.stdout, format!("{}\n", volume.family("tiny").display()));
    volume.assert_holds("tiny", &tiny_selected());
    volume.assert_clean();
    assert!(volume.family("tiny/1_Pooling/config.json").is_file());
    let first = run.stderr.lines().next().unwrap();
    for part in ["hf://org/tiny", "13 files", "left out: 3 files", "duplicate format", "free"] {
        assert!(first.contains(part), "{first}");
    }
    assert!(run.last_line().starts_with("complete: "), "{}", run.stderr);
}

#[test]
fn the_sentinel_says_what_is_there_and_how_it_was_verified() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let json = std::fs::read(volume.family("tiny/.weightlift-complete.json")).unwrap();
    let sentinel: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(sentinel["format"], 1);
    assert_eq!(sentinel["source"], "hf://org/tiny");
    assert_eq!(sentinel["requested_revision"], "main");
    assert_eq!(sentinel["revision"], hub.commit(REPO));
    let tree = tiny_selected();
    let files = sentinel["files"].as_array().unwrap();
    assert_eq!(files.len(), tree.len());
    for file in files {
        let path = file["path"].as_str().unwrap();
        let blob = tree.blob(path).unwrap();
        assert_eq!(file["size"], blob.len(), "{path}");
        assert_eq!(file["sha256"], blob.sha256(), "{path}");
        let is_lfs = path.ends_with(".safetensors");
        assert_eq!(file["verified_by"], if is_lfs { "sha256" } else { "git-sha1" }, "{path}");
        assert_eq!(file["structure"] == "valid", is_lfs, "{path}");
    }
    let left_out: Vec<&str> = sentinel["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["path"].as_str().unwrap())
        .collect();
    assert_eq!(left_out, ["onnx/model.onnx", "original/consolidated.00.pth", "pytorch_model.bin"]);
    assert_eq!(sentinel["left_out"][0]["why"], "duplicate format");
}

#[test]
fn a_complete_pinned_model_costs_no_request_and_a_branch_one() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let pinned = format!("hf://org/tiny@{}", hub.commit(REPO));
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    hub.log().clear();
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert_eq!(hub.requests().len(), 1, "{:?}", hub.requests());
    assert_eq!(run.stdout, format!("{}\n", volume.family("tiny").display()));
    hub.log().clear();
    // Not even what a request would need is looked at.
    fetch(&hub, &volume, &[&pinned]).env("SSL_CERT_FILE", "/nonexistent").run().assert_success();
    assert_eq!(hub.requests().len(), 0);
}

#[test]
fn a_read_only_mount_with_a_complete_model_is_enough() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let root = volume.root();
    let mount = |args: &[&str]| {
        assert!(
            std::process::Command::new("mount").args(args).arg(&root).status().unwrap().success()
        );
    };
    mount(&["--bind", root.to_str().unwrap()]);
    mount(&["-o", "remount,bind,ro"]);
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run();
    let new = fetch(&hub, &volume, &["hf://org/tiny", "other"]).run();
    assert!(std::process::Command::new("umount").arg(&root).status().unwrap().success());
    run.assert_success();
    new.assert_code(14);
}

#[test]
fn a_branch_that_moves_is_updated_and_the_old_revision_kept() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let new = tiny_selected().with("config.json", "{\"new\": true}").without("README.md");
    hub.move_branch(REPO, "main", new.clone());
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &new);
    volume.assert_clean();
    let shown = std::fs::canonicalize(volume.family("tiny")).unwrap();
    let mut kept = list(&volume.root().join(".weightlift/revisions/tiny"));
    kept.retain(|path| *path != shown);
    assert_eq!(kept.len(), 1, "{}", run.stderr);
    assert_tree(&kept[0], &tiny_selected());
    assert!(run.stderr.contains(kept[0].to_str().unwrap()), "{}", run.stderr);
}

#[test]
fn a_pinned_commit_is_fetched_although_the_branch_has_moved() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let old = hub.commit(REPO);
    hub.move_branch(REPO, "main", Tree::new().with("config.json", "{}"));
    fetch(&hub, &volume, &[&format!("hf://org/tiny@{old}")]).run().assert_success();
    volume.assert_holds("tiny", &tiny_selected());
}

#[test]
fn a_branch_that_moves_during_the_fetch_does_not_mix_revisions() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    hub.script(Rule::on("GET", "model-00001").then(Fault::Delay(Duration::from_millis(1_500))));
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).start();
    eventually("the transfer begins", || hub.count("*", "/resolve/") > 0);
    hub.move_branch(REPO, "main", Tree::new().with("config.json", "{}"));
    run.wait().assert_success();
    volume.assert_holds("tiny", &tiny_selected());
}

#[test]
fn an_expected_revision_is_held_against_what_the_branch_is() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let commit = hub.commit(REPO);
    let other = "0".repeat(40);
    fetch(&hub, &volume, &["hf://org/tiny", "--expect-revision", &other]).run().assert_code(16);
    assert!(!volume.family("tiny").exists());
    fetch(&hub, &volume, &["hf://org/tiny", "--expect-revision", &commit]).run().assert_success();
    fetch(&hub, &volume, &["hf://org/tiny", "--expect-revision", &other]).run().assert_code(16);
}

#[test]
fn a_large_file_comes_in_ranges_by_one_link_to_the_cdn() {
    let tree = Tree::new().with_blob("model.safetensors.part", Blob::synthetic(1 << 10, 1));
    let tree = tree.with_blob("big.bin", Blob::synthetic((10 << 20) + 7, 2));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"]).run().assert_success();
    volume.assert_holds("tiny", &tree);
    let ranged: Vec<_> = hub.requests().into_iter().filter(|r| r.origin == "cdn").collect();
    assert_eq!(ranged.len(), 11);
    assert!(ranged.iter().all(|request| request.status == 206));
    // Eight workers may ask before the first has its answer; nobody asks once it is known.
    assert!(hub.count("HEAD", "/resolve/") <= 8, "{}", hub.count("HEAD", "/resolve/"));
    assert!(hub.requests().iter().all(|r| r.header("accept-encoding") == Some("identity")));
    assert_eq!(hub.bytes_sent_for("xet-bridge"), (10 << 20) + 7, "bytes were fetched twice");
}

#[test]
fn a_link_that_expires_is_made_anew() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(12 << 20, 2));
    let hub = FakeHub::builder().repo(REPO, tree.clone()).expire_urls_after_requests(3).start();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"]).run().assert_success();
    volume.assert_holds("tiny", &tree);
    assert_eq!(hub.count("GET", "/resolve/"), 0, "taken for a CDN that signs ranges");
}

#[test]
fn a_cdn_that_signs_each_range_is_asked_through_the_hub() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(24 << 20, 2));
    let hub = FakeHub::builder().repo(REPO, tree.clone()).sign_ranges().start();
    let volume = Volume::new();
    // Refusals now and then, with success between them, are no reason to give up.
    for skip in [8, 14, 20] {
        hub.script(Rule::on("GET", "").at("cdn").skip(skip).once().then(Fault::status(403)));
    }
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "2"];
    fetch(&hub, &volume, &arguments).run().assert_success();
    volume.assert_holds("tiny", &tree);
    // One request for each range, not two: these requests are counted by the Hub.
    assert!(hub.count("HEAD", "/resolve/") <= 6, "{}", hub.count("HEAD", "/resolve/"));
    assert!(hub.count("GET", "/resolve/") <= 24 + 6, "{}", hub.count("GET", "/resolve/"));
}

#[test]
fn a_mirror_that_redirects_to_another_hub_works() {
    let tree = tiny_selected().with_blob("big.dat", Blob::synthetic(12 << 20, 2));
    let upstream = FakeHub::builder().repo(REPO, tree.clone()).page_size(4).start();
    // As hf-mirror.com does: 308, absolute, for everything.
    let mirror = {
        let upstream = upstream.url();
        weightlift_fakes::Server::start(move |request| {
            weightlift_fakes::Response::new(308)
                .header("Location", &format!("{upstream}{}", request.target()))
        })
    };
    let volume = Volume::new();
    let mut command = weightlift();
    command.args(["fetch", "hf://org/tiny", "--chunk-size", "1MiB", "--root"]).arg(volume.root());
    command.env("HF_ENDPOINT", mirror.url()).env("HF_TOKEN", TOKEN);
    command.run().assert_success();
    volume.assert_holds("tiny", &tree);
    for request in upstream.requests() {
        assert!(request.header("authorization").is_none(), "the token left its origin");
    }
}

#[test]
fn the_storages_rate_limit_is_not_the_hubs() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(24 << 20, 2));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    let limited = Fault::status_with(429, &[("Retry-After", "2")], "");
    hub.script(Rule::on("GET", "").at("cdn").skip(3).once().then(limited));
    fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"]).run().assert_success();
    volume.assert_holds("tiny", &tree);
    let requests = hub.requests();
    let at = requests.iter().find(|request| request.status == 429).unwrap().at;
    let asked = |from: u64, to: u64| {
        let between = |r: &&weightlift_fakes::Logged| {
            let after = r.at.saturating_duration_since(at);
            after > Duration::from_millis(from) && after < Duration::from_millis(to)
        };
        requests.iter().filter(|r| r.origin == "cdn").filter(between).count()
    };
    assert_eq!(asked(900, 1_900), 0);
    assert!(asked(1_900, 60_000) > 0);
}

#[test]
fn a_cdn_that_refuses_for_good_is_an_access_error_with_its_words() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(3 << 20, 2));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    let refusal = Fault::status_with(403, &[], "<Message>blocked by policy 42</Message>");
    hub.script(Rule::on("GET", "").at("cdn").then(refusal));
    let run =
        fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"]).run().assert_code(11);
    assert!(run.last_line().contains("blocked by policy 42"), "{}", run.stderr);
    assert!(hub.requests().len() < 60, "a retry storm of {}", hub.requests().len());
}

#[test]
fn a_cdn_that_has_lost_a_file_is_retryable() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(3 << 20, 2));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::status(404)));
    fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"]).run().assert_code(20);
    assert!(hub.count("HEAD", "/resolve/") > 1, "the link was not made anew");
}

#[test]
fn a_listing_of_many_pages_is_read_to_its_end() {
    let tree =
        (0..25).fold(Tree::new(), |tree, n| tree.with(&format!("d{}/f{n}.json", n % 3), "{}"));
    let hub = FakeHub::builder().repo(REPO, tree.clone()).page_size(4).start();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &tree);
}

#[test]
fn a_listing_that_continues_at_another_host_is_not_followed() {
    let (hub, other) = (hub_of_tiny(), hub_of_tiny());
    let link = format!("<{}/api/models/org/tiny/tree/x?cursor=1>; rel=\"next\"", other.url());
    hub.script(Rule::on("GET", "/tree/").then(Fault::add_headers(&[("Link", &link)])));
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/tiny"]).env("HF_TOKEN", TOKEN).run().assert_code(13);
    assert_eq!(other.requests().len(), 0);
}

#[test]
fn the_token_reaches_the_hub_and_nobody_else() {
    let hub = FakeHub::builder().repo(REPO, tiny()).token(TOKEN).private(REPO).start();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"])
        .env("HF_TOKEN", TOKEN)
        .run()
        .assert_success();
    assert!(hub.count("*", "/resolve/") > 0);
    let mut origins = std::collections::BTreeSet::new();
    for request in hub.requests() {
        origins.insert(request.origin);
        let has_token = request.headers.iter().any(|(_, value)| value.contains(TOKEN));
        assert_eq!(has_token, request.origin == "hub", "{} {}", request.origin, request.target);
        assert!(!request.target.contains(TOKEN));
    }
    assert_eq!(origins.into_iter().collect::<Vec<_>>(), ["cdn", "hub"]);
    for (name, content) in files_below(&volume.root()) {
        assert!(!String::from_utf8_lossy(&content).contains(TOKEN), "{name}");
    }
}

#[test]
fn the_token_is_found_where_hf_finds_it() {
    let hub = FakeHub::builder().repo(REPO, tiny()).token(TOKEN).private(REPO).start();
    let home = Volume::new();
    std::fs::create_dir_all(home.path("home")).unwrap();
    std::fs::write(home.path("home/token"), format!("{TOKEN}\n")).unwrap();
    let try_with = |variable: &str, value: &std::ffi::OsStr| {
        let volume = Volume::new();
        fetch(&hub, &volume, &["hf://org/tiny"]).env(variable, value).run().code
    };
    assert_eq!(try_with("HF_TOKEN", TOKEN.as_ref()), 0);
    assert_eq!(try_with("HUGGING_FACE_HUB_TOKEN", TOKEN.as_ref()), 0);
    assert_eq!(try_with("HF_TOKEN_PATH", home.path("home/token").as_os_str()), 0);
    assert_eq!(try_with("HF_HOME", home.path("home").as_os_str()), 0);
    assert_eq!(try_with("HF_TOKEN_PATH", "/nonexistent/token".as_ref()), 11);
    // An optional Secret that is absent does not keep a public repo away.
    let (public, volume) = (hub_of_tiny(), Volume::new());
    fetch(&public, &volume, &["hf://org/tiny"])
        .env("HF_TOKEN_PATH", "/nonexistent/token")
        .run()
        .assert_success()
        .assert_says("HF_TOKEN_PATH names `/nonexistent/token`, which does not exist; continuing without a token");
    assert_eq!(try_with("NOTHING", "".as_ref()), 11);
}

#[test]
fn each_refusal_of_the_hub_has_its_own_words_and_code() {
    let hub = FakeHub::builder()
        .repo(REPO, tiny())
        .repo("org/gated", tiny())
        .repo("org/private", tiny())
        .token(TOKEN)
        .gated("org/gated")
        .private("org/private")
        .start();
    let volume = Volume::new();
    let run = |source: &str, token: Option<&str>| {
        let mut command = fetch(&hub, &volume, &[source, "x"]);
        if let Some(token) = token {
            command.env("HF_TOKEN", token);
        }
        command.run()
    };
    let told = |run: Run, code: i32, what: &str| {
        assert!(run.last_line().contains(what), "{}", run.stderr);
        run.assert_code(code);
    };
    told(run("hf://org/private", None), 11, "private, gated or does not exist");
    told(run("hf://org/private", None), 11, "HF_TOKEN");
    let licence = format!("accept its licence at {}/org/gated", hub.url());
    told(run("hf://org/gated", Some(TOKEN)), 11, &licence);
    told(run("hf://org/private", Some("hf_wrong")), 11, "does not accept the token");
    told(run("hf://org/missing", Some(TOKEN)), 10, "does not exist");
    told(run("hf://org/tiny@nope", Some(TOKEN)), 10, "has no revision `nope`");
    assert!(!volume.family("x").exists());
}

#[test]
fn a_renamed_repo_is_followed_with_a_warning_and_stays_warm() {
    let hub = FakeHub::builder().repo(REPO, tiny()).renamed("old/name", REPO).start();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://old/name"])
        .run()
        .assert_success()
        .assert_says("`old/name` has been renamed to `org/tiny`");
    volume.assert_holds("name", &tiny_selected());
    let bytes = hub.bytes_sent_for("/resolve");
    fetch(&hub, &volume, &["hf://old/name"]).run().assert_success();
    assert_eq!(hub.bytes_sent_for("/resolve"), bytes, "fetched again");
}

#[test]
fn mirrors_that_leave_out_headers_or_serve_the_files_themselves_work() {
    let tree = tiny_selected().with_blob("big.safetensors.x", Blob::synthetic(5 << 20, 3));
    for hub in [
        FakeHub::builder().repo(REPO, tree.clone()).mirror_without_headers().start(),
        FakeHub::builder().repo(REPO, tree.clone()).lfs_direct().start(),
        FakeHub::builder().repo(REPO, tree.clone()).lfs_direct().mirror_without_headers().start(),
    ] {
        let volume = Volume::new();
        fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"]).run().assert_success();
        volume.assert_holds("tiny", &tree);
    }
}

#[test]
fn one_retry_after_silences_every_worker() {
    let tree = (0..40).fold(Tree::new(), |tree, n| tree.with(&format!("f{n}.json"), "{}"));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    let limited = Fault::status_with(429, &[("Retry-After", "3")], "");
    hub.script(Rule::on("GET", "/resolve/").skip(10).once().then(limited));
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let requests = hub.requests();
    let at = requests.iter().find(|request| request.status == 429).unwrap().at;
    // Requests that were on their way already are let through.
    let silence = requests.iter().filter(|request| {
        let after = request.at.saturating_duration_since(at);
        after > Duration::from_millis(1_000) && after < Duration::from_millis(2_900)
    });
    assert_eq!(silence.count(), 0);
    assert!(requests.iter().any(|request| request.at > at + Duration::from_millis(2_900)));
}

#[test]
fn a_rate_limit_beyond_the_budget_is_told_apart() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let limited = Fault::status_with(429, &[("RateLimit", "\"api\";r=0;t=250")], "");
    hub.script(Rule::on("*", "").then(limited));
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).env("WEIGHTLIFT_RETRY_TIMEOUT", "2s").run();
    assert!(run.last_line().contains("another 4m11s"), "{}", run.stderr);
    run.assert_code(21);
}

#[test]
fn offline_means_the_last_complete_copy_or_nothing() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let offline = |source: &str| fetch(&hub, &volume, &[source]).env("HF_HUB_OFFLINE", "1").run();
    offline("hf://org/tiny").assert_code(10);
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    hub.log().clear();
    offline("hf://org/tiny").assert_success().assert_says("using the complete copy");
    offline(&format!("hf://org/tiny@{}", hub.commit(REPO))).assert_success();
    offline(&format!("hf://org/tiny@{}", "1".repeat(40))).assert_code(10);
    assert_eq!(hub.requests().len(), 0);
}

#[test]
fn an_unreachable_hub_does_not_take_a_complete_copy_away() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    hub.script(Rule::on("*", "").then(Fault::status(503)));
    let started = Instant::now();
    fetch(&hub, &volume, &["hf://org/tiny"])
        .env("WEIGHTLIFT_RETRY_TIMEOUT", "3s")
        .run()
        .assert_success()
        .assert_says("using the complete copy");
    assert!(started.elapsed() < Duration::from_secs(30));
    // A pinned commit that is not there is another matter, and so is somebody who wants the update.
    let other = format!("hf://org/tiny@{}", "1".repeat(40));
    fetch(&hub, &volume, &[&other]).env("WEIGHTLIFT_RETRY_TIMEOUT", "1s").run().assert_code(20);
    hub.clear_script();
    hub.script(Rule::on("*", "").then(Fault::status(401)));
    fetch(&hub, &volume, &["hf://org/tiny", "--if-stale=fail"]).run().assert_code(11);
    volume.assert_holds("tiny", &tiny_selected());
}

#[test]
fn a_hub_that_is_half_down_does_not_take_a_complete_copy_away() {
    for (what, fault) in [
        ("/revision/", Fault::HangBeforeHeaders(Duration::from_secs(120))),
        ("/revision/", Fault::Drip { bytes_per_second: 5 }),
        ("/revision/", Fault::status_with(429, &[("Retry-After", "60")], "")),
        ("/tree/", Fault::status(503)),
        ("/resolve/", Fault::status(503)),
    ] {
        let (hub, volume) = (hub_of_tiny(), Volume::new());
        fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
        hub.move_branch(REPO, "main", Tree::new().with("config.json", "{\"new\": 1}"));
        hub.script(Rule::on("*", what).then(fault));
        let started = Instant::now();
        fetch(&hub, &volume, &["hf://org/tiny"])
            .env("WEIGHTLIFT_RETRY_TIMEOUT", "3s")
            .run()
            .assert_success()
            .assert_says("using the complete copy");
        assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
        volume.assert_holds("tiny", &tiny_selected());
    }
}

#[test]
fn patterns_select_as_hf_download_does() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny", "all", "--all"]).run().assert_success();
    volume.assert_holds("all", &tiny());
    let arguments = ["hf://org/tiny", "some", "--include", "*.json", "--exclude", "1_Pooling/"];
    fetch(&hub, &volume, &arguments)
        .run()
        .assert_success()
        .assert_says("which the selection leaves out");
    let names: Vec<String> = files_below(&volume.family("some")).into_keys().collect();
    assert!(names.contains(&"config.json".into()) && !names.iter().any(|n| n.contains("Pooling")));
    fetch(&hub, &volume, &["hf://org/tiny", "none", "--include", "*.nope"]).run().assert_code(2);
    assert!(!volume.family("none").exists());
    // Another selection of the same revision is another request.
    fetch(&hub, &volume, &["hf://org/tiny", "some"]).run().assert_success();
    volume.assert_holds("some", &tiny_selected());
}

#[test]
fn pickles_are_named_and_can_be_refused() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let arguments = ["hf://org/tiny", "--include", "*.bin"];
    fetch(&hub, &volume, &arguments)
        .run()
        .assert_success()
        .assert_says("`pytorch_model.bin` can run code");
    let arguments = ["hf://org/tiny", "refused", "--all", "--deny-pickle"];
    fetch(&hub, &volume, &arguments).run().assert_code(13);
    assert!(!volume.family("refused").exists());
}

#[test]
fn several_models_are_given_as_pairs() {
    let hub =
        FakeHub::builder().repo(REPO, tiny()).repo("org/b", Tree::new().with("b", "b")).start();
    let volume = Volume::new();
    let run = fetch(&hub, &volume, &["hf://org/tiny", "embeddings/tiny", "hf://org/b", "b"]).run();
    let paths = [volume.family("embeddings/tiny"), volume.family("b")];
    assert_eq!(run.stdout, format!("{}\n{}\n", paths[0].display(), paths[1].display()));
    run.assert_success();
    volume.assert_holds("embeddings/tiny", &tiny_selected());
    fetch(&hub, &volume, &["hf://org/tiny", "a", "hf://org/b"]).run().assert_code(2);
    fetch(&hub, &volume, &["hf://org/tiny", "a", "hf://org/b", "a/"]).run().assert_code(2);
}

#[test]
fn a_proxy_from_the_environment_is_used_unless_it_is_excepted() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    // Nobody listens there.
    let through = |no_proxy: &str| {
        fetch(&hub, &volume, &["hf://org/tiny"])
            .env("HTTP_PROXY", "http://127.0.0.1:9")
            .env("NO_PROXY", no_proxy)
            .env("WEIGHTLIFT_RETRY_TIMEOUT", "1s")
            .run()
            .code
    };
    assert_eq!(through(""), 20);
    assert_eq!(through("127.0.0.1"), 0);
}

#[test]
fn what_kserve_passes_is_a_revision_behind_a_colon_and_a_mounted_directory() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let (old, tagged) = (hub.commit(REPO), tiny_selected().with("config.json", "{\"tag\": 1}"));
    let tag = hub.move_branch(REPO, "v1.0", tagged.clone());
    // An emptyDir is there and empty; KServe's own words are no flags but SOURCE and DEST.
    for (source, commit, tree) in [
        ("hf://org/tiny:v1.0".to_owned(), &tag, &tagged),
        (format!("hf://org/tiny:{old}"), &old, &tiny_selected()),
        ("hf://org/tiny".to_owned(), &old, &tiny_selected()),
    ] {
        let mount = volume.path(&format!("mnt-{}", commit.len() + source.len()));
        std::fs::create_dir(&mount).unwrap();
        let mut command = weightlift();
        command.args(["fetch", &source]).arg(&mount).args(["--output", "json"]);
        let run = command.env("HF_ENDPOINT", hub.url()).run().assert_success();
        let told: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(told["revision"], commit.as_str(), "{source}");
        assert_tree(&mount, tree);
    }
    // Several storageUris: pairs below one mount, the second of which cannot be had.
    let mount = volume.path("mnt");
    std::fs::create_dir(&mount).unwrap();
    let mut command = weightlift();
    command.args(["fetch", "hf://org/tiny:v1.0"]).arg(mount.join("base"));
    command.arg("hf://org/tiny:gone").arg(mount.join("adapters/one"));
    command.arg(format!("hf://org/tiny:{old}")).arg(mount.join("adapters/two"));
    let run = command.env("HF_ENDPOINT", hub.url()).run().assert_code(10);
    assert!(run.last_line().contains("1 of 3 models failed: `one` (not_found)"), "{}", run.stderr);
    assert_tree(&mount.join("base"), &tagged);
    assert_tree(&mount.join("adapters/two"), &tiny_selected());
}
