//! The few facts of an X.509 certificate that `webpki` does not tell: since when it is valid, and whether it is for
//! signatures. Whether anybody vouches for it is not asked here.

/// What a certificate says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Seconds since 1970.
    pub not_before: u64,
    /// Its key usage has digital signatures, or its extended key usage has the signing of code.
    pub is_for_signatures: bool,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BOOLEAN: u8 = 0x01;
const BITS: u8 = 0x03;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const DIGITAL_SIGNATURE: u8 = 0x80;
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];

/// The facts of a certificate, if it can be read so far.
pub fn facts(certificate: &[u8]) -> Option<Facts> {
    let mut certificate = Reader(certificate).inside(SEQUENCE)?;
    let mut fields = certificate.inside(SEQUENCE)?;
    fields.skip_if(VERSION);
    fields.take(INTEGER)?; // serial number
    fields.take(SEQUENCE)?; // algorithm
    fields.take(SEQUENCE)?; // issuer
    let mut validity = fields.inside(SEQUENCE)?;
    let (tag, text) = validity.next()?;
    let not_before = seconds(tag, text)?;
    fields.take(SEQUENCE)?; // subject
    fields.take(SEQUENCE)?; // public key
    let mut is_for_signatures = false;
    while let Some((tag, content)) = fields.next() {
        if tag == EXTENSIONS {
            is_for_signatures |= says_signatures(Reader(content))?;
        }
    }
    Some(Facts { not_before, is_for_signatures })
}

fn says_signatures(mut extensions: Reader<'_>) -> Option<bool> {
    let mut all = extensions.inside(SEQUENCE)?;
    let mut says = false;
    while let Some((_, extension)) = all.next() {
        let mut extension = Reader(extension);
        let oid = extension.take(OID)?;
        extension.skip_if(BOOLEAN);
        let mut value = Reader(extension.take(OCTETS)?);
        says |= match oid {
            KEY_USAGE => match value.take(BITS)? {
                [_, first, ..] => first & DIGITAL_SIGNATURE != 0,
                _ => false,
            },
            EXTENDED_KEY_USAGE => {
                let mut purposes = value.inside(SEQUENCE)?;
                std::iter::from_fn(|| purposes.next()).any(|purpose| purpose == (OID, CODE_SIGNING))
            }
            _ => false,
        };
    }
    Some(says)
}

/// A time as certificates write it: `YYMMDDhhmmssZ`, or with the century.
fn seconds(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => match number(&digits[..2]) {
            year @ 50.. => (1900 + year, &digits[2..]),
            year => (2000 + year, &digits[2..]),
        },
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let mut parts = rest.chunks(2).map(number);
    let mut part =
        |range: std::ops::RangeInclusive<u64>| parts.next().filter(|n| range.contains(n));
    let (month, day) = (part(1..=12)?, part(1..=31)?);
    let (hour, minute, second) = (part(0..=23)?, part(0..=59)?, part(0..=60)?);
    let days = days_since_1970(year, month, day)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    // Years begin in March, so that a leap day is the last one.
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    days.checked_sub(719_468)
}

/// What is left of a row of DER elements.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The tag and the content of the next element.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (len.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn take(&mut self, expected: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == expected).map(|(_, content)| content)
    }

    fn inside(&mut self, expected: u8) -> Option<Reader<'a>> {
        self.take(expected).map(Reader)
    }

    fn skip_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_certificates_are_seconds_since_1970() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "000229000000Z", Some(951_782_400)),
            (UTC_TIME, "260731235959Z", Some(1_785_542_399)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "21000301000000Z", Some(4_107_542_400)),
            (UTC_TIME, "500101000000Z", None),
            (GENERALIZED_TIME, "00000101000000Z", None),
            (UTC_TIME, "7001010000Z", None),
            (UTC_TIME, "701301000000Z", None),
            (UTC_TIME, "700101000000+0100", None),
            (GENERALIZED_TIME, "700101000000Z", None),
        ] {
            assert_eq!(seconds(tag, text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_cut_off_is_no_element() {
        for der in [
            &[][..],
            &[0x30],
            &[0x30, 2, 0],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x82, 1],
            &[0x30, 0x85, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Reader(der).next(), None, "{der:?}");
        }
        assert_eq!(Reader(&[0x30, 0x81, 1, 7, 9]).next(), Some((0x30, &[7][..])));
    }
}
