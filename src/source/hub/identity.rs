//! Whose the token is, and what it may do: for a report. A fetch does not ask.

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde::Deserialize;

use super::HubSettings;
use super::credentials::Token;
use super::endpoint::Login;
use crate::model::{ErrorFields, text};
use crate::net::http::{self, Http};
use crate::net::{Problem, SourceError};

const MAX_ANSWER_BYTES: usize = 1 << 20;
const CHECK_TOKEN: &str = "check HF_TOKEN, or the Secret and the file that it comes from; make a new token at \
                           the Hub if it was revoked or has expired";

/// Who asks the Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubIdentity {
    Nobody,
    /// The Hub, or the mirror of it, does not tell whose token it is.
    Untold {
        status: u16,
    },
    Known(Account),
}

/// What the Hub says of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    /// `user`, `org`.
    pub kind: String,
    /// What the owner has called the token.
    pub token: Option<String>,
    /// `read`, `write`, `fineGrained`, as the Hub has it.
    pub role: Option<String>,
    /// Of a fine-grained one: what it allows, and of whom.
    pub permissions: Vec<String>,
    /// Of a fine-grained one: whether it opens gated repos that the account may read.
    pub reads_gated: Option<bool>,
}

#[derive(Debug, thiserror::Error)]
enum IdentityProblem {
    #[error("`{host}` does not accept the token: {status} {said}")]
    Refused { host: String, status: u16, said: String },
    #[error("`{host}` answered {status} to the request for the owner of the token")]
    Status { host: String, status: u16 },
}

impl Problem for IdentityProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::Refused { host, status, said } => {
                ErrorFields::of_host(host).status(*status).said(said).hint(CHECK_TOKEN)
            }
            Self::Status { host, status } => ErrorFields::of_host(host).status(*status),
        }
    }
}

/// Where the Hub is, and who asks it; the first also where nobody does.
pub async fn identity(http: &Http) -> Result<(String, HubIdentity), SourceError> {
    let HubSettings { endpoint, login, .. } = HubSettings::from_environment(Token::find()?)?;
    let host = http::origin(&endpoint);
    let mut url = endpoint.clone();
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.pop_if_empty().extend(["api", "whoami-v2"]);
    }
    let mut headers = HeaderMap::new();
    if let Some(token) = login.token() {
        headers.insert(AUTHORIZATION, token.header());
    }
    let response = http.send(&http.client()?, Method::GET, &url, headers).await?;
    let status = response.status().as_u16();
    let identity = match (status, &login) {
        (_, Login::Nobody) => HubIdentity::Nobody,
        (200, _) => {
            let stall = http.deadlines.stall;
            let body = http::small_body(response, MAX_ANSWER_BYTES, stall).await?;
            serde_json::from_slice::<WhoAmI>(&body)
                .map_or(HubIdentity::Untold { status }, |it| HubIdentity::Known(it.account()))
        }
        (401 | 403, Login::Token(_)) => {
            let said = http::error_body(response, http.deadlines.stall).await;
            let said = text::without_secrets(&said);
            return Err(SourceError::Access(
                IdentityProblem::Refused { host, status, said }.into(),
            ));
        }
        (500.., _) => {
            return Err(SourceError::Unreachable(IdentityProblem::Status { host, status }.into()));
        }
        _ => HubIdentity::Untold { status },
    };
    Ok((host, identity))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WhoAmI {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    auth: Auth,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    #[serde(rename = "accessToken")]
    token: Option<AccessToken>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AccessToken {
    #[serde(rename = "displayName")]
    name: Option<String>,
    role: Option<String>,
    #[serde(rename = "fineGrained")]
    fine_grained: Option<FineGrained>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FineGrained {
    #[serde(rename = "canReadGatedRepos")]
    reads_gated: bool,
    global: Vec<String>,
    scoped: Vec<Scope>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Scope {
    entity: Entity,
    permissions: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entity {
    #[serde(rename = "type")]
    kind: String,
    name: String,
}

impl WhoAmI {
    fn account(self) -> Account {
        let AccessToken { name, role, fine_grained } = self.auth.token.unwrap_or_default();
        let reads_gated = fine_grained.as_ref().map(|it| it.reads_gated);
        let FineGrained { global, scoped, .. } = fine_grained.unwrap_or_default();
        let of_scope = |scope: Scope| {
            let Entity { kind, name } = scope.entity;
            let of = text::inert(&format!("{kind} {name}"), 100);
            scope
                .permissions
                .into_iter()
                .map(move |permission| format!("{} of {of}", text::inert(&permission, 50)))
        };
        let global = global.iter().map(|permission| text::inert(permission, 50));
        let inert = |text: String| text::inert(&text, 100);
        Account {
            name: inert(self.name),
            kind: inert(self.kind),
            token: name.map(inert),
            role: role.map(inert),
            permissions: global.chain(scoped.into_iter().flat_map(of_scope)).collect(),
            reads_gated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(json: serde_json::Value) -> Account {
        serde_json::from_value::<WhoAmI>(json).expect("is read").account()
    }

    #[test]
    fn what_the_hub_says_of_a_token_is_read() {
        let read = serde_json::json!({
            "type": "user", "name": "ada", "email": "a@b", "orgs": [],
            "auth": {"type": "access_token", "accessToken": {"displayName": "ci", "role": "read"}},
        });
        let expected = Account {
            name: "ada".into(),
            kind: "user".into(),
            token: Some("ci".into()),
            role: Some("read".into()),
            ..Account::default()
        };
        assert_eq!(account(read), expected);
        let fine = serde_json::json!({
            "type": "user", "name": "ada",
            "auth": {"accessToken": {"displayName": "pods", "role": "fineGrained", "fineGrained": {
                "canReadGatedRepos": true, "global": ["discussion.write"],
                "scoped": [{"entity": {"type": "org", "name": "acme", "_id": "1"},
                            "permissions": ["repo.content.read", "repo.write"]}],
            }}},
        });
        let found = account(fine);
        let expected =
            ["discussion.write", "repo.content.read of org acme", "repo.write of org acme"];
        assert_eq!(found.permissions, expected);
        assert_eq!((found.role.as_deref(), found.reads_gated), (Some("fineGrained"), Some(true)));
        // Mirrors tell less.
        assert_eq!(account(serde_json::json!({"name": "x"})).name, "x");
        assert_eq!(account(serde_json::json!({})), Account::default());
    }
}
