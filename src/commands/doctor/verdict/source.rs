//! What follows from how a source has listed its files and let one of them be read.

use super::{Check, Question};
use crate::error::Class;
use crate::model::text;
use crate::net::Exchange;

/// Smaller ones are answered whole by some hosts, and asked for whole by a fetch.
const LARGE_FILE: u64 = 1 << 20;

/// What is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub revision: String,
    /// That would be fetched.
    pub files: usize,
    pub bytes: u64,
    /// That the source has beside these.
    pub left_out: usize,
    /// The files lie in archives, which have so many bytes; what is in them is told by reading them.
    pub is_packed: bool,
}

/// How one small part of a file was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub file: String,
    /// Of the file.
    pub size: u64,
    /// That have come.
    pub bytes: usize,
    /// The source does not send parts, but whole files.
    pub has_no_ranges: bool,
    /// What was asked on the way.
    pub exchanges: Vec<Exchange>,
}

pub fn listed(source: &str, found: &Listed) -> Check {
    let question = Question::of_source("list", source);
    let Listed { revision, files, bytes, left_out, is_packed } = found;
    if *is_packed {
        let (bytes, revision) = (text::size(*bytes), text::revision(revision));
        return question.ok(format!("archives of {bytes} at {revision}; not read"));
    }
    let left_out = match left_out {
        0 => String::new(),
        count => format!("; left out: {}", text::files(*count)),
    };
    let value = format!(
        "{}, {} at {}{left_out}",
        text::files(*files),
        text::size(*bytes),
        text::revision(revision)
    );
    match files {
        0 => question.fails(
            Class::NotFound,
            value,
            "nothing would be fetched: check the name, --include and --exclude",
        ),
        _ => question.ok(value),
    }
}

pub fn read(source: &str, found: &Read) -> Check {
    let question = Question::of_source("read", source);
    let Read { file, size, bytes, has_no_ranges, exchanges } = found;
    let name = text::name(file, 120);
    let answered =
        || exchanges.iter().filter_map(|it| Some((&it.origin, it.answer.as_ref().ok()?)));
    let last = answered().next_back();
    let redirects = answered().filter(|(_, answer)| (300..400).contains(&answer.status)).count();
    let way = match last {
        Some((origin, answer)) => format!(
            ", answered {} by `{origin}` after {}",
            answer.status,
            text::count(redirects, "redirect")
        ),
        None => String::new(),
    };
    let is_whole = *has_no_ranges || last.is_some_and(|(_, answer)| answer.status == 200);
    if is_whole && *size < LARGE_FILE {
        return question.ok(format!("`{name}` is sent whole, which is usual for small files{way}"));
    }
    if is_whole {
        return question.warning(
            format!("`{name}` is sent whole where a part was asked for{way}"),
            "use a server or proxy that supports ranges: without them, a stream that breaks begins again",
        );
    }
    question.ok(format!("{} of `{name}`{way}", text::count(*bytes, "byte")))
}

/// What the source had to say beside.
pub fn note(source: &str, warning: &str) -> Check {
    Check { hint: None, ..Question::of_source("note", source).warning(warning, "") }
}

/// It is not asked, because a variable says so.
pub fn offline(source: &str, variable: &str) -> Check {
    Question::of_source("list", source).warning(
        format!("not asked: {variable} is set"),
        "unset it to fetch; a copy on the volume is used without a question",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::net::Answer;

    fn asked(answers: &[(&str, u16)]) -> Vec<Exchange> {
        let exchange = |(origin, status): &(&str, u16)| Exchange {
            method: "GET".into(),
            origin: (*origin).to_owned(),
            path: "/".into(),
            range: None,
            has_credentials: false,
            answer: match status {
                0 => Err("refused".into()),
                _ => Ok(Answer { status: *status, clocks: None }),
            },
            took: std::time::Duration::ZERO,
        };
        answers.iter().map(exchange).collect()
    }

    #[test]
    fn an_answer_to_a_range_is_a_range() {
        const LARGE: u64 = 1 << 20;
        for (exchanges, size, has_no_ranges, verdict, says) in [
            (
                asked(&[("https://h", 302), ("https://c", 206)]),
                LARGE,
                false,
                Verdict::Ok,
                "answered 206 by `https://c` after 1 redirect",
            ),
            (
                asked(&[("https://c", 206), ("https://x", 0)]),
                LARGE,
                false,
                Verdict::Ok,
                "0 redirects",
            ),
            (asked(&[("https://c", 200)]), LARGE, false, Verdict::Warning, "is sent whole"),
            (asked(&[("https://c", 200)]), LARGE - 1, false, Verdict::Ok, "usual for small files"),
            (asked(&[]), LARGE, true, Verdict::Warning, "is sent whole"),
            // A directory of this machine.
            (asked(&[]), LARGE, false, Verdict::Ok, "9 bytes of `a`"),
        ] {
            let found = Read { file: "a".into(), size, bytes: 9, has_no_ranges, exchanges };
            let check = read("s", &found);
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.value.contains(says), "{check:?}");
        }
    }

    #[test]
    fn a_source_without_files_fails() {
        let found = |files| Listed {
            revision: "0123456789abcdef".into(),
            files,
            bytes: 9,
            left_out: 1,
            is_packed: false,
        };
        assert_eq!(listed("s", &found(0)).verdict, Verdict::Fails(Class::NotFound));
        let check = listed("s", &found(2));
        assert_eq!(check.verdict, Verdict::Ok);
        assert_eq!(check.value, "2 files, 9 B at 0123456789ab; left out: 1 file");
        let packed = Listed { is_packed: true, ..found(0) };
        assert_eq!(listed("s", &packed).verdict, Verdict::Ok);
        assert_eq!(offline("s", "HF_HUB_OFFLINE").verdict, Verdict::Warning);
        assert_eq!(note("s", "odd").text(), "warning source s note: odd");
    }
}
