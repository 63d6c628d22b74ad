//! What a refusal of Google Cloud Storage means, and what a person can do about it.

use serde_json::Value;

use crate::source::cloud::{Asked, Refusal, Why};

/// The reason and the message in the body of an error.
pub fn parse(body: &str) -> (String, String) {
    let Ok(answer) = serde_json::from_str::<Value>(body) else {
        // Downloads are refused in plain text.
        let is_text = !body.trim_start().starts_with('<');
        return (String::new(), if is_text { body.to_owned() } else { String::new() });
    };
    let error = &answer["error"];
    let code = error["errors"][0]["reason"].as_str().unwrap_or_default();
    let message = error["message"].as_str().unwrap_or_default();
    (code.to_owned(), message.to_owned())
}

pub fn why(refusal: &Refusal, asked: Asked<'_>, is_anonymous: bool) -> Why {
    let says = |word: &str| refusal.message.to_ascii_lowercase().contains(word);
    if says("requester pays") || refusal.code.starts_with("userProject") {
        return Why::NotPaid;
    }
    match (refusal.status, asked) {
        _ if refusal.is_passing() => Why::Trouble,
        (403, _) if refusal.code.to_ascii_lowercase().contains("ratelimit") => Why::Trouble,
        (401 | 403, _) if is_anonymous => Why::Anonymous,
        (401, _) if says("reasonable timeframe") || says("used too early") => Why::Clock,
        (401, _) if says("expired") => Why::Expired,
        (401, _) => Why::BadCredentials,
        (403, _) => Why::Denied,
        (404, _) if says("bucket does not exist") => Why::NoPlace,
        (404, Asked::List(_)) => Why::NoPlace,
        (404, Asked::Object(_)) => Why::Gone,
        (412 | 416, Asked::Object(_)) => Why::Changed,
        (400, _) if !refusal.code.is_empty() => Why::NotAccepted,
        _ => Why::Words,
    }
}

pub fn hint(why: Why, asked: Asked<'_>) -> Option<String> {
    let hint = match (why, asked) {
        (Why::Anonymous, _) => {
            "set GOOGLE_APPLICATION_CREDENTIALS, or give the pod a service account (workload identity): no \
             metadata server returned a token"
        }
        (Why::Denied, Asked::List(_)) => {
            "allow `storage.objects.list` on the bucket, as the role Storage Object Viewer does; to \
             fetch one object, name its whole key"
        }
        (Why::Denied, Asked::Object(_)) => "allow `storage.objects.get`",
        (Why::NotPaid, _) => "set GOOGLE_CLOUD_QUOTA_PROJECT to the project that pays",
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_meaning() {
        let refusal = |status, code: &str, message: &str| Refusal {
            status,
            code: code.into(),
            message: message.into(),
            ..Refusal::default()
        };
        let (list, object) = (Asked::List("m/"), Asked::Object("m/a"));
        for (refusal, asked, expected) in [
            (refusal(404, "notFound", "The specified bucket does not exist."), list, Why::NoPlace),
            (refusal(404, "notFound", "No such object: b/m/a"), object, Why::Gone),
            (refusal(401, "authError", "Invalid Credentials"), list, Why::BadCredentials),
            (refusal(403, "forbidden", "x does not have storage.objects.list"), list, Why::Denied),
            (refusal(403, "rateLimitExceeded", ""), object, Why::Trouble),
            (refusal(400, "required", "Bucket is a requester pays bucket"), list, Why::NotPaid),
            (refusal(412, "conditionNotMet", ""), object, Why::Changed),
            (refusal(416, "", ""), object, Why::Changed),
            (refusal(503, "backendError", ""), object, Why::Trouble),
            (refusal(400, "invalid", "no"), list, Why::NotAccepted),
            (refusal(302, "", ""), object, Why::Words),
        ] {
            assert_eq!(why(&refusal, asked, false), expected, "{refusal:?}");
        }
        assert_eq!(why(&refusal(401, "required", "Anonymous caller"), list, true), Why::Anonymous);
    }

    #[test]
    fn the_words_of_an_error_are_found() {
        let json = r#"{"error":{"code":403,"message":"no","errors":[{"reason":"forbidden"}]}}"#;
        assert_eq!(parse(json), ("forbidden".into(), "no".into()));
        assert_eq!(parse("No such object"), (String::new(), "No such object".into()));
        assert_eq!(parse("<html>"), (String::new(), String::new()));
    }
}
