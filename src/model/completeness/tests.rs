use super::*;

fn files(paths: &[&str]) -> Vec<RemoteFile> {
    let file = |path: &&str| RemoteFile {
        path: RelPath::parse(path).expect(path),
        size: u64::from(!path.starts_with("empty")),
        digest: None,
        validator: None,
        xet_hash: None,
    };
    paths.iter().map(file).collect()
}

/// What comes out where the source holds `paths` and `indexes` with the shards that they name, and
/// the user excludes what matches `exclude`.
fn findings(paths: &[&str], indexes: &[(&str, &[&str])], exclude: &[&str]) -> Findings {
    let selection = Selection {
        exclude: exclude.iter().map(|pattern| (*pattern).to_owned()).collect(),
        ..Selection::default()
    };
    let all: Vec<&str> = paths.iter().copied().chain(indexes.iter().map(|it| it.0)).collect();
    let (left_out, selected): (Vec<&str>, Vec<&str>) =
        all.into_iter().partition(|path| selection.left_out_by_name(path).is_some());
    let left_out: Vec<LeftOut> = left_out
        .into_iter()
        .map(|path| LeftOut { path: path.to_owned(), size: 1, why: "excluded".to_owned() })
        .collect();
    let selected = files(&selected);
    let mut all = Completeness::new(&selected, &left_out, &selection);
    for (path, names) in
        indexes.iter().filter(|index| selection.left_out_by_name(index.0).is_none())
    {
        let path = RelPath::parse(path).expect(path);
        let mut shards = Shards::default();
        for name in *names {
            let full = join(path.parent().unwrap_or(""), name);
            if shards.see(&all, &path, Ok(&full)) == Ok(true) {
                shards.listed.insert((*name).to_owned());
            }
        }
        all.add_index(&path, &shards);
    }
    all.findings()
}

const FINE: &str = "";

/// `12 …` for a failure that says so, `warns …`, or nothing at all.
#[track_caller]
fn assert_comes_out(paths: &[&str], indexes: &[(&str, &[&str])], exclude: &[&str], expected: &str) {
    let found = findings(paths, indexes, exclude);
    let case = format!("{paths:?} {indexes:?} {exclude:?}: {found:?}");
    let (kind, says) = expected.split_once(' ').unwrap_or((expected, ""));
    match kind {
        "" => assert_eq!(found, Findings::default(), "{case}"),
        "12" => assert!(found.failure.is_some_and(|it| it.to_string().contains(says)), "{case}"),
        _ => {
            assert_eq!(found.failure, None, "{case}");
            assert!(found.warnings.iter().any(|it| it.contains(says)), "{case}");
        }
    }
}

const INDEX: &str = "model.safetensors.index.json";
const OF_BIN: &str = "pytorch_model.bin.index.json";
const ONE: &str = "model-00001-of-00002.safetensors";
const TWO: &str = "model-00002-of-00002.safetensors";
const BOTH: &[&str] = &[ONE, TWO];
const OF_THREE: &[&str] = &[
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
];
const BINS: &[&str] = &["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];

#[test]
fn what_an_index_names_must_be_there() {
    for (paths, exclude, expected) in [
        (BOTH, &[][..], FINE),
        (
            &[ONE],
            &[],
            "12 names `model-00002-of-00002.safetensors`, which the source does not hold",
        ),
        (&[ONE], &[], "12 add --exclude 'model.safetensors.index.json'"),
        (&["config.json"], &[], "12 names `model-00001-of-00002.safetensors`, `model-00002"),
        // A pattern that has nothing to do with it changes nothing.
        (&[ONE, "README.md"], &["*.md"], "12 the model is incomplete"),
        (&[ONE], &["nothing"], "12 the model is incomplete"),
        // The user has chosen.
        (
            BOTH,
            &["*-00002-*"],
            "warns `model-00002-of-00002.safetensors`, which the selection leaves",
        ),
        (&[ONE], &["*-00002-*"], "warns does not hold and the selection leaves out"),
        (&[ONE], &[INDEX], "warns the selection leaves out its index"),
        (&["pytorch_model.bin", ONE], &["*.safetensors"], "warns the selection leaves out"),
    ] {
        assert_comes_out(paths, &[(INDEX, BOTH)], exclude, expected);
    }
}

#[test]
fn an_index_of_another_build_is_a_warning_where_something_else_is_whole() {
    let cases: &[(&[&str], &str)] = &[
        (BOTH, "warns `model-*-of-00002.safetensors` next to it is complete"),
        (
            &["model-00000-of-00002.safetensors", "model-00001-of-00002.safetensors"],
            "warns complete",
        ),
        (&["model.safetensors"], "warns `model.safetensors` next to it is complete"),
        (&["model-Q4_K_M.gguf"], "warns is complete"),
        (&["gptq_model-4bit.safetensors"], "warns is complete"),
        (&["pytorch_model.bin"], "warns `pytorch_model.bin` next to it is complete"),
        (BINS, "warns `pytorch_model-*-of-00002.bin` next to it is complete"),
        (&["consolidated.safetensors"], "warns is complete"),
        (&[OF_THREE[0], "model.safetensors"], "warns `model.safetensors` next to it is complete"),
        (
            &[OF_THREE[0], BOTH[0], BOTH[1]],
            "warns `model-*-of-00002.safetensors` next to it is complete",
        ),
        // Some of the index is there: loaders take that first.
        (&[OF_THREE[0], "pytorch_model.bin"], "12 names `model-00002-of-00003.safetensors`"),
        (&[OF_THREE[0], "model.fp16.safetensors"], "12 names"),
        (&[OF_THREE[0], "consolidated.safetensors"], "12 names"),
        // What is no model of its own does not help.
        (&["adapter_model.safetensors"], "12 names"),
        (&["training_args.bin", "optimizer.pt", "conds.pt"], "12 names"),
        (&["pytorch_model-00001-of-00002.bin"], "12 names"),
        (&["empty.safetensors"], "12 names"),
        (&["sub/model.safetensors"], "12 names"),
    ];
    for (paths, expected) in cases {
        assert_comes_out(paths, &[(INDEX, OF_THREE)], &[], expected);
    }
    // A whole file that the index itself names with others is a part of the model.
    let named = ["model.safetensors", "extra.safetensors"];
    assert_comes_out(
        &["model.safetensors"],
        &[(INDEX, &named)],
        &[],
        "12 names `extra.safetensors`",
    );
    let more = [ONE, TWO, "mtp.safetensors"];
    assert_comes_out(BOTH, &[(INDEX, &more)], &[], "12 names `mtp.safetensors`");
    // What is not selected does not help.
    let paths = ["a.json", "pytorch_model.bin"];
    assert_comes_out(&paths, &[(INDEX, BOTH)], &["*.bin"], "12 names");
}

#[test]
fn of_two_indexes_one_that_is_whole_is_enough() {
    let layers = ["layers-a.safetensors", "layers-b.safetensors"];
    for (paths, expected) in [
        (&layers[..], "warns `pytorch_model.bin.index.json` names"),
        (&layers[..1], "12 `model.safetensors.index.json` names `layers-b.safetensors`"),
        (BINS, "warns `model.safetensors.index.json` names"),
    ] {
        assert_comes_out(paths, &[(INDEX, &layers), (OF_BIN, BINS)], &[], expected);
        assert_comes_out(paths, &[(OF_BIN, BINS), (INDEX, &layers)], &[], expected);
    }
}

#[test]
fn an_index_is_asked_for_its_own_directory() {
    let index = "text_encoder/model.safetensors.index.json";
    let below = [
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
    ];
    assert_comes_out(&below, &[(index, BOTH)], &[], FINE);
    assert_comes_out(
        BOTH,
        &[(index, BOTH)],
        &[],
        "12 `text_encoder/model.safetensors.index.json` names `text_encoder/",
    );
    assert_comes_out(
        &below[..1],
        &[(index, BOTH)],
        &[],
        "12 --exclude 'text_encoder/model.safetensors.index.json'",
    );
    let inside =
        ["shards/model-00001-of-00002.safetensors", "shards/model-00002-of-00002.safetensors"];
    assert_comes_out(&inside, &[(INDEX, &inside)], &[], FINE);
    assert_comes_out(&inside[..1], &[(INDEX, &inside)], &[], "12 names `shards/model-00002");
    // An index knows better than the numbers.
    assert_comes_out(&inside[..1], &[(INDEX, &inside[..1])], &[], FINE);
}

#[test]
fn numbers_without_an_index_must_be_all_there() {
    let gguf = ["q-00001-of-00003.gguf", "q-00002-of-00003.gguf", "q-00003-of-00003.gguf"];
    let cases: &[(&[&str], &[&str], &str)] = &[
        (BOTH, &[], FINE),
        (&["x-00000-of-00001.safetensors"], &[], FINE),
        (&gguf, &[], FINE),
        (&gguf[..2], &[], "12 not `q-00003-of-00003.gguf`"),
        (
            &gguf[..2],
            &[],
            "12 add --exclude 'q-*-of-00003.gguf' to leave this set out, or --exclude 'q-00003-of-00003.gguf' to take",
        ),
        (&gguf[..1], &[], "12 not `q-00002-of-00003.gguf`, `q-00003-of-00003.gguf`"),
        (&gguf[..2], &["*.md"], "12 the model is incomplete"),
        (&gguf[..2], &["q-00003*"], "warns the selection leaves out `q-00003-of-00003.gguf`"),
        (&gguf, &["q-00003*"], "warns the selection leaves out `q-00003-of-00003.gguf`"),
        (&gguf[..2], &["q-*-of-00003.gguf"], FINE),
        (&[gguf[0], "other.gguf"], &[], "warns `other.gguf` next to it is complete"),
        (&[gguf[0], "d/other.gguf"], &[], "12 the model is incomplete"),
        (&["d/q[1]-1-of-2.gguf"], &[], "12 --exclude 'd/q[[]1]-*-of-2.gguf'"),
        (&["M.Q6_K.gguf.part1of2"], &[], "12 `M.Q6_K.gguf.part2of2`"),
        (&["pytorch_model-00002-of-00002.bin"], &[], "12 `pytorch_model-00001-of-00002.bin`"),
        (&["tf_model-00001-of-00002.h5"], &[], "12 incomplete"),
        (&["tf_model-00001-of-00002.h5", "model.safetensors"], &[], "warns is complete"),
        (&["photo-1-of-2.png", "model.gguf"], &[], FINE),
        (&["x-00001-of-99999.bin"], &[], "12 `x-00004-of-99999.bin` and more"),
    ];
    for (paths, exclude, expected) in cases {
        assert_comes_out(paths, &[], exclude, expected);
    }
}

#[test]
fn an_empty_file_is_no_safetensors() {
    assert_comes_out(
        &["empty.safetensors"],
        &[],
        &[],
        "12 it is empty; add --exclude 'empty.safetensors' to do without it",
    );
    assert_comes_out(&["empty.bin", "empty.json"], &[], &[], FINE);
}

#[test]
fn many_warnings_are_counted() {
    let paths: Vec<String> =
        (0..50).map(|n| format!("m{n}-1-of-2.gguf")).chain(["whole.gguf".to_owned()]).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let found = findings(&paths, &[], &[]);
    assert_eq!((found.failure, found.warnings.len(), found.more_warnings), (None, 10, 40));
}
