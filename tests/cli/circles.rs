//! No file imports one that imports it, whatever lies between. A type whose methods are in several files
//! is imported by them and imports none of them; what a `mod.rs` passes on (`pub use`) is no import.

use std::collections::{BTreeMap, BTreeSet};

use crate::layers::files;

/// `a::{b, c::{d as e, f}}` as `a::b`, `a::c::d` and `a::c::f`.
fn paths(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((above, inside)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().trim().to_owned()];
    };
    let inside = inside.trim_end().strip_suffix('}').expect(tree);
    let mut depth = 0;
    let parts = inside.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let parts = parts.filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| paths(&format!("{above}{}", part.trim()))).collect()
}

/// What `code` says of other modules: by `use`, by paths in the text, and what it passes on.
#[derive(Default)]
struct Says {
    imports: Vec<String>,
    passes_on: Vec<String>,
}

impl Says {
    fn of(code: &str) -> Self {
        let mut says = Self::default();
        let mut text = String::new();
        let mut lines = code.lines();
        while let Some(line) = lines.next() {
            let start = line.trim_start();
            let is_import = start.starts_with("use ");
            let rest = match start.strip_prefix("pub").map(|rest| rest.trim_start()) {
                _ if is_import => start.strip_prefix("use "),
                Some(rest) if rest.starts_with('(') => rest
                    .split_once(')')
                    .and_then(|(_, rest)| rest.trim_start().strip_prefix("use ")),
                Some(rest) => rest.strip_prefix("use "),
                None => None,
            };
            let Some(rest) = rest else {
                text.push_str(line);
                text.push('\n');
                continue;
            };
            let mut tree = rest.to_owned();
            while !tree.contains(';') {
                tree.push_str(lines.next().expect("a `use` ends"));
            }
            let found = paths(tree.split(';').next().unwrap());
            if is_import { says.imports.extend(found) } else { says.passes_on.extend(found) }
        }
        let is_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let words = text.split(|c: char| !is_of_path(c));
        let words = words.filter(|it| it.starts_with("super::") || it.starts_with("crate::"));
        says.imports.extend(words.map(|it| it.trim_end_matches(':').to_owned()));
        says
    }
}

/// `a/b.rs` as `a::b`, `a/mod.rs` as `a`.
fn module(file: &str) -> String {
    let file = file.trim_end_matches(".rs").trim_end_matches("/mod");
    file.replace('/', "::")
}

/// `path`, as it is written in `module`, from the root of the crate.
fn absolute(path: &str, module: &str, has_child: impl Fn(&str) -> bool) -> Option<String> {
    if let Some(path) = path.strip_prefix("crate::") {
        return Some(path.to_owned());
    }
    let (mut at, mut rest) = (module, path);
    let mut is_relative = false;
    while let Some(below) = rest.strip_prefix("super::").or(rest.strip_prefix("self::")) {
        if rest.starts_with("super::") {
            at = at.rsplit_once("::").map_or("", |(above, _)| above);
        }
        (rest, is_relative) = (below, true);
    }
    let child = format!("{at}::{}", rest.split("::").next().unwrap());
    (is_relative || has_child(&child))
        .then(|| format!("{at}::{rest}").trim_start_matches("::").to_owned())
}

/// Each import that is part of a circle, as `a imports b`.
fn circles(files: &[(String, String)]) -> Vec<String> {
    let says: BTreeMap<String, Says> =
        files.iter().map(|(file, code)| (module(file), Says::of(code))).collect();
    let is_module = |name: &str| says.contains_key(name);
    let full = |path: &str, at: &str| absolute(path, at, is_module);
    // The file that has what `path` names, through whatever passes it on.
    let home = |path: String| -> Option<String> {
        let mut path = path;
        for _ in 0..8 {
            let mut module = path.clone();
            while !is_module(&module) {
                module = module.rsplit_once("::")?.0.to_owned();
            }
            let item = path.strip_prefix(&module)?.trim_start_matches("::");
            let item = item.split("::").next().unwrap();
            let from =
                says[&module].passes_on.iter().find(|it| it.rsplit("::").next() == Some(item));
            match from.and_then(|from| full(from, &module)) {
                Some(next) if !item.is_empty() => path = next,
                _ => return Some(module),
            }
        }
        None
    };
    let imports: BTreeMap<&str, BTreeSet<String>> = says
        .iter()
        .map(|(at, says)| {
            let found = says.imports.iter().filter_map(|path| home(full(path, at)?));
            (at.as_str(), found.filter(|it| it != at).collect())
        })
        .collect();
    let leads_to = |from: &str, to: &str| {
        let (mut open, mut seen) = (vec![from], BTreeSet::new());
        while let Some(at) = open.pop() {
            if at == to {
                return true;
            }
            if seen.insert(at) {
                open.extend(imports[at].iter().map(String::as_str));
            }
        }
        false
    };
    let pairs = imports.iter().flat_map(|(from, all)| all.iter().map(move |to| (*from, to)));
    let in_circle = pairs.filter(|(from, to)| leads_to(to, from));
    in_circle.map(|(from, to)| format!("{from} imports {to}")).collect()
}

#[test]
fn files_import_each_other_in_no_circle() {
    // The files above the layers are one story, told by `run.rs`.
    let files: Vec<_> = files("").into_iter().filter(|(file, _)| file.contains('/')).collect();
    assert!(files.len() > 150, "{}", files.len());
    assert_eq!(circles(&files), Vec::<String>::new());
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let file = |name: &str, code: &str| (name.to_owned(), code.to_owned());
    let top = || {
        file("a/mod.rs", "mod b;\nmod c;\npub use b::{One as Uno, Two};\npub(crate) use c::Three;")
    };
    let b_and_c = ["a::b imports a::c", "a::c imports a::b"];
    for (b, c) in [
        ("use super::c::Three;", "use super::b::One;"),
        ("use super::{c::{self, Three}};", "use super::{\n    Other,\n    Two,\n};"),
        ("fn f() -> crate::a::Three {}", "use crate::a::b;"),
        ("impl super::c::Trait for X {}", "fn f(it: super::Two) {}"),
    ] {
        assert_eq!(circles(&[top(), file("a/b.rs", b), file("a/c.rs", c)]), b_and_c, "{b} {c}");
    }
    let long = [
        top(),
        file("a/b.rs", "use super::c::Three;"),
        file("a/c.rs", "use super::d;"),
        file("a/d.rs", "use crate::a::Two;"),
    ];
    assert_eq!(circles(&long).len(), 3);
    let none = [
        file("a/mod.rs", "pub use b::One;\npub struct Top;"),
        file("a/b.rs", "use super::Top;\nuse std::fmt;\nstruct B;"),
        file("a/c.rs", "use super::{One, Top};\nuse crate::a::b::B;"),
    ];
    assert_eq!(circles(&none), Vec::<String>::new());
    let own = [file("a/mod.rs", "use b::One;\npub struct Top;"), file("a/b.rs", "use super::Top;")];
    assert_eq!(circles(&own).len(), 2);
}
