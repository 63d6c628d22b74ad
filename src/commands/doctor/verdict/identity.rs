//! What follows from who asks: the owner of the Hub's token, the credentials for S3.

use super::{Check, Question};
use crate::source::{Account, HubIdentity, S3Identity, S3Key};

pub fn hub(host: &str, found: &HubIdentity) -> Check {
    let question = Question::of_source("token", host);
    match found {
        HubIdentity::Nobody => question.ok("none: only public repos can be fetched"),
        HubIdentity::Untold { status } => question.warning(
            format!("`{host}` does not tell whose it is (answered {status})"),
            "usual for a mirror; the checks of SOURCE show whether the token opens it",
        ),
        HubIdentity::Known(account) => of_account(question, account),
    }
}

fn of_account(question: Question, account: &Account) -> Check {
    let Account { name, kind, token, role, permissions, reads_gated } = account;
    let named = token.as_ref().map(|it| format!("`{it}`, ")).unwrap_or_default();
    let role_told = role.as_deref().unwrap_or("unknown");
    let rights = match permissions.is_empty() {
        true => String::new(),
        false => format!(", may: {}", shortened(permissions)),
    };
    let gated = match reads_gated {
        Some(false) => ", no gated repos",
        Some(true) => ", gated repos as well",
        None => "",
    };
    let value = format!("{named}of {kind} {name}, role {role_told}{rights}{gated}");
    let may_write = |it: &String| it.contains("write") || it.contains("admin");
    if role.as_deref() == Some("write") || permissions.iter().any(may_write) {
        return question.warning(
            value,
            "a pod needs to read only: make a token with the role `read`, or a fine-grained one",
        );
    }
    if *reads_gated == Some(false) {
        return question.warning(
            value,
            "to fetch gated repos allow this token to read public gated repos you can access",
        );
    }
    question.ok(value)
}

fn shortened(permissions: &[String]) -> String {
    let shown = permissions.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if permissions.len() > 5 { shown + ", …" } else { shown }
}

pub fn s3(source: &str, found: &S3Identity) -> Check {
    let question = Question::of_source("credentials", source);
    let region = &found.region;
    let Some(key) = &found.key else {
        return question.ok(format!("none are sent; region {region}"));
    };
    let S3Key { last_four, provider, account, is_temporary } = key;
    let account = account.as_ref().map(|it| format!(", account {it}")).unwrap_or_default();
    let kind = if *is_temporary { "temporary" } else { "long-lived" };
    question.ok(format!("{kind} key …{last_four} from {provider}{account}; region {region}"))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_token_that_may_do_too_much_or_too_little_is_a_warning() {
        let known = |role: &str, permissions: &[&str], reads_gated| {
            HubIdentity::Known(Account {
                name: "ada".into(),
                kind: "user".into(),
                token: Some("ci".into()),
                role: Some(role.into()),
                permissions: permissions.iter().map(|it| (*it).to_owned()).collect(),
                reads_gated,
            })
        };
        for (found, verdict, says) in [
            (HubIdentity::Nobody, Verdict::Ok, "none"),
            (HubIdentity::Untold { status: 404 }, Verdict::Warning, "does not tell"),
            (known("read", &[], None), Verdict::Ok, "`ci`, of user ada, role read"),
            (known("write", &[], None), Verdict::Warning, "role write"),
            (
                known("fineGrained", &["repo.content.read of org a"], Some(true)),
                Verdict::Ok,
                "gated",
            ),
            (
                known("fineGrained", &["repo.content.read of org a"], Some(false)),
                Verdict::Warning,
                "no gated repos",
            ),
            (known("fineGrained", &["repo.write of org a"], Some(true)), Verdict::Warning, "write"),
        ] {
            let check = hub("https://h", &found);
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.value.contains(says), "{check:?}");
            assert_eq!(check.hint.is_some(), verdict != Verdict::Ok, "{check:?}");
        }
    }

    #[test]
    fn of_a_key_the_end_is_told() {
        let key = S3Key {
            last_four: "WXYZ".into(),
            provider: "a web identity token (IRSA)".into(),
            account: Some("123".into()),
            is_temporary: true,
        };
        let identity = |key| S3Identity { region: "eu-west-1".into(), key };
        assert_eq!(
            s3("s3://b/", &identity(Some(key))).value,
            "temporary key …WXYZ from a web identity token (IRSA), account 123; region eu-west-1"
        );
        assert_eq!(s3("s3://b/", &identity(None)).value, "none are sent; region eu-west-1");
    }
}
