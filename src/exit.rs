//! The exit codes: an interface that a Job's `podFailurePolicy` reads. Help is made from this table; docs
//! and manifests are checked against it.

/// A class of ends: one exit code, one answer to "does it make sense to retry".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Complete,
    Usage,
    NotFound,
    Access,
    Integrity,
    Unsafe,
    Unusable,
    NoSpace,
    Conflict,
    Unreachable,
    RateLimited,
    LocalIo,
    Deadline,
    Bug,
    Interrupted,
    Terminated,
}

/// Whether running it again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing is left to do.
    Done,
    /// The same again without a change fails the same way.
    Never,
    Later,
}

/// What is to be known of a class.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub class: Class,
    pub code: u8,
    /// As the termination message names it.
    pub name: &'static str,
    pub meaning: &'static str,
    pub retry: Retry,
}

const fn facts(
    class: Class,
    code: u8,
    name: &'static str,
    retry: Retry,
    meaning: &'static str,
) -> Facts {
    Facts { class, code, name, meaning, retry }
}

/// Every class, by code.
pub const TABLE: [Facts; 16] = [
    facts(Class::Complete, 0, "complete", Retry::Done, "complete: fetched, or already there"),
    facts(Class::Usage, 2, "usage", Retry::Never, "usage"),
    facts(
        Class::NotFound,
        10,
        "not_found",
        Retry::Never,
        "not found: repo, revision, bucket, key; offline and incomplete",
    ),
    facts(
        Class::Access,
        11,
        "access",
        Retry::Never,
        "access: 401, 403, gated, expired credentials, another refusal that is final (400, 402, 451)",
    ),
    facts(
        Class::Integrity,
        12,
        "integrity",
        Retry::Never,
        "integrity: wrong bytes after three clean fetches, a missing shard, invalid safetensors, a stale list of digests, a store that unpacks what is stored packed, a signature that is missing or wrong, `verify` or `mirror --check` found damage",
    ),
    facts(
        Class::Unsafe,
        13,
        "unsafe",
        Retry::Never,
        "unsafe: names that leave the directory or reach for weightlift's own; policy",
    ),
    facts(
        Class::Unusable,
        14,
        "unusable",
        Retry::Never,
        "volume or environment unusable: read-only, permission, untrusted certificate, clock",
    ),
    facts(Class::NoSpace, 15, "no_space", Retry::Never, "no space, quota or inodes"),
    facts(
        Class::Conflict,
        16,
        "conflict",
        Retry::Never,
        "conflict: another model or foreign files at DEST, foreign objects where mirror would write, the source changed under a pin or a lock file, `pin --check` found a difference, a SOURCE that means two things",
    ),
    facts(
        Class::Unreachable,
        20,
        "unreachable",
        Retry::Later,
        "network, Hub or S3 still failing after the retry budget; a listing that is not complete; an S3 object changed meanwhile, or an upload to a prefix is not finished",
    ),
    facts(Class::RateLimited, 21, "rate_limited", Retry::Later, "rate limited beyond the budget"),
    facts(Class::LocalIo, 22, "local_io", Retry::Later, "local I/O error"),
    facts(
        Class::Deadline,
        23,
        "deadline",
        Retry::Later,
        "out of time: --deadline, --timeout of wait, or a holder without progress for --lock-timeout",
    ),
    facts(Class::Bug, 70, "bug", Retry::Later, "a bug"),
    facts(Class::Interrupted, 130, "interrupted", Retry::Later, "SIGINT: the state is saved"),
    facts(
        Class::Terminated,
        143,
        "terminated",
        Retry::Later,
        "SIGTERM or SIGHUP: the state is saved",
    ),
];

impl Class {
    pub fn facts(self) -> Facts {
        // In the order of the enum, which a test holds.
        TABLE[self as usize]
    }

    pub fn exit_code(self) -> u8 {
        self.facts().code
    }

    pub fn name(self) -> &'static str {
        self.facts().name
    }
}

/// The end of `--help`.
pub fn help() -> String {
    let list = |retry: Retry| {
        let of_kind = TABLE.iter().filter(|facts| facts.retry == retry);
        let named = of_kind.map(|facts| format!("{} {}", facts.code, facts.name.replace('_', " ")));
        named.collect::<Vec<_>>().join(", ")
    };
    format!(
        "Exit codes: 0 complete.\nNo retry will help: {}.\nWorth a retry: {}.",
        list(Retry::Never),
        list(Retry::Later)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_the_row_of_its_name_and_a_code_of_its_own() {
        for (n, facts) in TABLE.iter().enumerate() {
            assert_eq!(facts.class as usize, n);
            assert_eq!(facts.class.facts().code, facts.code);
        }
        assert!(TABLE.is_sorted_by(|a, b| a.code < b.code));
    }
}
