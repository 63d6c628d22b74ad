//! What can go wrong at ModelScope beside HTTP itself.

use crate::model::{ErrorFields, RelPath};
use crate::net::Problem;

/// Answers that cannot be used. Hosts are origins; all texts are inert.
#[derive(Debug, thiserror::Error)]
pub enum ModelScopeProblem {
    #[error("`{host}` answered {status} for {what}: {said}")]
    Refused { host: String, status: u16, what: String, said: String, hint: Option<&'static str> },
    #[error("`{host}` does not list `{id}` at `{revision}` (code {code}): {said}")]
    Told { host: String, id: String, revision: String, code: i64, said: String },
    #[error("`{host}` answered with a listing in an unknown format: {why}")]
    Form { host: String, why: String, hint: Option<String> },
    #[error("the listing gives `{file}` the {what} `{value}`")]
    Entry { file: RelPath, what: &'static str, value: String },
    #[error("the listing of the directory `{directory}` names `{name}`, which is not in it")]
    NotBelow { directory: String, name: String },
    #[error(
        "the directory `{directory}` of `{id}` has {most} entries or more, and ModelScope lists no more \
         than that, so others may exist"
    )]
    Cut { id: String, directory: String, most: usize },
    #[error("`{id}` lists more than {most} files")]
    ManyFiles { id: String, most: usize },
    #[error("`{id}` needs more than {most} listings")]
    ManyListings { id: String, most: usize },
}

impl Problem for ModelScopeProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::Refused { host, status, said, hint, .. } => {
                let fields = ErrorFields::of_host(host).status(*status).said(said);
                ErrorFields { hint: hint.map(str::to_owned), ..fields }
            }
            Self::Told { host, said, .. } => ErrorFields::of_host(host)
                .said(said)
                .hint("check the name and the revision, whose default is `master`"),
            Self::Form { host, hint, .. } => {
                ErrorFields { hint: hint.clone(), ..ErrorFields::of_host(host) }
            }
            Self::Entry { file, .. } => ErrorFields::of_file(file),
            Self::NotBelow { name, .. } => ErrorFields::of_file(name),
            Self::Cut { directory, .. } => ErrorFields::of_file(directory),
            Self::ManyFiles { .. } | Self::ManyListings { .. } => ErrorFields::default(),
        }
    }
}
