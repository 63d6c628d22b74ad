//! `ms://org/name@revision`.

use super::Refusal;
use super::hub::HubRepo;

/// A model of ModelScope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelScopeRepo {
    /// `org/name`.
    pub id: String,
    /// A branch, a tag, or a commit of 40 hexadecimal digits.
    pub revision: String,
}

impl ModelScopeRepo {
    /// The branch that is meant where none is named.
    const DEFAULT_BRANCH: &str = "master";

    pub(super) fn parse(rest: &str) -> Result<Self, Refusal> {
        let named = match rest.contains(['@', ':']) {
            true => rest.to_owned(),
            false => format!("{rest}@{}", Self::DEFAULT_BRANCH),
        };
        // Names and revisions are those of the Hub; there are no names without an owner.
        let HubRepo { id, revision, .. } = match rest.split('/').next() {
            Some("datasets" | "studios" | "spaces") => {
                return Err(
                    "does not name a model, and weightlift fetches nothing else from ModelScope"
                        .into(),
                );
            }
            _ => HubRepo::parse(&named)?,
        };
        match id.contains('/') {
            true => Ok(Self { id, revision }),
            false => Err("does not name a model as org/name".into()),
        }
    }
}
