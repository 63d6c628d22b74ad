//! Messages and help keep to plain words: none has a word of `tests/english.txt`, which readers who are no
//! native speakers stumble over. The plain word stands behind the tab there.

use std::collections::BTreeSet;
use std::path::Path;

use crate::layers::files;
use crate::support::*;

/// Each hard word with its plain one.
fn words() -> Vec<(&'static str, &'static str)> {
    include_str!("../english.txt").lines().filter_map(|line| line.split_once('\t')).collect()
}

/// The hard words that `text` has, in any spelling with capitals, across line ends.
fn hard_words(text: &str) -> BTreeSet<&'static str> {
    let is_gap = |c: char| !(c.is_alphanumeric() || c == '\'' || c == '_' || c == '-');
    let plain = text.to_lowercase();
    let plain: Vec<&str> = plain.split(is_gap).filter(|word| !word.is_empty()).collect();
    let plain = format!(" {} ", plain.join(" "));
    let has = |hard: &&str| plain.contains(&format!(" {hard} "));
    words().into_iter().map(|(hard, _)| hard).filter(has).collect()
}

/// The string literals of a file of Rust, comments left out; what is put in at run time, `{name}`, is too.
fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '/', '\'', 'r']) {
        let (before, here) = rest.split_at(at);
        let is_new_word = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let hashes = here[1..].bytes().take_while(|byte| *byte == b'#').count();
        let after_comment = |end| here.split_once(end).map_or("", |(_, behind)| behind);
        rest = if here.starts_with("//") {
            after_comment("\n")
        } else if here.starts_with("/*") {
            after_comment("*/")
        } else if here.starts_with('r') && is_new_word && here[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let (text, behind) = here[2 + hashes..].split_once(&end).expect("a raw string ends");
            found.push(text.to_owned());
            behind
        } else if let Some(text) = here.strip_prefix('"') {
            let mut is_escaped = false;
            let end = text.find(|c: char| {
                let is_end = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                is_end
            });
            let (text, behind) = text.split_at(end.expect("a string ends"));
            found.push(text.replace("\\\n", " ").replace("\\n", " "));
            &behind[1..]
        } else if let Some(quoted) =
            ["'\"'", "'\\''", "'\\\"'"].iter().find(|it| here.starts_with(**it))
        {
            &here[quoted.len()..]
        } else {
            &here[1..]
        };
    }
    found.iter().map(|text| without_places(text)).collect()
}

/// `text` without `{name}`; what a place holds at run time is not known here.
fn without_places(text: &str) -> String {
    let mut parts = text.replace("{{", "").replace("}}", "");
    while let Some((start, end)) = parts.find('{').zip(parts.find('}')).filter(|(a, b)| a < b) {
        parts.replace_range(start..=end, "…");
    }
    parts
}

#[test]
fn no_message_of_the_program_has_a_hard_word() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (file, _) in files("").into_iter().filter(|(file, _)| !file.contains("simulation")) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(&file);
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        // A single word is a name for programs; help is looked at where it is printed.
        let is_message = |text: &&String| {
            text.trim().contains(' ') && !(text.contains('\n') && file.starts_with("cli/"))
        };
        for literal in literals(code).iter().filter(is_message) {
            seen += 1;
            for word in hard_words(literal) {
                wrong.push(format!("src/{file}: `{word}` in: {literal}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(seen > 1_000, "{seen} messages");
}

#[test]
fn no_help_of_a_command_has_a_hard_word() {
    let help = |arguments: &[&str]| {
        weightlift().args(arguments).arg("--help").run().assert_success().stdout
    };
    let all = help(&[]);
    let (_, listed) = all.split_once("\nCommands:\n").unwrap();
    let names: Vec<&str> = listed
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.len() > 7 && names.contains(&"fetch"), "{names:?}");
    let mut found = BTreeSet::new();
    for name in names.iter().filter(|name| **name != "help") {
        found.extend(hard_words(&help(&[name])).into_iter().map(|word| (*name, word)));
    }
    found.extend(hard_words(&all).into_iter().map(|word| ("", word)));
    assert_eq!(found, BTreeSet::new());
}

#[test]
fn hard_words_are_found_where_they_stand_and_only_there() {
    for (text, expected) in [
        ("fetching it Anew", &["anew"][..]),
        ("it goes\n    on", &["goes on"]),
        ("`lacks`, beside", &["beside", "lacks"]),
        ("renewed; so manyfold; besides", &[]),
    ] {
        assert_eq!(hard_words(text), expected.iter().copied().collect(), "{text}");
    }
    let code = r####"
        // a comment with "anew" in it
        let a = "one \"two\""; /* "three" */ let b = '"';
        let c = format!("four {lacks} \
            five"); let d = r#"six "seven""#;
    "####;
    let found = literals(code);
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found[0], "one \\\"two\\\"");
    assert_eq!(found[1].split_whitespace().collect::<Vec<_>>(), ["four", "…", "five"]);
    assert_eq!(found[2], "six \"seven\"");
    assert!(words().iter().all(|(hard, plain)| !hard.is_empty() && !plain.is_empty()));
}
