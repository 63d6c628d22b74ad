//! What follows from the limits of a container and from who we are in it.

use super::{Check, Question};
use crate::error::Class;
use crate::model::text;

/// The least with which a fetch is tested.
const ENOUGH_MEMORY: u64 = 64 << 20;
/// For the least number of connections beside what the process has itself.
const LEAST_FREE_MEMORY: u64 = 8 << 20;
const ENOUGH_PROCESSORS: f64 = 0.5;
/// What one connection and one file need, and what sixteen of each do.
const LEAST_DESCRIPTORS: usize = 20;
const ENOUGH_DESCRIPTORS: usize = 140;
const LEAST_THREADS: u64 = 8;
const ENOUGH_THREADS: u64 = 40;

#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Without `/proc` there is much that nobody can tell.
    pub has_proc: bool,
    /// Bytes.
    pub memory_limit: Option<u64>,
    pub memory_used: u64,
    pub processor_limit: Option<f64>,
    pub cores: usize,
    /// That can still be opened.
    pub descriptors: usize,
    pub thread_limit: Option<u64>,
    pub user: u32,
    pub group: u32,
    pub groups: Vec<u32>,
    pub security: Option<Security>,
    pub sandbox: Confinement,
    pub termination_log: (String, TerminationLog),
    pub in_cluster: bool,
    pub pod: String,
    pub node: String,
}

/// What `/proc/self/status` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// 0 none, 1 strict, 2 a filter.
    pub seccomp: u32,
    pub no_new_privileges: bool,
    /// Effective ones, as bits.
    pub capabilities: u64,
}

/// What has come of our own sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confinement {
    On { version: i32, reads_all: bool },
    Off,
    Unfit(&'static str),
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TerminationLog {
    Writable,
    Missing,
    Refused(String),
}

impl Security {
    /// Reads `status`, the text of `/proc/self/status`.
    pub fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let of = |line: &str| {
                line.strip_prefix(name)?.strip_prefix(':').map(str::trim).map(str::to_owned)
            };
            status.lines().find_map(of)
        };
        Some(Self {
            seccomp: field("Seccomp").and_then(|it| it.parse().ok()).unwrap_or_default(),
            no_new_privileges: field("NoNewPrivs").as_deref() == Some("1"),
            capabilities: u64::from_str_radix(&field("CapEff")?, 16).ok()?,
        })
    }
}

pub fn judge(found: &Container) -> Vec<Check> {
    vec![
        memory(found),
        processors(found),
        descriptors(found.descriptors),
        threads(found),
        user(found),
        security(found),
        sandbox(&found.sandbox),
        termination_log(found),
        identity(found),
    ]
}

const NO_PROC: &str = "cannot tell: /proc is not mounted";
const MOUNT_PROC: &str = "mount /proc to know";

fn memory(found: &Container) -> Check {
    let question = Question::of_container("memory");
    let used = text::size(found.memory_used);
    match found.memory_limit {
        _ if !found.has_proc => question.warning(NO_PROC, MOUNT_PROC),
        None => question.ok(format!("no limit; {used} in use")),
        Some(limit) => {
            let value = format!("limit {}; {used} in use", text::size(limit));
            let hint = "set resources.limits.memory to 64Mi or more";
            match limit.saturating_sub(found.memory_used) {
                free if free < LEAST_FREE_MEMORY => question.fails(Class::Unusable, value, hint),
                _ if limit < ENOUGH_MEMORY => question.warning(value, hint),
                _ => question.ok(value),
            }
        }
    }
}

fn processors(found: &Container) -> Check {
    let question = Question::of_container("cpu");
    let cores = text::count(found.cores, "core");
    match found.processor_limit {
        _ if !found.has_proc => question.warning(NO_PROC, MOUNT_PROC),
        None => question.ok(format!("no limit; {cores}")),
        Some(limit) => {
            let value = format!("limit {limit:.2} of {cores}");
            if limit < ENOUGH_PROCESSORS {
                let hint = "raise resources.limits.cpu, or leave it out: every byte is hashed";
                return question.warning(value, hint);
            }
            question.ok(value)
        }
    }
}

fn descriptors(free: usize) -> Check {
    let question = Question::of_container("descriptors");
    let value = format!("{free} files and sockets can be opened");
    let hint = "raise the limit of open files (ulimit -n, LimitNOFILE of the container runtime)";
    match free {
        free if free < LEAST_DESCRIPTORS => question.fails(Class::Unusable, value, hint),
        free if free < ENOUGH_DESCRIPTORS => question.warning(value, hint),
        _ => question.ok(value),
    }
}

fn threads(found: &Container) -> Check {
    let question = Question::of_container("threads");
    let hint = "raise the limit of threads (podPidsLimit of the kubelet, pids.max of the cgroup)";
    match found.thread_limit {
        _ if !found.has_proc => question.warning(NO_PROC, MOUNT_PROC),
        None => question.ok("no limit"),
        Some(limit) => {
            let value = format!("limit {limit}, those of other processes included");
            match limit {
                limit if limit < LEAST_THREADS => question.fails(Class::Unusable, value, hint),
                limit if limit < ENOUGH_THREADS => question.warning(value, hint),
                _ => question.ok(value),
            }
        }
    }
}

fn user(found: &Container) -> Check {
    let question = Question::of_container("user");
    let value = who(found.user, found.group, &found.groups);
    if found.user == 0 && found.in_cluster {
        let hint = "set runAsNonRoot and runAsUser in the securityContext; 65532 in manifests/";
        return question.warning(value, hint);
    }
    question.ok(value)
}

/// `user 65532, group 65532, also in groups 2000`
pub fn who(user: u32, group: u32, groups: &[u32]) -> String {
    let others: Vec<String> =
        groups.iter().filter(|it| **it != group).map(u32::to_string).collect();
    let others = match others.is_empty() {
        true => String::new(),
        false => format!(", also in groups {}", others.join(", ")),
    };
    format!("user {user}, group {group}{others}")
}

fn security(found: &Container) -> Check {
    let question = Question::of_container("security");
    let Some(security) = found.security else { return question.warning(NO_PROC, MOUNT_PROC) };
    let mut missing = Vec::new();
    let mut tell = |is_good: bool, good: &'static str, bad: &'static str, set: &'static str| {
        if !is_good {
            missing.push(set);
        }
        if is_good { good } else { bad }
    };
    let value = [
        tell(
            security.no_new_privileges,
            "no new privileges",
            "new privileges are possible",
            "allowPrivilegeEscalation: false",
        ),
        tell(
            security.capabilities == 0,
            "no capabilities",
            "has capabilities",
            "capabilities: {drop: [ALL]}",
        ),
        tell(
            security.seccomp != 0,
            "seccomp",
            "no seccomp",
            "seccompProfile: {type: RuntimeDefault}",
        ),
    ];
    let value = value.join(", ");
    match missing.is_empty() || !found.in_cluster {
        true => question.ok(value),
        false => {
            question.warning(value, &format!("set in the securityContext: {}", missing.join(", ")))
        }
    }
}

fn sandbox(found: &Confinement) -> Check {
    let question = Question::of_container("sandbox");
    match found {
        Confinement::On { version, reads_all: false } => question
            .ok(format!("Landlock {version}: no files but those of the run, no other program")),
        Confinement::On { version, reads_all: true } => question
            .ok(format!("Landlock {version}: no writes but those of the run, no other program")),
        Confinement::Off => question.ok("files are not confined; --sandbox files does that"),
        Confinement::Unfit(why) => question.warning(
            format!("files are not confined, because {why}"),
            "leave --sandbox files out, or change that",
        ),
        Confinement::Refused => question.warning(
            "files are not confined, because the kernel or a seccomp filter refuses Landlock 2",
            "use Linux 5.19 or later with Landlock, and a seccomp profile that allows it",
        ),
    }
}

fn termination_log(found: &Container) -> Check {
    let question = Question::of_container("termination-log");
    let (path, log) = &found.termination_log;
    match log {
        TerminationLog::Writable => question.ok(format!("`{path}` can be written")),
        TerminationLog::Missing if found.in_cluster => question.warning(
            format!("`{path}` does not exist"),
            "leave terminationMessagePath as it is, or name the same file by --termination-log",
        ),
        TerminationLog::Missing => {
            question.ok(format!("`{path}` does not exist, as usual outside of Kubernetes"))
        }
        TerminationLog::Refused(why) => question.warning(
            format!("`{path}` cannot be written: {why}"),
            "the message of `kubectl describe pod` will be empty; check the user and the mounts",
        ),
    }
}

fn identity(found: &Container) -> Check {
    let question = Question::of_container("pod");
    match (found.in_cluster, found.node.is_empty()) {
        (true, true) => question.warning(
            format!("pod {}, and the node is not known", found.pod),
            "pass NODE_NAME by the downward API (fieldRef: spec.nodeName): waiting pods name it",
        ),
        (true, false) => question.ok(format!("pod {} on node {}", found.pod, found.node)),
        (false, _) => question.ok(format!("host {}, not in a cluster", found.pod)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn found() -> Container {
        Container {
            has_proc: true,
            memory_limit: Some(512 << 20),
            memory_used: 10 << 20,
            processor_limit: Some(2.0),
            cores: 8,
            descriptors: 4_000,
            thread_limit: None,
            user: 65_532,
            group: 65_532,
            groups: vec![65_532],
            security: Some(Security { seccomp: 2, no_new_privileges: true, capabilities: 0 }),
            sandbox: Confinement::On { version: 7, reads_all: false },
            termination_log: ("/dev/termination-log".into(), TerminationLog::Writable),
            in_cluster: true,
            pod: "a".into(),
            node: "n".into(),
        }
    }

    #[test]
    fn a_container_as_the_manifests_have_it_is_well() {
        let checks = judge(&found());
        assert!(checks.iter().all(|it| it.verdict == Verdict::Ok), "{checks:?}");
        let by_hand = Container {
            memory_limit: None,
            processor_limit: None,
            user: 0,
            security: Some(Security { capabilities: 1, ..Security::default() }),
            termination_log: ("/dev/termination-log".into(), TerminationLog::Missing),
            in_cluster: false,
            node: String::new(),
            ..found()
        };
        let checks = judge(&by_hand);
        assert!(checks.iter().all(|it| it.verdict == Verdict::Ok), "{checks:?}");
    }

    #[test]
    fn a_sandbox_that_was_asked_for_and_is_not_there_is_a_warning() {
        for (sandbox, verdict, says) in [
            (Confinement::On { version: 7, reads_all: false }, Verdict::Ok, "no files but"),
            (Confinement::On { version: 2, reads_all: true }, Verdict::Ok, "no writes but"),
            (Confinement::Off, Verdict::Ok, "--sandbox files"),
            (Confinement::Unfit("of x"), Verdict::Warning, "because of x"),
            (Confinement::Refused, Verdict::Warning, "refuses Landlock"),
        ] {
            let checks = judge(&Container { sandbox, ..found() });
            let check = checks.iter().find(|it| it.question.name == "sandbox").expect("is made");
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.text().contains(says), "{check:?}");
        }
    }

    #[test]
    fn each_limit_has_a_line_below_which_it_warns_or_fails() {
        const FAILS: Verdict = Verdict::Fails(Class::Unusable);
        const MIB: u64 = 1 << 20;
        let refused = TerminationLog::Refused("x".into());
        let log = |log| ("/l".to_owned(), log);
        let status = |seccomp, no_new_privileges, capabilities| {
            Some(Security { seccomp, no_new_privileges, capabilities })
        };
        for (name, container, expected) in [
            ("memory", Container { memory_limit: Some(17 * MIB), ..found() }, FAILS),
            ("memory", Container { memory_limit: Some(0), ..found() }, FAILS),
            ("memory", Container { memory_limit: Some(18 * MIB), ..found() }, Verdict::Warning),
            ("memory", Container { memory_limit: Some(64 * MIB), ..found() }, Verdict::Ok),
            ("memory", Container { has_proc: false, ..found() }, Verdict::Warning),
            ("cpu", Container { processor_limit: Some(0.4), ..found() }, Verdict::Warning),
            ("cpu", Container { processor_limit: Some(0.5), ..found() }, Verdict::Ok),
            ("descriptors", Container { descriptors: 19, ..found() }, FAILS),
            ("descriptors", Container { descriptors: 139, ..found() }, Verdict::Warning),
            ("descriptors", Container { descriptors: 140, ..found() }, Verdict::Ok),
            ("threads", Container { thread_limit: Some(7), ..found() }, FAILS),
            ("threads", Container { thread_limit: Some(39), ..found() }, Verdict::Warning),
            ("threads", Container { thread_limit: Some(40), ..found() }, Verdict::Ok),
            ("user", Container { user: 0, ..found() }, Verdict::Warning),
            ("security", Container { security: status(0, true, 0), ..found() }, Verdict::Warning),
            ("security", Container { security: status(2, false, 0), ..found() }, Verdict::Warning),
            ("security", Container { security: status(2, true, 1), ..found() }, Verdict::Warning),
            ("security", Container { security: None, ..found() }, Verdict::Warning),
            (
                "termination-log",
                Container { termination_log: log(TerminationLog::Missing), ..found() },
                Verdict::Warning,
            ),
            (
                "termination-log",
                Container { termination_log: log(refused), ..found() },
                Verdict::Warning,
            ),
            ("pod", Container { node: String::new(), ..found() }, Verdict::Warning),
        ] {
            let checks = judge(&container);
            let check = checks.iter().find(|it| it.question.name == name).expect(name);
            assert_eq!(check.verdict, expected, "{check:?}");
            assert_eq!(check.hint.is_some(), expected != Verdict::Ok, "{check:?}");
        }
    }

    #[test]
    fn the_status_of_a_process_is_read() {
        let status = "Name:\tx\nCapInh:\t0\nCapEff:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\n\
                      Seccomp_filters:\t1\n";
        let expected = Security { seccomp: 2, no_new_privileges: true, capabilities: 0xa804_25fb };
        assert_eq!(Security::parse(status), Some(expected));
        assert_eq!(Security::parse(""), None);
    }
}
