//! SHA-256 sums that lie beside the files themselves: a `SHA256SUMS` file, or the sentinel of a family that
//! was copied there. Either says more than what a store has computed on its own, and may be older than the
//! files beside it: whoever excludes the list fetches without it.
//!
//! Imports `model` and `net`; knows no source.

use std::collections::BTreeMap;

use crate::model::{
    Digest, ErrorFields, MirrorState, RelPath, RemoteFile, SENTINEL, Selection, Sentinel,
    SentinelFile, SentinelProblem, hex, text,
};
use crate::net::{Problem, SourceError};

/// As `sha256sum` writes it; a file of the model like every other.
pub(crate) const SHA256SUMS: &str = "SHA256SUMS";
/// No list of a model is longer.
pub const MAX_SUMS_BYTES: u64 = 16 << 20;

/// Missing files that a message names.
const MAX_NAMED: usize = 5;

/// The size of what lies at a path, if anything does.
pub type SizeOf<'a> = &'a dyn Fn(&str) -> Option<u64>;

/// What one of the lists says of a file.
#[derive(Debug)]
pub struct Sum {
    pub sha256: [u8; 32],
    pub list: &'static str,
}

/// What lies beside the files to prove them.
#[derive(Debug, Default)]
pub struct Beside {
    /// By path; where both lists have a file, that of the sentinel.
    pub sums: BTreeMap<String, Sum>,
    pub warnings: Vec<String>,
}

/// The lists, or what lies beside them, cannot be used. Names are inert.
#[derive(Debug, thiserror::Error)]
enum BesideProblem {
    #[error("`{place}` is being written by `weightlift mirror`, or that was interrupted")]
    Writing { place: String },
    #[error("`{list}` names {} that the prefix does not hold: {named}", text::files(*missing))]
    Unfinished { list: &'static str, missing: usize, named: String },
    #[error(
        "`{file}` has {found} bytes, `{list}` next to it says {told}: the prefix does not hold what was \
         published there"
    )]
    OtherSize { file: String, found: u64, list: &'static str, told: u64 },
}

impl Problem for BesideProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::Writing { place } => {
                ErrorFields::of_file(place).hint("run again when the mirror has ended")
            }
            Self::Unfinished { list, .. } => ErrorFields::of_file(list)
                .hint("wait until the upload is finished and run again, or leave them out with `--exclude`"),
            Self::OtherSize { file, list, .. } => {
                ErrorFields::of_file(file).hint(format!("upload the model again, or add --exclude {list} to fetch what is there"))
            }
        }
    }
}

impl Beside {
    /// Whether `list` is to be believed; says so where it is not.
    pub fn is_wanted(&mut self, list: &str, selection: &Selection) -> bool {
        let is_excluded = is_excluded(list, selection);
        if is_excluded {
            self.warnings.push(format!("`{list}` is excluded, and not used to verify"));
        }
        !is_excluded
    }

    /// Whether a list of this size is read; says so where it is not.
    pub fn is_short(&mut self, list: &str, size: u64, most: u64) -> bool {
        if size > most {
            let size = text::size(size);
            self.warnings.push(format!("`{list}` is not used to verify: it has {size}"));
        }
        size <= most
    }

    /// Adds what `SHA256SUMS` says.
    pub fn add_sums(&mut self, size_of: SizeOf<'_>, selection: &Selection, content: &str) {
        let (mut sums, strange) = sha256sums(content);
        if strange > 0 {
            self.warnings.push(format!(
                "`{SHA256SUMS}` has lines that are not the SHA-256 sum of a file: {strange}"
            ));
        }
        // `sha256sum * > SHA256SUMS` lists it as it was then, empty.
        sums.remove(SHA256SUMS);
        let missing = missing(size_of, selection, sums.keys().map(String::as_str));
        // People keep lists of more than one directory.
        if let [first, ..] = missing.as_slice() {
            let (count, first) = (text::files(missing.len()), text::inert(first, 100));
            self.warnings.push(format!(
                "`{SHA256SUMS}` names {count} that the prefix does not hold, such as `{first}`"
            ));
        }
        let sums = sums.into_iter();
        self.sums.extend(sums.map(|(path, sha256)| (path, Sum { sha256, list: SHA256SUMS })));
    }

    /// Adds what the sentinel says, which lies in `place`.
    pub fn add_sentinel(
        &mut self,
        size_of: SizeOf<'_>,
        selection: &Selection,
        content: &[u8],
        place: String,
    ) -> Result<(), SourceError> {
        let sentinel = match Sentinel::parse(content) {
            Ok(sentinel) => sentinel,
            Err(SentinelProblem::UnsafePath(refused)) => return Err(refused.into()),
            Err(problem) => {
                self.warnings.push(format!("`{SENTINEL}` is not used to verify: {problem}"));
                return Ok(());
            }
        };
        // It has appeared since it was looked for.
        if sentinel.mirrored_at(&place) == Some(MirrorState::Writing) {
            return Err(is_being_written(&place));
        }
        let missing = missing(size_of, selection, sentinel.files.iter().map(|file| &*file.path));
        if !missing.is_empty() {
            return Err(unfinished(&missing));
        }
        for file in sentinel.files.iter().filter(|file| selection.names(&file.path)) {
            if let Some(found) = size_of(&file.path).filter(|found| *found != file.size) {
                return Err(SourceError::Changed(
                    BesideProblem::OtherSize {
                        file: file.path.to_string(),
                        found,
                        list: SENTINEL,
                        told: file.size,
                    }
                    .into(),
                ));
            }
        }
        let sums = sentinel.files.into_iter();
        self.sums.extend(
            sums.map(|file| (file.path.to_string(), Sum { sha256: file.sha256.0, list: SENTINEL })),
        );
        Ok(())
    }
}

/// Whether the sentinel beside the files is.
pub fn believes_sentinel(selection: &Selection) -> bool {
    !is_excluded(SENTINEL, selection)
}

/// Whether a list is not to be believed. The sentinel has a dot before its name, which a `*` that is
/// about other files does not mean, as in a shell.
fn is_excluded(list: &str, selection: &Selection) -> bool {
    let is_meant = |pattern: &&String| {
        list != SENTINEL || pattern.starts_with(['.', '[']) || pattern.contains("weightlift")
    };
    let meant = selection.exclude.iter().filter(is_meant).cloned().collect();
    !Selection { exclude: meant, ..Selection::default() }.names(list)
}

/// Those of `paths` that the prefix lacks and that would be fetched from it.
fn missing<'a>(
    size_of: SizeOf<'_>,
    selection: &Selection,
    paths: impl Iterator<Item = &'a str>,
) -> Vec<&'a str> {
    paths.filter(|path| size_of(path).is_none() && selection.names(path)).collect()
}

fn unfinished(missing: &[&str]) -> SourceError {
    let named = missing.iter().take(MAX_NAMED).map(|path| format!("`{}`", text::inert(path, 100)));
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match missing.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = named + &more;
    let missing = missing.len();
    SourceError::Stale(BesideProblem::Unfinished { list: SENTINEL, missing, named }.into())
}

/// The lines of a `SHA256SUMS` file by path, and how many lines are none.
pub(crate) fn sha256sums(text: &str) -> (BTreeMap<String, [u8; 32]>, usize) {
    let mut sums = BTreeMap::new();
    let mut strange = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        match sum(line) {
            Some((path, sum)) => {
                sums.insert(path.to_owned(), sum);
            }
            None => strange += 1,
        }
    }
    (sums, strange)
}

/// `<64 hexadecimal digits>  path`, with `*` before the path for what was read as binary.
///
/// Or `SHA256 (path) = <64 hexadecimal digits>`, as BSD and `sha256sum --tag` write it.
fn sum(line: &str) -> Option<(&str, [u8; 32])> {
    if let Some(tagged) = line.strip_prefix("SHA256 (") {
        let (path, digits) = tagged.trim_end_matches('\r').rsplit_once(") = ")?;
        let path = path.strip_prefix("./").unwrap_or(path);
        return Some((path, hex::decode(digits)?)).filter(|(path, _)| !path.is_empty());
    }
    let (digits, rest) = line.split_at_checked(64)?;
    let path = rest.strip_prefix(' ')?;
    let path = path.strip_prefix([' ', '*']).unwrap_or(path);
    let path = path.strip_prefix("./").unwrap_or(path).trim_end_matches('\r');
    Some((path, hex::decode(digits)?)).filter(|(path, _)| !path.is_empty())
}

/// What a mirror's sentinel lists: it is the listing of what lies there.
pub fn mirrored(
    sentinel: &Sentinel,
    validator: impl Fn(&SentinelFile) -> Option<String>,
) -> Result<Vec<RemoteFile>, SourceError> {
    let file = |file: &SentinelFile| {
        Ok(RemoteFile {
            path: RelPath::parse(&file.path)?,
            size: file.size,
            digest: Some(Digest::Sha256(file.sha256.0)),
            validator: validator(file),
            xet_hash: None,
        })
    };
    sentinel.files.iter().map(file).collect()
}

/// Says that nobody can read `place` yet.
pub fn is_being_written(place: &str) -> SourceError {
    SourceError::Stale(BesideProblem::Writing { place: place.to_owned() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_list_is_excluded_by_who_means_it() {
        let is_excluded = |list, pattern: &str| {
            let exclude = vec![pattern.to_owned()];
            is_excluded(list, &Selection { exclude, ..Selection::default() })
        };
        for pattern in ["SHA256SUMS", "*SUMS", "*"] {
            assert!(is_excluded(SHA256SUMS, pattern), "{pattern}");
        }
        assert!(!is_excluded(SHA256SUMS, "*.bin"));
        for pattern in [SENTINEL, ".weightlift*", ".*", "*weightlift-complete*"] {
            assert!(is_excluded(SENTINEL, pattern), "{pattern}");
        }
        for pattern in ["*.json", "*", "config.json", ".gitattributes"] {
            assert!(!is_excluded(SENTINEL, pattern), "{pattern}");
        }
        let include = vec!["*.bin".to_owned()];
        let only = Selection { include, ..Selection::default() };
        assert!(!super::is_excluded(SHA256SUMS, &only));
    }

    #[test]
    fn an_upload_that_is_not_finished_names_what_is_missing() {
        let names = ["a", "b\u{1b}", "c", "d", "e", "f", "g"];
        let said = |count: usize| unfinished(&names[..count]).to_string();
        assert!(
            said(1).contains("names 1 file that the prefix does not hold: `a`; "),
            "{}",
            said(1)
        );
        assert!(said(7).contains("`e` and 2 more; "), "{}", said(7));
        assert!(!said(7).contains('\u{1b}'));
    }

    #[test]
    fn sums_are_read_in_the_ways_that_tools_write_them() {
        let text = format!(
            "{EMPTY}  a b\n{EMPTY} *./c/d\r\n\n# note\n{EMPTY}\nMD5 (x) = 1\n{}  é\n",
            &EMPTY[1..]
        );
        let (sums, strange) = sha256sums(&text);
        assert_eq!(sums.keys().collect::<Vec<_>>(), ["a b", "c/d"]);
        assert_eq!(strange, 3);
        let tagged = format!("SHA256 (./a (1).bin) = {EMPTY}\r\nSHA256 (b) = 1\n");
        let (sums, strange) = sha256sums(&tagged);
        assert_eq!(sums.keys().collect::<Vec<_>>(), ["a (1).bin"]);
        assert_eq!(strange, 1);
        // Multi-byte characters must not split.
        assert_eq!(sha256sums(&"é".repeat(40)).1, 1);
    }
}
