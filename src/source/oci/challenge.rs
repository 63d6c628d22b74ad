//! What a registry asks for by `WWW-Authenticate`.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// How a registry wants to know who asks.
#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    /// By a token, which `realm` hands out.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    /// By a user and a password.
    Basic,
}

impl Challenge {
    /// The first that asks for a token, or else for a user, if one does.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|it| it.to_str().ok());
        let mut all: Vec<Self> = values.flat_map(Self::all).collect();
        let bearer = all.iter().position(|it| matches!(it, Self::Bearer { .. }));
        (!all.is_empty()).then(|| all.swap_remove(bearer.unwrap_or(0)))
    }

    fn all(text: &str) -> Vec<Self> {
        let mut schemes: Vec<(&str, Vec<(&str, String)>)> = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            if word.is_empty() {
                break;
            }
            rest = after;
            match after.strip_prefix('=') {
                None => schemes.push((word, Vec::new())),
                Some(value) => {
                    let (value, after) = value_of(value);
                    if let Some((_, fields)) = schemes.last_mut() {
                        fields.push((word, value));
                    }
                    rest = after;
                }
            }
        }
        schemes.into_iter().filter_map(|(scheme, fields)| Self::from(scheme, &fields)).collect()
    }

    fn from(scheme: &str, fields: &[(&str, String)]) -> Option<Self> {
        let field = |name: &str| {
            let found = fields.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            let realm = field("realm")?;
            return Some(Self::Bearer { realm, service: field("service"), scope: field("scope") });
        }
        scheme.eq_ignore_ascii_case("basic").then_some(Self::Basic)
    }
}

/// A value, quoted or not, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn of(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).expect(value));
        }
        Challenge::of(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let [service, scope] = [service, scope].map(|it| it.map(str::to_owned));
        Some(Challenge::Bearer { realm: realm.to_owned(), service, scope })
    }

    #[test]
    fn a_challenge_is_read_in_the_ways_that_registries_write_it() {
        let realm = "https://auth.example/token";
        for (values, expected) in [
            (
                &[
                    "Bearer realm=\"https://auth.example/token\",service=\"registry.example\",scope=\"repository:a/b:pull,push\"",
                ][..],
                bearer(realm, Some("registry.example"), Some("repository:a/b:pull,push")),
            ),
            (&["bearer Realm=https://auth.example/token, service="], bearer(realm, None, None)),
            (&["Basic realm=\"x\""], Some(Challenge::Basic)),
            (&["BASIC"], Some(Challenge::Basic)),
            (
                &["Basic realm=\"a \\\"b\\\", c\", Bearer realm=\"https://auth.example/token\""],
                bearer(realm, None, None),
            ),
            (
                &["Basic realm=x", "Bearer realm=\"https://auth.example/token\""],
                bearer(realm, None, None),
            ),
            (&["Bearer service=\"x\""], None),
            (&["Negotiate"], None),
            (&[""], None),
            (&["=,= ==\"", "\""], None),
            (&["Bearer realm=\"https://auth.example/token"], bearer(realm, None, None)),
        ] {
            assert_eq!(of(values), expected, "{values:?}");
        }
        assert_eq!(of(&[]), None);
    }
}
