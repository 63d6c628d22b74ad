//! Who may read from the fake registry, and the token server that says so.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::http::{Request, Response};
use crate::text::query_pairs;

/// How the registry wants to know who asks.
#[derive(Clone, Debug, Default)]
pub enum Access {
    #[default]
    Open,
    /// By a token that anybody gets.
    AnyToken,
    /// By a token that this user gets, or whoever has this refresh token.
    Token {
        user: Option<(String, String)>,
        refresh: Option<String>,
    },
    Basic {
        user: String,
        password: String,
    },
}

pub(crate) struct Gate {
    access: Access,
    valid: Mutex<HashSet<String>>,
    issued: AtomicUsize,
}

impl Access {
    pub fn user(user: &str, password: &str) -> Self {
        Self::Token { user: Some((user.into(), password.into())), refresh: None }
    }

    pub fn refresh(token: &str) -> Self {
        Self::Token { user: None, refresh: Some(token.into()) }
    }
}

impl Gate {
    pub fn new(access: Access) -> Self {
        Self { access, valid: Mutex::default(), issued: AtomicUsize::new(0) }
    }

    pub fn expire(&self) {
        self.valid().clear();
    }

    /// Why the registry does not answer, if it does not.
    pub fn refusal(&self, request: &Request, realm: &str) -> Option<Response> {
        let given = request.header("authorization").unwrap_or_default();
        let (is_allowed, challenge) = match &self.access {
            Access::Open => return None,
            Access::Basic { user, password } => {
                (given == basic(user, password), "Basic realm=\"fake\"".to_owned())
            }
            Access::AnyToken | Access::Token { .. } => {
                let token = given.strip_prefix("Bearer ").unwrap_or_default();
                let name = request.path.strip_prefix("/v2/").unwrap_or_default();
                let name = name.split("/manifests/").next().unwrap_or_default();
                let name = name.split("/blobs/").next().unwrap_or_default();
                let challenge = format!(
                    "Bearer realm=\"{realm}\",service=\"fake\",scope=\"repository:{name}:pull\""
                );
                (self.valid().contains(token), challenge)
            }
        };
        let error = json!({"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]});
        let refused = || Response::json(401, &error).header("WWW-Authenticate", &challenge);
        (!is_allowed).then(refused)
    }

    /// What the token server answers.
    pub fn answer(&self, request: &Request) -> Response {
        let form = query_pairs(&String::from_utf8_lossy(&request.body));
        let field = |name: &str| {
            let found = form.iter().find(|(found, _)| found == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let given = request.header("authorization").unwrap_or_default();
        let is_post = request.method == "POST";
        let is_allowed = match &self.access {
            Access::Open | Access::Basic { .. } => false,
            Access::AnyToken => !is_post,
            Access::Token { user: Some((user, password)), .. } if !is_post => {
                given == basic(user, password)
            }
            Access::Token { refresh: Some(refresh), .. } if is_post => {
                field("grant_type") == "refresh_token" && field("refresh_token") == *refresh
            }
            Access::Token { .. } => false,
        };
        let scope = match is_post {
            true => field("scope"),
            false => request.query_value("scope").unwrap_or_default(),
        };
        if !is_allowed || !scope.starts_with("repository:") || !scope.ends_with(":pull") {
            return Response::json(
                401,
                &json!({"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}),
            );
        }
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let token = format!("token-CANARY-{number}");
        self.valid().insert(token.clone());
        let name = if is_post { "access_token" } else { "token" };
        Response::json(200, &json!({name: token, "expires_in": 300}))
    }

    fn valid(&self) -> MutexGuard<'_, HashSet<String>> {
        self.valid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
