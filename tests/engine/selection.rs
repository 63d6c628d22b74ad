//! Which files are fetched, what is said of the others, and what a wrong choice is told.

use std::collections::BTreeSet;

use crate::support::*;
use serde_json::Value;
use weightlift_fakes::{Blob, FakeHub, FakeS3, Fault, Rule, Tree};

/// A repo, the options, and which of its files are not published; all others are.
struct Row {
    files: &'static str,
    options: &'static [&'static str],
    not: &'static str,
}

const fn row(files: &'static str, not: &'static str) -> Row {
    Row { files, options: &[], not }
}

const SET: &str = "model-00001-of-00002.safetensors model-00002-of-00002.safetensors";

/// Also of one set each: `SET` stands for its shards.
const ROWS: &[Row] = &[
    // An --exclude decides first.
    Row {
        files: "config.json model.safetensors pytorch_model.bin",
        options: &["--exclude", "*.safetensors"],
        not: "model.safetensors",
    },
    row("config.json model.safetensors pytorch_model.bin", "pytorch_model.bin"),
    Row {
        files: "model.fp16.safetensors pytorch_model.bin",
        options: &["--exclude", "*fp16*"],
        not: "model.fp16.safetensors",
    },
    Row {
        files: "SET config.json pytorch_model.bin onnx/model.onnx",
        options: &["--exclude", "*-00002-*"],
        not: "model-00002-of-00002.safetensors",
    },
    // A variant stands only for itself.
    row("model.fp16.safetensors pytorch_model.bin", ""),
    row("unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.bin", ""),
    row("model.fp16.safetensors pytorch_model.fp16.bin tf_model.h5", "pytorch_model.fp16.bin"),
    row(
        "u/diffusion_pytorch_model-00001-of-00001.fp16.safetensors u/diffusion_pytorch_model.fp16.bin",
        "u/diffusion_pytorch_model.fp16.bin",
    ),
    // The same stem, or the same family of stems.
    row(
        "model.safetensors pytorch_model.bin sparse_linear.pt colbert_linear.pt",
        "pytorch_model.bin",
    ),
    row(
        "SET pytorch_model-00001-of-00001.bin pytorch_model.bin.index.json tf_model.h5 flax_model.msgpack rust_model.ot",
        "pytorch_model-00001-of-00001.bin pytorch_model.bin.index.json tf_model.h5 flax_model.msgpack rust_model.ot",
    ),
    row("ve.safetensors ve.pt conds.pt", "ve.pt"),
    row("pytorch_lora_weights.safetensors pytorch_model.bin", ""),
    row("adapter_model.safetensors adapter_model.bin pytorch_model.bin", "adapter_model.bin"),
    row("model.safetensors 2_Dense/pytorch_model.bin 1_Pooling/config.json", ""),
    row("model.safetensors model.onnx", ""),
    row("xl_1.0.safetensors unet/diffusion_pytorch_model.safetensors xl_1.0_vae.ckpt", ""),
    row("model.safetensors PYTORCH_MODEL.BIN pytorch_model.BIN", "pytorch_model.BIN"),
    // GGUF is for others.
    row("vae.safetensors model-Q4_K_M.gguf", ""),
    row("model.safetensors model.gguf", ""),
    // Complete by its own numbers.
    row("model-00001-of-00002.safetensors pytorch_model.bin consolidated.safetensors", ""),
    row(
        "model-00000-of-00002.safetensors model-00001-of-00002.safetensors pytorch_model.bin",
        "pytorch_model.bin",
    ),
    row("SET model.safetensors pytorch_model.bin", "pytorch_model.bin"),
    row(
        "model.safetensors-00001-of-00001.safetensors pytorch_model.bin-00001-of-00001.bin",
        "pytorch_model.bin-00001-of-00001.bin",
    ),
    // Directories that repeat the model beside them.
    row(
        "SET original/model.safetensors metal/model.bin",
        "original/model.safetensors metal/model.bin",
    ),
    row("model.safetensors original/tokenizer.model", ""),
    row(
        "model.safetensors onnx/model.onnx onnx/model.onnx_data onnx/config.json",
        "onnx/model.onnx onnx/model.onnx_data",
    ),
    row(
        "model.safetensors openvino/openvino_model.bin openvino/openvino_model.xml openvino/openvino_tokenizer.bin",
        "openvino/openvino_model.bin openvino/openvino_model.xml",
    ),
    row("pytorch_model.bin onnx/model.onnx original/consolidated.00.pth", ""),
    row("vae/model.safetensors onnx/model.onnx", ""),
    // Mistral's layout.
    row("SET consolidated.safetensors params.json", "consolidated.safetensors"),
    row("consolidated.safetensors params.json", ""),
    row("SET consolidated-00001-of-00001.safetensors", "consolidated-00001-of-00001.safetensors"),
    row("model.fp16.safetensors consolidated.safetensors", ""),
    // Training state, where it is certain.
    row(
        "model.safetensors optimizer.pt rng_state_0.pth scheduler.pt training_args.bin checkpoint-5/model.safetensors checkpoint-5/config.json runs/a/events.out.tfevents.1",
        "optimizer.pt rng_state_0.pth scheduler.pt training_args.bin checkpoint-5/model.safetensors checkpoint-5/config.json runs/a/events.out.tfevents.1",
    ),
    row("checkpoint-5/model.safetensors checkpoint-5/optimizer.pt", "checkpoint-5/optimizer.pt"),
    row("model.safetensors scheduler.pt scheduler/scheduler_config.json runs/notes.txt", ""),
    // What is named is taken, whatever it is.
    Row {
        files: "model.safetensors pytorch_model.bin optimizer.pt config.json",
        options: &["--include", "*.bin,optimizer*"],
        not: "model.safetensors config.json",
    },
    Row {
        files: "model.safetensors pytorch_model.bin optimizer.pt onnx/model.onnx checkpoint-5/x.bin",
        options: &["--all"],
        not: "",
    },
    Row {
        files: "model.safetensors pytorch_model.bin optimizer.pt",
        options: &["--all", "--exclude", "opt*"],
        not: "optimizer.pt",
    },
];

/// Files of `names`, valid where that matters, no two with the same bytes.
fn tree(names: &str) -> Tree {
    let names = names.replace("SET", SET);
    names.split_whitespace().fold(Tree::new(), |tree, name| tree.with(name, content(name)))
}

fn content(name: &str) -> Vec<u8> {
    if name.ends_with(".safetensors") {
        let header = format!("{{\"__metadata__\":{{\"name\":\"{name}\"}}}}");
        return [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    }
    if name.ends_with(".index.json") {
        return br#"{"weight_map": {}}"#.to_vec();
    }
    format!("the bytes of {name}").into_bytes()
}

fn without(tree: &Tree, names: &str) -> Tree {
    names.split_whitespace().fold(tree.clone(), |tree, name| {
        assert!(tree.blob(name).is_some(), "{name} is not in the row");
        tree.without(name)
    })
}

#[test]
fn of_a_repo_everything_is_published_but_what_other_files_hold_as_well() {
    for Row { files, options, not } in ROWS {
        eprintln!("{files} {options:?}");
        let all = tree(files);
        let (hub, volume) = (FakeHub::serving(REPO, all.clone()), Volume::new());
        let arguments = [&["hf://org/tiny"], *options].concat();
        let run = fetch(&hub, &volume, &arguments).run().assert_success();
        volume.assert_holds("tiny", &without(&all, not));
        // More than five are counted.
        for name in not.split_whitespace().filter(|_| not.split_whitespace().count() <= 5) {
            run.assert_names(name);
        }
    }
}

#[test]
fn of_a_prefix_the_same_is_published() {
    for Row { files, options, not } in ROWS {
        eprintln!("{files} {options:?}");
        let all = tree(files);
        let mut s3 = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
        for (path, blob) in all.iter() {
            s3 = s3.object("models", &format!("tiny/{path}"), blob.clone());
        }
        let (s3, volume) = (s3.start(), Volume::new());
        let arguments = [&["s3://models/tiny/"], *options].concat();
        fetch_s3(&s3, &volume, &arguments).run().assert_success();
        volume.assert_holds("tiny", &without(&all, not));
    }
}

impl Run {
    /// Fails unless the log names `file` with its size as one that is left out.
    #[track_caller]
    fn assert_names(&self, file: &str) {
        let size = content(file).len();
        let named = format!("`{file}` ({size} B)");
        let found =
            self.stderr.lines().any(|line| line.starts_with("left out, ") && line.contains(&named));
        assert!(found, "{named} is not in: {}", self.stderr);
    }
}

#[test]
fn what_is_far_too_small_to_hold_the_weights_stands_for_nothing() {
    let pointer = content("model.safetensors");
    let tree = Tree::new()
        .with("model.safetensors", pointer)
        .with_blob("pytorch_model.bin", Blob::synthetic(2 << 20, 1));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &tree);
    // A file without a byte is none: what is said of it names the way out, and that way leads somewhere.
    let tree = tree.with("model.safetensors", "");
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny", "--exclude", "model.safetensors"])
        .run()
        .assert_success();
    volume.assert_holds("tiny", &tree.without("model.safetensors"));
}

#[test]
fn what_is_left_out_is_named_in_the_log_in_json_and_in_the_sentinel() {
    let all = tree(
        "model.safetensors onnx/a.onnx onnx/b.onnx onnx/c.onnx onnx/d.onnx onnx/e.onnx onnx/f.onnx \
         onnx/g.onnx optimizer.pt README.md",
    );
    let all = all.with_blob("onnx/g.onnx", Blob::synthetic(1_500, 1));
    let (hub, volume) = (FakeHub::serving(REPO, all), Volume::new());
    let arguments = ["hf://org/tiny", "--exclude", "*.md", "--output", "json"];
    let mut told = Vec::new();
    for status in ["fetched", "present"] {
        let run = fetch(&hub, &volume, &arguments).run().assert_success();
        let facts: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(facts["status"], status);
        told.push(facts["left_out"].clone());
        if status == "fetched" {
            let line = |start: &str| {
                let found = run.stderr.lines().find(|line| line.starts_with(start));
                found.unwrap_or_else(|| panic!("no `{start}` in {}", run.stderr)).to_owned()
            };
            let duplicates = line("left out, duplicate format: `onnx/g.onnx` (1.5 kB), ");
            assert_eq!(duplicates.matches(".onnx` (").count(), 5, "{duplicates}");
            assert!(duplicates.ends_with(", and 2 more"), "{duplicates}");
            let size = content("optimizer.pt").len();
            assert_eq!(
                line("left out, training"),
                format!("left out, training state: `optimizer.pt` ({size} B)")
            );
            assert!(line("left out, excluded").contains("`README.md`"));
            assert!(line("fetching").contains("left out: 1 file"), "{}", run.stderr);
        }
    }
    let json = std::fs::read(volume.family("tiny/.weightlift-complete.json")).unwrap();
    let sentinel: Value = serde_json::from_slice(&json).unwrap();
    told.push(sentinel["left_out"].clone());
    for left_out in told {
        let reasons: BTreeSet<(String, u64, String)> = left_out
            .as_array()
            .unwrap()
            .iter()
            .map(|file| {
                let text = |key: &str| file[key].as_str().unwrap().to_owned();
                (text("path"), file["size"].as_u64().unwrap(), text("why"))
            })
            .collect();
        assert_eq!(reasons.len(), 9, "{left_out}");
        let of =
            |path: &str, size: u64, why: &str| reasons.contains(&(path.into(), size, why.into()));
        assert!(of("onnx/g.onnx", 1_500, "duplicate format"), "{left_out}");
        assert!(of("optimizer.pt", content("optimizer.pt").len() as u64, "training state"));
        assert!(of("README.md", content("README.md").len() as u64, "excluded"));
    }
}

#[test]
fn a_file_that_can_run_code_is_named_only_where_it_is_fetched() {
    let (hub, volume) = (
        FakeHub::serving(REPO, tree("model.safetensors pytorch_model.bin conds.pt")),
        Volume::new(),
    );
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert!(run.stderr.contains("`conds.pt` can run code"), "{}", run.stderr);
    let run = fetch(&hub, &volume, &["hf://org/tiny", "b", "--deny-pickle"]).run().assert_code(13);
    assert!(run.last_line().contains("`conds.pt`"), "{}", run.stderr);
    let without = ["hf://org/tiny", "c", "--deny-pickle", "--exclude", "conds.pt"];
    fetch(&hub, &volume, &without).run().assert_success();
    // The rule sees what the patterns have left, and so does the refusal.
    let without = ["hf://org/tiny", "d", "--deny-pickle", "--exclude", "*.safetensors,conds.pt"];
    let run = fetch(&hub, &volume, &without).run().assert_code(13);
    assert!(run.last_line().contains("`pytorch_model.bin`"), "{}", run.stderr);
}

#[test]
fn a_pattern_that_matches_nothing_is_said_and_changes_nothing() {
    let all = tree("model.safetensors pytorch_model.bin onnx/model.onnx");
    let (hub, volume) = (FakeHub::serving(REPO, all.clone()), Volume::new());
    let published = without(&all, "pytorch_model.bin onnx/model.onnx");
    let exclude = ["hf://org/tiny", "a", "--exclude", "*.md"];
    let run = fetch(&hub, &volume, &exclude).run().assert_success();
    assert!(run.stderr.contains("warning: `--exclude '*.md'` matches nothing\n"), "{}", run.stderr);
    volume.assert_holds("a", &published);
    // Of several, those that match nothing.
    let include = ["hf://org/tiny", "b", "--include", "model.*,*.nope", "--exclude", "onnx"];
    let run = fetch(&hub, &volume, &include).run().assert_success();
    assert!(run.stderr.contains("`--include '*.nope'` matches nothing\n"), "{}", run.stderr);
    assert!(
        run.stderr.contains("`--exclude 'onnx'` matches nothing; write `onnx/`"),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains("'model.*'"), "{}", run.stderr);
    let none = ["hf://org/tiny", "c", "--include", "*.nope"];
    let run = fetch(&hub, &volume, &none).run().assert_code(2);
    assert!(run.last_line().contains("`--include '*.nope'` matches nothing"), "{}", run.stderr);
    let run = fetch(&hub, &volume, &["hf://org/tiny", "d"]).run().assert_success();
    assert!(!run.stderr.contains("matches nothing"), "{}", run.stderr);
}

#[test]
fn a_selection_without_any_weights_is_said() {
    let all = tree("config.json model.safetensors a/b.gguf");
    let (hub, volume) = (FakeHub::serving(REPO, all), Volume::new());
    let warning = "warning: no file that looks like weights is selected, and the source has";
    for (n, options) in [
        &["--exclude", "*.safetensors,*.gguf"][..],
        &["--include", "*.json"],
        &["--all", "--include", "config.json"],
    ]
    .into_iter()
    .enumerate()
    {
        let dest = format!("bare-{n}");
        let arguments = [&["hf://org/tiny", &dest], options].concat();
        fetch(&hub, &volume, &arguments).run().assert_success().assert_says(warning);
    }
    for (n, options) in
        [&[][..], &["--exclude", "*.gguf"], &["--include", "*.gguf"]].into_iter().enumerate()
    {
        let dest = format!("whole-{n}");
        let arguments = [&["hf://org/tiny", &dest], options].concat();
        let run = fetch(&hub, &volume, &arguments).run().assert_success();
        assert!(!run.stderr.contains(warning), "{}", run.stderr);
    }
    let hub = FakeHub::serving(REPO, tree("config.json tokenizer.json"));
    let run = fetch(&hub, &volume, &["hf://org/tiny", "nothing"]).run().assert_success();
    assert!(!run.stderr.contains(warning), "{}", run.stderr);
}

#[test]
fn a_quantisation_in_the_place_of_a_revision_gets_the_include_to_write() {
    let all = tree("m-Q4_K_M.gguf README.md");
    let hub = FakeHub::serving(REPO, all.clone());
    let volume = Volume::new();
    for word in ["Q4_K_M", "IQ3_XXS", "Q8_0", "F16", "BF16", "UD-Q4_K_XL", "MXFP4", "q4_k_m"] {
        for separator in [':', '@'] {
            let run = fetch(&hub, &volume, &[&format!("hf://org/tiny{separator}{word}")]).run();
            let hint = format!("`hf://org/tiny --include '*{word}*'`");
            assert!(run.last_line().contains(&hint), "{}", run.stderr);
            run.assert_code(10);
        }
    }
    for word in ["v1.0", "nope", "Q9", "refs/pr/7"] {
        let run = fetch(&hub, &volume, &[&format!("hf://org/tiny:{word}")]).run().assert_code(10);
        assert!(!run.stderr.contains("--include"), "{}", run.stderr);
    }
    // A mirror that says no more than 404.
    hub.script(Rule::on("GET", "/revision/").once().then(Fault::status(404)));
    let run = fetch(&hub, &volume, &["hf://org/tiny:Q4_K_M"]).run().assert_code(10);
    assert!(run.last_line().contains("--include '*Q4_K_M*'"), "{}", run.stderr);
    // KServe's way goes on to work, and a branch may have such a name.
    for branch in ["v1.0", "Q4_K_M"] {
        hub.move_branch(REPO, branch, all.clone());
        fetch(&hub, &volume, &[&format!("hf://org/tiny:{branch}"), branch]).run().assert_success();
        volume.assert_holds(branch, &all);
    }
    let run = fetch(&hub, &volume, &["hf://org/tiny/m-Q4_K_M.gguf"]).run().assert_code(2);
    assert!(run.last_line().contains("choose files with `--include`"), "{}", run.stderr);
}

#[test]
fn many_quantisations_are_fetched_with_a_line_on_how_to_choose() {
    let sizes = [
        ("config.json", 10),
        ("m-Q2_K.gguf", 20_000),
        ("Q4_K_M/m-Q4_K_M-00001-of-00002.gguf", 20_000),
        ("Q4_K_M/m-Q4_K_M-00002-of-00002.gguf", 10_000),
        ("m-Q8_0.gguf", 60_000),
        ("mmproj-m-F16.gguf", 5_000),
        ("imatrix.gguf", 1_000),
    ];
    let of = |sizes: &[(&str, u64)]| {
        sizes.iter().fold(Tree::new(), |tree, (name, size)| {
            tree.with_blob(name, Blob::synthetic(*size, *size))
        })
    };
    let all = of(&sizes);
    let (hub, volume) = (FakeHub::serving(REPO, all.clone()), Volume::new());
    let hints = |run: &Run| -> Vec<String> {
        run.stderr
            .lines()
            .filter(|line| line.contains("quantisations"))
            .map(str::to_owned)
            .collect()
    };
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &all);
    let [hint] = hints(&run).try_into().unwrap();
    for part in [
        "3 quantisations of one model",
        "Q2_K, Q4_K_M, Q8_0",
        "`--include '*Q4_K_M*' --include '*mmproj*'`",
        "saves 81.0 kB",
    ] {
        assert!(hint.contains(part), "{hint}");
    }
    // What it says is what happens.
    let include = ["hf://org/tiny", "one", "--include", "*Q4_K_M*", "--include", "*mmproj*"];
    let run = fetch(&hub, &volume, &include).run().assert_success();
    assert_eq!(hints(&run), [""; 0]);
    let kept: u64 = files_below(&volume.family("one")).values().map(|file| file.len() as u64).sum();
    assert_eq!(all.total_bytes() - kept, 81_010);
    // Two are a choice that somebody has made.
    let two = ["hf://org/tiny", "two", "--exclude", "*Q2_K*"];
    assert_eq!(hints(&fetch(&hub, &volume, &two).run().assert_success()), [""; 0]);
    for (n, few) in [
        &[("a-Q4_0.gguf", 1), ("b-Q8_0.gguf", 2), ("c-F16.gguf", 3)][..],
        &[
            ("m-Q4_0-00001-of-00003.gguf", 1),
            ("m-Q4_0-00002-of-00003.gguf", 2),
            ("m-Q4_0-00003-of-00003.gguf", 3),
        ],
        &[
            ("m-Q4_0.gguf", 1),
            ("m-F16.gguf", 2),
            ("mmproj-m-F32.gguf", 3),
            ("m-BF16.imatrix.gguf", 4),
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let hub = FakeHub::serving(REPO, of(few));
        let run =
            fetch(&hub, &volume, &["hf://org/tiny", &format!("few-{n}")]).run().assert_success();
        assert_eq!(hints(&run), [""; 0], "{few:?}");
    }
}

#[test]
fn the_help_says_that_include_names_files_whatever_their_format() {
    let mut command = weightlift();
    let run = command.args(["fetch", "--help"]).run().assert_success();
    let words: Vec<&str> = run.stdout.split_whitespace().collect();
    let help = words.join(" ");
    assert!(help.contains("each file that matches, whatever its format"), "{help}");
    assert!(help.contains("and training state"), "{help}");
}

#[test]
fn a_family_from_which_an_earlier_version_left_out_too_much_is_warned_about() {
    let hub = FakeHub::serving(REPO, tree("model.safetensors pytorch_model.bin"));
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    let path = volume.family("tiny/.weightlift-complete.json");
    let mut sentinel: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for name in ["conds.pt", "a.gguf"] {
        let file = serde_json::json!({"path": name, "size": 7, "why": "duplicate format"});
        sentinel["left_out"].as_array_mut().unwrap().push(file);
    }
    std::fs::write(&path, sentinel.to_string()).unwrap();
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let warning = "warning: `conds.pt` (7 B) and 1 more is missing in `";
    assert!(run.stderr.starts_with(warning), "{}", run.stderr);
}
