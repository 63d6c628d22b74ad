//! The errors that an operator is most likely to meet, each provoked through the binary. The whole standard
//! error of each is held by a page, `*.txt` here, so that a person can review the text in one place.
//!
//! `WEIGHTLIFT_TEST_BLESS=1` writes the pages again from what is printed; review the difference.

mod content;
mod fleet;
mod hub;
mod network;
mod stores;
mod usage;
mod volume;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use crate::kubernetes_docs::skeleton;
use crate::support::*;

const SCENES: [&str; 7] = [
    include_str!("content.rs"),
    include_str!("fleet.rs"),
    include_str!("hub.rs"),
    include_str!("network.rs"),
    include_str!("stores.rs"),
    include_str!("usage.rs"),
    include_str!("volume.rs"),
];

/// Errors of one area, in the order in which they are provoked.
struct Page {
    name: &'static str,
    /// What stands in the text for an address or a path of this run.
    places: Vec<(String, String)>,
    sections: Vec<(String, String)>,
    skipped: Vec<String>,
    /// Runs that have ended otherwise than they have to.
    wrong: Vec<String>,
}

impl Page {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            places: Vec::new(),
            sections: Vec::new(),
            skipped: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// Shows `ours`, an address or a path, as `shown`. The first that matches counts.
    fn place(&mut self, ours: impl Into<String>, shown: &str) {
        self.places.push((ours.into(), shown.to_owned()));
    }

    /// The directory of a volume, with the root below it.
    fn volume(&mut self, volume: &Volume) {
        self.place(volume.root().display().to_string(), "/data/models");
        self.place(volume.path("").display().to_string(), "/data/");
    }

    /// Runs `command`, which has to end with `code`.
    fn case(&mut self, title: &str, code: i32, command: &mut Command) {
        let run = command.run();
        let arguments = command.get_args().map(|it| it.to_string_lossy().into_owned());
        let line = arguments.fold("$ weightlift".to_owned(), |line, it| format!("{line} {it}"));
        self.record(title, code, &line, run);
    }

    /// The same of a run that has ended.
    fn record(&mut self, title: &str, code: i32, line: &str, run: Run) {
        if run.code != code || !run.last_line().contains(&format!("[exit {code}, ")) {
            self.wrong
                .push(format!("## {title}\nnot exit {code} but {}:\n{}", run.code, run.stderr));
        }
        let mut lines = vec![self.shown(line)];
        // How often a request is made again, and which error it met, is a matter of time.
        let is_steady = |line: &&str| !line.starts_with("retrying") && !line.contains(" files, ");
        lines.extend(run.stderr.lines().filter(is_steady).map(|line| skeleton(&self.shown(line))));
        if self.sections.iter().any(|(known, _)| known == title) {
            self.wrong.push(format!("## {title}\nis there twice"));
        }
        self.sections.push((title.to_owned(), lines.join("\n")));
    }

    /// Keeps what the page says of an error that cannot be provoked on this machine.
    fn skip(&mut self, title: &str) {
        self.skipped.push(title.to_owned());
    }

    fn shown(&self, line: &str) -> String {
        let places = self.places.iter();
        without_ports(
            &places.fold(line.to_owned(), |line, (ours, shown)| line.replace(ours, shown)),
        )
    }

    /// Fails unless the page is what was printed; or writes it.
    #[track_caller]
    fn compare(self) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join(format!("tests/cli/errors/{}.txt", self.name));
        let held = std::fs::read_to_string(&path).unwrap_or_default();
        let mut held = sections(&held);
        if std::env::var_os("WEIGHTLIFT_TEST_BLESS").is_some() {
            let mut all = self.sections;
            let kept = |title: String| held.remove(&title).map(|text| (title, text));
            all.extend(self.skipped.into_iter().filter_map(kept));
            let text: Vec<String> =
                all.iter().map(|(title, text)| format!("## {title}\n\n{text}\n")).collect();
            std::fs::write(&path, text.join("\n")).unwrap();
            assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
            return;
        }
        let mut wrong = self.wrong;
        for (title, printed) in self.sections {
            match held.remove(&title) {
                Some(text) if text == printed => {}
                text => wrong.push(format!(
                    "## {title}\nthe page:\n{}\nprinted:\n{printed}\n",
                    text.unwrap_or_default()
                )),
            }
        }
        held.retain(|title, _| !self.skipped.contains(title));
        wrong.extend(held.keys().map(|title| format!("## {title}\nno test provokes it\n")));
        assert!(
            wrong.is_empty(),
            "{} (WEIGHTLIFT_TEST_BLESS=1 writes it again)\n{}",
            path.display(),
            wrong.join("\n")
        );
    }
}

/// `line` without the ports of fakes that no test has named.
fn without_ports(line: &str) -> String {
    let mut parts = line.split("127.0.0.1:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| {
        let behind = part.trim_start_matches(|c: char| c.is_ascii_digit());
        format!("{line}127.0.0.1:PORT{behind}")
    })
}

/// What a page holds, by the title.
fn sections(page: &str) -> BTreeMap<String, String> {
    let parts = page.split("## ").skip(1).filter_map(|part| part.split_once('\n'));
    parts.map(|(title, text)| (title.to_owned(), text.trim().to_owned())).collect()
}

#[test]
fn each_page_is_provoked_by_a_test_and_says_what_to_do() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cli/errors");
    let pages: Vec<PathBuf> = list(&dir)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .collect();
    let mut count = 0;
    for page in &pages {
        let name = page.file_stem().unwrap().to_str().unwrap();
        let call = format!("(\"{name}\"");
        assert!(SCENES.iter().any(|scenes| scenes.contains(&call)), "no test for {name}");
        for (title, text) in sections(&std::fs::read_to_string(page).unwrap()) {
            count += 1;
            let last = text.lines().last().unwrap_or_default();
            assert!(last.contains("[exit "), "{title}: {text}");
        }
    }
    assert!(count >= 40, "{count} errors");
}
