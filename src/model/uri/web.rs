//! `https://host/path/`, or one file: `https://host/path/name.gguf#sha256=…`.

use super::Refusal;
use url::Url;

use super::super::text;
use percent_encoding::percent_decode_str;

/// A directory of a web server, or one file of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebLocation {
    /// Without user, query and fragment; ends in `/` where the user wrote a directory.
    pub url: Url,
    /// The digest that the user has written down for one file: 64 digits in lower case.
    pub sha256: Option<String>,
}

impl WebLocation {
    /// `uri` is all of it, with its scheme.
    pub(super) fn parse(uri: &str) -> Result<Self, Refusal> {
        let (address, fragment) = match uri.split_once('#') {
            Some((address, fragment)) => (address, Some(fragment)),
            None => (uri, None),
        };
        let (_, rest) = address.split_once("://").unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        // Neither is repeated: a query may be a signature.
        if uri.contains('@') && !is_in_path(uri) {
            return Err(Refusal::with_hint(
                "has a user or a password",
                "put them into a netrc file, see NETRC",
            ));
        }
        let site = host.to_ascii_lowercase();
        match site.strip_prefix("www.").unwrap_or(&site) {
            "huggingface.co" | "hf.co" => return Err("is a page of the Hub".into()),
            "modelscope.cn" | "modelscope.ai"
                if path.starts_with("models/") && path.split('/').nth(3) != Some("resolve") =>
            {
                return Err("is a page of ModelScope".into());
            }
            _ => {}
        }
        if address.contains('?') {
            return Err(Refusal::with_hint(
                "has a query, which may be a secret that expires",
                "write the address without it, and put a user and a password into a netrc file",
            ));
        }
        if address.contains('\\') {
            return Err("has a `\\` in its path".into());
        }
        let url = Url::parse(address).map_err(|_| "is not a usable URL")?;
        if host.is_empty() || !url.has_host() {
            return Err("names no host".into());
        }
        let parts = path.strip_suffix('/').unwrap_or(path).split('/');
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        for part in parts.map(decoded).filter(|_| !path.is_empty()) {
            if matches!(part.as_str(), "" | "." | "..") {
                return Err("has an empty part, `.` or `..` in its path".into());
            }
            if part.contains('/') || part.chars().any(text::is_control) {
                return Err("has a part in its path that is not a file name".into());
            }
        }
        let sha256 = fragment.map(sha256_in).transpose()?;
        let location = Self { url, sha256 };
        if location.sha256.is_some() && location.is_directory() {
            return Err("has a digest but ends in `/`, which means a directory".into());
        }
        Ok(location)
    }

    /// Whether everything below it is meant.
    pub fn is_directory(&self) -> bool {
        self.url.path().ends_with('/')
    }

    /// The last part of the path, as it is called; the host where there is none.
    pub fn name(&self) -> String {
        let path = self.url.path().trim_end_matches('/');
        match path.rsplit('/').next().filter(|name| !name.is_empty()) {
            Some(name) => percent_decode_str(name).decode_utf8_lossy().into_owned(),
            None => self.url.host_str().unwrap_or_default().to_owned(),
        }
    }
}

impl std::fmt::Display for WebLocation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.url.as_str())?;
        match &self.sha256 {
            Some(sha256) => write!(out, "#sha256={sha256}"),
            None => Ok(()),
        }
    }
}

/// Whether each `@` comes after the host, where it is a character as any other.
fn is_in_path(uri: &str) -> bool {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A password may hold any of the characters that end a host, and then the rest looks like a port.
    let is_host = match host.rsplit_once(':') {
        Some((_, port)) => host.starts_with('[') || port.bytes().all(|byte| byte.is_ascii_digit()),
        None => true,
    };
    is_host && !host.contains('@')
}

fn sha256_in(fragment: &str) -> Result<String, &'static str> {
    let digits = fragment.strip_prefix("sha256=").unwrap_or_default();
    match digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(digits.to_ascii_lowercase()),
        false => Err("has something after `#` that is not sha256= and 64 hexadecimal digits"),
    }
}
