//! As whom a web server is asked: what the netrc file says of its host.

use std::io::Read as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use url::Url;

use super::netrc;
use crate::environment;
use crate::model::text;
use crate::net::{BadSetting, SourceError};

/// No such file is longer.
const MAX_NETRC_BYTES: u64 = 1 << 20;
const NAME: &str = "NETRC";

/// As whom a server is asked.
#[derive(Clone, Debug)]
pub enum Login {
    Nobody,
    /// The value of an `Authorization` header, marked as sensitive.
    Netrc(HeaderValue),
    /// There is one, and it would be read on the way.
    Withheld,
}

impl Login {
    /// What goes to the own origin with each request.
    pub fn headers(&self) -> HeaderMap {
        match self {
            Self::Netrc(header) => HeaderMap::from_iter([(AUTHORIZATION, header.clone())]),
            Self::Nobody | Self::Withheld => HeaderMap::new(),
        }
    }

    /// What is to be said of it before `url` is asked.
    pub fn warning(&self, url: &Url) -> Option<String> {
        let host = text::inert(url.host_str().unwrap_or_default(), 100);
        matches!(self, Self::Withheld).then(|| {
            format!("the login for `{host}` in the netrc file is not sent, because http would expose it; use https")
        })
    }
}

/// The login for the host of `url`: of the file that NETRC names, or of `.netrc` in HOME, if it is there.
pub fn find(url: &Url) -> Result<Login, SourceError> {
    let named = environment::os(NAME).filter(|value| !value.is_empty()).map(PathBuf::from);
    let is_named = named.is_some();
    let usual = || environment::os("HOME").map(|home| PathBuf::from(home).join(".netrc"));
    let Some(path) = named.or_else(usual) else { return Ok(Login::Nobody) };
    let refuse = |why: String| {
        let hint = "write `machine HOST login USER password PASSWORD`";
        SourceError::Settings(BadSetting::new(NAME, why).hint(hint).into())
    };
    let shown = text::inert(&path.to_string_lossy(), 200);
    let mut content = String::new();
    let opened = std::fs::File::open(&path);
    match opened.and_then(|file| file.take(MAX_NETRC_BYTES + 1).read_to_string(&mut content)) {
        Ok(_) if content.len() as u64 > MAX_NETRC_BYTES => {
            return Err(refuse(format!("names `{shown}`, which is larger than 1 MiB")));
        }
        Ok(_) => {}
        Err(why) if is_named => {
            return Err(refuse(format!("names `{shown}`, which cannot be read: {why}")));
        }
        // Nobody has said that it is needed.
        Err(_) => return Ok(Login::Nobody),
    }
    let host = url.host_str().unwrap_or_default();
    let found = netrc::login(&content, host)
        .map_err(|line| refuse(format!("names `{shown}`, whose line {line} is not understood")))?;
    let Some((user, password)) = found else { return Ok(Login::Nobody) };
    if url.scheme() != "https" && !is_loopback(url) {
        return Ok(Login::Withheld);
    }
    let pair = STANDARD.encode(format!("{user}:{password}"));
    let mut header = HeaderValue::from_str(&format!("Basic {pair}"))
        .expect("base64 has no character that a header may not have");
    header.set_sensitive(true);
    Ok(Login::Netrc(header))
}

/// Whether what is sent stays on this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
