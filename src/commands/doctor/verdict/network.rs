//! What follows from how a host was found, reached and answered.

use std::time::{Duration, SystemTime};

use super::{Check, Failure, Question};
use crate::error::Class;
use crate::model::text;
use crate::net::{CHECK_DNS, CHECK_EGRESS, CHECK_PROXY, NamedRoots};

/// A clock that is this wrong is worth a look.
const SKEW_TOLERATED: Duration = Duration::from_secs(5 * 60);
/// Addresses that are shown.
const MAX_ADDRESSES: usize = 4;

/// How a host is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub origin: String,
    /// `scheme://host:port`
    pub proxy: Option<String>,
    /// The host whose addresses are needed: its own, or that of the proxy.
    pub looked_up: String,
    pub addresses: Result<Vec<String>, Failure>,
    /// The status of the answer to a request for nothing in particular, and how long it took.
    pub answer: Result<(u16, Duration), Failure>,
}

pub fn roots(built_in: usize, named: &[NamedRoots]) -> Check {
    let more = named.iter().map(|roots| {
        let NamedRoots { variable, path, certificates } = roots;
        format!(", {certificates} from {variable} `{}`", path.display())
    });
    let value = format!("{built_in} authorities built in{}", more.collect::<String>());
    Question::of_network("certificates", None).ok(value)
}

pub fn judge(host: &Host) -> Vec<Check> {
    let origin = Some(host.origin.as_str());
    let proxy = Question::of_network("proxy", origin);
    let proxy = proxy.ok(host.proxy.as_ref().map_or("none".to_owned(), |it| format!("`{it}`")));
    vec![proxy, dns(host), answer(host)]
}

fn dns(host: &Host) -> Check {
    let question = Question::of_network("dns", Some(&host.origin));
    let of_proxy = if host.proxy.is_some() { " (the proxy)" } else { "" };
    match &host.addresses {
        Ok(addresses) if addresses.is_empty() => question.fails(
            Class::Unreachable,
            format!("`{}`{of_proxy} has no address", host.looked_up),
            CHECK_DNS,
        ),
        Ok(addresses) => {
            let shown = addresses.iter().take(MAX_ADDRESSES).cloned().collect::<Vec<_>>();
            let more = if addresses.len() > shown.len() { ", …" } else { "" };
            question.ok(format!("`{}`{of_proxy} is {}{more}", host.looked_up, shown.join(", ")))
        }
        Err(Failure { class, what, hint }) => question.failed(Failure {
            class: *class,
            what: format!("`{}`{of_proxy} is not found: {what}", host.looked_up),
            hint: hint.clone().or_else(|| Some(CHECK_DNS.into())),
        }),
    }
}

fn answer(host: &Host) -> Check {
    let question = Question::of_network("answer", Some(&host.origin));
    let check = if host.proxy.is_some() { CHECK_PROXY } else { CHECK_EGRESS };
    match &host.answer {
        Ok((status @ 500.., _)) => question.warning(
            format!("answers {status}"),
            "try again later: the host, or a proxy on the way, is in trouble",
        ),
        Ok((_, took)) => {
            let tls = if host.origin.starts_with("https:") {
                "certificate trusted"
            } else {
                "without TLS"
            };
            question.ok(format!("in {} ms, {tls}", took.as_millis()))
        }
        Err(failure) => {
            // It is known here whether there is a proxy.
            let hint = failure.hint.clone().filter(|hint| hint != CHECK_EGRESS);
            let hint = hint.or_else(|| Some(check.into()));
            question.failed(Failure { hint, ..failure.clone() })
        }
    }
}

/// By the clocks of the hosts and of this node when each answered.
pub fn clock(found: &[(String, SystemTime, SystemTime)]) -> Option<Check> {
    let question = Question::of_network("clock", None);
    let apart = |theirs: SystemTime, ours: SystemTime| match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let differences = found.iter().map(|(host, theirs, ours)| (host, apart(*theirs, *ours)));
    let (host, (most, side)) = differences.max_by_key(|(_, (difference, _))| *difference)?;
    let value = format!("{} {side} that of `{host}`", text::duration(most));
    Some(match most > SKEW_TOLERATED {
        true => question.warning(
            value,
            "synchronise the clock of the node (chrony, NTP): certificates and signatures of S3 depend \
             on it",
        ),
        false => question.ok(value),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn host() -> Host {
        Host {
            origin: "https://h".into(),
            proxy: None,
            looked_up: "h".into(),
            addresses: Ok(vec!["10.0.0.1".into()]),
            answer: Ok((200, Duration::from_millis(31))),
        }
    }

    fn failure(class: Class) -> Failure {
        Failure { class, what: "no".into(), hint: None }
    }

    #[test]
    fn how_a_host_answers_decides() {
        let unreachable = Verdict::Fails(Class::Unreachable);
        let proxy = || Some("http://p:3128".to_owned());
        for (host, dns, answer, hint) in [
            (host(), Verdict::Ok, Verdict::Ok, None),
            (Host { answer: Ok((404, Duration::ZERO)), ..host() }, Verdict::Ok, Verdict::Ok, None),
            (
                Host { answer: Ok((503, Duration::ZERO)), ..host() },
                Verdict::Ok,
                Verdict::Warning,
                None,
            ),
            (Host { addresses: Ok(vec![]), ..host() }, unreachable, Verdict::Ok, None),
            (
                Host { addresses: Err(failure(Class::Unreachable)), ..host() },
                unreachable,
                Verdict::Ok,
                None,
            ),
            (
                Host { answer: Err(failure(Class::Unreachable)), ..host() },
                Verdict::Ok,
                unreachable,
                Some(CHECK_EGRESS),
            ),
            (
                Host { answer: Err(failure(Class::Unreachable)), proxy: proxy(), ..host() },
                Verdict::Ok,
                unreachable,
                Some(CHECK_PROXY),
            ),
            (
                Host { answer: Err(failure(Class::Unusable)), ..host() },
                Verdict::Ok,
                Verdict::Fails(Class::Unusable),
                Some(CHECK_EGRESS),
            ),
        ] {
            let checks = judge(&host);
            assert_eq!((checks[1].verdict, checks[2].verdict), (dns, answer), "{checks:?}");
            if hint.is_some() {
                assert_eq!(checks[2].hint.as_deref(), hint);
            }
        }
    }

    #[test]
    fn a_clock_is_judged_by_the_host_that_differs_most() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds);
        let seen = |theirs, ours| ("https://h".to_owned(), at(theirs), at(ours));
        for (found, expected) in [
            (vec![], None),
            (vec![seen(0, 300)], Some((Verdict::Ok, "5m00s ahead of"))),
            (vec![seen(0, 301)], Some((Verdict::Warning, "5m01s ahead of"))),
            (vec![seen(0, 1), seen(900, 0)], Some((Verdict::Warning, "15m00s behind"))),
        ] {
            let check = clock(&found);
            let found = check.as_ref().map(|check| {
                (check.verdict, check.value.split(" that").next().unwrap_or_default())
            });
            assert_eq!(found, expected);
        }
    }
}
