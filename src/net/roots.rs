//! Which certificates are trusted: the built-in ones, and those that variables name in addition.

use std::path::PathBuf;

use super::SourceError;
use super::problem::SetupProblem;
use crate::environment;

/// As for other clients.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Certificates of authorities, and where they are from.
pub struct Roots {
    pub store: rustls::RootCertStore,
    pub built_in: usize,
    pub named: Vec<NamedRoots>,
}

/// What one variable has added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedRoots {
    pub variable: &'static str,
    pub path: PathBuf,
    pub certificates: usize,
}

impl Roots {
    /// Fails if a variable names what holds no certificate.
    pub fn from_environment() -> Result<Self, SourceError> {
        let mut store = rustls::RootCertStore::empty();
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let (built_in, mut named) = (store.len(), Vec::new());
        let path_in = |variable| Some((variable, environment::os(variable).and_then(path_of)?));
        let files = VARIABLES.into_iter().filter_map(path_in);
        // As for other clients of S3; in its place also what KServe mounts.
        for (variable, path) in files.chain(path_in("AWS_CA_BUNDLE").or_else(of_kserve)) {
            let found = match variable {
                "SSL_CERT_DIR" => rustls_native_certs::load_certs_from_paths(None, Some(&path)),
                _ => rustls_native_certs::load_certs_from_paths(Some(&path), None),
            };
            let (certificates, _) = store.add_parsable_certificates(found.certs);
            if certificates == 0 {
                return Err(SourceError::Settings(
                    SetupProblem::NoCertificates { variable, path }.into(),
                ));
            }
            named.push(NamedRoots { variable, path, certificates });
        }
        Ok(Self { store, built_in, named })
    }
}

/// The authorities that KServe mounts into its storage initializer where the cluster has some of its own.
fn of_kserve() -> Option<(&'static str, PathBuf)> {
    const DIRECTORY: &str = "CA_BUNDLE_VOLUME_MOUNT_POINT";
    environment::text("CA_BUNDLE_CONFIGMAP_NAME")?;
    Some((DIRECTORY, environment::os(DIRECTORY).and_then(path_of)?.join("cabundle.crt")))
}

/// A path without the white space that a template leaves around it; `None` where nothing else is.
fn path_of(value: std::ffi::OsString) -> Option<PathBuf> {
    match value.to_str().map(str::trim) {
        Some("") => None,
        Some(path) => Some(path.into()),
        None => Some(value.into()),
    }
}
