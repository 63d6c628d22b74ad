//! What a SOURCE that cannot be understood was probably meant to be: the spellings of other tools, the address of a
//! page, and slips of the finger. A guess from the text alone: no source is asked.

use super::{SCHEMES, SourceUri, shown};

/// What other tools call a scheme of ours.
const OTHER_NAMES: [(&str, &str); 22] = [
    ("huggingface", "hf"),
    ("hugging-face", "hf"),
    ("hub", "hf"),
    ("s3n", "s3"),
    ("s3a", "s3"),
    ("aws", "s3"),
    ("minio", "s3"),
    ("gcs", "gs"),
    ("gcp", "gs"),
    ("google", "gs"),
    ("azure", "az"),
    ("azblob", "az"),
    ("blob", "az"),
    ("modelscope", "ms"),
    ("oras", "oci"),
    ("docker", "oci"),
    ("docker-image", "oci"),
    ("registry", "oci"),
    ("image", "oci"),
    ("modelpack", "oci"),
    ("dir", "file"),
    ("local", "file"),
];

/// Between a repo and the one file of it that was meant.
const INCLUDE: &str = " --include ";

/// The SOURCE that was probably meant by `uri`. It can be understood, and holds nothing that may be a secret.
pub(super) fn meant(uri: &str) -> Option<String> {
    let is_source =
        |it: &str| SourceUri::understand(it.split(INCLUDE).next().unwrap_or(it)).is_ok();
    let is_usable = |it: &String| shown(it) == *it && is_source(it);
    candidates(uri.trim()).into_iter().find(is_usable)
}

/// What it could be, the likeliest first.
fn candidates(uri: &str) -> Vec<String> {
    let Some((scheme, rest)) = uri.split_once("://") else { return without_scheme(uri) };
    let scheme = scheme.to_ascii_lowercase();
    match scheme.as_str() {
        "https" | "http" => page(rest).into_iter().collect(),
        "abfs" | "abfss" | "wasb" | "wasbs" => hadoop(rest).into_iter().collect(),
        "hf" => vec![with_scheme("hf", rest.trim_start_matches('/').trim_start_matches("models/"))],
        "file" => vec![with_scheme("file", rest)],
        _ if SCHEMES.contains(&scheme.as_str()) => Vec::new(),
        _ => known(&scheme).map_or_else(Vec::new, |scheme| {
            // Docker leaves out its own registry.
            let docker = (scheme == "oci").then(|| format!("oci://docker.io/{rest}"));
            [with_scheme(scheme, rest)].into_iter().chain(docker).collect()
        }),
    }
}

/// Of `hf:org/name`, `s3:/bucket/prefix`, `/data/models/x`, `huggingface.co/org/name`, `org/name`.
fn without_scheme(uri: &str) -> Vec<String> {
    if uri.starts_with('/') {
        return vec![format!("file://{uri}")];
    }
    if let Some(repo) = uri.strip_prefix("git@hf.co:") {
        return vec![with_scheme("hf", repo.trim_end_matches(".git"))];
    }
    let colon = uri.split_once(':').or_else(|| uri.split_once("//"));
    if let Some((scheme, rest)) = colon
        && let Some(scheme) = known(&scheme.to_ascii_lowercase())
    {
        let shown = page(rest.trim_start_matches('/')).filter(|_| scheme.starts_with("http"));
        return shown.into_iter().chain([with_scheme(scheme, rest)]).collect();
    }
    match page(uri) {
        Some(repo) => vec![repo],
        None if uri.matches('/').count() == 1 => vec![format!("hf://{uri}")],
        None => Vec::new(),
    }
}

/// `rest` below `scheme`, however many slashes it began with.
fn with_scheme(scheme: &str, rest: &str) -> String {
    let rest = rest.trim_start_matches('/');
    let root = if scheme == "file" { "/" } else { "" };
    format!("{scheme}://{root}{rest}")
}

/// The scheme of ours that `scheme` is, is called elsewhere, or is one slip of the finger away from.
fn known(scheme: &str) -> Option<&'static str> {
    let other = OTHER_NAMES.iter().find(|(name, _)| *name == scheme).map(|(_, ours)| *ours);
    let same = SCHEMES.into_iter().find(|ours| *ours == scheme);
    let mut near = SCHEMES.into_iter().filter(|ours| is_one_slip(scheme, ours));
    same.or(other).or_else(|| near.next().filter(|_| near.next().is_none()))
}

/// Whether one character more, less or other, or two that changed places, make `b` of `a`.
fn is_one_slip(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    match (a, b) {
        ([_, a @ ..], _) if a == b => true,
        (_, [_, b @ ..]) if a == b => true,
        ([_, a @ ..], [_, b @ ..]) if a == b => true,
        ([a1, a2, a @ ..], [b1, b2, b @ ..]) => a1 == b2 && a2 == b1 && a == b,
        _ => false,
    }
}

/// The repo that a page shows, of its address without `https://`: `huggingface.co/org/name/tree/main`.
fn page(address: &str) -> Option<String> {
    let address = address.split(['?', '#']).next()?;
    let (host, path) = address.split_once('/')?;
    let path = path.trim_end_matches('/').trim_end_matches(".git");
    let parts: Vec<&str> = path.split('/').collect();
    let (scheme, parts) = match (host.trim_start_matches("www."), parts.as_slice()) {
        ("huggingface.co" | "hf.co", parts) => ("hf", parts),
        ("modelscope.cn" | "modelscope.ai", ["models", parts @ ..]) => ("ms", parts),
        _ => return None,
    };
    let (kind, parts) = match parts {
        [kind @ ("datasets" | "spaces"), parts @ ..] => (format!("{kind}/"), parts),
        parts => (String::new(), parts),
    };
    let (org, name, rest) = match parts {
        [org, name, rest @ ..] => (org, name, rest),
        _ => return None,
    };
    let (revision, file) = match rest {
        ["blob" | "resolve" | "raw", revision, file @ ..] => (format!("@{revision}"), file),
        ["tree" | "commit", revision, ..] => (format!("@{revision}"), &[][..]),
        _ => (String::new(), &[][..]),
    };
    // The page of one file of many: the whole repo may be a hundred times as large.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let file = Some(file.join("/")).filter(|it| !it.is_empty() && it.chars().all(is_plain));
    let file = file.map(|file| format!("{INCLUDE}{file}")).unwrap_or_default();
    Some(format!("{scheme}://{kind}{org}/{name}{revision}{file}"))
}

/// As Hadoop and Spark write Azure: `container@account.dfs.core.windows.net/path`.
fn hadoop(rest: &str) -> Option<String> {
    let (container, rest) = rest.split_once('@')?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let account = host.strip_suffix(".core.windows.net")?;
    let account = account.strip_suffix(".dfs").or_else(|| account.strip_suffix(".blob"))?;
    Some(format!("az://{account}/{container}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_that_is_nearly_ours_or_that_of_another_tool_is_corrected() {
        for (typed, expected) in [
            ("hff://org/name", "hf://org/name"),
            ("h://org/name@v1", "hf://org/name@v1"),
            ("fh://org/name", "hf://org/name"),
            ("huggingface://org/name", "hf://org/name"),
            ("HuggingFace://org/name", "hf://org/name"),
            ("hf:org/name", "hf://org/name"),
            ("hf:/org/name", "hf://org/name"),
            ("hf:///org/name", "hf://org/name"),
            ("hf//org/name", "hf://org/name"),
            ("hf://models/org/name", "hf://org/name"),
            ("org/name", "hf://org/name"),
            ("org/name@refs/pr/1", ""),
            ("datasets/org/name", ""),
            ("git@hf.co:org/name.git", "hf://org/name"),
            ("huggingface.co/org/name", "hf://org/name"),
            ("https//huggingface.co/org/name", "hf://org/name"),
            ("https:/hf.co/org/name/blob/main/q4/a.gguf", "hf://org/name@main --include q4/a.gguf"),
            ("https://hf.co/org/name/blob/main/a%20b", "hf://org/name@main"),
            ("https://huggingface.co/org/name", "hf://org/name"),
            ("https://huggingface.co/org/name/", "hf://org/name"),
            ("https://huggingface.co/org/name.git", "hf://org/name"),
            ("https://hf.co/org/name/tree/v1.0", "hf://org/name@v1.0"),
            ("https://www.huggingface.co/datasets/org/name?x=y", "hf://datasets/org/name"),
            (
                "https://huggingface.co/org/name/resolve/main/a.gguf?download=true",
                "hf://org/name@main --include a.gguf",
            ),
            ("https://huggingface.co/docs", ""),
            ("https://modelscope.cn/models/org/name/summary", "ms://org/name"),
            ("s3n://bucket/prefix/", "s3://bucket/prefix/"),
            ("s3a://bucket/prefix/", "s3://bucket/prefix/"),
            ("s3:bucket/prefix/", "s3://bucket/prefix/"),
            ("s3:/bucket/prefix/", "s3://bucket/prefix/"),
            ("gcs://bucket/prefix/", "gs://bucket/prefix/"),
            ("azure://account/container/prefix/", "az://account/container/prefix/"),
            ("abfss://container@account.dfs.core.windows.net/a/b/", "az://account/container/a/b/"),
            ("wasbs://container@account.blob.core.windows.net/a", "az://account/container/a"),
            ("abfss://container@account.example/a", ""),
            ("modelscope://org/name", "ms://org/name"),
            ("docker://ghcr.io/org/name:tag", "oci://ghcr.io/org/name:tag"),
            ("docker://org/name", "oci://docker.io/org/name"),
            ("oras://ghcr.io/org/name:tag", "oci://ghcr.io/org/name:tag"),
            ("htps://host/path/", "https://host/path/"),
            ("https:/host/path/", "https://host/path/"),
            ("/data/models/name", "file:///data/models/name"),
            ("file:/data/models/name", "file:///data/models/name"),
            ("file://data/models/name", "file:///data/models/name"),
            ("s3:///prefix/", ""),
            // One slip away from two of ours, far from all, or a name alone: no guess.
            ("gz://bucket/prefix/", ""),
            ("ftp://host/path/", ""),
            ("gopher://a/b", ""),
            ("name", ""),
            ("../name", ""),
            ("a/b/c", ""),
            ("", ""),
        ] {
            assert_eq!(meant(typed).unwrap_or_default(), expected, "{typed}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not_part_of_a_guess() {
        for typed in [
            "hff://org/name?token=hunter2",
            "htps://user:hunter2@host/path/",
            "https:/user:hunter2@host/path/",
            "s3n://key:hunter2@bucket/prefix/",
            "htps://hunter2@host/path/",
        ] {
            assert_eq!(meant(typed), None, "{typed}");
            let error = SourceUri::parse(typed).expect_err("is refused").to_string();
            assert!(!error.contains("user:hunter2"), "{error}");
        }
    }
}
