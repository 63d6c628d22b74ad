//! A model is whole or it is not: decided before its weights are asked for, by what its indexes and
//! names say, and on the first bytes of each safetensors file.

use crate::support::*;
use serde_json::json;
use weightlift_fakes::{Blob, Checksum, FakeHub, FakeS3, Fault, ObjectOptions, Rule, Tree};

const INDEX: &str = "model.safetensors.index.json";
const MIB: u64 = 1 << 20;

/// One tensor of bytes, different for each `name`.
fn weights(name: &str) -> Vec<u8> {
    let data = format!("weights of {name}");
    let header = format!(
        "{{\"t\":{{\"dtype\":\"U8\",\"shape\":[{0}],\"data_offsets\":[0,{0}]}}}}",
        data.len()
    );
    with_header(&header, data.as_bytes())
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

fn index_of(shards: &[&str]) -> String {
    let map: serde_json::Map<_, _> =
        shards.iter().enumerate().map(|(n, shard)| (format!("t{n}"), json!(shard))).collect();
    json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string()
}

/// Files of weights by these names, and a configuration.
fn tree(paths: &[&str]) -> Tree {
    paths
        .iter()
        .fold(Tree::new().with("config.json", "{}"), |tree, path| tree.with(path, weights(path)))
}

/// Requests for files of weights, at whatever place.
fn requests_for_weights(hub: &FakeHub) -> usize {
    let is_of_weights = |target: &str| {
        let target = target.to_ascii_lowercase();
        [".safetensors", ".bin", ".gguf", ".h5"].iter().any(|it| target.contains(it))
            && !target.contains("index.")
            && !target.contains("/tree/")
    };
    hub.requests().iter().filter(|request| is_of_weights(&request.target)).count()
}

const ONE: &str = "model-00001-of-00002.safetensors";
const TWO: &str = "model-00002-of-00002.safetensors";
const BOTH: &[&str] = &[ONE, TWO];
const OF_THREE: &[&str] = &[
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
];

/// What is there, the index and what it names, options, and what comes out: a code and a text.
type Row<'a> = (&'a [&'a str], Option<(&'a str, &'a [&'a str])>, &'a [&'a str], i32, &'a str);

#[test]
fn what_indexes_and_numbers_promise_is_decided_before_the_weights() {
    let no_md: &[&str] = &["--exclude", "*.md"];
    let bins: &[&str] = &["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];
    let gguf: &[&str] = &["q-00001-of-00003.gguf", "q-00002-of-00003.gguf"];
    let encoder = "text_encoder/model.safetensors.index.json";
    let encoders: &[&str] = &[
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
    ];
    let fp16 = "model.safetensors.index.fp16.json";
    let of_fp16: &[&str] =
        &["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"];
    let inside: &[&str] = &["shards/a.safetensors", "shards/b.safetensors"];
    let of_bin = "pytorch_model.bin.index.json";
    let rows: &[Row<'_>] = &[
        // An index and the shards of its own.
        (BOTH, Some((INDEX, BOTH)), &[], 0, ""),
        (&[ONE], Some((INDEX, BOTH)), &[], 12, "names `model-00002-of-00002.safetensors`, which"),
        (&[ONE], Some((INDEX, BOTH)), &[], 12, "--exclude 'model.safetensors.index.json'"),
        (&[], Some((INDEX, BOTH)), &[], 12, "the model is incomplete"),
        (&bins[..1], Some((of_bin, bins)), &[], 12, "`pytorch_model-00002-of-00002.bin`"),
        (&[], Some(("tf_model.h5.index.json", &["tf_model-00001-of-00001.h5"])), &[], 12, "names"),
        (
            &of_fp16[..1],
            Some((fp16, of_fp16)),
            &[],
            12,
            "--exclude 'model.safetensors.index.fp16.json'",
        ),
        (of_fp16, Some((fp16, of_fp16)), &[], 0, ""),
        (
            &[ONE],
            Some(("MODEL.SAFETENSORS.INDEX.JSON", BOTH)),
            &[],
            12,
            "`MODEL.SAFETENSORS.INDEX.JSON` names",
        ),
        // It names them relative to its directory.
        (encoders, Some((encoder, BOTH)), &[], 0, ""),
        (
            &encoders[..1],
            Some((encoder, BOTH)),
            &[],
            12,
            "--exclude 'text_encoder/model.safetensors.index.json'",
        ),
        (
            BOTH,
            Some((encoder, BOTH)),
            &[],
            12,
            "names `text_encoder/model-00001-of-00002.safetensors`",
        ),
        (inside, Some((INDEX, inside)), &[], 0, ""),
        (&inside[..1], Some((INDEX, inside)), &[], 12, "names `shards/b.safetensors`"),
        // A pattern changes the verdict only where it is about a shard or the index.
        (&[ONE], Some((INDEX, BOTH)), no_md, 12, "the model is incomplete"),
        (BOTH, Some((INDEX, BOTH)), no_md, 0, ""),
        (BOTH, Some((INDEX, BOTH)), &["--exclude", TWO], 0, "which the selection leaves out"),
        (&[ONE], Some((INDEX, BOTH)), &["--exclude", TWO], 0, "the selection leaves out"),
        (
            &[ONE],
            Some((INDEX, BOTH)),
            &["--exclude", INDEX],
            0,
            "the selection leaves out its index",
        ),
        (BOTH, Some((INDEX, BOTH)), &["--include", "*.safetensors"], 0, ""),
        (&[ONE], Some((INDEX, BOTH)), &["--include", "*.safetensors"], 12, "not `model-00002-of"),
        (BOTH, Some((INDEX, BOTH)), &["--include", "*.json", "--include", ONE], 0, "leaves out"),
        // The index of another build beside what is whole.
        (
            BOTH,
            Some((INDEX, OF_THREE)),
            &[],
            0,
            "index of another build: `model-*-of-00002.safetensors`",
        ),
        (
            &["model-00000-of-00002.safetensors", "model-00001-of-00002.safetensors"],
            Some((INDEX, OF_THREE)),
            no_md,
            0,
            "index of another build",
        ),
        (
            &["model.safetensors"],
            Some((INDEX, OF_THREE)),
            &[],
            0,
            "`model.safetensors` next to it is complete",
        ),
        (
            bins,
            Some((INDEX, OF_THREE)),
            &[],
            0,
            "`pytorch_model-*-of-00002.bin` next to it is complete",
        ),
        (
            &["pytorch_model.bin"],
            Some((INDEX, OF_THREE)),
            &[],
            0,
            "`pytorch_model.bin` next to it is complete",
        ),
        (
            &["m.Q4_K_M.gguf"],
            Some((INDEX, OF_THREE)),
            &[],
            0,
            "`m.Q4_K_M.gguf` next to it is complete",
        ),
        (&["consolidated.safetensors"], Some((INDEX, OF_THREE)), &[], 0, "is complete"),
        (&[OF_THREE[0], "pytorch_model.bin"], Some((INDEX, OF_THREE)), &[], 12, "incomplete"),
        (&["adapter_model.safetensors"], Some((INDEX, OF_THREE)), &[], 12, "incomplete"),
        (&["training_args.bin"], Some((INDEX, OF_THREE)), &[], 12, "incomplete"),
        (BOTH, Some((of_bin, bins)), &[], 0, ""),
        // Numbers without an index.
        (&OF_THREE[..2], None, &[], 12, "not `model-00003-of-00003.safetensors`"),
        (&OF_THREE[..2], None, &[], 12, "--exclude 'model-*-of-00003.safetensors'"),
        (&OF_THREE[..2], None, no_md, 12, "the model is incomplete"),
        (OF_THREE, None, &["--exclude", "*-00003-*"], 0, "the selection leaves out"),
        (&OF_THREE[..2], None, &["--exclude", "*-00003-*"], 0, "the selection leaves out"),
        (
            &["model.safetensors", OF_THREE[0]],
            None,
            &[],
            0,
            "`model.safetensors` next to it is complete",
        ),
        (gguf, None, &[], 12, "not `q-00003-of-00003.gguf`"),
        (gguf, None, &["--exclude", "q-*-of-00003.gguf"], 0, ""),
        (&["Q8/q-00001-of-00002.gguf", "Q4/q.gguf"], None, &[], 12, "`Q8/q-00002-of-00002.gguf`"),
        (&["x.Q6_K.gguf.part1of2"], None, &[], 12, "`x.Q6_K.gguf.part2of2`"),
        (&["photo-1-of-2.bin.png", "model.safetensors"], None, &[], 0, ""),
    ];
    for (paths, index, options, code, says) in rows {
        let mut tree = tree(paths).with("README.md", "a model");
        if let Some((path, shards)) = index {
            tree = tree.with(path, index_of(shards));
        }
        let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
        let run = fetch(&hub, &volume, &["hf://org/tiny"]).args(*options).run();
        let case = format!("{paths:?} {index:?} {options:?}: {}", run.stderr);
        assert_eq!(run.code, *code, "{case}");
        if *code == 0 {
            let warned =
                run.stderr.lines().any(|it| it.starts_with("warning: ") && it.contains(says));
            assert!(warned || says.is_empty(), "{case}");
            assert!(!says.is_empty() || !run.stderr.contains("names `"), "{case}");
            assert!(volume.family("tiny").join(".weightlift-complete.json").is_file(), "{case}");
        } else {
            assert!(run.last_line().contains(says), "{case}");
            assert_eq!(requests_for_weights(&hub), 0, "{case}");
            assert!(!volume.family("tiny").exists(), "{case}");
        }
        volume.assert_clean();
    }
}

/// What a message says to do must be enough.
#[test]
fn the_way_out_that_a_message_names_leads_out() {
    let gguf: &[&str] = &["it's [1]-00001-of-00002.gguf", "other/x.gguf"];
    let broken = tree(&["x.gguf"]).with(INDEX, "{\"weight_map\": [");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for tree in [
        tree(&[ONE]).with(INDEX, index_of(BOTH)),
        tree(&["a/x.gguf"]).with("b*/model.safetensors.index.json", index_of(BOTH)),
        tree(gguf),
        tree(&OF_THREE[..1]),
        broken,
        tree(&["x.gguf"]).with("empty.safetensors", ""),
        tree(&["x.gguf"]).with("it's.safetensors", pointer),
    ] {
        let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
        let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(12);
        let flag = run.last_line().split_once("--exclude ").expect("a way out").1;
        let flag = &flag[..=flag.rfind('\'').unwrap()];
        let flag = flag.split(" to leave this set out").next().unwrap();
        // As a shell reads it.
        let mut echo = std::process::Command::new("sh");
        let echo = echo.args(["-c", &format!("printf %s {flag}")]).output().unwrap();
        let pattern = String::from_utf8(echo.stdout).unwrap();
        fetch(&hub, &volume, &["hf://org/tiny", "--exclude", &pattern]).run().assert_success();
    }
}

#[test]
fn indexes_come_first_and_are_proved() {
    let tree = tree(BOTH).with(INDEX, index_of(BOTH));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &tree);
    let files: Vec<String> = hub
        .requests()
        .into_iter()
        .map(|request| request.target)
        .filter(|target| target.contains("/resolve/") || target.contains("/resolve-cache/"))
        .collect();
    let last_index = files.iter().rposition(|target| target.contains("index.json")).unwrap();
    assert!(files[..=last_index].iter().all(|target| target.contains("index.json")), "{files:?}");
    let asked = |path: &str| {
        let resolve = format!("/{REPO}/resolve/{}/{path}", hub.commit(REPO));
        hub.requests().iter().filter(|it| it.target.starts_with(&resolve)).count()
    };
    assert_eq!([INDEX, ONE, TWO, "config.json"].map(asked), [1; 4]);

    // One that arrives damaged is fetched again, and not believed.
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    let wrong = index_of(&[ONE, "model-0000X-of-00002.safetensors"]);
    assert_eq!(wrong.len(), index_of(BOTH).len());
    let replaced = Fault::ReplaceBody(wrong.into_bytes());
    hub.script(Rule::on("GET", "/api/resolve-cache/").once().then(replaced));
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success().assert_says("wrong bytes");
    volume.assert_holds("tiny", &tree);
}

#[test]
fn an_index_in_s3_is_read_first_as_well() {
    for checksum in [None, Some(Checksum::Sha256)] {
        let serve = |paths: &[&str]| {
            let tree = tree(paths).with(INDEX, index_of(BOTH));
            let s3 = tree.iter().fold(FakeS3::builder(), |s3, (path, blob)| {
                let options = ObjectOptions { checksum, ..ObjectOptions::default() };
                s3.object_with("models", &format!("tiny/{path}"), blob.clone(), options)
            });
            (tree, s3.credentials(ACCESS_KEY, SECRET_KEY).start())
        };
        let (_, s3) = serve(&[ONE]);
        let volume = Volume::new();
        let run = fetch_s3(&s3, &volume, &["s3://models/tiny/"]).run().assert_code(12);
        assert!(run.last_line().contains("--exclude 'model.safetensors.index.json'"));
        assert_eq!(s3.count("GET", ONE), 0, "{checksum:?}");
        let (tree, s3) = serve(BOTH);
        fetch_s3(&s3, &volume, &["s3://models/tiny/"]).run().assert_success();
        volume.assert_holds("tiny", &tree);
    }
}

/// Who names one object has chosen: a shard or an index on its own.
#[test]
fn one_object_of_s3_is_what_was_asked_for() {
    let tree = tree(&[ONE]).with(INDEX, index_of(BOTH));
    let s3 = tree.iter().fold(FakeS3::builder(), |s3, (path, blob)| {
        s3.object("models", &format!("tiny/{path}"), blob.clone())
    });
    let (s3, volume) = (s3.credentials(ACCESS_KEY, SECRET_KEY).start(), Volume::new());
    for path in [ONE, INDEX] {
        fetch_s3(&s3, &volume, &[&format!("s3://models/tiny/{path}")]).run().assert_success();
        assert!(volume.family(path).join(path).is_file(), "{path}");
    }
}

/// An index is fetched once, however often a run is stopped behind it.
#[test]
fn a_run_that_is_killed_between_index_and_weights_is_continued() {
    let tree = tree(BOTH).with(INDEX, index_of(BOTH));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    hub.script(
        Rule::on("GET", "model-0")
            .then(Fault::HangBeforeHeaders(std::time::Duration::from_secs(60))),
    );
    for round in 1..=2 {
        let running = fetch(&hub, &volume, &["hf://org/tiny"]).start();
        eventually("weights are asked for", || hub.count("GET", "model-0") >= 2 * round);
        running.signal("-KILL");
        running.wait();
    }
    assert_eq!(
        hub.count("GET", &format!("/resolve-cache/models/org/tiny/{}/{INDEX}", hub.commit(REPO))),
        1
    );
    hub.clear_script();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &tree);
    assert_eq!(
        hub.count("GET", &format!("/resolve-cache/models/org/tiny/{}/{INDEX}", hub.commit(REPO))),
        1
    );
}

/// An update takes over the index with everything else, and reads it again.
#[test]
fn an_index_that_is_taken_over_is_read_again() {
    let whole = tree(BOTH).with(INDEX, index_of(BOTH));
    let (hub, volume) = (FakeHub::serving(REPO, whole.clone()), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    hub.move_branch(REPO, "main", whole.clone().without(TWO).with("config.json", "{\"new\": 1}"));
    hub.log().clear();
    let strict = ["hf://org/tiny", "--if-stale=fail"];
    let run = fetch(&hub, &volume, &strict).run().assert_code(12);
    assert!(run.last_line().contains("the model is incomplete"), "{}", run.stderr);
    assert_eq!((requests_for_weights(&hub), hub.count("GET", INDEX)), (0, 0));
    volume.assert_holds("tiny", &whole);
}

#[test]
fn an_index_that_is_none_names_the_way_out() {
    for (name, content, code) in [
        (INDEX, "<html>", 12),
        (INDEX, "", 12),
        ("pytorch_model.bin.index.json", "[]", 12),
        ("model.safetensors.index.fp16.json", "{\"weight_map\":{\"a\":\"../x\"}}", 12),
        // These can be anything.
        ("search.index.json", "[]", 0),
        ("index.json", "[]", 0),
    ] {
        let (hub, volume) =
            (FakeHub::serving(REPO, tree(&["x.gguf"]).with(name, content)), Volume::new());
        let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(code);
        if code != 0 {
            assert_eq!(requests_for_weights(&hub), 0, "{name}");
            let out = format!("`{name}` is not a valid index: ");
            assert!(run.last_line().contains(&out), "{name}: {}", run.stderr);
            assert!(
                run.last_line().contains(&format!("--exclude '{name}'")),
                "{name}: {}",
                run.stderr
            );
        }
    }
}

/// A file of 40 MiB whose header is broken, or begins as `start` says.
fn broken(start: &[u8]) -> Tree {
    let mut file = Blob::synthetic(40 * MIB, 7).to_vec();
    file[..start.len()].copy_from_slice(start);
    Tree::new().with("config.json", "{}").with_blob("a.safetensors", Blob::bytes(file))
}

/// So slow that the rest of a file cannot have come by chance.
fn drip(hub: &FakeHub) {
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 4 * MIB }));
}

#[test]
fn a_broken_header_costs_the_start_of_its_file() {
    let not_json = with_header(&"x".repeat(100), b"");
    let long =
        with_header(&format!("{{\"__metadata__\":{{\"a\":\"{}\"}}}}", "b".repeat(3_000_000)), b"");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 41943040\n";
    for (start, says) in [
        (&not_json[..], "its header is not a JSON object"),
        // It describes no tensors, and is longer than a piece or a chunk.
        (&long, "its header describes 0 bytes of tensors"),
        (&[0xff; 8], "its header claims 18446744073709551615 bytes of 41943040"),
        (pointer, "it is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "it is an HTML page"),
        (b"PK\x03\x04", "it is a zip archive"),
        (&[0; 100], "it begins with zeros"),
    ] {
        for chunk in ["64MiB", "1MiB"] {
            let tree = broken(start).with_blob("b.bin", Blob::synthetic(100 * MIB, 1));
            let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
            drip(&hub);
            let arguments = ["hf://org/tiny", "--all", "--connections", "2", "--chunk-size", chunk];
            let run = fetch(&hub, &volume, &arguments).run().assert_code(12);
            let line = run.last_line();
            assert!(
                line.contains(&format!(
                    "`a.safetensors` is not valid safetensors at the source: {says}"
                )),
                "{line}"
            );
            assert!(line.contains("bytes agree); add --exclude 'a.safetensors'"), "{line}");
            assert!(hub.bytes_sent_for("a.safetensors") < 12 * MIB, "{says}");
            // The others stop with it.
            assert!(hub.bytes_sent_for("b.bin") < 80 * MIB, "{says}");
            assert!(!volume.family("tiny").exists());
        }
    }
    // One that is longer than what is parsed is not.
    let mut unparsed = (20 * MIB).to_le_bytes().to_vec();
    unparsed.push(b'{');
    let (hub, volume) = (FakeHub::serving(REPO, broken(&unparsed)), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success().assert_says("was not checked");
}

/// A header that is right costs no request and no byte.
#[test]
fn a_look_at_the_header_costs_no_request() {
    let data = Blob::synthetic(40 * MIB, 3).to_vec();
    let header = |len: usize| {
        format!("{{\"t\":{{\"dtype\":\"U8\",\"shape\":[{len}],\"data_offsets\":[0,{len}]}}}}")
    };
    let file = with_header(&header(data.len()), &data);
    let tree = Tree::new().with_blob("model.safetensors", Blob::bytes(file));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny", "--connections", "1"]).run().assert_success();
    volume.assert_holds("tiny", &tree);
    let requests = hub.requests().into_iter().filter(|it| it.origin == "cdn").count();
    assert_eq!((requests, hub.log().bytes_sent_twice()), (1, 0));
    // Nor where it is damaged on the way: the digest would not have told before the end.
    let damage = |times: usize| {
        let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
        let flipped = Rule::on("GET", "").at("cdn");
        hub.script(flipped.times(times).then(Fault::FlipByteAt(8)));
        drip(&hub);
        (fetch(&hub, &volume, &["hf://org/tiny", "--connections", "1"]).run(), hub, volume)
    };
    let (run, hub, volume) = damage(1);
    run.assert_success().assert_says("a second read of its start returned different bytes");
    volume.assert_holds("tiny", &tree);
    assert!(hub.log().bytes_sent_twice() < 20 * MIB);
    let (run, hub, _) = damage(usize::MAX);
    let run = run.assert_code(12);
    assert!(run.last_line().contains("two reads of its first"), "{}", run.stderr);
    assert!(hub.body_bytes() < 20 * MIB);
}

/// A start that is another one at every look is nobody's but the way's.
#[test]
fn a_start_that_is_always_wrong_in_another_way_ends() {
    let data = Blob::synthetic(20 * MIB, 3).to_vec();
    let header = format!(
        "{{\"t\":{{\"dtype\":\"U8\",\"shape\":[{0}],\"data_offsets\":[0,{0}]}}}}",
        data.len()
    );
    let tree = Tree::new().with_blob("model.safetensors", Blob::bytes(with_header(&header, &data)));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    for offset in 8..20 {
        let flipped = Rule::on("GET", "").at("cdn").when_range_starts_at(0).once();
        hub.script(flipped.then(Fault::FlipByteAt(offset)));
    }
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(12);
    assert!(run.last_line().contains("is still wrong after 3 tries"), "{}", run.stderr);
    assert!(!volume.family("tiny").exists());
}

/// What a killed run has left is looked at before the rest is asked for.
#[test]
fn the_start_of_a_resumed_file_is_looked_at_first() {
    let tree = broken(&with_header(&"x".repeat(100), b""));
    let volume = Volume::new();
    let first = FakeHub::serving(REPO, tree.clone());
    fetch(&first, &volume, &["hf://org/tiny"]).run().assert_code(12);
    // Another one, which does not get what the first run has asked for in its last moment.
    let hub = FakeHub::serving(REPO, tree);
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(12);
    let cdn: Vec<_> = hub.requests().into_iter().filter(|it| it.origin == "cdn").collect();
    let seen: Vec<_> = cdn.iter().map(|it| (it.header("range"), it.body_bytes_sent)).collect();
    // The second read of the start.
    assert_eq!(seen, [(Some("bytes=0-107"), 108)]);
}

/// Without a published digest there is nothing else to go by, however small the file is.
#[test]
fn a_file_without_a_digest_is_read_twice_before_it_is_refused() {
    for (content, code) in
        [(&b"version https://git-lfs.github.com/spec/v1\noid"[..], 12), (&weights("m"), 0)]
    {
        let s3 = FakeS3::builder().object("models", "m/model.safetensors", Blob::bytes(content));
        let (s3, volume) = (s3.credentials(ACCESS_KEY, SECRET_KEY).start(), Volume::new());
        if code == 0 {
            s3.script(Rule::on("GET", "/m/model.safetensors").once().then(Fault::FlipByteAt(8)));
        }
        let run = fetch_s3(&s3, &volume, &["s3://models/m/"]).run().assert_code(code);
        assert_eq!(s3.count("GET", "/m/model.safetensors"), if code == 0 { 3 } else { 2 });
        if code != 0 {
            assert!(run.last_line().contains("it is a Git LFS pointer"), "{}", run.stderr);
        }
    }
}

/// Small files have their digest before a second read would be there.
#[test]
fn a_small_file_is_refused_for_what_it_is() {
    for (content, says) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"[..],
            "it is a Git LFS pointer",
        ),
        (b"\xef\xbb\xbf <HTML>not found", "it is an HTML page"),
        (b"", "it is empty"),
        (b"abc", "it has 3 bytes and no header"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "it is a GGUF file"),
    ] {
        for name in ["model.safetensors", "d/MODEL.SAFETENSORS"] {
            let (hub, volume) =
                (FakeHub::serving(REPO, tree(&[]).with(name, content)), Volume::new());
            let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(12);
            let line = run.last_line();
            let published = format!(
                "`{name}` is what the source published, but it is not valid safetensors: {says}"
            );
            assert!(line.contains(&published), "{line}");
            assert!(line.contains(&format!("; add --exclude '{name}'")), "{line}");
        }
    }
}

/// A shard of no bytes is there for the index, and is no safetensors.
#[test]
fn an_empty_shard_is_refused_before_the_others_are_fetched() {
    let tree = tree(&[ONE]).with(TWO, "").with(INDEX, index_of(BOTH));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(12);
    assert!(run.last_line().contains("it is empty"), "{}", run.stderr);
    assert_eq!(requests_for_weights(&hub), 0);
}
