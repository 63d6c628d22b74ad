//! What a refusal of Azure Blob Storage means, and what a person can do about it.

use crate::source::cloud::{Asked, Refusal, Why};
use crate::source::s3::page::unescaped;

/// The code and the message in the body of an error.
pub fn parse(body: &str) -> (String, String) {
    let tag = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        Some(unescaped(rest.split_once("</")?.0))
    };
    let message = tag("Message").unwrap_or_default();
    // Identifiers of the request follow on lines of their own.
    let message = message.lines().next().unwrap_or_default().trim().to_owned();
    // What else it can say has the signature in it.
    let detail = tag("AuthenticationErrorDetail").filter(|detail| is_about_time(detail));
    let message = [Some(message), detail].into_iter().flatten().collect::<Vec<_>>().join(": ");
    (tag("Code").unwrap_or_default(), message)
}

fn is_about_time(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    ["time frame", "expired", "date header", "too old", "lifetime"]
        .iter()
        .any(|it| said.contains(it))
}

/// Whether newer credentials may be let through.
pub fn is_expired(refusal: &Refusal) -> bool {
    let says = |word: &str| refusal.message.to_ascii_lowercase().contains(word);
    refusal.is_denial() && (says("expired") || says("time frame") || says("lifetime"))
}

pub fn why(refusal: &Refusal, asked: Asked<'_>, is_anonymous: bool) -> Why {
    let says = |word: &str| refusal.message.to_ascii_lowercase().contains(word);
    match refusal.code.as_str() {
        "ContainerNotFound" => Why::NoPlace,
        "ContainerBeingDeleted" => Why::Trouble,
        "BlobArchived" | "BlobBeingRehydrated" => Why::Archived,
        "NoAuthenticationInformation" | "PublicAccessNotPermitted" => Why::Anonymous,
        // How a container that is not public answers those it does not know.
        "ResourceNotFound" if is_anonymous => Why::Anonymous,
        _ if refusal.is_passing() => Why::Trouble,
        _ if refusal.is_denial() && (says("date header") || says("too old")) => Why::Clock,
        _ if is_expired(refusal) => Why::Expired,
        "AuthenticationFailed" | "InvalidAuthenticationInfo" => Why::BadCredentials,
        _ => match (refusal.status, asked) {
            (401 | 403, _) if is_anonymous => Why::Anonymous,
            (401, _) => Why::BadCredentials,
            (403, _) => Why::Denied,
            (404, Asked::List(_)) => Why::NotListed,
            (404, Asked::Object(_)) => Why::Gone,
            (412 | 416, Asked::Object(_)) => Why::Changed,
            (400 | 409, _) if !refusal.code.is_empty() => Why::NotAccepted,
            _ => Why::Words,
        },
    }
}

pub fn hint(why: Why, asked: Asked<'_>) -> Option<String> {
    let hint = match (why, asked) {
        (Why::Anonymous, _) => {
            "give the pod workload identity, or set AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_KEY"
        }
        (Why::Denied, Asked::List(_)) => {
            "assign the role Storage Blob Data Reader, or use a signature that may read and list (`sp=rl`); \
             to fetch one blob, name its whole key"
        }
        (Why::Denied, Asked::Object(_)) => {
            "assign the role Storage Blob Data Reader, or use a signature that may read (`sp=r`)"
        }
        (Why::BadCredentials, _) => {
            "check which account the credentials are for; set AZURE_SKIP_SIGNATURE=true for a public container"
        }
        (Why::Expired, _) => "make a newer signature or token",
        (Why::Archived, _) => "restore it first",
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
            (refusal(404, "ContainerNotFound", ""), list, Why::NoPlace),
            (refusal(404, "BlobNotFound", ""), object, Why::Gone),
            (refusal(409, "BlobArchived", ""), object, Why::Archived),
            (refusal(412, "ConditionNotMet", ""), object, Why::Changed),
            (refusal(416, "InvalidRange", ""), object, Why::Changed),
            (refusal(403, "AuthorizationPermissionMismatch", ""), list, Why::Denied),
            (refusal(403, "AuthenticationFailed", "no"), list, Why::BadCredentials),
            (
                refusal(403, "AuthenticationFailed", "The Date header is incorrect"),
                list,
                Why::Clock,
            ),
            (
                refusal(
                    403,
                    "AuthenticationFailed",
                    "Signature not valid in the specified time frame",
                ),
                object,
                Why::Expired,
            ),
            (
                refusal(401, "InvalidAuthenticationInfo", "The token is expired."),
                list,
                Why::Expired,
            ),
            (refusal(401, "NoAuthenticationInformation", ""), list, Why::Anonymous),
            (refusal(409, "PublicAccessNotPermitted", ""), list, Why::Anonymous),
            (refusal(503, "ServerBusy", ""), object, Why::Trouble),
            (refusal(400, "InvalidQueryParameterValue", ""), list, Why::NotAccepted),
            (refusal(307, "", ""), object, Why::Words),
        ] {
            assert_eq!(why(&refusal, asked, false), expected, "{refusal:?}");
        }
        assert_eq!(why(&refusal(404, "ResourceNotFound", ""), list, true), Why::Anonymous);
    }

    #[test]
    fn no_signature_is_repeated() {
        let error = |detail: &str| {
            format!(
                "\u{feff}<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>Server \
                 failed.\nRequestId:1\nTime:2</Message><AuthenticationErrorDetail>{detail}\
                 </AuthenticationErrorDetail></Error>"
            )
        };
        let (code, message) = parse(&error("The MAC signature 'secret=' is not the same"));
        assert_eq!((&code[..], &message[..]), ("AuthenticationFailed", "Server failed."));
        let (_, message) = parse(&error("Signature not valid in the specified time frame"));
        assert!(message.ends_with("time frame"), "{message}");
        assert_eq!(parse("<html>"), (String::new(), String::new()));
    }
}
