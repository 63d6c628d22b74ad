//! GGUF files hold one model many times, in different quantisations, of which a server loads one.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{RemoteFile, fnmatch, text};

/// So many of one model are worth a line.
const MANY: usize = 3;
/// What is named as the example, best first: what llama.cpp itself takes, then its neighbours.
const EXAMPLES: [&str; 6] = ["Q4_K_M", "UD-Q4_K_XL", "Q4_K_S", "Q4_0", "Q5_K_M", "Q8_0"];

/// The files of one quantisation, by its name in capitals.
type Sets<'a> = BTreeMap<String, Vec<&'a RemoteFile>>;

/// One line on how to choose, if `files` hold many quantisations of one model.
pub fn hint(files: &[RemoteFile]) -> Option<String> {
    let mut models: BTreeMap<String, Sets<'_>> = BTreeMap::new();
    for file in files {
        if let Some((model, quantisation)) = quantised(file.path.name()) {
            models.entry(model).or_default().entry(quantisation).or_default().push(file);
        }
    }
    let many = models.into_values().filter(|sets| sets.len() >= MANY);
    let sets = many.max_by_key(|sets| total(sets.values().flatten().copied()))?;
    let of_all = total(sets.values().flatten().copied());
    let preferred = EXAMPLES.iter().find(|example| sets.contains_key(**example));
    let example = preferred.map_or_else(
        || sets.keys().nth(sets.len() / 2),
        |it| sets.get_key_value(*it).map(|(key, _)| key),
    )?;
    let mut patterns = vec![pattern_for(files, &sets[example])];
    if files.iter().any(|file| is_projector(file.path.name())) {
        patterns.push("*mmproj*".into());
    }
    let is_chosen = |file: &&RemoteFile| {
        patterns.iter().any(|pattern| fnmatch::matches(pattern, file.path.as_str()))
    };
    let saved = total(files.iter()) - total(files.iter().filter(is_chosen));
    let include: Vec<String> =
        patterns.iter().map(|pattern| format!("--include '{pattern}'")).collect();
    Some(format!(
        "{} quantisations of one model are here ({}), {} in all, and all are fetched; to fetch one, choose \
         it as in `{}`, which saves {}",
        sets.len(),
        named(&sets),
        text::size(of_all),
        include.join(" "),
        text::size(saved),
    ))
}

fn total<'a>(files: impl Iterator<Item = &'a RemoteFile>) -> u64 {
    files.map(|file| file.size).sum()
}

fn named(sets: &Sets<'_>) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<&str> = sets.keys().take(SHOWN).map(String::as_str).collect();
    if sets.len() > SHOWN {
        names.push("…");
    }
    names.join(", ")
}

/// A pattern that chooses `wanted` and no other GGUF file of `files`, if there is a short one.
fn pattern_for(files: &[RemoteFile], wanted: &[&RemoteFile]) -> String {
    let wanted: BTreeSet<&str> = wanted.iter().map(|file| file.path.as_str()).collect();
    let first = wanted.first().copied().unwrap_or_default();
    // In the letters of the file: patterns tell capitals from others.
    let name = first.rsplit('/').next().unwrap_or(first);
    let Some((from, to)) = find(name) else { return first.to_owned() };
    let quantisation = &name[from..to];
    let chooses_it = |pattern: &String| {
        files.iter().filter(|file| is_gguf(file.path.name())).all(|file| {
            let path = file.path.as_str();
            fnmatch::matches(pattern, path) == wanted.contains(path)
        })
    };
    let before = name[..from].chars().next_back();
    let short = format!("*{quantisation}*");
    let candidates = [
        short.clone(),
        format!("*{quantisation}[.-]*"),
        format!("*{}{quantisation}*", before.filter(char::is_ascii_punctuation).unwrap_or('/')),
        format!("*{}{quantisation}[.-]*", before.filter(char::is_ascii_punctuation).unwrap_or('/')),
    ];
    candidates.into_iter().find(chooses_it).unwrap_or(short)
}

/// The model that a GGUF file holds, in lower case, and its quantisation in capitals. Projectors and
/// importance matrices are neither.
fn quantised(name: &str) -> Option<(String, String)> {
    let lower = name.to_ascii_lowercase();
    if !is_gguf(name) || is_projector(name) || lower.contains("imatrix") {
        return None;
    }
    let stem = without_shard(&lower[..lower.len() - ".gguf".len()]);
    let (from, to) = find(stem)?;
    let model = format!("{}{}", &stem[..from], &stem[to..]);
    let model = model.trim_matches(['-', '_', '.', ' ']).to_owned();
    Some((model, stem[from..to].to_ascii_uppercase()))
}

fn is_gguf(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| extension.eq_ignore_ascii_case("gguf"))
}

fn is_projector(name: &str) -> bool {
    is_gguf(name) && name.to_ascii_lowercase().contains("mmproj")
}

/// `model-q4_0-00001-of-00003` → `model-q4_0`.
fn without_shard(stem: &str) -> &str {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let shard = stem.rsplit_once("-of-").filter(|(_, count)| digits(count));
    let shard = shard.and_then(|(rest, _)| rest.rsplit_once('-'));
    shard.filter(|(_, number)| digits(number)).map_or(stem, |(stem, _)| stem)
}

/// Whether `word` is the name of a quantisation, as in `hf.co/org/name:Q4_K_M`.
pub fn is_quantisation(word: &str) -> bool {
    length(word) == Some(word.len())
}

/// Where in `stem` the last name of a quantisation stands.
fn find(stem: &str) -> Option<(usize, usize)> {
    let is_break = |c: char| "-_. ".contains(c);
    let starts = stem.char_indices().filter(|(at, _)| *at == 0 || stem[..*at].ends_with(is_break));
    let mut found = starts.filter_map(|(at, _)| {
        let end = at + length(&stem[at..])?;
        (end == stem.len() || stem[end..].starts_with(is_break)).then_some((at, end))
    });
    let first = found.next()?;
    // `UD-Q4_K_XL` holds `Q4_K_XL`.
    Some(found.fold(first, |last, next| if next.1 <= last.1 { last } else { next }))
}

/// The bytes at the start of `text` that name a quantisation.
fn length(text: &str) -> Option<usize> {
    const WHOLE: [&str; 11] = [
        "MXFP4_MOE",
        "MXFP4",
        "NVFP4",
        "BF16",
        "FP32",
        "FP16",
        "FP8",
        "F32",
        "F16",
        "TQ1_0",
        "TQ2_0",
    ];
    const PARTS: [&str; 14] =
        ["0", "1", "4", "8", "K", "S", "M", "L", "P", "XS", "XL", "NL", "XXS", "XXL"];
    let starts = |text: &str, with: &str| {
        text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    let of_unsloth = if starts(text, "UD-") { "UD-".len() } else { 0 };
    let name = &text[of_unsloth..];
    if let Some(whole) = WHOLE.iter().find(|whole| starts(name, whole)) {
        return Some(of_unsloth + whole.len());
    }
    let bits = if starts(name, "IQ") { 2 } else { 1 };
    if !(starts(name, "IQ") || starts(name, "Q")) {
        return None;
    }
    let mut end = bits + name[bits..].starts_with(|c| ('1'..='8').contains(&c)).then_some(1)?;
    while let Some(rest) = name[end..].strip_prefix('_') {
        let part = rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        if !PARTS.iter().any(|known| part.eq_ignore_ascii_case(known)) {
            break;
        }
        end += 1 + part.len();
    }
    Some(of_unsloth + end)
}

#[cfg(test)]
mod tests {
    use super::super::tests::sized;
    use super::*;

    #[test]
    fn a_quantisation_is_told_from_a_revision() {
        for word in [
            "Q4_K_M",
            "IQ3_XXS",
            "Q8_0",
            "F16",
            "BF16",
            "UD-Q4_K_XL",
            "MXFP4",
            "q4_k_m",
            "IQ4_NL",
            "TQ1_0",
            "Q2_K",
            "Q4_0_4_4",
            "MXFP4_MOE",
            "fp16",
            "Q4",
        ] {
            assert!(is_quantisation(word), "{word}");
        }
        for word in [
            "main",
            "v1.0",
            "refs/pr/1",
            "Q",
            "Q9_0",
            "Q4_K_M_x",
            "UD-",
            "4.0bpw",
            "Q4_K_M/x",
            "",
            "é",
            "latest",
            "gptq-4bit-32g",
            "1a2b3c4d",
        ] {
            assert!(!is_quantisation(word), "{word}");
        }
    }

    #[test]
    fn a_gguf_file_names_its_model_and_its_quantisation() {
        for (name, expected) in [
            ("Llama-3.1-8B-Instruct-Q4_K_M.gguf", Some(("llama-3.1-8b-instruct", "Q4_K_M"))),
            ("llama-2-7b.Q5_0.gguf", Some(("llama-2-7b", "Q5_0"))),
            ("Qwen3-30B-A3B-UD-Q4_K_XL-00001-of-00002.gguf", Some(("qwen3-30b-a3b", "UD-Q4_K_XL"))),
            ("gemma-3-q4_0-it.GGUF", Some(("gemma-3--it", "Q4_0"))),
            ("gpt-oss-20b-mxfp4.gguf", Some(("gpt-oss-20b", "MXFP4"))),
            ("Q8_0.gguf", Some(("", "Q8_0"))),
            ("Qwen2.5-7B.gguf", None),
            ("mmproj-F16.gguf", None),
            ("x-imatrix-Q4_0.gguf", None),
            ("model-Q4_K_M.safetensors", None),
        ] {
            let expected = expected.map(|(model, kind)| (model.to_owned(), kind.to_owned()));
            assert_eq!(quantised(name), expected, "{name}");
        }
    }

    #[test]
    fn the_hint_names_a_pattern_that_chooses_one_set_and_what_that_saves() {
        let hint = |files: &[(&str, u64)]| hint(&sized(files));
        const GB: u64 = 1_000_000_000;
        let said = hint(&[
            ("README.md", 0),
            ("m-Q2_K.gguf", 3 * GB),
            ("m-Q4_K_M-00001-of-00002.gguf", 2 * GB),
            ("m-Q4_K_M-00002-of-00002.gguf", 2 * GB),
            ("m-Q8_0.gguf", 8 * GB),
            ("mmproj-m-F16.gguf", GB),
        ]);
        let said = said.expect("three quantisations");
        for part in [
            "3 quantisations of one model",
            "(Q2_K, Q4_K_M, Q8_0), 15.0 GB in all",
            "`--include '*Q4_K_M*' --include '*mmproj*'`, which saves 11.0 GB",
        ] {
            assert!(said.contains(part), "{said}");
        }
        // A pattern that takes others as well is no example.
        let said = hint(&[
            ("m-q4_k_m.gguf", 1),
            ("m-q4_k_m_x.gguf", 1),
            ("m-q8_0.gguf", 1),
            ("m-f16.gguf", 1),
        ]);
        assert!(said.is_some_and(|said| said.contains("--include '*q4_k_m[.-]*'")));
        for too_few in [
            &[("m-Q4_0.gguf", 1), ("m-Q8_0.gguf", 1)][..],
            &[("a-Q4_0.gguf", 1), ("b-Q8_0.gguf", 1), ("c-F16.gguf", 1)],
            &[("m-Q4_0.gguf", 1), ("m-Q8_0.gguf", 1), ("mmproj-m-F16.gguf", 1)],
            &[
                ("m-Q4_0-00001-of-00003.gguf", 1),
                ("m-Q4_0-00002-of-00003.gguf", 1),
                ("m-Q4_0-00003-of-00003.gguf", 1),
            ],
        ] {
            assert_eq!(hint(too_few), None, "{too_few:?}");
        }
    }
}
