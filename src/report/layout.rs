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
/// What the widest share takes, and the count of files of most models.
const SHARE_COLUMNS: usize = 17;
const FILES_COLUMNS: usize = 16;
/// So much is left of who is waited for and since when.
const MIN_WAITING: usize = 30;
/// A wait without an end.
const LONGEST_WAIT: Duration = Duration::from_secs(1_000 * 3_600);

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
    /// The width of the widest name of several.
    pub name_columns: usize,
    pub phase: &'a str,
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub done_files: u64,
    pub total_files: u64,
    pub bytes_per_second: u64,
    pub left: Left,
}

/// What there is to say of a wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait<'a> {
    pub waited: Duration,
    pub gives_up_in: Duration,
    /// What is not there yet, where no holder is known.
    pub missing: &'a str,
}

/// `llama  ━━━━━━━━╾─────────  43 %  6.9 of 16.1 GB  5 of 12 files  612.3 MB/s  15s left`
pub(super) fn whole(columns: usize, whole: &Whole<'_>) -> Line {
    let Whole { name, phase, done_bytes, total_bytes, done_files, total_files, .. } = whole;
    let is_wide = columns >= WIDE;
    let most = if is_wide { MAX_NAME } else { (columns / 3).min(MAX_NAME) };
    let label_columns = if is_wide { most } else { most.min(whole.name_columns) };
    let label = name.or(is_wide.then_some(*phase));
    let before = label.map_or(String::new(), |label| match label_columns {
        0 => fitted(label, most) + " ",
        columns => padded(label, columns) + " ",
    });
    if *total_bytes == 0 {
        // It is not known yet how much there is to do.
        let before = if is_wide && name.is_none() { before } else { before + phase };
        return Line {
            before: fitted(before.trim_end(), columns),
            track: 0,
            behind: String::new(),
        };
    }
    let (of_files, digits) = (total_files.to_string(), total_files.to_string().len());
    let mut files = format!("{done_files:>digits$} of {of_files} files");
    if *total_files < 2 {
        files.clear();
    }
    let mut share = share(*done_bytes, *total_bytes);
    // The lines of several models stand one below the other, and so do their tracks.
    if name.is_some() {
        (files, share) = (format!("{files:>FILES_COLUMNS$}"), format!("{share:>SHARE_COLUMNS$}"));
    }
    // What follows the last byte has no rate.
    let rate = match done_bytes < total_bytes {
        true => format!("{:>10}", format!("{}/s", text::size(whole.bytes_per_second))),
        false => " ".repeat(10),
    };
    let reserved = if columns < WIDE / 2 { 10 } else { 13 };
    let mut parts = [
        format!("{:>3} %", percent(*done_bytes, *total_bytes)),
        share,
        files,
        rate,
        format!("{:<reserved$}", words(whole, columns)),
    ];
    // The names of files say less than how much there is, and that less than when it is done.
    for part in [2, 1, 3, 4] {
        if room(columns, &before, &parts) < MIN_TRACK {
            parts[part].clear();
        }
    }
    line(columns, before, &parts)
}

/// `waiting 1m12s for pod web-7 on node n2  ━━━━╾──────  43 %  6.9 of 16.1 GB  15s left  gives up in 9m48s`
pub(super) fn waiting(columns: usize, wait: &Wait<'_>, holder: &Whole<'_>) -> Line {
    let waited = seconds(wait.waited);
    let before = match holder.name {
        Some(name) => format!("waiting {waited} for {}", text::inert(name, 500)),
        None => format!("waiting {waited}: {}", text::inert(wait.missing, 500)),
    };
    let gives_up = match wait.gives_up_in {
        long if long > LONGEST_WAIT => String::new(),
        time => format!("gives up in {}", seconds(time)),
    };
    let Whole { done_bytes, total_bytes, .. } = *holder;
    let has_total = total_bytes > 0;
    let mut parts = match has_total {
        true => [
            format!("{:>3} %", percent(done_bytes, total_bytes)),
            share(done_bytes, total_bytes),
            words(holder, columns),
            gives_up,
        ],
        false => {
            let silent = match holder.left {
                Left::Silent(time) if holder.name.is_some() => format!("silent {}", seconds(time)),
                _ => String::new(),
            };
            [String::new(), String::new(), silent, gives_up]
        }
    };
    let track = if has_total { MIN_TRACK } else { 0 };
    // Rather than what a waiter wants to know, a long name is cut.
    let least = before.width().min(MIN_WAITING);
    for part in [1, 3, 2] {
        if room(columns, "", &parts) < least + track + 1 {
            parts[part].clear();
        }
    }
    if !has_total {
        let before = fitted(&before, room(columns, "", &parts));
        let told = parts.into_iter().filter(|part| !part.is_empty());
        return Line { before, track: 0, behind: told.map(|part| format!("  {part}")).collect() };
    }
    let most = room(columns, "", &parts).saturating_sub(track + 1);
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

/// When it is done, and what goes on unless that is told already.
fn words(whole: &Whole<'_>, columns: usize) -> String {
    let Whole { name, phase, done_bytes, total_bytes, .. } = whole;
    let is_told = columns >= WIDE && name.is_none();
    let is_over = done_bytes >= total_bytes;
    let doing = match *phase {
        // Of a holder no more is known.
        "fetching" if is_over => "hashing",
        phase => phase.split(' ').next().unwrap_or_default(),
    };
    let is_plain = is_told || matches!(doing, "fetching" | "mirroring" | "");
    match whole.left {
        _ if is_over && columns < WIDE => doing.to_owned(),
        _ if is_over && doing == "hashing" => doing.to_owned(),
        _ if is_over => (*phase).to_owned(),
        Left::Unknown if is_plain => String::new(),
        Left::Unknown => doing.to_owned(),
        Left::AlmostNone if columns < WIDE / 2 => "days".into(),
        Left::AlmostNone => "days left".into(),
        Left::Time(left) if columns < WIDE / 2 => seconds(left),
        Left::Time(left) if is_plain => format!("{} left", seconds(left)),
        Left::Time(left) => format!("{doing} {}", seconds(left)),
        Left::Silent(silent) => format!("silent {}", seconds(silent)),
    }
}

/// `8s`, `3m05s`, `1h02m`: without tenths, which nobody can read in time.
pub(super) fn seconds(time: Duration) -> String {
    let whole = time.as_millis().div_ceil(1_000) as u64;
    match whole {
        few @ 0..=10 => format!("{few}s"),
        _ => text::duration(Duration::from_secs(whole)),
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
            name_columns: 0,
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
                "================================  43 %   6.9 of 16.1 GB   5 of 12 files  612.3 MB/s  15s left",
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
        for (columns, expected) in [
            (
                99,
                "================================  43 %   6.9 of 16.1 GB   5 of 12 files  612.3 MB/s  hashing 15s",
            ),
            (59, "===========  43 %   6.9 of 16.1 GB  612.3 MB/s  15s"),
        ] {
            assert_eq!(shown(&whole(columns, &of(None, "hashing"))).trim_end(), expected);
        }
        let mut unknown = of(None, "reading what is here");
        unknown.total_bytes = 0;
        assert_eq!(shown(&whole(199, &unknown)), "reading what is here");
        assert_eq!(shown(&whole(59, &unknown)), "reading what is here");
        unknown.name = Some("llama");
        assert_eq!(shown(&whole(59, &unknown)), "llama reading what is here");
    }

    #[test]
    fn tracks_of_several_models_stand_one_below_the_other() {
        let mut small = of(Some("bge"), "hashing");
        (small.done_bytes, small.total_bytes) = (613_000, 613_100);
        (small.done_files, small.total_files, small.bytes_per_second) = (0, 1, 900);
        let large = of(Some("llama-3-8b"), "fetching");
        for columns in 40..240 {
            let [small, large] = [&small, &large].map(|it| {
                let line = whole(columns, &Whole { name_columns: 10, ..it.clone() });
                (line.before.width(), line.track)
            });
            assert_eq!(small, large, "{columns}");
        }
    }

    #[test]
    fn a_waiter_sees_for_whom_how_far_they_are_and_until_when() {
        let mut holder = of(Some("pod web-7 on node n2"), "fetching");
        let wait = Wait {
            waited: Duration::from_secs(72),
            gives_up_in: Duration::from_secs(588),
            missing: "`/data/llama` does not exist",
        };
        let line = |columns, holder: &Whole<'_>| {
            shown(&waiting(columns, &wait, holder)).trim_end().to_owned()
        };
        assert_eq!(
            line(119, &holder),
            "waiting 1m12s for pod web-7 on node n2 ===========================  43 %   6.9 of 16.1 GB  15s left  gives up in 9m48s"
        );
        assert_eq!(
            line(79, &holder),
            "waiting 1m12s for…web-7 on node n2 ========  43 %  15s left  gives up in 9m48s"
        );
        assert_eq!(line(59, &holder), "waiting 1m12s for pod web-7 on node n2 ========  43 %  15s");
        assert_eq!(line(39, &holder), "waiting 1m1… on node n2 ========  43 %");
        holder.left = Left::Silent(Duration::from_secs(20));
        holder.total_bytes = 0;
        assert_eq!(
            line(99, &holder),
            "waiting 1m12s for pod web-7 on node n2  silent 20s  gives up in 9m48s"
        );
        assert_eq!(line(9, &holder), "wait…e n2");
        holder.name = None;
        assert_eq!(
            line(79, &holder),
            "waiting 1m12s: `/data/llama` does not exist  gives up in 9m48s"
        );
        assert_eq!(
            line(59, &holder),
            "waiting 1m12s: `/dat…ama` does not exist  gives up in 9m48s"
        );
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
        it.left = Left::Time(Duration::from_secs(65));
        it.phase = "hashing";
        assert_eq!(
            (words(&it, 79), words(&it, 199)),
            ("hashing 1m05s".into(), "1m05s left".into())
        );
        it.left = Left::Unknown;
        assert_eq!((words(&it, 79), words(&it, 199)), ("hashing".into(), String::new()));
        (it.phase, it.done_bytes) = ("fetching", it.total_bytes);
        assert_eq!(words(&it, 199), "hashing");
        it.phase = "publishing";
        assert_eq!(words(&it, 199), "publishing");
        assert_eq!(rest(0, 0), None);
        assert_eq!(rest(1, 0).as_deref(), Some("  and 1 more file"));
        assert_eq!(rest(12, 3).as_deref(), Some("  and 12 more files; 3 retries"));
        assert_eq!(share(999_000_000, 16_100_000_000), " 1.0 of 16.1 GB");
        assert_eq!((percent(0, 0), percent(999, 1_000)), (100, 99));
        let shown =
            [0, 8_001, 9_001, 10_000, 10_001, 59_500].map(|it| seconds(Duration::from_millis(it)));
        assert_eq!(shown, ["0s", "9s", "10s", "10s", "11s", "1m00s"]);
    }
}
