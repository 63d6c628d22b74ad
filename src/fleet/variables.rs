//! `${NAME}` in the values of a models file.

use crate::model::Message;

/// What is wrong with a reference, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error("`${{` without `}}`")]
    Open,
    #[error("`${{{0}}}` is not the name of a variable")]
    Odd(String),
    #[error("the variable `{0}` is not set")]
    Unset(String),
    #[error("the variable `{0}` may hold a secret, and names are shown in logs")]
    Secret(String),
}

impl Unresolved {
    pub fn message(&self) -> Message {
        Message::new(self.to_string()).hint(match self {
            Self::Open => "close the reference: `${NAME}`",
            Self::Odd(_) => "use letters, digits and `_` in the name",
            Self::Unset(_) => "set it in the environment of the container",
            Self::Secret(_) => {
                "write the value without a secret, or use a variable of another name"
            }
        })
    }
}

/// `text` with the values of the variables that it names; everything else stays as it is.
pub fn resolved(
    text: &str,
    value_of: &dyn Fn(&str) -> Option<String>,
) -> Result<String, Unresolved> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once("${") {
        let (name, after) = from.split_once('}').ok_or(Unresolved::Open)?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty()
            || !name.chars().all(is_plain)
            || name.starts_with(|c: char| c.is_numeric())
        {
            return Err(Unresolved::Odd(name.to_owned()));
        }
        let is_secret = ["TOKEN", "SECRET", "PASSWORD", "ACCESS_KEY", "CREDENTIAL"];
        if is_secret.iter().any(|part| name.to_ascii_uppercase().contains(part)) {
            return Err(Unresolved::Secret(name.to_owned()));
        }
        out.push_str(before);
        out.push_str(&value_of(name).ok_or_else(|| Unresolved::Unset(name.to_owned()))?);
        rest = after;
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_named_in_braces_and_nothing_else_is_special() {
        let value_of = |name: &str| match name {
            "BUCKET" => Some("models".to_owned()),
            "_2" => Some("${BUCKET}".to_owned()),
            "HF_TOKEN" => Some("hf_secret".to_owned()),
            _ => None,
        };
        let is = |text: &str| resolved(text, &value_of);
        for (text, expected) in [
            ("s3://${BUCKET}/a/", "s3://models/a/"),
            ("${BUCKET}${BUCKET}", "modelsmodels"),
            ("$BUCKET $$ $(BUCKET) }{", "$BUCKET $$ $(BUCKET) }{"),
            // A value is not looked into.
            ("${_2}", "${BUCKET}"),
            ("", ""),
        ] {
            assert_eq!(is(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(is("a${BUCKET"), Err(Unresolved::Open));
        for odd in ["", "a b", "1A", "A-B", "A:-b", "${A"] {
            assert_eq!(is(&format!("${{{odd}}}")), Err(Unresolved::Odd(odd.into())), "{odd}");
        }
        assert_eq!(is("${NONE}"), Err(Unresolved::Unset("NONE".into())));
        for secret in ["HF_TOKEN", "aws_secret_access_key", "AWS_ACCESS_KEY_ID", "DB_PASSWORD"] {
            let refused = is(&format!("hf://a/${{{secret}}}"));
            assert_eq!(refused, Err(Unresolved::Secret(secret.into())));
        }
    }
}
