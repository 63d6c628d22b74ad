//! The bytes of one range, as they arrive: exactly as many as were asked for, or an error.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Response, StatusCode};

use super::http::Http;
use super::tally::Transfer;
use super::via::BrokeOff;
use super::{Bandwidth, Peer, Problem, SourceError, encoding, http};
use crate::model::{ErrorFields, RemoteFile, text};

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
    bandwidth: Option<Arc<Bandwidth>>,
    /// Has arrived, and waits for `bandwidth`.
    held: Bytes,
    came_from: Option<Peer>,
    /// Is told where the bytes do not come as was promised.
    broke_off: Option<BrokeOff>,
    _transfer: Transfer,
}

/// What a body is to be.
#[derive(Debug)]
pub struct Part<'a> {
    /// Of the file, for messages.
    pub name: &'a str,
    /// Bytes of the whole file, where that is known.
    pub size: Option<u64>,
    pub range: Range<u64>,
}

impl Body {
    /// Accepts a `206` for exactly `range`, or a `200` if the range starts at byte 0.
    pub fn open(
        http: &Http,
        response: Response,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Self, SourceError> {
        let (name, size) = (file.path.as_str(), Some(file.size));
        Self::open_part(http, response, &Part { name, size, range })
    }

    /// The same of something that is no listed file. Where its size is not known, only a `206` will do.
    pub fn open_part(
        http: &Http,
        response: Response,
        part: &Part<'_>,
    ) -> Result<Self, SourceError> {
        let Part { name, range, .. } = part;
        let origin = http::origin(response.url());
        let headers = response.headers();
        let text_of = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let length = text_of(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        let wanted = range.end - range.start;
        let encoding = encoding::claimed(headers);
        let is_web_page = text_of(CONTENT_TYPE).is_some_and(|it| it.contains("html"));
        let wrong = |what: Wrong, is_web_page: bool| {
            SourceError::Protocol(
                WrongBody {
                    host: http::origin(response.url()),
                    file: Some((*name).to_owned()),
                    what,
                    hint: hint(is_web_page, encoding.as_deref()),
                }
                .into(),
            )
        };
        // S3 hands out a stored Content-Encoding beside the bytes as they are stored. What counts
        // is whether the answer is as long as the file that was listed.
        let is_stored = length.is_some() || response.status() == StatusCode::PARTIAL_CONTENT;
        if encoding.is_some() && !is_stored {
            return Err(wrong(Wrong::Form, false));
        }
        let listed = part.size.unwrap_or_default();
        let mut runs_on = false;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let header = text_of(CONTENT_RANGE);
                // Where nothing is listed, the length says it as well.
                let is_told = part.size.is_some() || header.is_some() || length != Some(wanted);
                let checked =
                    if is_told { check_content_range(header, range, part.size) } else { Ok(()) };
                checked.map_err(|what| match what {
                    // Otherwise it is the size of the compressed file.
                    Wrong::Total { .. } if encoding.is_none() => {
                        let file = Some((*name).to_owned());
                        let host = http::origin(response.url());
                        SourceError::Changed(WrongBody { host, file, what, hint: None }.into())
                    }
                    what => wrong(what, false),
                })?;
                if let Some(length) = length.filter(|length| *length != wanted) {
                    let what = Wrong::Announced { length, wanted, from: range.start };
                    return Err(wrong(what, false));
                }
            }
            StatusCode::OK if part.size.is_none() => {
                return Err(wrong(Wrong::Status(200), is_web_page));
            }
            StatusCode::OK if range.start == 0 => {
                if let Some(length) = length.filter(|length| *length != listed) {
                    return Err(wrong(Wrong::Size { length, listed }, is_web_page));
                }
                runs_on = range.end < listed;
            }
            StatusCode::OK if length.is_some_and(|length| length != listed) => {
                let length = length.unwrap_or_default();
                return Err(wrong(Wrong::NoRange { length, listed }, is_web_page));
            }
            StatusCode::OK => {
                return Err(SourceError::NoRanges { host: origin, file: (*name).to_owned() });
            }
            status => {
                let what = Wrong::Status(status.as_u16());
                let host = http::origin(response.url());
                let file = Some((*name).to_owned());
                let problem = WrongBody { host, file, what, hint: None };
                return Err(SourceError::Protocol(problem.into()));
            }
        }
        let (stall, bandwidth) = (http.deadlines.stall, http.reads.clone());
        let (left, held, came_from) = (wanted, Bytes::new(), http.peer_of(&response));
        let broke_off = response.extensions().get().cloned();
        Ok(Self {
            response,
            origin,
            left,
            runs_on,
            encoding,
            stall,
            bandwidth,
            held,
            came_from,
            broke_off,
            _transfer: Transfer::begin(),
        })
    }

    /// The next bytes, or `None` once the range is complete. A wait for the bandwidth is no stall: what it is
    /// for has arrived.
    pub async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        let Some(bandwidth) = self.bandwidth.clone() else { return self.arrive().await };
        if self.held.is_empty() {
            match self.arrive().await? {
                Some(piece) => self.held = piece,
                None => return Ok(None),
            }
        }
        let len = self.held.len().min(bandwidth.burst());
        if let Some(wait) = bandwidth.take(len) {
            wait.await;
        }
        Ok(Some(self.held.split_to(len)))
    }

    /// Where the bytes come from.
    pub fn peer(&self) -> Option<Peer> {
        self.came_from.clone()
    }

    async fn arrive(&mut self) -> Result<Option<Bytes>, SourceError> {
        let arrived = self.next_piece().await;
        if let (Err(_), Some(BrokeOff(tell))) = (&arrived, &self.broke_off) {
            tell();
        }
        arrived
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, SourceError> {
        if self.left == 0 {
            return Ok(None);
        }
        let piece = match tokio::time::timeout(self.stall, self.response.chunk()).await {
            Err(_) => {
                self.came_from.iter().for_each(Peer::avoid);
                let what = Wrong::Stalled { stall: self.stall, left: self.left };
                return Err(SourceError::Unreachable(self.wrong(what, None).into()));
            }
            Ok(Err(error)) => return Err(http::transport_error(&self.origin, &error)),
            Ok(Ok(piece)) => piece,
        };
        let Some(mut piece) = piece else {
            let what = Wrong::Short { left: self.left };
            return Err(match self.encoding.as_deref() {
                // The next one will be as short.
                Some(_) => SourceError::Protocol(self.wrong(what, self.encoding.as_deref()).into()),
                None => SourceError::Unreachable(self.wrong(what, None).into()),
            });
        };
        let len = piece.len() as u64;
        if self.runs_on {
            piece.truncate(self.left.min(len) as usize);
        } else if len > self.left || (len == self.left && self.goes_on().await) {
            let problem = self.wrong(Wrong::Long, self.encoding.as_deref());
            return Err(SourceError::Protocol(problem.into()));
        }
        self.left -= piece.len() as u64;
        Ok(Some(piece))
    }

    fn wrong(&self, what: Wrong, encoding: Option<&str>) -> WrongBody {
        WrongBody { host: self.origin.clone(), file: None, what, hint: encoding::hint(encoding) }
    }

    /// Whether bytes follow those of the range. A body without a length that breaks off here, or
    /// stays open, lacks its end and nothing else.
    async fn goes_on(&mut self) -> bool {
        let rest = tokio::time::timeout(self.stall, self.response.chunk()).await;
        matches!(rest, Ok(Ok(Some(piece))) if !piece.is_empty())
    }
}

/// How an answer is not the bytes that were asked for.
#[derive(Debug)]
pub(crate) enum Wrong {
    Form,
    Announced {
        length: u64,
        wanted: u64,
        from: u64,
    },
    Size {
        length: u64,
        listed: u64,
    },
    NoRange {
        length: u64,
        listed: u64,
    },
    Status(u16),
    Stalled {
        stall: Duration,
        left: u64,
    },
    Short {
        left: u64,
    },
    Long,
    /// The file has another size than was listed.
    Total {
        total: u64,
        listed: u64,
    },
    ContentRange {
        first: u64,
        last: u64,
        answered: String,
    },
}

#[derive(Debug)]
struct WrongBody {
    host: String,
    file: Option<String>,
    what: Wrong,
    hint: Option<String>,
}

impl fmt::Display for WrongBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, file, what, .. } = self;
        let file = file.as_deref().unwrap_or_default();
        match what {
            Wrong::Form => write!(out, "`{host}` sent `{file}` in an unexpected encoding"),
            Wrong::Announced { length, wanted, from } => write!(
                out,
                "`{host}` announced {length} bytes for the {wanted} bytes from {from} of `{file}`"
            ),
            Wrong::Size { length, listed } => {
                write!(
                    out,
                    "`{host}` sent `{file}` with {length} bytes, but the listing says {listed}"
                )
            }
            Wrong::NoRange { length, listed } => write!(
                out,
                "`{host}` sent {length} bytes instead of a range of `{file}`, which has {listed} in the listing"
            ),
            Wrong::Status(status) => write!(out, "`{host}` answered {status} for `{file}`"),
            Wrong::Stalled { stall, left } => {
                let stall = text::duration(*stall);
                write!(out, "`{host}` sent nothing for {stall}, {left} bytes before the end")
            }
            Wrong::Short { left } => write!(out, "`{host}` ended the body {left} bytes early"),
            Wrong::Long => write!(out, "`{host}` sent more bytes than the range has"),
            Wrong::Total { total, listed } => {
                write!(out, "`{file}` has {total} bytes at `{host}`, but the listing says {listed}")
            }
            Wrong::ContentRange { first, last, answered } => write!(
                out,
                "`{host}` answered bytes {first}-{last} of `{file}` with Content-Range `{answered}`"
            ),
        }
    }
}

impl std::error::Error for WrongBody {}

impl Problem for WrongBody {
    fn fields(&self) -> ErrorFields {
        let http_status = match self.what {
            Wrong::Status(status) => Some(status),
            _ => None,
        };
        let (file, hint) = (self.file.clone(), self.hint.clone());
        ErrorFields { file, http_status, hint, ..ErrorFields::of_host(&self.host) }
    }
}

/// Where an answer that is something else than what was asked for probably comes from.
pub(crate) fn hint(is_web_page: bool, encoding: Option<&str>) -> Option<String> {
    let web_page = is_web_page.then(|| {
        "check for a proxy or a login portal in between: it looks like a web page".to_owned()
    });
    let hints: Vec<String> = [web_page, encoding::hint(encoding)].into_iter().flatten().collect();
    (!hints.is_empty()).then(|| hints.join("; "))
}

/// `bytes 0-99/1000` must name the range that was asked for and the size that was listed, if one was.
pub(crate) fn check_content_range(
    header: Option<&str>,
    range: &Range<u64>,
    size: Option<u64>,
) -> Result<(), Wrong> {
    let parsed = header.and_then(|value| {
        let (span, total) = value.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        let number = |text: &str| text.trim().parse::<u64>().ok();
        // A total that is not told (`*`) says nothing wrong.
        let total = match total.trim() {
            "*" => size.unwrap_or_default(),
            total => number(total)?,
        };
        Some((number(first)?, number(last)?, total))
    });
    let listed = |total| size.unwrap_or(total);
    match parsed {
        Some((first, last, total))
            if first == range.start
                && last.checked_add(1) == Some(range.end)
                && total == listed(total) =>
        {
            Ok(())
        }
        Some((_, _, total)) if total != listed(total) => {
            Err(Wrong::Total { total, listed: listed(total) })
        }
        _ => Err(Wrong::ContentRange {
            first: range.start,
            last: range.end - 1,
            answered: text::inert(header.unwrap_or("missing"), 80),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_must_be_the_one_that_was_asked_for() {
        let check = |header: &str| check_content_range(Some(header), &(100..200), Some(1_000));
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
            assert!(matches!(check(other), Err(Wrong::ContentRange { .. })), "{other}");
        }
        assert!(matches!(check("bytes 100-199/1001"), Err(Wrong::Total { .. })));
        assert!(check_content_range(None, &(100..200), Some(1_000)).is_err());
        let unknown = |header: &str| check_content_range(Some(header), &(100..200), None);
        assert!(unknown("bytes 100-199/7000").is_ok() && unknown("bytes 100-199/*").is_ok());
        assert!(matches!(unknown("bytes 0-99/7000"), Err(Wrong::ContentRange { .. })));
    }
}
