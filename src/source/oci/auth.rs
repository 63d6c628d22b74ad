//! The token for a registry: asked for when the registry challenges, kept until it is refused.
//!
//! What is sent where: credentials to the registry's own origin, and to the realm that it names if nobody
//! can listen on the way; tokens to the registry's own origin.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded;

use super::challenge::Challenge;
use super::credentials::{Credentials, Login, bearer};
use super::problem::{OciProblem, Refused, words};
use crate::model::text;
use crate::net::http::{self, Http};
use crate::net::{HttpProblem, SourceError};
use crate::source::status::{is_no, is_trouble};

const MAX_TOKEN_BYTES: usize = 1 << 20;

/// Who asks a registry, and what it has been given for that.
pub struct Auth {
    pub login: Login,
    grant: Mutex<Grant>,
    /// One asks for a token; the others wait for it.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
pub struct Grant {
    /// What requests to the registry carry.
    pub header: Option<HeaderValue>,
    /// How many there were before.
    number: u64,
}

/// Whom the token is for.
pub struct For<'a> {
    pub registry: &'a Url,
    pub name: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Auth {
    pub fn new(login: Login) -> Self {
        // It is the registry's already: no challenge is needed.
        let header = match &login.credentials {
            Credentials::Token(header) => Some(header.clone()),
            _ => None,
        };
        let grant = Mutex::new(Grant { header, number: 0 });
        Self { login, grant, renewing: tokio::sync::Mutex::new(()) }
    }

    pub fn grant(&self) -> Grant {
        self.state().clone()
    }

    /// What the registry accepts in place of `refused`; `None` where there is nothing else to give.
    pub async fn renewed(
        &self,
        http: &Http,
        client: &Client,
        challenge: &Challenge,
        refused: &Grant,
        to: &For<'_>,
    ) -> Result<Option<HeaderValue>, SourceError> {
        let _renewing = self.renewing.lock().await;
        let current = self.grant();
        if current.number != refused.number {
            return Ok(current.header);
        }
        let header = match (challenge, &self.login.credentials) {
            (_, Credentials::Token(_)) => return Ok(None),
            (Challenge::Basic, Credentials::User(header)) => header.clone(),
            (Challenge::Basic, _) => return Ok(None),
            (Challenge::Bearer { realm, service, scope }, credentials) => {
                let realm = checked_realm(realm, to.registry)?;
                let service = service.as_deref();
                let own = format!("repository:{}:pull", to.name);
                let scope = scope.as_deref().unwrap_or(&own);
                self.token(http, client, credentials, &Ask { realm, service, scope, to }).await?
            }
        };
        let grant = Grant { header: Some(header), number: current.number + 1 };
        *self.state() = grant.clone();
        Ok(grant.header)
    }

    async fn token(
        &self,
        http: &Http,
        client: &Client,
        credentials: &Credentials,
        ask: &Ask<'_>,
    ) -> Result<HeaderValue, SourceError> {
        let response = match credentials {
            Credentials::Identity(_) | Credentials::User(_) if !ask.is_safe() => {
                let (realm, host) = (http::origin(&ask.realm), http::origin(ask.to.registry));
                return Err(SourceError::Unsafe(OciProblem::PlainRealm { host, realm }.into()));
            }
            Credentials::Identity(token) => ask.exchange(http, client, token).await?,
            Credentials::User(header) => ask.get(http, client, Some(header)).await?,
            Credentials::Nobody | Credentials::Token(_) => ask.get(http, client, None).await?,
        };
        let host = http::origin(&ask.realm);
        let status = response.status();
        if !status.is_success() {
            let said = words(&http::error_body(response, http.deadlines.stall).await);
            let refused = Refused {
                host,
                status: status.as_u16(),
                asked: format!("a token for `{}`", ask.to.name),
                said,
                hint: self.hint(status),
            };
            return Err(match status {
                status if is_trouble(status) => SourceError::Unreachable(refused.into()),
                status if is_no(status) => SourceError::Access(refused.into()),
                _ => SourceError::Protocol(refused.into()),
            });
        }
        let body = http::small_body(response, MAX_TOKEN_BYTES, http.deadlines.stall).await?;
        let answer = serde_json::from_slice::<Answer>(&body).ok();
        let token =
            answer.and_then(|it| it.token.filter(|token| !token.is_empty()).or(it.access_token));
        let header = token.as_deref().and_then(bearer);
        header.ok_or_else(|| SourceError::Protocol(OciProblem::NoToken { host }.into()))
    }

    /// What can be done about a refusal.
    pub fn hint(&self, status: StatusCode) -> Option<String> {
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return None;
        }
        let Login { credentials, place, helper } = &self.login;
        let named = |place: &Option<String>| place.clone().unwrap_or_default();
        Some(match (credentials, helper, place) {
            (Credentials::Nobody, Some(helper), place) => format!(
                "`{}` names the credential helper `{helper}`, which weightlift does not run: write a user and \
                 a password, or a token, into its `auths`, as a pull secret has them",
                named(place)
            ),
            (Credentials::Nobody, None, Some(place)) => format!(
                "check the name; if it is private, add the registry to the `auths` of `{place}`"
            ),
            (Credentials::Nobody, None, None) => {
                "check the name; if it is private, mount a pull secret and name its directory in \
                 DOCKER_CONFIG"
                    .to_owned()
            }
            (_, _, place) => {
                format!("check the name; the credentials are those of `{}`", named(place))
            }
        })
    }

    fn state(&self) -> MutexGuard<'_, Grant> {
        self.grant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question to a token server.
struct Ask<'a> {
    realm: Url,
    service: Option<&'a str>,
    scope: &'a str,
    to: &'a For<'a>,
}

impl Ask<'_> {
    /// Whether credentials may go there: over TLS; or in the clear, where those to the registry itself go so
    /// and the realm is on the same host.
    fn is_safe(&self) -> bool {
        self.realm.scheme() == "https" || self.realm.host() == self.to.registry.host()
    }

    async fn get(
        &self,
        http: &Http,
        client: &Client,
        user: Option<&HeaderValue>,
    ) -> Result<Response, SourceError> {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            self.service.iter().for_each(|service| _ = query.append_pair("service", service));
            query.append_pair("scope", self.scope);
        }
        let headers = user.map(|user| (AUTHORIZATION, user.clone())).into_iter().collect();
        http.send(client, Method::GET, &url, headers).await
    }

    async fn exchange(
        &self,
        http: &Http,
        client: &Client,
        token: &str,
    ) -> Result<Response, SourceError> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "weightlift")
            .append_pair("service", self.service.unwrap_or_default())
            .append_pair("scope", self.scope)
            .append_pair("refresh_token", token)
            .finish();
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, form_type)]);
        http.send_body(client, Method::POST, &self.realm, headers, Bytes::from(form)).await
    }
}

/// The realm, if a token may be asked for there.
fn checked_realm(realm: &str, registry: &Url) -> Result<Url, SourceError> {
    let host = http::origin(registry);
    let url = Url::parse(realm)
        .ok()
        .filter(|url| url.has_host() && url.username().is_empty() && url.password().is_none());
    let Some(url) = url else {
        let realm = text::inert(realm, 100);
        return Err(SourceError::Protocol(OciProblem::Realm { host, realm }.into()));
    };
    let realm = http::origin(&url);
    let is_as_safe = match url.scheme() {
        "https" => true,
        "http" => registry.scheme() == "http",
        _ => false,
    };
    if http::is_link_local(&url) {
        return Err(SourceError::Unsafe(HttpProblem::LinkLocal { host, to: realm }.into()));
    }
    match is_as_safe {
        true => Ok(url),
        false => Err(SourceError::Unsafe(OciProblem::PlainRealm { host, realm }.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(url: &str) -> Url {
        Url::parse(url).expect(url)
    }

    #[test]
    fn a_realm_is_never_less_safe_than_the_registry() {
        let checked = |realm: &str, registry: &str| checked_realm(realm, &url(registry)).is_ok();
        let (https, http) = ("https://registry.example/", "http://registry:5000/");
        assert!(checked("https://auth.example/token?x=1", https));
        assert!(checked("https://auth.example/token", http));
        assert!(checked("http://auth:5001/token", http));
        for realm in [
            "http://auth.example/token",
            "https://169.254.169.254/latest",
            "https://[fe80::1]/",
            "https://user:password@auth.example/",
            "file:///etc/passwd",
            "/token",
            "",
        ] {
            assert!(!checked(realm, https), "{realm}");
        }
        assert!(!checked("http://169.254.169.254/latest", http));
    }

    #[test]
    fn credentials_go_over_tls_or_to_the_host_of_a_plain_registry() {
        for (realm, registry, expected) in [
            ("https://auth.example/", "https://registry.example/", true),
            ("https://auth.example/", "http://registry:5000/", true),
            ("http://registry:5001/", "http://registry:5000/", true),
            ("http://auth:5001/", "http://registry:5000/", false),
            ("http://127.0.0.1:5001/", "http://registry:5000/", false),
        ] {
            let registry = url(registry);
            let to = For { registry: &registry, name: "a" };
            let ask = Ask { realm: url(realm), service: None, scope: "", to: &to };
            assert_eq!(ask.is_safe(), expected, "{realm} of {registry}");
        }
    }
}
