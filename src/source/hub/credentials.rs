//! The Hub's token: where it is found, and how it is kept from being shown.

use std::path::PathBuf;

use reqwest::header::HeaderValue;

use super::problem::HubProblem;
use crate::environment;
use crate::model::hf_cache::token_path;
use crate::net::SourceError;

/// A bearer token, or a user with a password. It has no `Display`, and `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// Finds the token where `hf` and `huggingface_hub` look: `HF_TOKEN`,
    /// `HUGGING_FACE_HUB_TOKEN`, the file `HF_TOKEN_PATH`, or `token` in `HF_HOME`.
    pub fn find() -> Result<Option<Self>, SourceError> {
        if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return Ok(None);
        }
        for variable in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
            if let Some(value) = environment::text(variable) {
                return Self::parse(&value, variable);
            }
        }
        let (path, named) = match environment::text("HF_TOKEN_PATH") {
            Some(path) => (expand_home(&path), true),
            None => match home() {
                Some(home) => (token_path(&home), false),
                None => return Ok(None),
            },
        };
        match std::fs::read_to_string(&path) {
            Ok(value) => Self::parse(&value, &path.display().to_string()),
            // As for `hf`: an optional Secret may be absent, but what is there must be readable.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(why) if named => {
                let path = path.display().to_string();
                Err(SourceError::Access(HubProblem::TokenFile { path, why }.into()))
            }
            Err(_) => Ok(None),
        }
    }

    fn parse(value: &str, place: &str) -> Result<Option<Self>, SourceError> {
        let value = value.trim_start_matches('\u{feff}').trim();
        if value.is_empty() {
            return Ok(None);
        }
        let usable = value.bytes().all(|byte| byte.is_ascii_graphic());
        let header = HeaderValue::from_str(&format!("Bearer {value}")).ok().filter(|_| usable);
        let Some(mut header) = header else {
            let place = place.to_owned();
            return Err(SourceError::Access(HubProblem::Token { place }.into()));
        };
        header.set_sensitive(true);
        Ok(Some(Self(header)))
    }

    /// A user and a password, in base64 as Basic wants them.
    pub fn basic(pair: &str) -> Option<Self> {
        let mut header = HeaderValue::from_str(&format!("Basic {pair}")).ok()?;
        header.set_sensitive(true);
        Some(Self(header))
    }

    /// The value of an `Authorization` header, marked as sensitive.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Token(…)")
    }
}

/// The file that `HF_TOKEN_PATH` names, if it is asked for a token and does not exist.
pub fn missing_token_file() -> Option<PathBuf> {
    if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return None;
    }
    let path = expand_home(&environment::text("HF_TOKEN_PATH")?);
    matches!(path.try_exists(), Ok(false)).then_some(path)
}

/// Whether a variable is set to what `huggingface_hub` takes for true.
pub fn is_true(variable: &str) -> bool {
    environment::text(variable).is_some_and(|value| {
        matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
    })
}

/// `~/x` as a shell would read it.
fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), environment::text("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

fn home() -> Option<PathBuf> {
    if let Some(home) = environment::text("HF_HOME") {
        return Some(expand_home(&home));
    }
    let cache = environment::text("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| environment::text("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(cache.join("huggingface"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_and_never_shown() {
        let token = Token::parse("\u{feff}hf_secret\r\n", "x").expect("parses").expect("is there");
        assert_eq!(token.header().to_str().expect("ascii"), "Bearer hf_secret");
        assert!(!format!("{token:?} {:?}", token.header()).contains("secret"));
        assert!(Token::parse("  \n", "x").expect("parses").is_none());
    }

    #[test]
    fn a_broken_token_is_an_error_that_does_not_repeat_it() {
        for value in ["hf_a b", "hf_ä", "hf_\u{1}"] {
            let error = Token::parse(value, "the-place").expect_err("unusable").to_string();
            assert!(error.contains("the-place") && !error.contains("hf_"), "{error}");
        }
    }
}
