//! What a line of the display holds at a given width: words before and behind a track. Pure.
//!
//! A column has the same width from picture to picture, so that nothing moves but what changes. What does not fit is
//! left out, the least important first.

use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::pace::Left;
use super::progress::FileState;
use crate::model::text;

/// A shorter track shows nothing.
const MIN_TRACK: usize = 8;
/// A longer one shows no more.
const MAX_TRACK: usize = 60;
/// Columns of names, where there is room.
const MAX_NAME: usize = 36;
/// From here on the names of the files and that of the whole stand in one column.
const WIDE: usize = 120;

/// One line: words, a track of so many columns, words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub before: String,
    pub track: usize,
    pub behind: String,
}

/// What there is to say of a transfer as a whole.
#[derive(Clone, Debug)]
pub(super) struct Whole<'a> {
    /// Which of several models, or who is waited for.
    pub name: Option<&'a str>,
    pub phase: &'a str,
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub done_files: u64,
    pub total_files: u64,
    pub bytes_per_second: u64,
    pub left: Left,
}

/// `llama  ━━━━━━━━╾─────────  43 %  6.9 of 16.1 GB  5 of 12 files  612.3 MB/s  15s left`
pub(super) fn whole(columns: usize, whole: &Whole<'_>) -> Line {
    let Whole { name, phase, done_bytes, total_bytes, done_files, total_files, .. } = whole;
    let (of_files, digits) = (total_files.to_string(), total_files.to_string().len());
    let files = format!("{done_files:>digits$} of {of_files} files");
    let reserved = if columns < WIDE / 2 { 10 } else { 12 };
    let mut parts = [
        format!("{:>3} %", percent(*done_bytes, *total_bytes)),
        share(*done_bytes, *total_bytes),
        files,
        format!("{:>10}", format!("{}/s", text::size(whole.bytes_per_second))),
        format!("{:<reserved$}", words(whole, columns)),
    ];
    let label = name.or((columns >= WIDE).then_some(*phase));
    let most = if columns >= WIDE { MAX_NAME } else { (columns / 3).min(MAX_NAME) };
    let before = label.map_or(String::new(), |label| match columns >= WIDE {
        true => padded(label, most) + " ",
        false => fitted(label, most) + " ",
    });
    if *total_files < 2 {
        parts[2].clear();
    }
    // The names of files say less than how much there is, and that less than when it is done.
    for part in [2, 1, 3, 4] {
        if room(columns, &before, &parts) < MIN_TRACK {
            parts[part].clear();
        }
    }
    line(columns, before, &parts)
}

/// `waiting 1m12s for pod web-7 on node n2  ━━━━╾──────  43 %  6.9 of 16.1 GB  15s left`
pub(super) fn waiting(columns: usize, waited: Duration, holder: &Whole<'_>) -> Line {
    let name = holder.name.unwrap_or_default();
    let before = format!("waiting {} for {}", seconds(waited), text::inert(name, 500));
    let Whole { done_bytes, total_bytes, .. } = *holder;
    if total_bytes == 0 {
        return Line { before: fitted(&before, columns), track: 0, behind: String::new() };
    }
    let mut parts = [
        format!("{:>3} %", percent(done_bytes, total_bytes)),
        share(done_bytes, total_bytes),
        words(holder, columns),
    ];
    for part in [1, 2] {
        if room(columns, &before, &parts) < MIN_TRACK {
            parts[part].clear();
        }
    }
    let most = columns.saturating_sub(MIN_TRACK + 8);
    line(columns, fitted(&before, most) + " ", &parts)
}

/// `  model-00001-of-00004.safetensors ━━━━━━━━━╾─────  43 %    5.0 GB  to be hashed`
pub(super) fn file(columns: usize, name: &str, size: u64, state: FileState) -> Line {
    let (done, state) = match state {
        FileState::Fetching { done } => (done, String::new()),
        FileState::ToBeHashed => (size, "to be hashed".to_owned()),
        FileState::Hashing { done } => (size, format!("hashed {} %", percent(done, size))),
        FileState::Finishing => (size, "syncing".to_owned()),
    };
    let most = if columns >= WIDE { MAX_NAME } else { (columns * 2 / 5).min(MAX_NAME) };
    let name = named(&text::inert(name, 500), most.saturating_sub(2));
    let before = format!("{} ", padded(&format!("  {name}"), most));
    let mut parts = [
        format!("{:>3} %", percent(done, size)),
        format!("{:>8}", text::size(size)),
        format!("{state:<12}"),
    ];
    for part in [1, 2] {
        if room(columns, &before, &parts) < MIN_TRACK {
            parts[part].clear();
        }
    }
    line(columns, before, &parts)
}

/// `  and 12 more files; 3 retries`
pub(super) fn rest(more_files: u64, retries: u64) -> Option<String> {
    let files = (more_files > 0).then(|| format!("and {}", more(more_files)));
    let retries = (retries > 0).then(|| match retries {
        1 => "1 retry".to_owned(),
        many => format!("{many} retries"),
    });
    let parts: Vec<String> = files.into_iter().chain(retries).collect();
    (!parts.is_empty()).then(|| format!("  {}", parts.join("; ")))
}

fn more(files: u64) -> String {
    format!("{files} more file{}", if files == 1 { "" } else { "s" })
}

fn line(columns: usize, before: String, parts: &[String]) -> Line {
    let track = room(columns, &before, parts);
    let track = if track < MIN_TRACK / 2 { 0 } else { track.min(MAX_TRACK) };
    let parts: Vec<&str> =
        parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    let behind = parts.join("  ");
    let is_first = track == 0 && before.is_empty();
    let behind = if is_first { behind.trim_start().to_owned() } else { format!(" {behind}") };
    Line { before, track, behind }
}

/// What is left for the track.
fn room(columns: usize, before: &str, parts: &[String]) -> usize {
    let parts = parts.iter().filter(|part| !part.is_empty()).map(|part| 2 + part.width());
    columns.saturating_sub(before.width() + parts.sum::<usize>())
}

/// When it is done, or what goes on where no bytes come any more.
fn words(whole: &Whole<'_>, columns: usize) -> String {
    let Whole { phase, done_bytes, total_bytes, .. } = whole;
    let is_over = done_bytes >= total_bytes;
    match whole.left {
        _ if is_over && *phase == "fetching" => "hashing".into(),
        _ if is_over && columns < WIDE => phase.split(' ').next().unwrap_or_default().to_owned(),
        _ if is_over => (*phase).to_owned(),
        Left::Unknown => String::new(),
        Left::AlmostNone => "almost none".into(),
        Left::Silent(silent) => format!("silent {}", seconds(silent)),
        Left::Time(left) if columns < WIDE / 2 => seconds(left),
        Left::Time(left) => format!("{} left", seconds(left)),
    }
}

/// `8s`, `3m05s`, `1h02m`: without tenths, which nobody can read in time.
pub(super) fn seconds(time: Duration) -> String {
    match time.as_millis().div_ceil(1_000) {
        few @ 0..10 => format!("{few}s"),
        _ => text::duration(time),
    }
}

fn percent(done: u64, total: u64) -> u64 {
    // Rounded down: all of it is all of it.
    (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(100).min(100) as u64
}

/// ` 6.9 of 16.1 GB`, both in one unit.
fn share(done: u64, total: u64) -> String {
    let of = text::size(total);
    let (number, unit) = of.split_once(' ').unwrap_or((&of, ""));
    let width = number.len();
    let value = number.parse::<f64>().unwrap_or_default();
    let done = done.min(total) as f64 / (total as f64).max(1.0) * value;
    if number.contains('.') {
        format!("{done:>width$.1} of {number} {unit}")
    } else {
        format!("{done:>width$.0} of {number} {unit}")
    }
}

/// The name of a file in so many columns at most. What tells parts of one model apart stands before the ending:
/// `model-00001-of-00004.safetensors`.
fn named(name: &str, columns: usize) -> String {
    if name.width() <= columns {
        return name.to_owned();
    }
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    cut(stem, columns, columns / 4)
}

/// `text` in so many columns at most, without its middle.
pub(super) fn fitted(text: &str, columns: usize) -> String {
    cut(text, columns, columns / 2)
}

/// The same with so many columns before what is left out.
fn cut(text: &str, columns: usize, before: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let start = taken(text.chars(), before.min(room));
    let end = taken(text.chars().rev(), room - start.width());
    format!("{start}…{}", end.chars().rev().collect::<String>())
}

/// The first characters that fit.
fn taken(chars: impl Iterator<Item = char>, columns: usize) -> String {
    let mut width = 0;
    chars
        .take_while(|c| {
            width += c.width().unwrap_or(0);
            width <= columns
        })
        .collect()
}

/// The same in exactly so many columns.
fn padded(text: &str, columns: usize) -> String {
    let text = fitted(text, columns);
    let spaces = columns.saturating_sub(text.width());
    text + &" ".repeat(spaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "transformer/diffusion_pytorch_model-00001-of-00003.safetensors";

    fn shown(line: &Line) -> String {
        format!("{}{}{}", line.before, "=".repeat(line.track), line.behind)
    }

    fn of<'a>(name: Option<&'a str>, phase: &'a str) -> Whole<'a> {
        Whole {
            name,
            phase,
            done_bytes: 6_923_000_000,
            total_bytes: 16_100_000_000,
            done_files: 5,
            total_files: 12,
            bytes_per_second: 612_300_000,
            left: Left::Time(Duration::from_secs(15)),
        }
    }

    #[test]
    fn a_line_holds_as_much_as_fits() {
        for (columns, expected) in [
            (
                199,
                "fetching                             ============================================================  43 %   6.9 of 16.1 GB   5 of 12 files  612.3 MB/s  15s left",
            ),
            (
                99,
                "=================================  43 %   6.9 of 16.1 GB   5 of 12 files  612.3 MB/s  15s left",
            ),
            (59, "===========  43 %   6.9 of 16.1 GB  612.3 MB/s  15s"),
            (39, "========  43 %  612.3 MB/s  15s"),
            (19, "============  43 %"),
            (8, "43 %"),
        ] {
            assert_eq!(shown(&whole(columns, &of(None, "fetching"))).trim_end(), expected);
        }
        let several = shown(&whole(59, &of(Some("llama-3-8b"), "fetching")));
        assert_eq!(several.trim_end(), "llama-3-8b =================  43 %  612.3 MB/s  15s");
    }

    #[test]
    fn a_waiter_sees_for_whom_and_how_far_they_are() {
        let mut holder = of(Some("pod web-7 on node n2"), "fetching");
        let line = |columns, holder: &Whole<'_>| {
            shown(&waiting(columns, Duration::from_secs(72), holder)).trim_end().to_owned()
        };
        assert_eq!(
            line(99, &holder),
            "waiting 1m12s for pod web-7 on node n2 ==========================  43 %   6.9 of 16.1 GB  15s left"
        );
        assert_eq!(line(59, &holder), "waiting 1m12s for pod web-7 on node n2 ========  43 %  15s");
        assert_eq!(line(39, &holder), "waiting 1m1… on node n2 ========  43 %");
        holder.total_bytes = 0;
        assert_eq!(line(99, &holder), "waiting 1m12s for pod web-7 on node n2");
        assert_eq!(line(9, &holder), "wait…e n2");
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_is_wide() {
        let states = [
            FileState::Fetching { done: 7 },
            FileState::ToBeHashed,
            FileState::Hashing { done: 999_999_999 },
            FileState::Finishing,
        ];
        for columns in 12..240 {
            for name in ["a", LONG, "模型/权重-00001-的-00003-模型模型模型模型模型模型.safetensors"]
            {
                for state in states {
                    let line = shown(&file(columns, name, 1_000_000_000, state));
                    assert!(line.width() <= columns, "{columns}: {line}");
                }
                for phase in ["fetching", "checking what is in the bucket"] {
                    let line = whole(columns, &of(Some(name), phase));
                    let most = if columns < 30 { columns + 2 } else { columns };
                    assert!(shown(&line).width() <= most, "{columns}: {}", shown(&line));
                    let line = whole(columns, &of(None, phase));
                    assert!(shown(&line).width() <= columns.max(6), "{columns}: {}", shown(&line));
                }
            }
        }
    }

    #[test]
    fn a_name_loses_what_tells_least_and_is_no_wider_than_it_may_be() {
        assert_eq!(named("model-00001-of-00004.safetensors", 21), "model-00001-of-00004");
        assert_eq!(named(LONG, 34), "transfor…orch_model-00001-of-00003");
        assert_eq!(fitted("model.safetensors", 17), "model.safetensors");
        assert_eq!(fitted(LONG, 24), "transformer/…safetensors");
        assert_eq!(fitted("权重权重权重", 7), "权…权重");
        assert_eq!((fitted("abc", 1), fitted("abc", 0)), ("…".into(), String::new()));
        for columns in 0..30 {
            assert!(fitted("权重-重权a权重权重", columns).width() <= columns);
            assert_eq!(padded("权重-重权a权重权重", columns).width(), columns);
        }
    }

    #[test]
    fn the_words_say_what_goes_on() {
        let mut it = of(None, "fetching");
        assert_eq!(words(&it, 59), "15s");
        it.left = Left::Silent(Duration::from_millis(12_000));
        assert_eq!(words(&it, 199), "silent 12s");
        it.done_bytes = it.total_bytes;
        assert_eq!(words(&it, 199), "hashing");
        it.phase = "publishing";
        assert_eq!(words(&it, 199), "publishing");
        assert_eq!(rest(0, 0), None);
        assert_eq!(rest(1, 0).as_deref(), Some("  and 1 more file"));
        assert_eq!(rest(12, 3).as_deref(), Some("  and 12 more files; 3 retries"));
        assert_eq!(share(999_000_000, 16_100_000_000), " 1.0 of 16.1 GB");
        assert_eq!((percent(0, 0), percent(999, 1_000)), (100, 99));
    }
}
