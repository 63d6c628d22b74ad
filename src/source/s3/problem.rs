//! What can go wrong at S3 beside HTTP and refusals: listings and objects that are not what they should
//! be. A key in a field is inert.

use crate::model::{ErrorFields, exclude_flag, literal_pattern};
use crate::net::Problem;

/// A listing that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListingProblem {
    #[error("S3 sent a listing in a wrong form: {0}")]
    Form(String),
    #[error(
        "the endpoint answers with its list of buckets: it does not take a bucket from the name of \
         its host"
    )]
    Buckets,
    #[error("the bucket holds a key that is not UTF-8: `{key}`")]
    NotUtf8 { key: String },
    #[error("bucket `{bucket}` lists more than {most} objects below `{prefix}`")]
    ManyObjects { bucket: String, most: usize, prefix: String },
    #[error("bucket `{bucket}` holds no object below `{prefix}`")]
    Empty { bucket: String, prefix: String },
    #[error("S3 lists `{key}` twice, and not as the same object")]
    Twice { key: String },
    #[error("S3 lists `{key}`, which is not below `{prefix}`")]
    NotBelow { key: String, prefix: String },
    #[error("the listing of bucket `{bucket}` is truncated and does not say where it continues")]
    Cut { bucket: String },
    #[error("S3 lists `{key}` without a size, and does not have it")]
    Ghost { key: String },
    #[error("both exist in bucket `{bucket}`: object `{key}` and objects below `{key}/`")]
    Ambiguous { bucket: String, key: String },
}

impl Problem for ListingProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::NotUtf8 { key }
            | Self::Twice { key }
            | Self::NotBelow { key, .. }
            | Self::Ghost { key } => ErrorFields::of_file(key),
            Self::ManyObjects { prefix, .. } | Self::Empty { prefix, .. } => {
                ErrorFields::of_file(prefix)
            }
            Self::Ambiguous { key, .. } => ErrorFields::of_file(key).hint(format!(
                "write a trailing slash (`{key}/`) for the objects below it, or name its prefix and choose \
                 the object with `--include`"
            )),
            Self::Buckets => ErrorFields::default().hint("use `--s3-path-style`"),
            Self::Form(_) | Self::Cut { .. } => ErrorFields::default(),
        }
    }
}

/// An object that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ObjectProblem {
    #[error("S3 reports no size for `{key}`")]
    NoSize { key: String },
    #[error("`{host}` does not report the size of an object")]
    NoSizeAt { host: String },
    #[error("object `{key}` in bucket `{bucket}` changed {when}")]
    Changed { key: String, bucket: String, when: &'static str },
    #[error(
        "the store unpacks object `{key}` while sending it, because it has a `Content-Encoding`; the bytes \
         are not those in the listing"
    )]
    Unpacked { key: String },
    #[error("object `{key}` in bucket `{bucket}` has {found} bytes, but the listing says {listed}")]
    Length { key: String, bucket: String, found: usize, listed: u64, name: String },
    #[error("could not build a valid request for `{key}`")]
    Request { key: String },
    #[error("the store reports another checksum for part {number} of `{key}` than was sent")]
    PartDiffers { key: String, number: u32 },
    #[error("the store accepted `{key}`, but does not report its size and checksum")]
    NotTold { key: String },
    /// By the place to which the store redirects.
    #[error("`{host}`, to which the store redirects reads, answered {status}{}", after_colon(said))]
    Elsewhere { host: String, status: u16, said: String },
}

impl Problem for ObjectProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::NoSize { key }
            | Self::Request { key }
            | Self::PartDiffers { key, .. }
            | Self::NotTold { key } => ErrorFields::of_file(key),
            Self::NoSizeAt { host } => ErrorFields::of_host(host),
            Self::Changed { key, .. } => ErrorFields::of_file(key).hint("run again"),
            Self::Unpacked { key } => {
                ErrorFields::of_file(key).hint("upload it without `Content-Encoding`")
            }
            Self::Length { key, name, .. } => ErrorFields::of_file(key).hint(format!(
                "run again, or leave it out with {}",
                exclude_flag(&literal_pattern(name))
            )),
            Self::Elsewhere { host, status, said } => {
                ErrorFields::of_host(host).status(*status).said(said)
            }
        }
    }
}

fn after_colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// A question that could not be asked, or whose answer is not understood.
#[derive(Debug, thiserror::Error)]
pub enum CallProblem {
    #[error("S3 sent an answer in a wrong form: {0}")]
    Form(String),
    #[error("`{host}` sent an answer of more than {most} tags")]
    ManyTags { host: String, most: usize },
    #[error("a request has no valid {0}")]
    Request(&'static str),
    #[error("the bucket and the endpoint of S3 do not make a valid URL")]
    Url,
    #[error("S3 cannot be reached with these settings: {0}")]
    Rules(String),
    #[error("S3 did not answer in time: {0}")]
    Late(String),
    #[error("the request to S3 failed: {0}")]
    NotAsked(String),
}

impl Problem for CallProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::ManyTags { host, .. } => ErrorFields::of_host(host),
            Self::Url => {
                ErrorFields::default().hint("give the endpoint of an access point by a host name")
            }
            Self::Form(_)
            | Self::Request(_)
            | Self::Rules(_)
            | Self::Late(_)
            | Self::NotAsked(_) => ErrorFields::default(),
        }
    }
}
