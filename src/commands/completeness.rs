//! Reads the indexes of a model, which come first, and says what they and the names tell: before any
//! weights are asked for.

use std::io::Read;

use super::shared::Fetch;
use crate::Error;
use crate::model::{
    Completeness, LeftOut, Message, RelPath, RemoteFile, Selection, Shards, SourceUri,
    exclude_flag, is_index, literal_pattern, names_its_format,
};
use crate::report::Screen;
use crate::verify::{self, IndexProblem};
use crate::volume::Staging;

/// Whether there is anything to read before the weights.
pub(super) fn has_index(files: &[RemoteFile]) -> bool {
    files.iter().any(|file| is_index(file.path.as_str()))
}

/// Whether no rule about the weights of a model applies: `uri` names nothing but the one file that is
/// selected, or what is no model.
pub(super) fn is_no_whole_model(uri: &SourceUri, files: &[RemoteFile]) -> bool {
    let key = match uri {
        SourceUri::S3(location) => &location.key,
        SourceUri::Gs(location) => &location.key,
        SourceUri::Az(location) => &location.key,
        SourceUri::Web(location) => return !location.is_directory(),
        _ => return !uri.is_model(),
    };
    matches!(files, [file] if key.rsplit('/').next() == Some(file.path.as_str()))
}

/// What the listing alone tells, where there is no index to read.
pub(super) fn check_names(
    screen: &Screen,
    files: &[RemoteFile],
    left_out: &[LeftOut],
    selection: &Selection,
) -> Result<(), Error> {
    conclude(Completeness::new(files, left_out, selection), screen)
}

impl Fetch<'_> {
    /// What the indexes among `files` tell. They are fetched and proved.
    pub(super) fn check_indexes(
        &self,
        staging: &Staging,
        files: &[RemoteFile],
        left_out: &[LeftOut],
        selection: &Selection,
    ) -> Result<(), Error> {
        let mut all = Completeness::new(files, left_out, selection);
        for (n, RemoteFile { path, .. }) in files.iter().enumerate() {
            if is_index(path.as_str()) {
                add_index(&mut all, path, staging.open(n)?.file())?;
            }
        }
        conclude(all, self.screen)
    }
}

/// Reads the index at `path`.
pub(super) fn add_index(
    all: &mut Completeness<'_>,
    path: &RelPath,
    index: impl Read,
) -> Result<(), Error> {
    let mut shards = Shards::default();
    let listed = verify::read_index(index, path, |shard| shards.see(all, path, shard));
    match listed {
        Ok(listed) => shards.listed = listed,
        // `search.index.json` can be anything.
        Err(IndexProblem::Json(_)) if !names_its_format(path.as_str()) => return Ok(()),
        Err(problem) => {
            let flag = exclude_flag(&literal_pattern(path.as_str()));
            return Err(Error::Integrity(
                Message::new(format!("`{path}` {problem}"))
                    .hint(format!("add {flag} to continue without it")),
            ));
        }
    }
    all.add_index(path, &shards);
    Ok(())
}

/// What all that was read comes to.
pub(super) fn conclude(all: Completeness<'_>, screen: &Screen) -> Result<(), Error> {
    let findings = all.findings();
    for warning in &findings.warnings {
        screen.warn(warning);
    }
    if findings.more_warnings > 0 {
        screen.warn(&format!("{} more of this kind", findings.more_warnings));
    }
    findings.failure.map_or(Ok(()), |failure| Err(Error::Integrity(failure)))
}
