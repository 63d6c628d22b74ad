//! Which proxy a request goes through: what the environment says, read once, and refused at once if
//! it can never work. A proxy that is silently not used would look like a network that is down.

use std::ffi::OsString;
use std::sync::Arc;

use url::{Host, Url};

use super::no_proxy::NoProxy;
use super::{BadSetting, SourceError};
use crate::environment;
use crate::model::text;

/// The proxies of the environment. They may hold passwords: there is no `Debug`.
#[derive(Clone, Default)]
pub struct Proxies(Arc<Settings>);

#[derive(Default)]
struct Settings {
    for_http: Option<Url>,
    for_https: Option<Url>,
    exceptions: NoProxy,
}

impl Proxies {
    /// Reads `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, or the same in lower case where
    /// the first is unset or empty.
    pub fn from_environment() -> Result<Self, SourceError> {
        Self::read(environment::os)
    }

    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, SourceError> {
        let value = |name: &'static str, lower: &'static str| {
            let is_set = |name: &&str| variable(name).is_some_and(|it| !is_blank(&it));
            let name = [name, lower].into_iter().find(is_set)?;
            Some((name, variable(name)?))
        };
        let proxy = |name, lower| {
            value(name, lower).map(|(name, value)| parse(name, value.to_str())).transpose()
        };
        let all = proxy("ALL_PROXY", "all_proxy")?;
        let exceptions = value("NO_PROXY", "no_proxy");
        let exceptions = exceptions.map(|(_, list)| NoProxy::parse(&list.to_string_lossy()));
        Ok(Self(Arc::new(Settings {
            for_http: proxy("HTTP_PROXY", "http_proxy")?.or_else(|| all.clone()),
            for_https: proxy("HTTPS_PROXY", "https_proxy")?.or(all),
            exceptions: exceptions.unwrap_or_default(),
        })))
    }

    /// Lets `builder` use these, and no others.
    pub fn apply(&self, builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        // Without this reqwest reads the same variables once more, and in its own way.
        let builder = builder.no_proxy();
        if self.0.for_http.is_none() && self.0.for_https.is_none() {
            return builder;
        }
        let proxies = self.clone();
        builder.proxy(reqwest::Proxy::custom(move |url| proxies.proxy_for(url)))
    }

    /// The proxy for requests to the origin of `url`, without its user and password.
    pub fn shown_for(&self, url: &Url) -> Option<Url> {
        let mut proxy = self.proxy_for(url)?;
        // A URL that has a host can be without them.
        let is_bare = proxy.set_username("").is_ok() && proxy.set_password(None).is_ok();
        is_bare.then_some(proxy)
    }

    /// The proxy for requests to the origin of `url`, with its password.
    fn proxy_for(&self, url: &Url) -> Option<Url> {
        let proxy = match url.scheme() {
            "https" => self.0.for_https.as_ref()?,
            _ => self.0.for_http.as_ref()?,
        };
        (!self.0.exceptions.excepts(url)).then(|| proxy.clone())
    }
}

fn is_blank(value: &OsString) -> bool {
    value.to_str().is_some_and(|value| value.trim().is_empty())
}

const ENCODE: &str = "write characters such as `@`, `/`, `?` or `#` in a password %-encoded, as in \
                      http://user:p%40ss@host:port";
const HOW_TO_WRITE: &str = "write it as http://host:port or socks5h://host:port, or unset it";

/// Reads one proxy, as `host:port` or as a URL. No part of the text is repeated in an error but its
/// scheme: the rest may be a password.
fn parse(name: &str, value: Option<&str>) -> Result<Url, SourceError> {
    let told = |why: &str, hint| {
        let setting = BadSetting::new(name, format!("cannot work: {why}"));
        SourceError::Settings(setting.hint(hint).into())
    };
    let refused = |why: &str| told(why, HOW_TO_WRITE);
    let value = value.ok_or_else(|| refused("it is not UTF-8"))?.trim();
    if value.chars().any(|c| c.is_whitespace() || text::is_control(c)) {
        return Err(refused("it contains blanks or control characters"));
    }
    let with_scheme =
        if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let url = Url::parse(&with_scheme).map_err(|error| match error {
        url::ParseError::InvalidPort => refused("its port is not a number up to 65535"),
        url::ParseError::EmptyHost => refused("it has no host"),
        _ => told("it is not a URL", ENCODE),
    })?;
    let socks = match url.scheme() {
        "http" | "https" => None,
        "socks4" | "socks4a" => Some(4),
        "socks5" | "socks5h" => Some(5),
        other => {
            let scheme = text::inert(other, 20);
            return Err(refused(&format!("its scheme `{scheme}` is not http, https or socks5h")));
        }
    };
    // For schemes that it does not know `url` takes anything for a host.
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| refused("it has no host"))?;
    Host::parse(host).map_err(|_| refused("its host is not a name or an address"))?;
    if url.port() == Some(0) {
        return Err(refused("its port is 0"));
    }
    if url.query().is_some() || url.fragment().is_some() || url.path().contains('@') {
        return Err(told("it has a query or a fragment", ENCODE));
    }
    let has_user = !url.username().is_empty() || url.password().is_some();
    if socks == Some(4) && has_user {
        return Err(refused("SOCKS 4 has no passwords"));
    }
    if socks == Some(5) && [url.username(), url.password().unwrap_or_default()].iter().any(is_long)
    {
        return Err(refused("SOCKS 5 takes at most 255 bytes for a user or a password"));
    }
    Ok(url)
}

fn is_long(encoded: &&str) -> bool {
    percent_encoding::percent_decode_str(encoded).count() > 255
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Proxies, SourceError> {
        Proxies::read(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn proxy_for(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let proxies = read(variables).expect("can work");
        proxies.proxy_for(&Url::parse(url).expect(url)).map(String::from)
    }

    #[test]
    fn the_variable_of_the_scheme_comes_before_the_one_for_all() {
        let all = ("ALL_PROXY", "socks5h://s:1080");
        for (variables, http, https) in [
            (&[][..], None, None),
            (&[("HTTP_PROXY", "http://p:1")], Some("http://p:1/"), None),
            (&[("https_proxy", "p:1")], None, Some("http://p:1/")),
            (&[all], Some("socks5h://s:1080"), Some("socks5h://s:1080")),
            (&[all, ("HTTP_PROXY", "https://p")], Some("https://p/"), Some("socks5h://s:1080")),
            (&[("HTTP_PROXY", ""), ("http_proxy", " p:1\n")], Some("http://p:1/"), None),
            (&[("HTTP_PROXY", "p:1"), ("http_proxy", "ftp://q")], Some("http://p:1/"), None),
            (
                &[("ALL_PROXY", " "), ("all_proxy", "[::1]:3128")],
                Some("http://[::1]:3128/"),
                Some("http://[::1]:3128/"),
            ),
            (&[all, ("NO_PROXY", ""), ("no_proxy", "*")], None, None),
            (&[all, ("NO_PROXY", "h:80")], None, Some("socks5h://s:1080")),
            (&[("http_proxy", "//u:p%40@p:1")], Some("http://u:p%40@p:1/"), None),
        ] {
            assert_eq!(proxy_for(variables, "http://h/").as_deref(), http, "{variables:?}");
            assert_eq!(proxy_for(variables, "https://h/").as_deref(), https, "{variables:?}");
        }
    }

    #[test]
    fn a_proxy_that_can_never_work_is_refused_by_the_name_of_its_variable() {
        for name in
            ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        {
            for value in [
                "ftp://u:hunter2@p:1",
                "socks://u:hunter2@p:1",
                "http://",
                "http://u:hunter2@",
                "http://u:hunter2@:80",
                "socks5h://:1080",
                "socks5h://",
                "http://u:hunter2@p:port",
                "http://u:hunter2@p:99999",
                "socks5h://u:hunter2@p:port",
                "socks5h://u:hunter2@p:0",
                "http://u:hunter2#x@p:1",
                "http://u:1#hunter2@p:1",
                "http://u:1/hunter2@p:1",
                "http://u:1?hunter2@p:1",
                "http://u:hunter2@a b:1",
                "http://p\r\nx:1",
                "http://p\u{200b}:1",
                "http://u:hunter2@p<>:1",
                "socks5h://u:hunter2@p<>:1",
                "socks4://u:hunter2@p:1",
                ":3128",
                "hunter2@",
                "://",
            ] {
                let error = read(&[(name, value)]).err().map(|error| error.to_string());
                let error = error.unwrap_or_else(|| panic!("{value:?} is accepted"));
                assert!(error.contains(name) && !error.contains("hunter2"), "{error}");
            }
        }
    }
}
