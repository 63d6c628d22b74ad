//! Quantities and foreign text, as people read and write them.

use std::time::Duration;

use super::Message;

/// Characters that may do something to a terminal or a log viewer: C0, DEL, C1, line and paragraph
/// separators, and the marks that reorder or hide text.
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `text` from somebody else, fit for one line of output: control characters become `\u{…}`, and
/// what is longer than `max_chars` is cut.
pub fn inert(text: &str, max_chars: usize) -> String {
    let mut out = String::new();
    for (n, c) in text.trim().chars().enumerate() {
        if n == max_chars {
            out.push('…');
            break;
        }
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c if is_control(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// The name of a file that somebody else has chosen, fit for one line of output. Unlike `inert` it
/// keeps white space, which belongs to a name; what would end the line is escaped.
pub fn name(name: &str, max_chars: usize) -> String {
    let mut out = String::new();
    for (n, c) in name.chars().enumerate() {
        match c {
            _ if n == max_chars => {
                out.push('…');
                break;
            }
            c if is_control(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// `text` without what could be a token, a key or a signature: every long run of the characters that
/// such things are made of.
pub fn without_secrets(text: &str) -> String {
    const LONGEST_WORD: usize = 15;
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || "_-+/=%&".contains(c);
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(if end == 0 { first.len_utf8() } else { end });
        out += if word.len() > LONGEST_WORD { "…" } else { word };
        rest = after;
    }
    out
}

/// Valid JSON with what could act on a terminal escaped: JSON itself escapes only the ASCII part.
pub fn inert_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            c if is_control(c) => out += &format!("\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out
}

/// Parses `64MiB`, `64M` (the same), `1GB` (decimal), `67108864`.
pub fn parse_size(text: &str) -> Result<u64, Message> {
    let text = text.trim();
    let shown = inert(text, 40);
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| not_a(&shown, "size", "write one such as 64MiB or 67108864"))?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => {
            let what = Message::new(format!("`{shown}` has an unknown unit"));
            return Err(what.hint("use KiB, MiB, GiB or bytes"));
        }
    };
    number
        .checked_mul(factor)
        .ok_or_else(|| Message::new(format!("`{shown}` is too large")).hint("use a smaller size"))
}

/// Parses `90s`, `5m`, `2h`, `250ms`, `1h30m`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, Message> {
    let wrong = || not_a(&inert(text, 40), "duration", "write one such as 90s, 5m or 2h");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let millis: u64 = match &rest[..letters] {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        let part = number.checked_mul(millis).ok_or_else(wrong)?;
        total = total.checked_add(Duration::from_millis(part)).ok_or_else(wrong)?;
    }
    Ok(total)
}

fn not_a(shown: &str, what: &str, hint: &'static str) -> Message {
    Message::new(format!("`{shown}` is not a {what}")).hint(hint)
}

/// A revision as a sentence has it: its first twelve digits, behind the algorithm of a digest.
pub fn revision(revision: &str) -> &str {
    let digits = revision.strip_prefix("sha256:").unwrap_or(revision);
    let end = revision.len() - digits.len() + 12;
    revision.get(..end).unwrap_or(revision)
}

/// The first characters of an identifier.
pub fn prefix(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

/// Bytes for people, decimal as disks and registries count them: `16.1 GB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1 file`, `2 files`.
pub fn files(count: usize) -> String {
    self::count(count, "file")
}

/// `1 model`, `2 models`.
pub fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// How old something is: `9 days`, to the nearest; `2h05m`.
pub fn age(span: Duration) -> String {
    const DAY: u64 = 86_400;
    match span.as_secs() {
        seconds if seconds < 2 * DAY => duration(span),
        seconds => format!("{} days", (seconds + DAY / 2) / DAY),
    }
}

/// A time span for people, to the nearest of what is shown: `0.4s`, `12s`, `3m05s`, `1h02m`. Never cut off: of
/// two hours of which three seconds are gone, two hours are left.
pub fn duration(span: Duration) -> String {
    let nearest = |unit_ms: u128| (span.as_millis() + unit_ms / 2) / unit_ms;
    let (tenths, seconds, minutes) = (nearest(100), nearest(1_000), nearest(60_000));
    match seconds {
        _ if tenths < 100 => format!("{}.{}s", tenths / 10, tenths % 10),
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_the_three_ways_people_write_them() {
        for text in ["64MiB", "64M", "67108864", "64 mib", "64Mi"] {
            assert_eq!(parse_size(text), Ok(64 << 20), "{text}");
        }
        assert_eq!(parse_size("2GB"), Ok(2_000_000_000));
        for text in
            ["", "M", "-1", "1.5G", "64 parsecs", "99999999999999999999", "18014398509481984K"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_with_and_without_units() {
        for (text, millis) in
            [("90s", 90_000), ("5m", 300_000), ("90", 90_000), ("1h30m", 5_400_000), ("250ms", 250)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "5 minutes", "-5s", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor_or_start_a_line() {
        assert_eq!(inert("a\u{1b}[31m\nb\u{202e}c", 100), "a\\u{1b}[31m b\\u{202e}c");
        assert_eq!(inert("abcdef", 3), "abc…");
        assert_eq!(name(" a\n\u{9b}", 100), " a\\u{a}\\u{9b}");
        assert_eq!(name("abcdef", 3), "abc…");
    }

    #[test]
    fn what_could_be_a_secret_is_left_out() {
        let shown = without_secrets(
            "called `Result::unwrap()` on an `Err` value: é \"https://a.example/b?X-Amz-Signature=\
             0123456789abcdef\", Bearer hf_0123456789abcdefghij, AbCd/EfGh+IjKlMnOp",
        );
        let expected = "called `Result::unwrap()` on an `Err` value: é \"https://a.example/b?…\", \
                        Bearer …, …";
        assert_eq!(shown, expected);
        let bounds = "index out of bounds: the len is 3 but the index is 5";
        assert_eq!(without_secrets(bounds), bounds);
    }

    #[test]
    fn json_keeps_its_meaning_without_what_acts_on_a_terminal() {
        let json = inert_json("{\"a\":\"x\u{202e}\u{9b}é\"}");
        assert_eq!(json, "{\"a\":\"x\\u202e\\u009bé\"}");
    }

    #[test]
    fn a_revision_is_known_by_twelve_digits() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(revision(&digits), "0123456789ab");
        assert_eq!(revision(&format!("sha256:{digits}")), "sha256:0123456789ab");
        for short in ["", "abc", "sha256:", "sha256:abc", "aéééééééé"] {
            assert_eq!(revision(short), short);
        }
    }

    #[test]
    fn times_are_shown_to_the_nearest_of_what_is_shown() {
        for (millis, shown) in [
            (0, "0.0s"),
            (49, "0.0s"),
            (1_250, "1.3s"),
            (9_949, "9.9s"),
            (9_950, "10s"),
            (59_499, "59s"),
            (59_500, "1m00s"),
            (185_000, "3m05s"),
            // Ten minutes less three seconds.
            (596_900, "9m57s"),
            (3_599_499, "59m59s"),
            (3_599_500, "1h00m"),
            // Two hours less three seconds, and less half a minute.
            (7_196_900, "2h00m"),
            (7_170_000, "2h00m"),
            (7_169_999, "1h59m"),
            (360_000_000, "100h00m"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), shown, "{millis}");
        }
    }

    #[test]
    fn quantities_are_short() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_000), "1.0 kB");
        assert_eq!(size(999_960), "1.0 MB");
        assert_eq!(size(16_060_522_752), "16.1 GB");
        assert_eq!(age(Duration::from_secs(9 * 86_400 - 5)), "9 days");
        assert_eq!(age(Duration::from_secs(7_500)), "2h05m");
    }
}
