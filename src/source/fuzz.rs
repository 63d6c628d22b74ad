//! What must hold of headers and listings that are accepted; see [`crate::fuzz`].

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::beside;
use super::hub::answers::{self, Listed};
use super::hub::pages;
use super::modelscope::answer;
use super::web::netrc;
use crate::model::{RefusedFiles, RemoteFile, Selection, Snapshot, text};
use crate::net::body::{self, Wrong};
use crate::net::{Pace, http, pace};

pub fn content_range(data: &[u8]) {
    let Ok(header) = std::str::from_utf8(data) else { return };
    for (range, size) in [
        (0..1, 1),
        (100..200, 1_000),
        (0..u64::MAX, u64::MAX),
        (u64::MAX - 2..u64::MAX - 1, u64::MAX),
    ] {
        match body::check_content_range(Some(header), &range, Some(size)) {
            Ok(()) => {
                let digits = header.split(|c: char| !c.is_ascii_digit());
                let told: Vec<u64> = digits.filter_map(|digits| digits.parse().ok()).collect();
                assert_eq!(told[..2], [range.start, range.end - 1], "{header}");
                assert!(told.len() == 2 || told[2..] == [size], "{header}");
            }
            Err(Wrong::ContentRange { answered, .. }) => assert_inert(&answered),
            Err(_) => {}
        }
    }
}

/// Lines of `name: value`.
pub fn retry_after(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (halves.next(), halves.next()) else { continue };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.insert(name, value);
        }
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let Some(wait) = pace::asked_wait(&headers, now) else { return };
    assert!((Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&wait), "{wait:?}");
    let pace = Pace::default();
    pace.pause("https://a", wait);
    assert!(pace.remaining("https://a").is_some_and(|left| left <= wait));
}

pub fn link(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(reqwest::header::LINK, value);
    let at = Url::parse("https://hub.example:8443/api/models/a/b/tree/c?x=1").expect("a URL");
    let page = Url::parse("https://hub.example:8443/api/models/a/b/tree/c").expect("a URL");
    match pages::next_page(&at, &headers, &page) {
        Ok(Some(next)) => assert_eq!(http::origin(&next), "https://hub.example:8443"),
        Ok(None) => {}
        Err(refused) => assert_inert(&refused.to_string()),
    }
}

pub fn redirect(data: &[u8]) {
    let location = String::from_utf8_lossy(data);
    for from in ["https://hub.example/a/b", "http://hub.example:80/a/b"] {
        let from = Url::parse(from).expect("a URL");
        let Ok(target) = from.join(&location) else { continue };
        match http::safe_target(&from, target) {
            Ok(target) => {
                assert!(target.scheme() == "https" || target.scheme() == from.scheme());
                assert!(!http::is_link_local(&target) && target.host().is_some(), "{target}");
                assert!(!http::origin(&target).chars().any(text::is_control), "{target}");
            }
            Err(refused) => assert_inert(&refused.to_string()),
        }
    }
}

/// A page of the Hub's tree.
pub fn hub_tree(data: &[u8]) {
    let mut files = Vec::new();
    let mut refused = RefusedFiles::default();
    let read = answers::for_each_entry(data, |entry| {
        match entry.read()? {
            Listed::File(file) => files.push(file),
            Listed::Refused(file) => refused.push(file)?,
            Listed::Directory(_) | Listed::Other(_) => {}
        }
        Ok(())
    });
    match read {
        Ok(Ok(())) => {}
        Ok(Err(refused)) => return assert_inert(&refused.to_string()),
        Err(_) => return,
    }
    let refused = refused.into_files();
    let snapshot = Snapshot::new("hf://a/b".into(), "c".into(), files, refused);
    let total = |files: &[RemoteFile]| files.iter().map(|file| u128::from(file.size)).sum::<u128>();
    let of_refused: u128 = snapshot.refused.iter().map(|file| u128::from(file.size)).sum();
    let all = total(&snapshot.files) + of_refused;
    let selected = match Selection::default().apply(snapshot.files, snapshot.refused) {
        Ok(selected) => selected,
        Err(refused) => return assert_inert(&refused.to_string()),
    };
    for pair in selected.files.windows(2) {
        let directory = format!("{}/", pair[0].path);
        assert!(pair[0].path != pair[1].path && !pair[1].path.as_str().starts_with(&directory));
    }
    for file in &selected.files {
        crate::model::fuzz::assert_safe(&file.path);
    }
    assert!(u64::try_from(total(&selected.files)).is_ok(), "the sizes cannot be added up");
    let left_out: u128 = selected.left_out.iter().map(|file| u128::from(file.size)).sum();
    assert_eq!(total(&selected.files) + left_out, all, "a file is lost");
}

pub fn sha256sums(data: &[u8]) {
    let content = String::from_utf8_lossy(data);
    let (sums, strange) = beside::sha256sums(&content);
    assert!(sums.len() + strange <= content.lines().count());
    assert!(sums.keys().all(|path| !path.is_empty() && content.contains(path.as_str())));
}

pub fn netrc(data: &[u8]) {
    let content = String::from_utf8_lossy(data);
    match netrc::login(&content, "host.example") {
        Ok(Some((user, password))) => {
            assert!(!user.contains(':') && !(user + &password).chars().any(char::is_control));
        }
        Ok(None) => {}
        Err(line) => assert!((1..=content.matches('\n').count() + 1).contains(&line), "{line}"),
    }
}

pub fn modelscope_listing(data: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<answer::Answer>(data) else { return };
    match answer.entries() {
        Ok(entries) => {
            for entry in entries {
                match entry.read() {
                    Ok(answer::Listed::File(file)) => crate::model::fuzz::assert_safe(&file.path),
                    Ok(_) => {}
                    Err(refused) => assert_inert(&refused.to_string()),
                }
            }
        }
        Err((_, said)) => assert_inert(&said),
    }
}

pub(super) fn assert_inert(message: &str) {
    assert!(!message.chars().any(text::is_control), "{message:?}");
    assert!(message.chars().count() < 2_000, "{message}");
}
