//! What the user typed as SOURCE.

use std::fmt;

use super::text;

/// `hf://org/name@revision`, `s3://bucket/prefix/` or `file:///directory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceUri {
    Hub(HubRepo),
    S3(S3Location),
    /// A directory that weightlift has published a model in: an absolute path, as it is.
    Directory(String),
}

/// A model repo of a Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRepo {
    /// `org/name`, or `name` for the few without an owner.
    pub id: String,
    /// A branch, a tag, `refs/pr/1`, or a commit of 40 hexadecimal digits.
    pub revision: String,
}

/// A prefix, or one object, of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Location {
    /// Or the ARN of an access point, which stands where a bucket stands.
    pub bucket: String,
    /// Without a leading `/`; ends in `/` (or is empty) where the user wrote a directory.
    pub key: String,
}

/// A SOURCE that cannot be understood. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "SOURCE `{uri}` {why}; write hf://org/name[@revision], s3://bucket/prefix/ or file:///directory"
)]
pub struct SourceUriError {
    uri: String,
    why: &'static str,
}

impl SourceUri {
    pub fn parse(uri: &str) -> Result<Self, SourceUriError> {
        let refuse = |why| SourceUriError { uri: shown(uri), why };
        if uri.chars().any(text::is_control) {
            return Err(refuse("contains control characters"));
        }
        if uri.trim() != uri {
            return Err(refuse("begins or ends with white space"));
        }
        let (scheme, rest) = uri.split_once("://").ok_or(refuse("has no scheme"))?;
        // A key and a path may hold spaces.
        let plain = match scheme {
            "s3" | "file" => rest.split('/').next().unwrap_or_default(),
            _ => uri,
        };
        if plain.chars().any(char::is_whitespace) {
            return Err(refuse("contains white space"));
        }
        match scheme {
            "hf" => HubRepo::parse(rest).map(Self::Hub).map_err(refuse),
            "s3" => S3Location::parse(rest).map(Self::S3).map_err(refuse),
            "file" => directory(rest).map(Self::Directory).map_err(refuse),
            _ => Err(refuse("has an unknown scheme")),
        }
    }

    /// The URIs in `text`, with commas between them. A comma that no `scheme://` follows is part of a
    /// key.
    pub fn split_list(text: &str) -> impl Iterator<Item = &str> {
        let begins = |rest: &str| {
            let rest = rest.trim_start();
            let scheme = rest.split_once("://").map(|(scheme, _)| scheme);
            let is_scheme =
                |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric());
            scheme.is_some_and(is_scheme) || rest.is_empty()
        };
        let mut rest = Some(text);
        std::iter::from_fn(move || {
            let text = rest?;
            let commas = text.match_indices(',').map(|(at, _)| at);
            let end = commas.into_iter().find(|at| begins(&text[at + 1..]));
            rest = end.map(|at| &text[at + 1..]);
            Some(text[..end.unwrap_or(text.len())].trim())
        })
        .filter(|uri| !uri.is_empty())
    }

    /// The family that is meant when DEST is left out: the last part of the name, lower-case.
    pub fn default_family(&self) -> String {
        let name = match self {
            Self::Hub(repo) => &repo.id,
            Self::S3(location) if location.key.is_empty() => &location.bucket,
            Self::S3(location) => &location.key,
            Self::Directory(path) => path,
        };
        let name = name.trim_end_matches('/');
        let last = name.rsplit('/').next().unwrap_or(name);
        let last = match self {
            // `arn:aws:s3:eu-west-1:123456789012:accesspoint:name`
            Self::S3(location) if location.key.is_empty() => {
                last.rsplit(':').next().unwrap_or(last)
            }
            _ => last,
        };
        last.trim().to_lowercase()
    }

    /// The part that stays the same when a revision moves on: `hf://org/name`, `s3://bucket/prefix/`.
    pub fn source_name(&self) -> String {
        match self {
            Self::Hub(repo) => format!("hf://{}", repo.id),
            Self::S3(location) => format!("s3://{}/{}", location.bucket, location.key),
            Self::Directory(path) => format!("file://{path}"),
        }
    }

    /// The commit, if the URI names one instead of a branch: nothing can change what it means.
    pub fn pinned_commit(&self) -> Option<&str> {
        match self {
            Self::Hub(repo) if is_commit(&repo.revision) => Some(&repo.revision),
            _ => None,
        }
    }
}

impl fmt::Display for SourceUri {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(repo) => write!(out, "hf://{}@{}", repo.id, repo.revision),
            Self::S3(_) | Self::Directory(_) => out.write_str(&self.source_name()),
        }
    }
}

impl HubRepo {
    /// Whether `id` is `org/name` or `name`, in the characters that the Hub allows.
    pub fn is_id(id: &str) -> bool {
        let named = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        id.split('/').count() <= 2 && id.split('/').all(named)
    }

    fn parse(rest: &str) -> Result<Self, &'static str> {
        // KServe separates the revision by `:`; neither character can be part of a repo id.
        let (id, revision) = match rest.find(['@', ':']) {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, "main"),
        };
        let id = id.trim_end_matches('/');
        if !Self::is_id(id) {
            return Err(match id.split('/').count() {
                0..=2 => "does not name a repo as org/name",
                _ => "names more than a repo; choose files with `--include`",
            });
        }
        if revision.is_empty()
            || revision.split('/').any(|part| matches!(part, "" | "." | ".."))
            || revision.contains(['?', '#', '%', '\\', '@'])
        {
            return Err("has no usable revision after `@`");
        }
        let revision =
            if is_commit(revision) { revision.to_ascii_lowercase() } else { revision.to_owned() };
        Ok(Self { id: id.to_owned(), revision })
    }
}

impl S3Location {
    fn parse(rest: &str) -> Result<Self, &'static str> {
        let (bucket, key) = match rest.starts_with("arn:") {
            true => access_point(rest)?,
            false => rest.split_once('/').unwrap_or((rest, "")),
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_bucket = (3..=255).contains(&bucket.len()) && bucket.chars().all(valid);
        if !is_bucket && !Self::is_arn(bucket) {
            return Err("does not name a bucket");
        }
        if key.starts_with('/') || key.contains("//") {
            return Err("has an empty part in its prefix");
        }
        if key.split('/').any(|part| matches!(part, "." | "..")) {
            return Err("has `.` or `..` in its prefix");
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

impl S3Location {
    /// Whether `bucket` is an access point.
    pub fn is_arn(bucket: &str) -> bool {
        bucket.starts_with("arn:")
    }

    /// The region that the name of an access point tells.
    pub fn region_of(bucket: &str) -> Option<&str> {
        bucket.strip_prefix("arn:")?.split(':').nth(2).filter(|region| !region.is_empty())
    }
}

/// Splits `arn:aws:s3:eu-west-1:123456789012:accesspoint/name/key` behind the access point, which is
/// written with `:` as well.
fn access_point(rest: &str) -> Result<(&str, &str), &'static str> {
    const WRONG: &str = "is not the ARN of an access point, such as \
                         arn:aws:s3:eu-west-1:123456789012:accesspoint/name";
    let mut parts = rest.splitn(6, ':');
    let [_, partition, service, region, account] =
        [(); 5].map(|()| parts.next().unwrap_or_default());
    let resource = parts.next().unwrap_or_default();
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_of_s3 = matches!(service, "s3" | "s3-object-lambda" | "s3-outposts");
    if !is_word(partition) || !is_of_s3 || !is_word(account) {
        return Err(WRONG);
    }
    // `outpost/op-1/accesspoint/name` has two more parts than `accesspoint/name`.
    let names = if service == "s3-outposts" { 4 } else { 2 };
    let mut ends = resource.match_indices([':', '/']).map(|(at, _)| at);
    let end = ends.nth(names - 1).unwrap_or(resource.len());
    let (point, key) = resource.split_at(end);
    let words: Vec<&str> = point.split([':', '/']).collect();
    let kind = words.get(names - 2);
    if words.len() != names || kind != Some(&"accesspoint") {
        return Err(WRONG);
    }
    if region.is_empty() && point.ends_with(".mrap") {
        return Err(
            "is a multi-Region access point, whose requests need signatures (SigV4A) that \
                    weightlift does not make; name an access point or the bucket of one region",
        );
    }
    if !is_word(region) || !words.iter().all(|word| is_word(word)) || key.starts_with(':') {
        return Err(WRONG);
    }
    let bucket = &rest[..rest.len() - key.len()];
    Ok((bucket, key.strip_prefix('/').unwrap_or(key)))
}

/// The absolute path behind `file://`, without a `/` at its end.
fn directory(rest: &str) -> Result<String, &'static str> {
    let path = rest.trim_end_matches('/');
    let Some(parts) = path.strip_prefix('/') else {
        return Err(
            "does not name a directory by its absolute path, as in file:///data/models/name",
        );
    };
    if parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("has an empty part, `.` or `..` in its path");
    }
    Ok(path.to_owned())
}

/// Whether `revision` is a full commit hash.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `uri` as a message may show it: no credentials, no query, no control characters.
fn shown(uri: &str) -> String {
    let uri = uri.split(['?', '#']).next().unwrap_or_default();
    let without_user = match (uri.find("://"), uri.find('@')) {
        (Some(scheme), Some(at)) if uri[scheme + 3..at].contains(':') => {
            format!("{}…{}", &uri[..scheme + 3], &uri[at..])
        }
        _ => uri.to_owned(),
    };
    text::inert(&without_user, 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_uris_have_a_repo_and_a_revision() {
        let parse = |uri: &str| SourceUri::parse(uri).expect(uri).to_string();
        assert_eq!(parse("hf://org/name"), "hf://org/name@main");
        assert_eq!(parse("hf://org/name@refs/pr/1"), "hf://org/name@refs/pr/1");
        assert_eq!(parse("hf://org/name:v1.0"), "hf://org/name@v1.0");
        assert_eq!(parse("hf://gpt2/"), "hf://gpt2@main");
        let pinned =
            SourceUri::parse(&format!("hf://org/Name@{}", "AB".repeat(20))).expect("pinned");
        assert_eq!(pinned.pinned_commit(), Some("ab".repeat(20).as_str()));
        assert_eq!(pinned.default_family(), "name");
    }

    #[test]
    fn a_prefix_and_an_object_differ_by_the_last_slash() {
        let parse = |uri: &str| SourceUri::parse(uri).expect(uri);
        assert_eq!(parse("s3://models/llama/70B/").default_family(), "70b");
        assert_eq!(parse("s3://models").default_family(), "models");
        assert_eq!(parse("s3://models/a/One.safetensors").default_family(), "one.safetensors");
        assert_ne!(
            parse("s3://models/llama").source_name(),
            parse("s3://models/llama/").source_name()
        );
    }

    #[test]
    fn an_access_point_stands_where_a_bucket_stands() {
        let point = "arn:aws:s3:eu-west-1:123456789012:accesspoint";
        for (uri, bucket, key, family) in [
            (format!("s3://{point}/models/llama/"), format!("{point}/models"), "llama/", "llama"),
            (format!("s3://{point}:models/a/b.bin"), format!("{point}:models"), "a/b.bin", "b.bin"),
            (format!("s3://{point}:models"), format!("{point}:models"), "", "models"),
            (format!("s3://{point}/models/"), format!("{point}/models"), "", "models"),
        ] {
            let parsed = SourceUri::parse(&uri).expect(&uri);
            assert_eq!(parsed.default_family(), family, "{uri}");
            let SourceUri::S3(location) = parsed else { panic!("{uri}") };
            assert_eq!((location.bucket.as_str(), location.key.as_str()), (bucket.as_str(), key));
            assert_eq!(S3Location::region_of(&location.bucket), Some("eu-west-1"));
        }
        assert_eq!(S3Location::region_of("models"), None);
    }

    #[test]
    fn a_prefix_may_hold_spaces() {
        let parsed = SourceUri::parse("s3://bucket/my models/Llama 3/").expect("spaces");
        assert_eq!(parsed.source_name(), "s3://bucket/my models/Llama 3/");
        assert_eq!(parsed.default_family(), "llama 3");
    }

    #[test]
    fn a_directory_is_an_absolute_path_as_it_is() {
        for (uri, path, family) in [
            ("file:///data/models/Llama-3", "/data/models/Llama-3", "llama-3"),
            ("file:///mnt/my models/x/", "/mnt/my models/x", "x"),
            ("file:///a%20b", "/a%20b", "a%20b"),
        ] {
            let parsed = SourceUri::parse(uri).expect(uri);
            assert_eq!(parsed, SourceUri::Directory(path.into()), "{uri}");
            assert_eq!(parsed.to_string(), format!("file://{path}"));
            assert_eq!(parsed.default_family(), family);
        }
        for uri in [
            "file://host/x",
            "file://data",
            "file://",
            "file:///",
            "file:///a/../b",
            "file:///a//b",
            "file:///a/./b",
            "file:///a\nb",
        ] {
            assert!(SourceUri::parse(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn uris_are_separated_by_commas_that_keys_may_hold_as_well() {
        for (text, expected) in [
            ("hf://a/b", vec!["hf://a/b"]),
            ("s3://b/x/,hf://a/b@main", vec!["s3://b/x/", "hf://a/b@main"]),
            (" s3://b/x/ ,\n hf://a/b ,", vec!["s3://b/x/", "hf://a/b"]),
            ("s3://b/Mistral, 7B/,hf://a/b", vec!["s3://b/Mistral, 7B/", "hf://a/b"]),
            ("s3://b/a,b", vec!["s3://b/a,b"]),
            ("nonsense,s3://b/a", vec!["nonsense", "s3://b/a"]),
            (" ", vec![]),
            (",", vec![]),
        ] {
            assert_eq!(SourceUri::split_list(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_source_is_refused_without_repeating_a_secret() {
        for uri in [
            "org/name",
            "ftp://x/y",
            "hf://",
            "hf://a/b/c",
            "hf://a/b@",
            "hf://../b",
            "hf://a/b@../x",
            "s3://",
            "s3://x",
            "s3://bucket//a",
            "s3://bucket/a/../b",
            "hf://a/b c",
            "hf://a/b@x?y",
            "s3://buc ket/a",
            "s3://bucket/a\n",
            "s3://bucket/a\u{1b}b/",
            "s3://bucket/a ",
            " s3://bucket/a",
            "s3://arn:aws:s3:eu-west-1:123456789012:bucket/x/",
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/",
            "s3://arn:aws:s3:evil.example/:1:accesspoint/x/",
            "s3://arn:aws:iam:eu-west-1:123456789012:accesspoint/x/",
            "s3://arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap/x/",
        ] {
            assert!(SourceUri::parse(uri).is_err(), "{uri}");
        }
        let error =
            SourceUri::parse("https://user:hunter2@host/x?token=hunter2").expect_err("https");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
