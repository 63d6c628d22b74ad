//! What README, docs and manifests say of exit codes, sources and variables is what the program does.

use std::collections::BTreeSet;
use std::path::Path;

use weightlift::environment::{Part, VARIABLES, entry};
use weightlift::exit::{Facts, Retry, TABLE};
use weightlift::model::{FORMS, Form, SourceUri};

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn retry(facts: &Facts) -> &'static str {
    match facts.retry {
        Retry::Done => "–",
        Retry::Never => "no",
        Retry::Later => "yes",
    }
}

#[test]
fn the_page_on_exit_codes_has_every_code_with_its_class() {
    let row = |facts: &Facts| {
        format!("| {} | `{}` | {} | {} |\n", facts.code, facts.name, facts.meaning, retry(facts))
    };
    let rows: String = TABLE.iter().map(row).collect();
    let page = file("docs/exit-codes.md");
    let table = format!("| code | class | meaning | retry |\n|---|---|---|---|\n{rows}\n");
    assert!(page.contains(&table), "{table}");
    // What a Job is told to give up at is what no retry helps.
    let finals = TABLE.iter().filter(|facts| facts.retry == Retry::Never);
    let codes: Vec<String> = finals.map(|facts| facts.code.to_string()).collect();
    assert!(page.contains(&format!("values: [{}]", codes.join(", "))), "{codes:?}");
}

/// The texts between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn readme_and_the_page_on_sources_have_every_form_of_a_source() {
    let row = |form: &Form| {
        let forms: Vec<String> = form.forms.iter().map(|form| format!("`{form}`")).collect();
        format!("| {} | {} |\n", forms.join(", "), form.meaning)
    };
    let rows: String = FORMS.iter().map(row).collect();
    let readme = file("README.md");
    assert!(readme.contains(&format!("| SOURCE | is |\n|---|---|\n{rows}\n")), "{rows}");
    let page = file("docs/sources.md");
    let first = |line: &str| line.split('|').nth(1).map(str::to_owned);
    let cells: Vec<String> =
        page.lines().filter(|line| line.starts_with("| `")).filter_map(first).collect();
    let scheme = |form: &str| form.split("://").next().unwrap().to_owned();
    let told: BTreeSet<String> = cells.iter().flat_map(|cell| spans(cell)).map(scheme).collect();
    let known: BTreeSet<String> =
        FORMS.iter().flat_map(|form| form.forms).map(|it| scheme(it)).collect();
    assert_eq!(told, known);
    // What stands in the table can be typed.
    for form in cells.iter().flat_map(|cell| spans(cell)) {
        SourceUri::parse(form).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_page_on_kubernetes_names_every_code_and_whether_to_retry() {
    let page = file("docs/kubernetes.md");
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let rows: Vec<Vec<String>> =
        page.lines().filter(|line| line.starts_with("| ")).map(cells).collect();
    for facts in &TABLE {
        let code = facts.code.to_string();
        let of_code = |row: &&Vec<String>| row[0].split(", ").any(|it| it == code);
        let row = rows.iter().find(of_code).unwrap_or_else(|| panic!("no row for {code}"));
        let names: Vec<&str> = row[1].split(", ").collect();
        assert!(names.contains(&facts.name), "{row:?}");
        assert!(facts.retry == Retry::Done || row[2].starts_with(retry(facts)), "{row:?}");
    }
}

#[test]
fn jobs_give_up_at_exactly_the_codes_that_no_retry_helps() {
    let finals: Vec<String> = TABLE
        .iter()
        .filter(|facts| facts.retry == Retry::Never)
        .map(|facts| facts.code.to_string())
        .collect();
    let expected = format!("values: [{}]", finals.join(", "));
    let mut seen = 0;
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")];
    open.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("charts"));
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for line in text.lines().filter(|line| line.contains("values: [2")) {
            seen += 1;
            assert_eq!(line.trim(), expected, "{}", path.display());
        }
    }
    assert!(seen >= 4, "{seen}");
}

#[test]
fn the_page_on_variables_has_each_that_is_read() {
    let about = |part: Part| match part {
        Part::Flags => "flags",
        Part::Hub => "Hub",
        Part::S3 => "S3",
        Part::Oci => "OCI",
        Part::Google => "Google",
        Part::Azure => "Azure",
        Part::Network => "network",
        Part::Kubernetes => "Kubernetes",
        Part::Terminal => "terminal",
        Part::Files => "files",
    };
    let rows: String = VARIABLES
        .iter()
        .map(|it| format!("| `{}` | {} | {} |\n", it.name, about(it.part), it.meaning))
        .collect();
    let page = file("docs/environment.md");
    let table = format!("| variable | about | meaning |\n|---|---|---|\n{rows}");
    assert!(page.ends_with(&table), "{table}");
}

#[test]
fn each_variable_of_a_flag_is_listed_with_its_flag() {
    let dir = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli")).unwrap();
    let names = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let cli: String = names.map(|name| file(&format!("src/cli/{name}"))).collect();
    let mut of_flags: Vec<&str> =
        cli.split("env = \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    of_flags.sort_unstable();
    of_flags.dedup();
    assert!(of_flags.len() > 30, "{of_flags:?}");
    let mut listed: Vec<&str> =
        VARIABLES.iter().filter(|it| it.part == Part::Flags).map(|it| it.name).collect();
    listed.sort_unstable();
    assert_eq!(of_flags, listed);
    for name in of_flags {
        let flag = name.trim_start_matches("WEIGHTLIFT_").to_lowercase().replace('_', "-");
        assert_eq!(entry(name).unwrap().meaning, format!("`--{flag}`"));
    }
}
