//! Where the Hub is and who asks: `HF_ENDPOINT`, with or without a user in it, and the token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use url::Url;

use super::credentials::{Token, missing_token_file};
use crate::environment;
use crate::model::text;
use crate::net::http::PLAIN_URL;
use crate::net::{BadSetting, SourceError, http};

/// Where the Hub is and who asks. What is sent goes to the origin of the endpoint only.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Without user and password: it may be shown.
    pub endpoint: Url,
    pub login: Login,
    /// What to tell the user.
    pub warning: Option<String>,
}

/// As whom the Hub is asked.
#[derive(Clone, Debug)]
pub enum Login {
    Nobody,
    Token(Token),
    /// The user of `HF_ENDPOINT`, as Nexus and Artifactory want it.
    User(Token),
}

impl Login {
    /// The credentials, in the form of an `Authorization` header.
    pub fn token(&self) -> Option<&Token> {
        match self {
            Self::Nobody => None,
            Self::Token(token) | Self::User(token) => Some(token),
        }
    }
}

impl HubSettings {
    /// The public Hub.
    pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

    /// What `HF_ENDPOINT` names, with `token`, if there is one.
    pub fn from_environment(token: Option<Token>) -> Result<Self, SourceError> {
        // Who wants a mirror does not want the public Hub to learn of it.
        if environment::os(NAME).is_some_and(|value| value.to_str().is_none()) {
            return Err(SourceError::Settings(
                BadSetting::new(NAME, "is not UTF-8").hint(PLAIN_URL).into(),
            ));
        }
        let endpoint = environment::text(NAME).unwrap_or_else(|| Self::DEFAULT_ENDPOINT.into());
        let settings = Self::new(&endpoint, token)?;
        let is_nobody = matches!(settings.login, Login::Nobody);
        // An optional Secret may be absent, as for `hf`; who needs it will look for the reason.
        let missing = is_nobody.then(missing_token_file).flatten();
        let warning = settings.warning.or(missing.map(|path| {
            let path = text::inert(&path.display().to_string(), 300);
            format!(
                "HF_TOKEN_PATH names `{path}`, which does not exist; continuing without a token"
            )
        }));
        Ok(Self { warning, ..settings })
    }

    /// Checks an endpoint such as `https://hub.example:8443/mirror` or
    /// `https://user:password@nexus.example/repository/hub`. A user in it is sent in place of the token:
    /// one request can carry one of the two.
    pub fn new(endpoint: &str, token: Option<Token>) -> Result<Self, SourceError> {
        let (endpoint, user) = split(endpoint)?;
        let endpoint = http::endpoint(endpoint.as_str().trim_end_matches('/'), NAME)?;
        let warning = (user.is_some() && token.is_some()).then_some(
            "HF_ENDPOINT names a user, and there is a token as well: the user is sent, the token is not"
                .to_owned(),
        );
        let login = match (user, token) {
            (Some(user), _) => Login::User(user),
            (None, Some(token)) => Login::Token(token),
            (None, None) => Login::Nobody,
        };
        Ok(Self { endpoint, login, warning })
    }
}

const NAME: &str = "HF_ENDPOINT";

/// The endpoint without its user, and the user. No part of the text is repeated in an error.
fn split(endpoint: &str) -> Result<(Url, Option<Token>), SourceError> {
    let refused =
        |why: &str| SourceError::Settings(BadSetting::new(NAME, why).hint(PLAIN_URL).into());
    let endpoint = endpoint.trim();
    // A URL parser drops some of them and encodes others: nobody has meant either.
    if endpoint.chars().any(|c| c.is_whitespace() || text::is_control(c)) {
        return Err(refused("contains blanks or control characters"));
    }
    let not_plain = || refused("is not a plain URL");
    let mut url = Url::parse(endpoint).map_err(|_| not_plain())?;
    if !url.has_host() {
        return Err(not_plain());
    }
    if url.username().is_empty() && url.password().is_none() {
        return Ok((url, None));
    }
    let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(url.password().unwrap_or_default()));
    if pair.iter().any(u8::is_ascii_control) {
        return Err(refused("has control characters in its user or password"));
    }
    let user = Token::basic(&STANDARD.encode(pair)).ok_or_else(not_plain)?;
    url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| not_plain())?;
    Ok((url, Some(user)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(endpoint: &str) -> Result<HubSettings, SourceError> {
        HubSettings::new(endpoint, None)
    }

    #[test]
    fn the_user_of_an_endpoint_is_decoded_and_taken_out_of_it() {
        for (endpoint, shown, pair) in [
            ("https://host", "https://host/", None),
            (" https://host/hf/ \n", "https://host/hf", None),
            ("https://user:token@host/hf", "https://host/hf", Some("user:token")),
            ("https://u%40x:p%3A%2Fw%25@host:8443", "https://host:8443/", Some("u@x:p:/w%")),
            ("https://token@host", "https://host/", Some("token:")),
            ("https://:token@host", "https://host/", Some(":token")),
            ("https://user:@host", "https://host/", Some("user:")),
            ("https://@host", "https://host/", None),
            ("https://m%C3%BCller:p@host", "https://host/", Some("müller:p")),
        ] {
            let settings = new(endpoint).expect(endpoint);
            assert_eq!(settings.endpoint.as_str(), shown, "{endpoint}");
            let header = settings.login.token().map(Token::header);
            let expected = pair.map(|pair| format!("Basic {}", STANDARD.encode(pair)));
            let found = header.as_ref().map(|header| header.to_str().expect("ASCII").to_owned());
            assert_eq!(found, expected, "{endpoint}");
            let debug = format!("{settings:?} {header:?}");
            assert!(!debug.contains("token") && !debug.contains("Basic"), "{debug}");
        }
    }

    #[test]
    fn an_endpoint_that_cannot_work_is_refused_and_not_repeated() {
        for endpoint in [
            "",
            "host",
            "ftp://user:hunter2@host",
            "https://user:hunter2@",
            "https://user:hunter2@host:port",
            "https://user:hunter2@host/?a=b",
            "https://user:hunter2@host/#b",
            "https://user:hunter2@ho st",
            "https://user:hunter2@ho\nst",
            "https://user:hunter2@ho\u{0}st",
            "https://us\u{200b}er:hunter2@host",
            "https://user:hunter2%0d%0aX@host",
            "https://user%00:hunter2@host",
            "mailto:hunter2@host",
            "file:///hunter2",
        ] {
            let error = new(endpoint).expect_err(endpoint).to_string();
            assert!(error.starts_with("HF_ENDPOINT ") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_user_is_sent_in_place_of_a_token() {
        let token = || Token::basic("eA==");
        let both = HubSettings::new("https://a:b@host", token()).expect("plain");
        assert!(matches!(both.login, Login::User(_)) && both.warning.is_some());
        let one = HubSettings::new("https://host", token()).expect("plain");
        assert!(matches!(one.login, Login::Token(_)) && one.warning.is_none());
    }
}
