//! What a program can read of an error beside its sentence.

use serde::Serialize;

/// Each field is there where it is known; texts of the other side are inert, no field holds a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ErrorFields {
    /// `scheme://host:port` of the server that the error is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// A path in the model, the key of an object, or a path on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The flag, variable or key of a profile that cannot work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setting: Option<String>,
    /// Who was waited for: the pod, its node, how far it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// What the other side answered, in its own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// What the user can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ErrorFields {
    pub fn of_host(host: &str) -> Self {
        Self { host: Some(host.to_owned()), ..Self::default() }
    }

    pub fn of_file(file: impl ToString) -> Self {
        Self { file: Some(file.to_string()), ..Self::default() }
    }

    pub fn of_holder(holder: &str) -> Self {
        Self { holder: Some(holder.to_owned()), ..Self::default() }
    }

    pub fn of_setting(name: &str) -> Self {
        Self { setting: Some(name.to_owned()), ..Self::default() }
    }

    /// Of an error that has nothing but words, with or without a hint.
    pub fn of_hint(hint: Option<impl Into<String>>) -> Self {
        Self { hint: hint.map(Into::into), ..Self::default() }
    }

    pub fn status(self, status: u16) -> Self {
        Self { http_status: Some(status), ..self }
    }

    pub fn file(self, file: impl ToString) -> Self {
        Self { file: Some(file.to_string()), ..self }
    }

    pub fn said(self, said: &str) -> Self {
        Self { said: Some(said.to_owned()).filter(|said| !said.is_empty()), ..self }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}
