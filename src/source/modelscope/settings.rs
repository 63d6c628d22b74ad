//! Where ModelScope is and who asks: MODELSCOPE_ENDPOINT and MODELSCOPE_API_TOKEN, as for its own client.

use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue};
use url::Url;

use crate::environment;
use crate::net::{BadSetting, SourceError, http};

const DEFAULT_ENDPOINT: &str = "https://modelscope.cn";
const TOKEN: &str = "MODELSCOPE_API_TOKEN";

/// What is sent goes to the origin of the endpoint only.
pub struct Settings {
    pub endpoint: Url,
    /// Marked as sensitive.
    pub own: HeaderMap,
}

impl Settings {
    pub fn from_environment() -> Result<Self, SourceError> {
        let named = ["MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"]
            .into_iter()
            .find_map(|name| Some((name, environment::text(name)?)));
        let endpoint = match named {
            // The client takes a host alone as well.
            Some((name, text)) if text.contains("://") => endpoint(&text, name)?,
            Some((name, text)) => endpoint(&format!("https://{text}"), name)?,
            None => endpoint(DEFAULT_ENDPOINT, "MODELSCOPE_ENDPOINT")?,
        };
        Ok(Self { endpoint, own: headers(environment::text(TOKEN))? })
    }

    pub fn new(text: &str, token: Option<String>) -> Result<Self, SourceError> {
        Ok(Self { endpoint: endpoint(text, "MODELSCOPE_ENDPOINT")?, own: headers(token)? })
    }

    pub fn has_token(&self) -> bool {
        !self.own.is_empty()
    }
}

fn endpoint(text: &str, named: &str) -> Result<Url, SourceError> {
    http::endpoint(text.trim_end_matches('/'), named)
}

/// Older parts of the API know the cookie, newer ones the bearer token.
fn headers(token: Option<String>) -> Result<HeaderMap, SourceError> {
    let mut headers = HeaderMap::new();
    let Some(token) = token else { return Ok(headers) };
    // Of what could end a cookie nothing is in a token.
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte));
    let refuse = || {
        let problem = BadSetting::new(TOKEN, "contains characters that no token has");
        SourceError::Settings(problem.hint("check the Secret").into())
    };
    for (name, value) in
        [(AUTHORIZATION, format!("Bearer {token}")), (COOKIE, format!("m_session_id={token}"))]
    {
        let value = HeaderValue::from_str(&value).ok().filter(|_| is_plain);
        let mut value = value.ok_or_else(refuse)?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown_and_a_broken_one_is_refused() {
        let headers = headers(Some("ms-secret".into())).expect("a token");
        assert_eq!(headers.len(), 2);
        assert!(!format!("{headers:?}").contains("secret"));
        for broken in ["a b", "secret;x", "secret\u{1}", "é"] {
            let error = super::headers(Some(broken.into())).expect_err("unusable").to_string();
            assert!(error.contains(TOKEN) && !error.contains(broken), "{error}");
        }
        assert!(super::headers(None).expect("nobody").is_empty());
    }
}
