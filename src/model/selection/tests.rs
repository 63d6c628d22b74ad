use super::*;
use crate::model::{RelPath, Snapshot};

/// Files of these names and sizes, as a snapshot sorts them.
pub(super) fn sized(files: &[(&str, u64)]) -> Vec<RemoteFile> {
    let files = files.iter().map(|(path, size)| RemoteFile {
        path: RelPath::parse(path).expect(path),
        size: *size,
        digest: None,
        validator: None,
        xet_hash: None,
    });
    Snapshot::new("hf://a/b".into(), "c".into(), files.collect(), Vec::new()).files
}

pub(super) fn files(paths: &[&str]) -> Vec<RemoteFile> {
    sized(&paths.iter().map(|path| (*path, 1_000)).collect::<Vec<_>>())
}

fn selection(include: &[&str], exclude: &[&str]) -> Selection {
    let owned = |patterns: &[&str]| patterns.iter().map(|it| (*it).to_owned()).collect();
    Selection { include: owned(include), exclude: owned(exclude), all: false }
}

/// The paths that `selection` leaves out of `files` by itself, not by a pattern, with the reason.
#[track_caller]
fn left_out(selection: &Selection, files: Vec<RemoteFile>) -> Vec<(String, String)> {
    let count = files.len();
    let selected = selection.apply(files, Vec::new()).expect("something is selected");
    assert_eq!(selected.files.len() + selected.left_out.len(), count);
    let by_default = selected.left_out.into_iter().filter(|file| LeftOut::is_by_default(&file.why));
    by_default.map(|file| (file.path, file.why)).collect()
}

/// Fails unless exactly `duplicates` are left out of `paths`, in a plain selection.
#[track_caller]
fn check(paths: &[&str], duplicates: &[&str]) {
    check_without(&[], paths, duplicates);
}

#[track_caller]
fn check_without(exclude: &[&str], paths: &[&str], duplicates: &[&str]) {
    check_reason(LeftOut::DUPLICATE, exclude, paths, duplicates);
}

#[track_caller]
fn check_reason(reason: &str, exclude: &[&str], paths: &[&str], expected: &[&str]) {
    let found = left_out(&selection(&[], exclude), files(paths));
    let mut expected: Vec<_> =
        expected.iter().map(|path| ((*path).to_owned(), reason.to_owned())).collect();
    let mut sorted = found;
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected, "{paths:?} without {exclude:?}");
}

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

/// `more` beside a complete sharded set.
fn beside_shards<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SHARDS, more].concat()
}

#[test]
fn a_file_is_a_duplicate_only_of_the_same_weights_in_safetensors() {
    let top = "model.safetensors";
    check(&[top, "pytorch_model.bin", "config.json"], &["pytorch_model.bin"]);
    for other in [
        "pytorch_model.BIN",
        "tf_model.h5",
        "flax_model.msgpack",
        "rust_model.ot",
        "model.bin",
        "model.pt",
        "pytorch_model.pth",
        "model.ckpt",
    ] {
        check(&[top, other], &[other]);
        check(&beside_shards(&[other]), &[other]);
    }
    for needed in [
        "sparse_linear.pt",
        "pytorch_model.fp16.bin",
        "pytorch_model_v2.bin",
        "model-Q4_K_M.gguf",
        "model.gguf",
        "model.onnx",
        "openvino_model.bin",
        "adapter_model.bin",
        "pytorch_lora_weights.bin",
        "2_Dense/pytorch_model.bin",
        "tokenizer.model",
        "vocab.bin",
        "diffusion_pytorch_model.bin",
        "pytorch_model.bin.part1",
        "gptq_model-4bit-128g.bin",
        "model.fp16.safetensors",
        "model-00001-of-00002.safetensors",
        "model.weights.h5",
        "fp16/pytorch_model.bin",
        "unet/pytorch_model.bin",
    ] {
        check(&[top, needed], &[]);
    }
    let beside = [top, "pytorch_model-00001-of-00003.bin", "pytorch_model-00003-of-00003.bin"];
    check(&beside, &beside[1..]);
}

#[test]
fn what_stands_for_it_is_complete_and_found_by_loaders() {
    for short in [
        &["model-00001-of-00002.safetensors"][..],
        &["model-00000-of-00003.safetensors", "model-00001-of-00003.safetensors"],
        &["model.fp16.safetensors"],
        &["pytorch_model.safetensors"],
        &["model.SAFETENSORS"],
        &["adapter_model.safetensors"],
        &["gptq_model-4bit-128g.safetensors"],
        &["a/model.safetensors"],
        &["vae.safetensors"],
    ] {
        check(&[short, &["pytorch_model.bin", "onnx/model.onnx"]].concat(), &[]);
    }
    let from_zero = ["model-00000-of-00002.safetensors", "model-00001-of-00002.safetensors"];
    check(&[&from_zero[..], &["pytorch_model.bin"]].concat(), &["pytorch_model.bin"]);
    // A set and a single file: the same format, so both stay.
    check(&beside_shards(&["model.safetensors", "pytorch_model.bin"]), &["pytorch_model.bin"]);
    check(&["model-1-of-2.safetensors", "model.safetensors", "model.bin"], &["model.bin"]);
}

#[test]
fn a_variant_stands_only_for_itself() {
    let fp16 = "model.fp16.safetensors";
    check(&[fp16, "pytorch_model.bin"], &[]);
    check(&[fp16, "pytorch_model.fp16.bin", "pytorch_model.bf16.bin"], &["pytorch_model.fp16.bin"]);
    let unet = "unet/diffusion_pytorch_model.fp16.safetensors";
    check(&[unet, "unet/diffusion_pytorch_model.bin"], &[]);
    let legacy = [
        "u/diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
        "u/diffusion_pytorch_model-00002-of-00002.fp16.safetensors",
    ];
    let bin = "u/diffusion_pytorch_model.fp16.bin";
    check(&[&legacy[..], &[bin]].concat(), &[bin]);
    let both = ["u/diffusion_pytorch_model.safetensors", "u/diffusion_pytorch_model.non_ema.bin"];
    check(&both, &[]);
    let flax = "u/diffusion_flax_model.msgpack";
    check(&["u/diffusion_pytorch_model.safetensors", flax], &[flax]);
}

#[test]
fn an_unknown_stem_stands_only_for_itself() {
    check(&["ve.safetensors", "ve.pt", "conds.pt"], &["ve.pt"]);
    check(&["sd_xl_base_1.0.safetensors", "sd_xl_base_1.0.ckpt"], &["sd_xl_base_1.0.ckpt"]);
    check(&["pytorch_lora_weights.safetensors", "pytorch_model.bin"], &[]);
    check(&["adapter_model.safetensors", "adapter_model.bin"], &["adapter_model.bin"]);
    check(&["t5.fp16.safetensors", "t5.bin"], &[]);
    let sharded = ["x-1-of-2.safetensors", "x-2-of-2.safetensors", "x-1-of-1.bin"];
    check(&sharded, &["x-1-of-1.bin"]);
    // Where numbers tell no count, every file of the series needs its counterpart.
    check(&["w-0.safetensors", "w-0.bin", "w-1.bin"], &[]);
    let whole = ["w-0.safetensors", "w-1.safetensors", "w-0.bin", "w-1.bin"];
    check(&whole, &["w-0.bin", "w-1.bin"]);
    check(&["a1.safetensors", "a1.pt", "a2.pt"], &["a1.pt"]);
    // Everything of a single-file checkpoint beside a pipeline.
    check(&["xl.safetensors", "unet/diffusion_pytorch_model.safetensors", "vae/model.onnx"], &[]);
    // CTranslate2's own weights have the name of PyTorch's.
    check(&["model.safetensors", "model.bin", "vocabulary.json"], &[]);
}

#[test]
fn an_index_goes_with_the_set_that_it_describes() {
    let bin = "pytorch_model.bin.index.json";
    check(&beside_shards(&["model.safetensors.index.json", bin]), &[bin]);
    let shard = "pytorch_model-00001-of-00001.bin";
    check(&beside_shards(&[bin, shard]), &[bin, shard]);
    check(&[bin, shard, "model.safetensors.index.json"], &[]);
    check(&[SHARDS[0], bin, shard], &[]);
    let of_variant = "model.safetensors.index.fp16.json";
    check(&[of_variant, "model.fp16.safetensors", bin], &[]);
    check(&beside_shards(&["pytorch_model.bin.index.fp16.json"]), &[]);
    let mistral = ["consolidated.safetensors.index.json", "consolidated-1-of-1.safetensors"];
    check(&beside_shards(&mistral), &mistral);
    check(&mistral, &[]);
}

#[test]
fn mistrals_layout_is_a_duplicate_of_the_complete_set_beside_it() {
    let one = "consolidated.safetensors";
    check(&beside_shards(&[one, "params.json", "tekken.json"]), &[one]);
    check(&["model.safetensors", one], &[one]);
    check(
        &beside_shards(&["consolidated.00.pth", "consolidated.01.pth"]),
        &["consolidated.00.pth", "consolidated.01.pth"],
    );
    check(&[one, "params.json"], &[]);
    check(&[SHARDS[0], one], &[]);
    check(&["model.fp16.safetensors", one], &[]);
    check(&["pytorch_model.bin", one], &[]);
    check(&["a/model.safetensors", one], &[]);
    check(&beside_shards(&["consolidated.fp8.safetensors", "consolidated_2.pth"]), &[]);
    check(&[one, "consolidated.pth"], &["consolidated.pth"]);
}

#[test]
fn of_a_directory_that_repeats_a_model_only_the_weights_are_left_out() {
    let weights = [
        "original/model.safetensors",
        "original/model.safetensors.index.json",
        "original/consolidated.00.pth",
        "metal/model.bin",
        "onnx/model.onnx",
        "onnx/model_quantized.onnx",
        "onnx/model.onnx_data",
        "openvino/openvino_model.bin",
        "openvino/openvino_model.xml",
        "coreml/text/model.mlpackage/Manifest.json",
        "coreml/text/model.mlpackage/Data/weights/weight.bin",
        "tf/saved_model.pb",
        "tf/variables/variables.data-00000-of-00001",
        "tf/variables/variables.index",
        "flax/flax_model.msgpack",
        "tflite/model.tflite",
        "ONNX/decoder.onnx",
    ];
    let rest = [
        "original/tokenizer.model",
        "original/params.json",
        "metal/model.gguf",
        "onnx/config.json",
        "onnx/tokenizer.json",
        "openvino/openvino_tokenizer.bin",
        "openvino/openvino_tokenizer.xml",
        "openvino/lonely.xml",
        "tf/assets/vocab.txt",
        "gguf/model.gguf",
        "other/model.onnx",
    ];
    check(&beside_shards(&[&weights[..], &rest].concat()), &weights);
    check(&["model.safetensors", "original/tokenizer.model"], &[]);
    for alone in [
        &["pytorch_model.bin"][..],
        &[SHARDS[0]],
        &["x/model.safetensors"],
        &["xl.safetensors"],
        &["config.json"],
    ] {
        check(&[alone, &["onnx/model.onnx", "original/consolidated.00.pth"]].concat(), &[]);
    }
    let nested = ["unet/model.safetensors", "unet/onnx/model.onnx", "vae/onnx/model.onnx"];
    check(&nested, &["unet/onnx/model.onnx"]);
    // What stands for others is not left out itself.
    let alone = ["original/model.safetensors", "original/model.bin", "original/onnx/model.onnx"];
    check(&alone, &["original/model.bin", "original/onnx/model.onnx"]);
    check(&[&["model.safetensors"], &alone[..]].concat(), &alone);
}

#[test]
fn what_is_far_too_small_to_hold_the_weights_stands_for_nothing() {
    let left_out = |files: &[(&str, u64)]| left_out(&Selection::default(), sized(files)).len();
    let pointer = ("model.safetensors", 134);
    assert_eq!(left_out(&[pointer, ("pytorch_model.bin", 1 << 20)]), 0);
    assert_eq!(left_out(&[pointer, ("onnx/model.onnx", 1 << 20), ("onnx/a.onnx", 9)]), 0);
    assert_eq!(left_out(&[("model.safetensors", 0), ("pytorch_model.bin", 1)]), 0);
    // All shards of a set, or none.
    let shards = [("pytorch_model-1-of-2.bin", 1 << 20), ("pytorch_model-2-of-2.bin", 9)];
    let index = ("pytorch_model.bin.index.json", 9);
    assert_eq!(left_out(&[&[pointer, index], &shards[..]].concat()), 0);
    // In 4 bits beside 32.
    assert_eq!(left_out(&[("model.safetensors", 1 << 20), ("pytorch_model.bin", 9 << 20)]), 1);
}

#[test]
fn the_rule_sees_what_the_patterns_have_left() {
    let both = ["config.json", "model.safetensors", "pytorch_model.bin"];
    check_without(&["*.safetensors"], &both, &[]);
    check_without(&["config.json"], &both, &["pytorch_model.bin"]);
    check_without(&["*00002-of*"], &beside_shards(&["pytorch_model.bin", "onnx/model.onnx"]), &[]);
    check_without(&["model*"], &beside_shards(&["consolidated.safetensors"]), &[]);
    check_without(&["*fp16*"], &["model.fp16.safetensors", "pytorch_model.bin"], &[]);
    let checkpoint = ["model.safetensors", "checkpoint-5/model.safetensors"];
    check_without(&["model.safetensors"], &checkpoint, &[]);
}

#[test]
fn training_state_is_left_out_where_it_is_certain() {
    let check = |paths: &[&str], expected: &[&str]| {
        check_reason(LeftOut::TRAINING_STATE, &[], paths, expected);
    };
    let state = [
        "optimizer.pt",
        "optimizer_1.bin",
        "rng_state.pth",
        "rng_state_0.pth",
        "training_args.bin",
        "scheduler.pt",
        "scaler.pt",
        "random_states_0.pkl",
        "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
        "runs/Jan01/events.out.tfevents.1.host",
        "runs/Jan01/note.txt",
        "checkpoint-500/optimizer.pt",
        "checkpoint-500/model.safetensors",
        "checkpoint-500/config.json",
        "checkpoint-best/trainer_state.json",
        "global_step7/mp_rank_00_model_states.pt",
    ];
    let model = ["model.safetensors", "trainer_state.json", "checkpoint-notes/model.safetensors"];
    check(&[&model, &state[..]].concat(), &state);
    check(&[&["pytorch_model.bin"], &state[..]].concat(), &state);
    // These are names of other things as well.
    check(&["model.safetensors", "scheduler.pt", "scaler.pt", "runs/model.txt"], &[]);
    check(&["model.safetensors", "runs/e.tfevents", "optimizer_notes.pt"], &["runs/e.tfevents"]);
    // A checkpoint that stands alone is the model.
    let alone = ["checkpoint-5/model.safetensors", "checkpoint-5/optimizer.pt", "README.md"];
    check(&alone, &["checkpoint-5/optimizer.pt"]);
    check(&[&[SHARDS[0]], &alone[..]].concat(), &["checkpoint-5/optimizer.pt"]);
    check(&[&["adapter_model.safetensors"], &alone[..]].concat(), &["checkpoint-5/optimizer.pt"]);
    let adapters = ["adapter_model.safetensors", "checkpoint-5/adapter_model.safetensors"];
    check(&adapters, &adapters[1..]);
    check(&["runs/a.tfevents", "runs/model.safetensors"], &[]);
    // Nothing else is there.
    check(&["optimizer.pt", "training_args.bin"], &[]);
}

#[test]
fn a_checkpoint_is_no_counterpart_once_it_is_left_out() {
    let paths = ["pytorch_model.bin", "checkpoint-5/model.safetensors", "checkpoint-5/model.bin"];
    check_reason(LeftOut::TRAINING_STATE, &[], &paths, &paths[1..]);
}

#[test]
fn include_and_all_leave_the_rest_to_the_patterns() {
    let paths = ["model.safetensors", "optimizer.pt", "pytorch_model.bin", "config.json"];
    let kept = |selection: Selection| -> Vec<String> {
        let selected = selection.apply(files(&paths), Vec::new()).expect("some are selected");
        selected.files.iter().map(|file| file.path.to_string()).collect()
    };
    let named = selection(&["*.bin", "*.json", "opt*"], &["config*"]);
    assert_eq!(kept(named), ["optimizer.pt", "pytorch_model.bin"]);
    let all = Selection { all: true, ..selection(&[], &["config*"]) };
    assert_eq!(kept(all), ["model.safetensors", "optimizer.pt", "pytorch_model.bin"]);
}

#[test]
fn a_pattern_that_matches_nothing_is_said() {
    let paths = ["model.safetensors", "onnx/a.json"];
    let warnings = |include: &[&str], exclude: &[&str]| {
        let selected = selection(include, exclude).apply(files(&paths), Vec::new());
        selected.expect("some are selected").warnings
    };
    assert_eq!(warnings(&["model*"], &["*.json"]), [""; 0]);
    assert_eq!(warnings(&[], &["*.md"]), ["`--exclude '*.md'` matches nothing"]);
    assert_eq!(
        warnings(&["*.nope", "*"], &["onnx", "\u{1b}[2J"]),
        [
            "`--include '*.nope'` matches nothing",
            "`--exclude 'onnx'` matches nothing; write `onnx/` for what is in that directory",
            "`--exclude '\\u{1b}[2J'` matches nothing",
        ]
    );
    let refused = selection(&["*.nope"], &[]).apply(files(&paths), Vec::new());
    assert_eq!(
        refused.expect_err("nothing is selected").to_string(),
        "none of the 2 files matches `--include`/`--exclude`; `--include '*.nope'` matches nothing; \
         check the patterns"
    );
}

#[test]
fn a_selection_without_weights_is_said() {
    let paths = ["a.gguf", "b.safetensors", "config.json", "optimizer.pt", "tokenizer.bin"];
    let warnings = |include: &[&str], exclude: &[&str]| {
        let selected = selection(include, exclude).apply(files(&paths), Vec::new());
        selected.expect("some are selected").warnings
    };
    assert_eq!(
        warnings(&["*.json"], &[]),
        [
            "no file that looks like weights is selected, and the source has `a.gguf` and 1 more; check \
          the patterns"
        ]
    );
    assert_eq!(warnings(&[], &["*.safetensors", "*.gguf"]).len(), 1);
    assert_eq!(warnings(&[], &["*.safetensors"]), [""; 0]);
    let without = files(&["config.json", "tokenizer.model"]);
    let selected = selection(&["*.json"], &[]).apply(without, Vec::new()).expect("one");
    assert_eq!(selected.warnings, [""; 0]);
}

#[test]
fn a_name_that_cannot_be_used_is_judged_only_where_it_is_selected() {
    let apply = |exclude: &[&str]| {
        let name = "x/../up.bin".to_owned();
        let why = RelPath::parse(&name).expect_err("leaves its directory");
        let refused = vec![RefusedFile { name, size: 7, why }];
        selection(&[], exclude).apply(files(&["a", "b"]), refused)
    };
    assert!(matches!(apply(&[]), Err(SelectionError::UnsafePath(_))));
    let selected = apply(&["*.bin"]).expect("it is excluded");
    assert_eq!((selected.files.len(), selected.left_out[0].size), (2, 7));
}

#[test]
fn what_a_source_does_not_have_is_missed_unless_the_selection_would_leave_it_out() {
    let there = ["config.json", "model.safetensors"];
    let lacks = |selection: &Selection, there: &[&'static str], absent: &[&'static str]| {
        let there = there.iter().map(|path| (*path, 1_000_000));
        selection.lacks(there, absent).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let plain = selection(&[], &[]);
    let all = Selection { all: true, ..Selection::default() };
    let duplicates = ["onnx/model.onnx", "pytorch_model.bin"];
    assert_eq!(lacks(&plain, &there, &[]), [""; 0]);
    assert_eq!(lacks(&plain, &there, &duplicates), [""; 0]);
    assert_eq!(lacks(&all, &there, &duplicates), duplicates);
    assert_eq!(lacks(&plain, &there, &["tokenizer.json"]), ["tokenizer.json"]);
    assert_eq!(lacks(&selection(&[], &["tok*"]), &there, &["tokenizer.json"]), [""; 0]);
    assert_eq!(lacks(&selection(&["*.safetensors"], &[]), &there, &["tokenizer.json"]), [""; 0]);
    // Weights that are gone are not made good by what would be a duplicate of them.
    let other = ["config.json", "pytorch_model.bin"];
    assert_eq!(lacks(&plain, &other, &["model.safetensors"]), ["model.safetensors"]);
    // What cannot be a file is not left out by a rule.
    assert_eq!(lacks(&plain, &there, &["../x", "a"]), ["../x", "a"]);
}
