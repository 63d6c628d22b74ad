//! Points in time as HTTP, S3 and the hub spell them. UTC only, no leap seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `Thu, 01 Jan 1970 00:00:00 GMT`
pub(crate) fn http_date(time: SystemTime) -> String {
    let date = Date::from(time);
    format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        WEEKDAYS[date.weekday],
        date.day,
        MONTHS[date.month - 1],
        date.year,
        date.hour,
        date.minute,
        date.second
    )
}

/// `1970-01-01T00:00:00.000Z`
pub(crate) fn iso_date(time: SystemTime) -> String {
    let Date { year, month, day, hour, minute, second, .. } = Date::from(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z")
}

/// `19700101T000000Z`, the form inside `SigV4`
pub(crate) fn amazon_date(time: SystemTime) -> String {
    let Date { year, month, day, hour, minute, second, .. } = Date::from(time);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Reads what [`amazon_date`] writes.
pub(crate) fn parse_amazon_date(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    if date.len() != 8 || time.len() != 6 {
        return None;
    }
    let number = |text: &str, from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let days = days_since_epoch(number(date, 0, 4)?, number(date, 4, 6)?, number(date, 6, 8)?)?;
    let seconds = number(time, 0, 2)? * 3600 + number(time, 2, 4)? * 60 + number(time, 4, 6)?;
    Some(UNIX_EPOCH + Duration::from_secs(days * 86_400 + seconds))
}

pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

struct Date {
    year: u64,
    month: usize,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    weekday: usize,
}

impl From<SystemTime> for Date {
    fn from(time: SystemTime) -> Self {
        let seconds = unix_seconds(time);
        let mut days = seconds / 86_400;
        let weekday = (days % 7) as usize;
        let mut year = 1970;
        while days >= days_in_year(year) {
            days -= days_in_year(year);
            year += 1;
        }
        let mut month = 1;
        while days >= days_in_month(year, month) {
            days -= days_in_month(year, month);
            month += 1;
        }
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        Self { year, month: month as usize, day: days + 1, hour, minute, second, weekday }
    }
}

fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let plausible = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day);
    plausible.then(|| {
        (1970..year).map(days_in_year).sum::<u64>()
            + (1..month).map(|month| days_in_month(year, month)).sum::<u64>()
            + day
            - 1
    })
}

fn days_in_year(year: u64) -> u64 {
    (1..=12).map(|month| days_in_month(year, month)).sum()
}

fn days_in_month(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// 1 January 1970 was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_day_is_spelled_in_every_form_and_read_back() {
        let time = UNIX_EPOCH + Duration::from_secs(1_709_208_061);
        assert_eq!(http_date(time), "Thu, 29 Feb 2024 12:01:01 GMT");
        assert_eq!(iso_date(time), "2024-02-29T12:01:01.000Z");
        assert_eq!(amazon_date(time), "20240229T120101Z");
        assert_eq!(parse_amazon_date("20240229T120101Z"), Some(time));
        assert_eq!(parse_amazon_date("20230229T120101Z"), None);
    }
}
