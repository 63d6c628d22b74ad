//! What follows from what was found: facts in, checks out, and nothing else. Knows no clock, file or network.

pub mod cluster;
pub mod container;
pub mod identity;
pub mod network;
pub mod source;
pub mod volume;

use serde::Serialize;

use crate::error::{Class, Error};
use crate::exit::Retry;
use crate::model::text;

/// Longest value and hint that are shown.
const MAX_CHARS: usize = 600;

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub question: Question,
    pub verdict: Verdict,
    /// What was found.
    pub value: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What is asked: `network https://host dns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `container`, `volume`, `network`, `source`, `cluster`.
    pub area: &'static str,
    pub name: &'static str,
    /// The source, host or directory, where there can be several.
    pub of: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// A fetch may work, and somebody should know of it.
    Warning,
    Fails(Class),
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: Class,
    pub what: String,
    pub hint: Option<String>,
}

/// What a program reads of a check. The fields are an interface.
#[derive(Debug, Serialize)]
pub struct Fields<'a> {
    area: &'a str,
    check: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<String>,
    verdict: &'a str,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
}

impl Question {
    pub fn of_container(name: &'static str) -> Self {
        Self { area: "container", name, of: None }
    }

    pub fn of_volume(name: &'static str) -> Self {
        Self { area: "volume", name, of: None }
    }

    /// About a host, or about the network as a whole.
    pub fn of_network(name: &'static str, host: Option<&str>) -> Self {
        Self { area: "network", name, of: host.map(str::to_owned) }
    }

    pub fn of_source(name: &'static str, source: &str) -> Self {
        Self { area: "source", name, of: Some(source.to_owned()) }
    }

    pub fn of_cluster(name: &'static str) -> Self {
        Self { area: "cluster", name, of: None }
    }

    pub fn ok(self, value: impl Into<String>) -> Check {
        Check { question: self, verdict: Verdict::Ok, value: value.into(), hint: None }
    }

    pub fn warning(self, value: impl Into<String>, hint: &str) -> Check {
        Check { verdict: Verdict::Warning, hint: Some(hint.to_owned()), ..self.ok(value) }
    }

    pub fn fails(self, class: Class, value: impl Into<String>, hint: &str) -> Check {
        Check { verdict: Verdict::Fails(class), hint: Some(hint.to_owned()), ..self.ok(value) }
    }

    pub fn failed(self, failure: Failure) -> Check {
        let Failure { class, what, hint } = failure;
        Check { verdict: Verdict::Fails(class), hint, ..self.ok(what) }
    }

    /// How far it lies from the cause: a token cannot be asked about where a host has no address.
    fn depth(&self) -> usize {
        const NETWORK: [&str; 5] = ["certificates", "proxy", "dns", "answer", "clock"];
        let is_known = |name: &&str| self.area == "network" && *name == self.name;
        NETWORK.iter().position(is_known).unwrap_or(NETWORK.len())
    }

    /// `network https://host dns`
    pub fn shown(&self) -> String {
        let of = self.of.as_ref().map(|of| format!(" {}", text::inert(of, 200)));
        format!("{}{} {}", self.area, of.unwrap_or_default(), self.name)
    }
}

impl Check {
    /// What standard output gets of it.
    pub fn text(&self) -> String {
        let verdict = self.verdict.name();
        let (value, hint) = (text::inert(&self.value, MAX_CHARS), self.hint());
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("{verdict:<8}{}: {value}{hint}", self.question.shown())
    }

    pub fn fields(&self) -> Fields<'_> {
        let class = match self.verdict {
            Verdict::Fails(class) => Some(class),
            Verdict::Ok | Verdict::Warning => None,
        };
        Fields {
            area: self.question.area,
            check: self.question.name,
            of: self.question.of.as_ref().map(|of| text::inert(of, 300)),
            verdict: self.verdict.name(),
            value: text::inert(&self.value, MAX_CHARS),
            hint: self.hint(),
            code: class.map(Class::exit_code),
            class: class.map(Class::name),
        }
    }

    fn hint(&self) -> Option<String> {
        self.hint.as_ref().map(|hint| text::inert(hint, MAX_CHARS))
    }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fails(_) => "fails",
        }
    }
}

impl Failure {
    /// The sentence of `error` without its hint, and the hint.
    pub fn of(error: &Error) -> Self {
        Self { class: error.class(), what: error.without_hint(), hint: error.fields().hint }
    }
}

/// The end of a run that made all `checks`.
pub fn end(checks: &[Check]) -> Result<String, Error> {
    let count = |is: fn(Verdict) -> bool| checks.iter().filter(|it| is(it.verdict)).count();
    let warnings = count(|verdict| verdict == Verdict::Warning);
    let failures: Vec<(&Check, Class)> = checks
        .iter()
        .filter_map(|check| match check.verdict {
            Verdict::Fails(class) => Some((check, class)),
            Verdict::Ok | Verdict::Warning => None,
        })
        .collect();
    // As for several models: the first that another try does not mend, or else the first.
    let needs_a_person = |(_, class): &&(&Check, Class)| class.facts().retry == Retry::Never;
    let first = failures.iter().find(needs_a_person).or(failures.first());
    // Of those that are alike, the one that the others come from.
    let alike = |(_, class): &&(&Check, Class)| first.is_some_and(|(_, it)| it == class);
    let worst = failures.iter().filter(alike).min_by_key(|(check, _)| check.question.depth());
    match worst {
        Some((check, class)) => Err(Error::Diagnosis {
            class: *class,
            what: format!("{}: {}", check.question.shown(), text::inert(&check.value, MAX_CHARS)),
            hint: check.hint(),
            failed: failures.len(),
            all: checks.len(),
        }),
        None => Ok(format!(
            "complete: {}: {} ok, {}",
            text::count(checks.len(), "check"),
            checks.len() - warnings,
            text::count(warnings, "warning")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(verdict: Verdict, value: &str) -> Check {
        Check { verdict, ..Question::of_volume("space").warning(value, "do this") }
    }

    #[test]
    fn the_failure_that_most_needs_a_person_gives_the_exit_code() {
        let fails = |class, value| check(Verdict::Fails(class), value);
        for (checks, expected) in [
            (vec![], Ok("complete: 0 checks: 0 ok, 0 warnings")),
            (
                vec![check(Verdict::Ok, "a"), check(Verdict::Warning, "b")],
                Ok("complete: 2 checks: 1 ok, 1 warning"),
            ),
            (
                vec![fails(Class::Unreachable, "a"), check(Verdict::Ok, "b")],
                Err((20, "1 of 2 checks failed; volume space: a; do this")),
            ),
            (
                vec![fails(Class::Unreachable, "a"), fails(Class::Access, "b")],
                Err((11, "2 of 2 checks failed; volume space: b; do this")),
            ),
            (
                vec![fails(Class::NoSpace, "a"), fails(Class::Access, "b")],
                Err((15, "2 of 2 checks failed; volume space: a; do this")),
            ),
        ] {
            let found =
                end(&checks).map_err(|error| (error.class().exit_code(), error.to_string()));
            let expected = expected.map(str::to_owned);
            assert_eq!(found, expected.map_err(|(code, what)| (code, what.to_owned())));
        }
    }

    #[test]
    fn the_failure_that_others_come_from_is_named() {
        let fails = |question: Question, class| question.fails(class, "no", "do this");
        let token = || fails(Question::of_source("token", "hf://"), Class::Unreachable);
        let dns = || fails(Question::of_network("dns", Some("https://h")), Class::Unreachable);
        let proxy = || fails(Question::of_network("proxy", Some("https://h")), Class::Unreachable);
        let denied = || fails(Question::of_source("read", "s3://b"), Class::Access);
        for (checks, expected) in [
            (vec![token(), dns()], "network https://h dns: no; do this"),
            (vec![token(), dns(), proxy()], "network https://h proxy: no; do this"),
            (vec![token(), token()], "source hf:// token: no; do this"),
            // What no other try mends comes first.
            (vec![dns(), denied()], "source s3://b read: no; do this"),
        ] {
            let error = end(&checks).expect_err("fails").to_string();
            assert!(error.ends_with(expected), "{error}");
        }
    }

    #[test]
    fn a_check_is_one_inert_line_for_people_and_for_programs() {
        let found = Question::of_network("dns", Some("https://h\u{1b}[2J")).fails(
            Class::Unreachable,
            "no\nanswer",
            "ask",
        );
        assert_eq!(found.text(), "fails   network https://h\\u{1b}[2J dns: no answer; ask");
        let json = serde_json::to_value(found.fields()).expect("is JSON");
        assert_eq!(json["verdict"], "fails");
        assert_eq!(
            (json["code"].as_u64(), json["class"].as_str()),
            (Some(20), Some("unreachable"))
        );
        let json = serde_json::to_string(&check(Verdict::Ok, "x").fields()).expect("is JSON");
        assert!(!json.contains("code") && !json.contains("\"of\""), "{json}");
    }

    #[test]
    fn the_hint_of_an_error_is_told_once() {
        let error = Error::LockTimeout {
            holder: "pod a".into(),
            unmoved: std::time::Duration::from_secs(60),
        };
        let failure = Failure::of(&error);
        assert!(!failure.what.contains("raise"), "{failure:?}");
        assert_eq!(failure.hint.as_deref(), Some("raise --lock-timeout to wait longer"));
    }
}
