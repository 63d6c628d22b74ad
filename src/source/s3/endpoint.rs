//! An endpoint that is not AWS's own: what can be one, and how a bucket is named there.

use aws_sdk_s3::config::endpoint::{EndpointFuture, Params, ResolveEndpoint};
use aws_smithy_types::Document;
use aws_smithy_types::endpoint::Endpoint as SdkEndpoint;
use url::{Host, Url};

use crate::net::http::PLAIN_URL;
use crate::net::{BadSetting, SourceError};

/// The URL of a service that is not at AWS's own place, or has been named as if it were not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
    /// What names it.
    named: String,
}

/// How a request names a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// `https://endpoint/bucket/key`
    Path,
    /// `https://bucket.endpoint/key`
    Virtual,
    /// The endpoint is `https://bucket.service` already.
    Named,
}

impl Endpoint {
    /// Refuses what can never work by `named`, what says it, and without what it says: that may be a
    /// secret.
    pub fn parse(text: &str, named: &str) -> Result<Self, SourceError> {
        let told = |why: &str, hint| {
            Err(SourceError::Settings(BadSetting::new(named, why).hint(hint).into()))
        };
        let refuse = |why: &str| told(why, PLAIN_URL);
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return refuse("contains blanks or control characters");
        }
        let Ok(mut url) = Url::parse(text) else {
            return refuse("is not a URL");
        };
        if !matches!(url.scheme(), "https" | "http") {
            return refuse("is neither an https nor an http URL");
        }
        if url.host_str().is_none_or(str::is_empty) || url.port() == Some(0) {
            return refuse("has no host and port that can be reached");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return told(
                "holds a user or a password",
                "remove them, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return told("holds a query", "remove it: an endpoint is a host and perhaps a path");
        }
        let path = url.path().trim_end_matches('/').to_owned();
        if path.contains("//") {
            return refuse("has an empty part in its path");
        }
        url.set_path(&path);
        Ok(Self { url, named: named.to_owned() })
    }

    /// Where requests about `bucket` go; `said` is what the user has said about the style.
    pub fn of_bucket(&self, bucket: &str, said: Option<bool>) -> Result<String, SourceError> {
        let style = style(&self.url, bucket, said).ok_or_else(|| {
            let why = format!(
                "cannot be combined with the endpoint of {}: a bucket cannot be part of its host \
                 name",
                self.named
            );
            SourceError::Settings(
                BadSetting::new("--s3-path-style=false", why).hint("leave it out").into(),
            )
        })?;
        let mut url = self.url.clone();
        if style == Style::Virtual {
            let host = format!("{bucket}.{}", url.host_str().unwrap_or_default());
            url.set_host(Some(&host)).map_err(|_| {
                let bucket = "the bucket cannot be part of the host of";
                SourceError::Settings(
                    BadSetting::new(bucket, self.named.as_str())
                        .hint("use `--s3-path-style`")
                        .into(),
                )
            })?;
        }
        let url = url.as_str().trim_end_matches('/');
        Ok(if style == Style::Path { format!("{url}/{bucket}") } else { url.to_owned() })
    }

    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    pub fn as_str(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// What names it.
    pub fn named(&self) -> &str {
        &self.named
    }
}

/// How `bucket` is named in requests to `url`; `None` if it cannot be as the user has `said`.
fn style(url: &Url, bucket: &str, said: Option<bool>) -> Option<Style> {
    let host = match url.host() {
        Some(Host::Domain(host)) => host.trim_end_matches('.'),
        _ if said == Some(false) => return None,
        _ => return Some(Style::Path),
    };
    let is_label = bucket.bytes().all(|byte| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
    });
    let is_named = host
        .strip_prefix(bucket)
        .and_then(|rest| rest.strip_prefix('.'))
        .is_some_and(|rest| rest == "localhost" || (rest.contains('.') && !is_of_cluster(rest)));
    match said {
        Some(true) => Some(Style::Path),
        _ if is_named => Some(Style::Named),
        Some(false) => is_label.then_some(Style::Virtual),
        // A wildcard certificate covers one label.
        None if is_of_aws(host)
            && is_label
            && (url.scheme() == "http" || !bucket.contains('.')) =>
        {
            Some(Style::Virtual)
        }
        None => Some(Style::Path),
    }
}

/// The services of a cluster are `name.namespace.svc`: `minio.storage.svc` is no bucket `minio`.
fn is_of_cluster(host: &str) -> bool {
    host.split('.').any(|label| label == "svc") || host.ends_with(".local")
}

fn is_of_aws(host: &str) -> bool {
    let hosts = ["amazonaws.com", "amazonaws.com.cn", "api.aws"];
    hosts.iter().any(|aws| host.strip_suffix(aws).is_some_and(|rest| rest.ends_with('.')))
}

/// Sends everything to one place. The rules of the SDK know AWS's endpoints; others have hosts and
/// regions of their own.
#[derive(Debug)]
pub struct OnePlace(SdkEndpoint);

impl OnePlace {
    pub fn new(url: String, region: &str) -> Self {
        let scheme = [
            ("name", Document::from("sigv4".to_owned())),
            ("signingName", Document::from("s3".to_owned())),
            ("signingRegion", Document::from(region.to_owned())),
            ("disableDoubleEncoding", Document::from(true)),
        ];
        let scheme = scheme.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let schemes = Document::Array(vec![Document::Object(scheme)]);
        Self(SdkEndpoint::builder().url(url).property("authSchemes", schemes).build())
    }
}

impl ResolveEndpoint for OnePlace {
    fn resolve_endpoint<'a>(&'a self, _: &'a Params) -> EndpointFuture<'a> {
        EndpointFuture::ready(Ok(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_named_as_its_endpoint_wants_it() {
        let place = |endpoint: &str, bucket: &str, said| {
            Endpoint::parse(endpoint, "x").expect(endpoint).of_bucket(bucket, said).expect(endpoint)
        };
        let rows = [
            ("http://minio:9000", None, "http://minio:9000/models"),
            ("https://gw.example/s3/", None, "https://gw.example/s3/models"),
            ("https://gw.example/s3", None, "https://gw.example/s3/models"),
            ("https://gw.example/a/b//", None, "https://gw.example/a/b/models"),
            ("http://[::1]:9000/", None, "http://[::1]:9000/models"),
            ("https://models.s3.example.com", None, "https://models.s3.example.com"),
            ("https://models.s3.example.com/x", Some(false), "https://models.s3.example.com/x"),
            ("https://models.s3.example.com", Some(true), "https://models.s3.example.com/models"),
            ("http://models.localhost:9000", None, "http://models.localhost:9000"),
            ("http://models.storage.svc:9000", None, "http://models.storage.svc:9000/models"),
            ("http://models.storage:9000", None, "http://models.storage:9000/models"),
            ("http://models-2.s3.example.com", None, "http://models-2.s3.example.com/models"),
            ("https://s3.example.com", Some(false), "https://models.s3.example.com"),
            (
                "https://s3.eu-west-1.amazonaws.com",
                None,
                "https://models.s3.eu-west-1.amazonaws.com",
            ),
        ];
        for (endpoint, said, expected) in rows {
            assert_eq!(place(endpoint, "models", said), expected, "{endpoint} {said:?}");
        }
        let dotted = place("https://s3.amazonaws.com", "my.models", None);
        assert_eq!(dotted, "https://s3.amazonaws.com/my.models");
        let dotted = place("https://my.models.s3.example.com", "my.models", None);
        assert_eq!(dotted, "https://my.models.s3.example.com");
        for (endpoint, bucket) in [("http://127.0.0.1:9", "models"), ("https://x.example", "My_B")]
        {
            let endpoint = Endpoint::parse(endpoint, "x").expect(endpoint);
            assert!(endpoint.of_bucket(bucket, Some(false)).is_err(), "{bucket}");
        }
    }

    #[test]
    fn what_cannot_be_an_endpoint_is_refused_and_not_repeated() {
        for bad in [
            "minio:9000",
            "ftp://host",
            "https://",
            "http://:9000",
            "https://user:hunter2@host",
            "https://hunter2@host",
            "https://host/?token=hunter2",
            "https://host/#x",
            "https://host:99999",
            "http://host:0",
            "https://ho st",
            "https://host/\u{1b}",
            "not a url",
        ] {
            let error = Endpoint::parse(bad, "AWS_ENDPOINT_URL").expect_err(bad);
            let said = error.to_string();
            assert!(matches!(error, SourceError::Settings(_)), "{bad}");
            assert!(said.starts_with("AWS_ENDPOINT_URL") && !said.contains("hunter2"), "{said}");
        }
    }
}
