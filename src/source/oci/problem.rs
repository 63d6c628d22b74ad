//! What can go wrong with a registry, as messages.

use std::fmt;

use serde::Deserialize;

use crate::model::{ErrorFields, text};
use crate::net::Problem;

/// Texts of the other side are inert; `host` is an origin.
#[derive(Debug, thiserror::Error)]
pub enum OciProblem {
    #[error("`{path}` {why}")]
    Config { path: String, why: String },
    #[error("`{host}` asks for a token from `{realm}`, which is not the URL of a token server")]
    Realm { host: String, realm: String },
    #[error(
        "`{host}` asks for a token from `{realm}`, which is not safe to send credentials to; not asked"
    )]
    PlainRealm { host: String, realm: String },
    #[error("`{host}` answered without a usable token")]
    NoToken { host: String },
    #[error("`{host}` sent a manifest of `{name}` with digest {found}, but {asked} was requested")]
    OtherManifest { host: String, name: String, found: String, asked: String },
    #[error("`{host}` sent an invalid manifest of `{name}`: {why}")]
    Manifest { host: String, name: String, why: String },
    #[error("the registry sent a layer of `{name}` with digest {found}, but {asked} was requested")]
    OtherLayer { name: String, found: String, asked: String },
    #[error("`{file}` is in an archive of `{name}`, and only `weightlift fetch` unpacks archives")]
    OnlyListed { name: String, file: String },
    #[error("`{name}` is an index of several artifacts, and none is for linux/amd64: {found}")]
    Several { name: String, found: String },
    #[error("`{name}` holds nothing that weightlift recognises as a model: {found}")]
    NoModel { name: String, found: String },
    #[error("`{name}` has a layer of type `{media_type}` that does not say which file it is")]
    Nameless { name: String, media_type: String },
}

impl Problem for OciProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::Config { path, .. } => ErrorFields::of_file(path),
            Self::Realm { host, .. }
            | Self::NoToken { host }
            | Self::OtherManifest { host, .. } => ErrorFields::of_host(host),
            Self::PlainRealm { host, .. } => ErrorFields::of_host(host)
                .hint("use https for the token server, unless a registry without TLS has it on the same host"),
            Self::Manifest { host, .. } => ErrorFields::of_host(host)
                .hint("check that a registry is at this host; a proxy or a login portal may have answered"),
            Self::OtherLayer { .. } => ErrorFields::default(),
            Self::OnlyListed { file, .. } => ErrorFields::of_file(file)
                .hint("fetch it first, then use file:///directory as SOURCE"),
            Self::Several { .. } => {
                ErrorFields::default().hint("name one of them by its digest: `@sha256:…`")
            }
            Self::NoModel { .. } => ErrorFields::default().hint(
                "choose another artifact: weightlift reads ModelPack, KitOps and Docker's model artifacts, files that oras has \
                 pushed, and images with a `/models` directory",
            ),
            Self::Nameless { .. } => ErrorFields::default().hint(
                "add to each layer the annotation `org.cncf.model.filepath` or \
                 `org.opencontainers.image.title`",
            ),
        }
    }
}

/// A refusal of a registry, of its token server, or of the storage behind it.
#[derive(Debug)]
pub struct Refused {
    pub host: String,
    pub status: u16,
    /// Completes "refused …".
    pub asked: String,
    /// Inert.
    pub said: String,
    pub hint: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, status, asked, said, .. } = self;
        match status {
            404 | 410 => write!(out, "`{host}` does not have {asked} ({status})")?,
            400..500 => write!(out, "`{host}` refused {asked} ({status})")?,
            _ => write!(out, "`{host}` answered {status} for {asked}")?,
        }
        if said.is_empty() { Ok(()) } else { write!(out, ": {said}") }
    }
}

impl std::error::Error for Refused {}

impl Problem for Refused {
    fn fields(&self) -> ErrorFields {
        let fields = ErrorFields::of_host(&self.host).status(self.status).said(&self.said);
        ErrorFields { hint: self.hint.clone(), ..fields }
    }
}

/// What an error body says to a person: the first code and message of a registry's JSON, or the text. `body`
/// is inert, and so is what is made of it.
pub fn words(body: &str) -> String {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Told>,
    }
    #[derive(Deserialize)]
    struct Told {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let read = serde_json::from_str::<Body>(body).ok();
    let Some(Told { code, message }) = read.and_then(|it| it.errors.into_iter().next()) else {
        return body.to_owned();
    };
    // JSON has escapes of its own.
    let (code, message) = (text::inert(&code, 60), text::inert(&message, 200));
    match (code.is_empty(), message.is_empty()) {
        (false, false) => format!("{code}: {message}"),
        _ => code + &message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_for_a_person_are_found_in_the_json_of_a_registry() {
        for (body, expected) in [
            (r#"{"errors":[{"code":"DENIED","message":"no"},{"code":"X"}]}"#, "DENIED: no"),
            (r#"{"errors":[{"code":"DENIED"}]}"#, "DENIED"),
            (r#"{"errors":[{"message":"a\u001b[2Jb"}]}"#, "a[2Jb"),
            (r#"{"errors":[]}"#, r#"{"errors":[]}"#),
            ("plain", "plain"),
            ("", ""),
        ] {
            let said = words(body);
            assert!(!said.chars().any(text::is_control), "{said:?}");
            if !body.contains("001b") {
                assert_eq!(said, expected);
            }
        }
    }
}
