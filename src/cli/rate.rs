//! Rates, as people write them.

use crate::model::{Message, text};

/// Nobody fetches weights with less; who gives less has forgotten the unit.
const LEAST: u64 = 64_000;
/// 1 Tbit/s.
const MOST: u64 = 125_000_000_000;

/// Bytes per second; `1MB/s` says the same as `1MB`.
pub fn parse_min_rate(text: &str) -> Result<u64, Message> {
    match text::parse_size(text.trim().trim_end_matches("/s"))? {
        0 => Err(Message::new("0 is no rate").hint("use at least 1B, or leave it out")),
        rate => Ok(rate),
    }
}

/// `2Gbit`, `250MB` or `100MiB`, each also with `/s`, in bytes per second. Networks are sold in bits and disks in
/// bytes, so what does not say which of them it is, is refused.
pub fn parse_bandwidth(text: &str) -> Result<u64, Message> {
    const USE: &str = "use bits, such as 2Gbit, or bytes, such as 250MB";
    let shown = text::inert(text, 40);
    let told = |why: &str| Message::new(format!("`{shown}` {why}")).hint(USE);
    let text = text.trim();
    let rate = text.strip_suffix("/s").unwrap_or(text);
    let digits = rate.find(|c: char| !c.is_ascii_digit()).unwrap_or(rate.len());
    let (number, unit) = rate.split_at(digits);
    let number: u128 = number.parse().map_err(|_| told("is not a rate"))?;
    let unit = unit.trim();
    let (prefix, bits_of_unit) = if let Some(prefix) = unit.strip_suffix("bit") {
        (prefix, 1)
    } else if let Some(prefix) = unit.strip_suffix('B') {
        (prefix, 8)
    } else {
        return Err(told("does not say whether it is bits or bytes"));
    };
    let factor: u128 = match prefix.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        "ki" => 1 << 10,
        "mi" => 1 << 20,
        "gi" => 1 << 30,
        "ti" => 1 << 40,
        _ => return Err(told("has an unknown unit")),
    };
    let bits = number.checked_mul(factor).and_then(|it| it.checked_mul(bits_of_unit));
    match bits.map(|bits| bits / 8).and_then(|bytes| u64::try_from(bytes).ok()) {
        Some(rate) if rate < LEAST => {
            Err(Message::new(format!("`{shown}` is too small")).hint("use at least 64kB"))
        }
        Some(rate) if rate <= MOST => Ok(rate),
        _ => Err(Message::new(format!("`{shown}` is too large"))
            .hint("use at most 1Tbit, or leave it out")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bandwidth_is_in_bits_where_it_says_bit_and_in_bytes_where_it_says_b() {
        for (text, expected) in [
            ("2Gbit", 250_000_000),
            ("2gbit/s", 250_000_000),
            ("250MB", 250_000_000),
            ("250MB/s", 250_000_000),
            (" 250 MB/s ", 250_000_000),
            ("100MiB", 104_857_600),
            ("8Mibit", 1 << 20),
            ("512kbit", 64_000),
            ("64000B", 64_000),
            ("64KiB/s", 65_536),
            ("1Tbit", MOST),
        ] {
            assert_eq!(parse_bandwidth(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_bandwidth_that_is_not_clear_is_refused_and_says_why() {
        for (text, why) in [
            ("0", "bits or bytes"),
            ("0MB", "too small"),
            ("511kbit", "too small"),
            ("250", "bits or bytes"),
            ("2Gb", "bits or bytes"),
            ("2G", "bits or bytes"),
            ("2Gi", "bits or bytes"),
            ("2Gbps", "bits or bytes"),
            ("2mb/s", "bits or bytes"),
            ("2Gbit/m", "bits or bytes"),
            ("2Gbits", "bits or bytes"),
            ("2XB", "unknown unit"),
            ("2 G bit", "unknown unit"),
            ("1.5GB", "unknown unit"),
            ("", "is not a rate"),
            ("-1MB", "is not a rate"),
            ("fast", "is not a rate"),
            ("1125Gbit", "too large"),
            ("99999999999999999999999999999TB", "too large"),
            ("999999999999999999999999999999999999999999MB", "is not a rate"),
        ] {
            let error = parse_bandwidth(text).expect_err(text);
            assert!(error.what.contains(why) && error.hint.is_some(), "{text}: {error}");
        }
        assert!(
            !parse_bandwidth("1\u{1b}[31m").expect_err("is refused").to_string().contains('\u{1b}')
        );
    }
}
