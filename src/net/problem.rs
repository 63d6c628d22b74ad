//! What can go wrong with a request over HTTP, and with what it was told to use.

use std::path::PathBuf;
use std::time::Duration;

use super::error::Problem;
use crate::model::{ErrorFields, text};

pub const CHECK_DNS: &str = "check the name, the DNS of the cluster, and whether a NetworkPolicy lets the pod \
                             ask it (port 53)";
pub const CHECK_EGRESS: &str = "check host and port, the egress rules (NetworkPolicy, firewall), and the proxy (HTTPS_PROXY, \
                                HTTP_PROXY, NO_PROXY)";
pub const CHECK_PROXY: &str = "check the proxy variables (HTTPS_PROXY, HTTP_PROXY, NO_PROXY), and whether the proxy \
                               lets this host through";
const PROXY_LOGIN: &str = "put a valid user and password into the proxy variable (http://user:password@host:port), or \
                           add the host to NO_PROXY";
const ADD_AUTHORITY: &str =
    "add the authority with SSL_CERT_FILE if a proxy or a private authority signs it";

/// An answer that does not come, or that is not followed. `host` is an origin.
#[derive(Debug, thiserror::Error)]
pub enum HttpProblem {
    #[error("`{host}` did not answer within {}", text::duration(*within))]
    NoAnswer { host: String, within: Duration },
    #[error("`{host}`: {why}")]
    Connection { host: String, why: String, hint: Option<&'static str> },
    #[error("the certificate of `{host}` is not trusted: {why}")]
    Certificate { host: String, why: String },
    #[error("`{host}` sent nothing for {}", text::duration(*stall))]
    Silent { host: String, stall: Duration },
    #[error("the proxy on the way to `{host}` answered 407: it wants a user and a password")]
    ProxyLogin { host: String },
    #[error("`{host}` answered {status}")]
    Status { host: String, status: u16 },
    #[error("`{host}` answered an invalid status")]
    ImpossibleStatus { host: String },
    #[error("`{host}` answered {status} without a usable Location")]
    NoLocation { host: String, status: u16 },
    #[error("`{host}` redirects to `{to}`, which is less safe; not followed")]
    LessSafe { host: String, to: String },
    #[error("`{host}` redirects to the link-local address `{to}`; not followed")]
    LinkLocal { host: String, to: String },
    #[error("`{host}` redirects more than {most} times")]
    ManyRedirects { host: String, most: usize },
    #[error("`{host}` sent an answer of more than {}", text::size(*most as u64))]
    LongAnswer { host: String, most: usize },
}

impl Problem for HttpProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::NoAnswer { host, .. } => ErrorFields::of_host(host).hint(CHECK_EGRESS),
            Self::Connection { host, hint, .. } => {
                ErrorFields { hint: hint.map(String::from), ..ErrorFields::of_host(host) }
            }
            Self::Silent { host, .. }
            | Self::ImpossibleStatus { host }
            | Self::LessSafe { host, .. }
            | Self::LinkLocal { host, .. }
            | Self::ManyRedirects { host, .. }
            | Self::LongAnswer { host, .. } => ErrorFields::of_host(host),
            Self::Certificate { host, .. } => ErrorFields::of_host(host).hint(ADD_AUTHORITY),
            Self::ProxyLogin { host } => ErrorFields::of_host(host).status(407).hint(PROXY_LOGIN),
            Self::Status { host, status } | Self::NoLocation { host, status } => {
                ErrorFields::of_host(host).status(*status)
            }
        }
    }
}

/// A setting that cannot work. What it says is in no message: it may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("{name} {why}")]
pub struct BadSetting {
    /// The flag, the variable, or the key of a profile.
    pub name: String,
    /// Completes the sentence that begins with the name.
    pub why: String,
    pub hint: Option<&'static str>,
}

impl BadSetting {
    pub fn new(name: &str, why: impl Into<String>) -> Self {
        Self { name: name.to_owned(), why: why.into(), hint: None }
    }

    pub fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

impl Problem for BadSetting {
    fn fields(&self) -> ErrorFields {
        ErrorFields { hint: self.hint.map(String::from), ..ErrorFields::of_setting(&self.name) }
    }
}

/// This machine cannot set up what HTTP needs.
#[derive(Debug, thiserror::Error)]
pub enum SetupProblem {
    #[error("{variable} names `{}`, which holds no usable certificate", path.display())]
    NoCertificates { variable: &'static str, path: PathBuf },
    #[error("could not set up TLS: {0}")]
    Tls(rustls::Error),
    #[error("could not set up the HTTP client: {0}")]
    Client(String),
}

impl Problem for SetupProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::NoCertificates { variable, path } => ErrorFields::of_setting(variable)
                .file(path.display())
                .hint("check the path, and mount a file of PEM certificates there"),
            Self::Tls(_) | Self::Client(_) => ErrorFields::default(),
        }
    }
}
