//! `signed_by`, as the models file and the lock file write it.

use serde::{Deserialize, Serialize};

use crate::model::{SIGNATURE_FILE, SignedBy, Signer};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSignedBy {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    file: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    ignore_unsigned: Vec<String>,
}

impl RawSignedBy {
    pub fn read(self) -> Result<SignedBy, &'static str> {
        let given = |text: &String| !text.trim().is_empty();
        let signer = match (self.key, self.certificate) {
            (Some(key), None) if given(&key) => Signer::Key(key),
            (None, Some(certificate)) if given(&certificate) => Signer::Certificate(certificate),
            _ => return Err("`signed_by` needs either `key` or `certificate`"),
        };
        SignedBy::new(signer, self.file.as_deref(), self.ignore_unsigned)
            .map_err(|_| "`signed_by` has a `file` that is no path below the model")
    }

    pub fn of(signed_by: &SignedBy) -> Self {
        let (key, certificate) = match signed_by.signer.clone() {
            Signer::Key(key) => (Some(key), None),
            Signer::Certificate(certificate) => (None, Some(certificate)),
        };
        let file = signed_by.file.as_str();
        Self {
            key,
            certificate,
            file: (file != SIGNATURE_FILE).then(|| file.to_owned()),
            ignore_unsigned: signed_by.ignored.clone(),
        }
    }
}
