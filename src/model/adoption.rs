//! Which files that are on the machine already can serve in place of fetched ones, and by which means. Names
//! and sizes are hints; what counts is the hash of the bytes.

/// Whose a file is that could be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Giver {
    /// The revision that is replaced, or one that is kept of the same model directory.
    SameModel,
    /// Another model directory of the volume.
    OtherModel,
    /// A directory that the user named, whose owner may write into its files again.
    Stranger,
}

/// What is known of the file, beside a file that we have just made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub giver: Giver,
    /// It is ours, or of the group that may change ours as well.
    pub is_own: bool,
    /// Everybody who can read our files can read it.
    pub is_readable: bool,
}

/// Ways to have a file, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shares {
    /// A second name for the same file; else its blocks in a file of our own (reflink), else a copy.
    LinkFirst,
    /// Blocks first: a file of our own stays as it is whatever becomes of the other one.
    BlocksFirst,
    /// No second name: somebody else could write into the file, or a server could not read it.
    NoLink,
}

/// How a file may be had.
pub fn shares(share: Share) -> Shares {
    match share {
        // As it is served now.
        Share { giver: Giver::SameModel, .. } => Shares::LinkFirst,
        Share { is_readable: false, .. } => Shares::NoLink,
        // The tenant that it belongs to could change it.
        Share { giver: Giver::OtherModel, is_own, .. } => {
            if is_own {
                Shares::LinkFirst
            } else {
                Shares::NoLink
            }
        }
        Share { giver: Giver::Stranger, .. } => Shares::BlocksFirst,
    }
}

/// The digest that a file's name tells in the cache of the Hub's own client, written as
/// [`super::Digest`] writes it: blobs are named by their ETag, a SHA-256 or Git's SHA-1.
pub fn content_named(name: &str) -> Option<String> {
    let is_hex = name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match name.len() {
        64 if is_hex => Some(format!("sha256:{name}")),
        40 if is_hex => Some(format!("git-sha1:{name}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Digest;
    use super::*;

    #[test]
    fn a_file_gets_a_second_name_only_where_nobody_else_can_change_it_unasked() {
        use Giver::{OtherModel, SameModel, Stranger};
        for (giver, is_own, is_readable, expected) in [
            (SameModel, true, true, Shares::LinkFirst),
            (SameModel, false, true, Shares::LinkFirst),
            (SameModel, true, false, Shares::LinkFirst),
            (SameModel, false, false, Shares::LinkFirst),
            (OtherModel, true, true, Shares::LinkFirst),
            (OtherModel, false, true, Shares::NoLink),
            (OtherModel, true, false, Shares::NoLink),
            (OtherModel, false, false, Shares::NoLink),
            (Stranger, true, true, Shares::BlocksFirst),
            (Stranger, false, true, Shares::BlocksFirst),
            (Stranger, true, false, Shares::NoLink),
            (Stranger, false, false, Shares::NoLink),
        ] {
            let share = Share { giver, is_own, is_readable };
            assert_eq!(shares(share), expected, "{share:?}");
        }
    }

    #[test]
    fn a_blob_is_known_by_the_name_that_the_hub_gave_it() {
        let (sha256, sha1) = ("0a".repeat(32), "1b".repeat(20));
        let written = |digest: Option<Digest>| digest.map(|digest| digest.to_string());
        assert_eq!(content_named(&sha256), written(Digest::sha256_from_hex(&sha256)));
        assert_eq!(content_named(&sha1), written(Digest::git_sha1_from_hex(&sha1)));
        for other in
            ["", "model.safetensors", &sha256[1..], &sha256.to_uppercase(), &"é".repeat(20)]
        {
            assert_eq!(content_named(other), None, "{other}");
        }
    }
}
