//! What follows from what the service account may do.

use super::{Check, Question};
use crate::error::Class;
use crate::lock::cluster::Permissions;

pub fn lease(found: &Permissions) -> Check {
    let question = Question::of_cluster("lease");
    let Permissions { server, namespace, denied, away } = found;
    if let Some(why) = away {
        return question.fails(
            Class::Unreachable,
            format!("the Kubernetes API `{server}` does not answer: {why}"),
            "check whether a NetworkPolicy lets the pod ask the API server; a fetch would continue with \
             the volume lock only",
        );
    }
    let Some((_, why)) = denied.first() else {
        return question.ok(format!("may be acquired in namespace {namespace}"));
    };
    let verbs = denied.iter().map(|(verb, _)| *verb).collect::<Vec<_>>().join(", ");
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    question.fails(
        Class::Access,
        format!("the service account may not {verbs} Leases in namespace {namespace}{why}"),
        "grant it get, create and update on leases of coordination.k8s.io in that namespace, as \
         manifests/components/lock-kubernetes does",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn each_right_is_needed() {
        let found = |denied: &[&'static str], away: Option<&str>| Permissions {
            server: "https://10.0.0.1:443".into(),
            namespace: "models".into(),
            denied: denied.iter().map(|verb| (*verb, "RBAC".to_owned())).collect(),
            away: away.map(str::to_owned),
        };
        for (found, verdict, says) in [
            (found(&[], None), Verdict::Ok, "may be acquired in namespace models"),
            (
                found(&["create", "update"], None),
                Verdict::Fails(Class::Access),
                "may not create, update Leases in namespace models (RBAC)",
            ),
            (found(&[], Some("no route")), Verdict::Fails(Class::Unreachable), "no route"),
        ] {
            let check = lease(&found);
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.value.contains(says), "{check:?}");
        }
    }
}
