//! What can go wrong at a store beside HTTP and refusals: listings and objects that are not what they should
//! be. A key in a field is inert; `place` is how messages call the bucket or container.

use crate::model::{ErrorFields, exclude_flag, literal_pattern};
use crate::net::Problem;

#[derive(Debug, thiserror::Error)]
pub enum CloudProblem {
    #[error("`{host}` sent an answer in a wrong form: {why}")]
    Form { host: String, why: String },
    #[error("{place} lists more than {most} objects below `{prefix}`")]
    ManyObjects { place: String, most: usize, prefix: String },
    #[error("{place} holds no object below `{prefix}`")]
    Empty { place: String, prefix: String },
    #[error("{place} lists `{key}` twice, and not as the same object")]
    Twice { place: String, key: String },
    #[error("{place} lists `{key}`, which is not below `{prefix}`")]
    NotBelow { place: String, key: String, prefix: String },
    #[error("the listing of {place} is truncated and does not say where it continues")]
    Cut { place: String },
    #[error("{place} lists `{key}` without {what}")]
    Untold { place: String, key: String, what: &'static str },
    #[error("both exist in {place}: object `{key}` and objects below `{key}/`")]
    Ambiguous { place: String, key: String },
    #[error("object `{key}` in {place} changed while it was fetched")]
    Changed { place: String, key: String },
    #[error(
        "the store unpacks object `{key}` while sending it, because it has a `Content-Encoding`; the bytes \
         are not those in the listing"
    )]
    Unpacked { key: String },
    #[error("object `{key}` in {place} has {found} bytes, but the listing says {listed}")]
    Length { place: String, key: String, found: usize, listed: u64, name: &'static str },
    #[error("`{key}` in {place} does not make a valid URL")]
    Url { place: String, key: String },
}

impl Problem for CloudProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::Form { host, .. } => ErrorFields::of_host(host),
            Self::ManyObjects { prefix, .. } | Self::Empty { prefix, .. } => {
                ErrorFields::of_file(prefix)
            }
            Self::Twice { key, .. }
            | Self::NotBelow { key, .. }
            | Self::Untold { key, .. }
            | Self::Url { key, .. } => ErrorFields::of_file(key),
            Self::Cut { .. } => ErrorFields::default(),
            Self::Ambiguous { key, .. } => ErrorFields::of_file(key).hint(format!(
                "write a trailing slash (`{key}/`) for the objects below it, or name its prefix and choose \
                 the object with `--include`"
            )),
            Self::Changed { key, .. } => ErrorFields::of_file(key).hint("run again"),
            Self::Unpacked { key } => {
                ErrorFields::of_file(key).hint("upload it without `Content-Encoding`")
            }
            Self::Length { key, name, .. } => ErrorFields::of_file(key)
                .hint(format!("run again, or leave it out with {}", exclude_flag(&literal_pattern(name)))),
        }
    }
}
