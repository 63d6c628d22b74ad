//! The bytes of one range, as they arrive: exactly as many as were asked for, or an error.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Response, StatusCode};

use super::{SourceError, encoding, http};
use crate::model::{RemoteFile, text};

/// A body whose head has promised exactly the range that was asked for.
#[derive(Debug)]
pub struct Body {
    response: Response,
    origin: String,
    /// Bytes that the range still lacks.
    left: u64,
    /// The server sends the whole file from byte 0; we stop where our range ends.
    runs_on: bool,
    /// The compression that the head has claimed.
    encoding: Option<String>,
    stall: Duration,
}

impl Body {
    /// Accepts a `206` for exactly `range`, or a `200` if the range starts at byte 0.
    pub fn open(
        response: Response,
        file: &RemoteFile,
        range: Range<u64>,
        stall: Duration,
    ) -> Result<Self, SourceError> {
        let origin = http::origin(response.url());
        let headers = response.headers();
        let text_of = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let length = text_of(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        let wanted = range.end - range.start;
        let encoding = encoding::claimed(headers);
        let compressed = encoding::hint(encoding.as_deref());
        // S3 hands out a stored Content-Encoding beside the bytes as they are stored. What counts
        // is whether the answer is as long as the file that was listed.
        let is_stored = length.is_some() || response.status() == StatusCode::PARTIAL_CONTENT;
        if encoding.is_some() && !is_stored {
            return Err(SourceError::Protocol(format!(
                "`{origin}` sent `{}` in another form{compressed}",
                file.path
            )));
        }
        let mut runs_on = false;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let checked = check_content_range(text_of(CONTENT_RANGE), &range, file, &origin);
                checked.map_err(|error| match error {
                    // Another size is that of the compressed file.
                    error if encoding.is_some() => {
                        SourceError::Protocol(format!("{error}{compressed}"))
                    }
                    error => error,
                })?;
                if let Some(length) = length.filter(|length| *length != wanted) {
                    return Err(SourceError::Protocol(format!(
                        "`{origin}` announced {length} bytes for the {wanted} bytes from {} of \
                         `{}`{compressed}",
                        range.start, file.path
                    )));
                }
            }
            StatusCode::OK if range.start == 0 => {
                if let Some(length) = length.filter(|length| *length != file.size) {
                    return Err(SourceError::Protocol(format!(
                        "`{origin}` sent `{}` with {length} bytes, listed were {}{}{compressed}",
                        file.path,
                        file.size,
                        web_page(text_of(CONTENT_TYPE).is_some_and(|it| it.contains("html")))
                    )));
                }
                runs_on = range.end < file.size;
            }
            StatusCode::OK if length.is_some_and(|length| length != file.size) => {
                return Err(SourceError::Protocol(format!(
                    "`{origin}` sent {} bytes instead of a range of `{}`, listed were {}{}{compressed}",
                    length.unwrap_or_default(),
                    file.path,
                    file.size,
                    web_page(text_of(CONTENT_TYPE).is_some_and(|it| it.contains("html")))
                )));
            }
            StatusCode::OK => {
                return Err(SourceError::NoRanges { host: origin, file: file.path.to_string() });
            }
            status => {
                return Err(SourceError::Protocol(format!(
                    "`{origin}` answered {} for `{}`",
                    status.as_u16(),
                    file.path
                )));
            }
        }
        Ok(Self { response, origin, left: wanted, runs_on, encoding, stall })
    }

    /// The next bytes, or `None` once the range is complete.
    pub async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        if self.left == 0 {
            return Ok(None);
        }
        let piece = match tokio::time::timeout(self.stall, self.response.chunk()).await {
            Err(_) => {
                return Err(SourceError::Unreachable(format!(
                    "`{}` sent nothing for {}, {} bytes before the end",
                    self.origin,
                    text::duration(self.stall),
                    self.left
                )));
            }
            Ok(Err(error)) => return Err(http::transport_error(&self.origin, &error)),
            Ok(Ok(piece)) => piece,
        };
        let Some(mut piece) = piece else {
            let told = format!("`{}` ended the body {} bytes early", self.origin, self.left);
            return Err(match self.encoding.as_deref() {
                // The next one will be as short.
                Some(name) => SourceError::Protocol(told + &encoding::hint(Some(name))),
                None => SourceError::Unreachable(told),
            });
        };
        let len = piece.len() as u64;
        if self.runs_on {
            piece.truncate(self.left.min(len) as usize);
        } else if len > self.left || (len == self.left && self.goes_on().await) {
            return Err(SourceError::Protocol(format!(
                "`{}` sent more bytes than the range has{}",
                self.origin,
                encoding::hint(self.encoding.as_deref())
            )));
        }
        self.left -= piece.len() as u64;
        Ok(Some(piece))
    }

    /// Whether bytes follow those of the range. A body without a length that breaks off here, or
    /// stays open, lacks its end and nothing else.
    async fn goes_on(&mut self) -> bool {
        let rest = tokio::time::timeout(self.stall, self.response.chunk()).await;
        matches!(rest, Ok(Ok(Some(piece))) if !piece.is_empty())
    }
}

/// What to add to the words about an answer that is something else than what was asked for.
pub(crate) fn web_page(is_one: bool) -> &'static str {
    if is_one { "; it looks like a web page: is there a proxy or a portal in between?" } else { "" }
}

/// `bytes 0-99/1000` must name the range that was asked for and the size that was listed.
pub(crate) fn check_content_range(
    header: Option<&str>,
    range: &Range<u64>,
    file: &RemoteFile,
    origin: &str,
) -> Result<(), SourceError> {
    let parsed = header.and_then(|value| {
        let (span, total) = value.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        let number = |text: &str| text.trim().parse::<u64>().ok();
        // A total that is not told (`*`) says nothing wrong.
        let total = if total.trim() == "*" { file.size } else { number(total)? };
        Some((number(first)?, number(last)?, total))
    });
    match parsed {
        Some((first, last, total))
            if first == range.start
                && last.checked_add(1) == Some(range.end)
                && total == file.size =>
        {
            Ok(())
        }
        Some((_, _, total)) if total != file.size => Err(SourceError::Changed(format!(
            "`{}` has {total} bytes at `{origin}`, listed were {}",
            file.path, file.size
        ))),
        _ => Err(SourceError::Protocol(format!(
            "`{origin}` answered bytes {}-{} of `{}` with Content-Range `{}`",
            range.start,
            range.end - 1,
            file.path,
            text::inert(header.unwrap_or("missing"), 80)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RelPath;

    #[test]
    fn a_content_range_must_be_the_one_that_was_asked_for() {
        let path = RelPath::parse("a").expect("path");
        let file = RemoteFile { path, size: 1_000, digest: None, validator: None };
        let check = |header: &str| check_content_range(Some(header), &(100..200), &file, "o");
        assert!(check("bytes 100-199/1000").is_ok());
        assert!(check("bytes 100-199/*").is_ok());
        for other in [
            "bytes 100-198/1000",
            "bytes 100-200/1000",
            "bytes 99-199/1000",
            "bytes 0-99/1000",
            "bytes 100-18446744073709551615/1000",
            "bytes */1000",
            "100-199/1000",
            "items 100-199/1000",
            "",
        ] {
            assert!(matches!(check(other), Err(SourceError::Protocol(_))), "{other}");
        }
        assert!(matches!(check("bytes 100-199/1001"), Err(SourceError::Changed(_))));
        assert!(check_content_range(None, &(100..200), &file, "o").is_err());
    }
}
