//! The flags about signatures of models.

use clap::Args;

use super::help::FILES;
use crate::Error;
use crate::model::{Message, SIGNATURE_FILE, SignedBy, Signer};

/// Whose signature a model must have.
#[derive(Clone, Debug, Default, Args)]
pub struct SignatureArgs {
    /// Accept a model only if it is signed: key=FILE or certificate=FILE
    ///
    /// The signature is one of OpenSSF Model Signing 1.0. `key=FILE` takes a public key (ECDSA, PEM).
    /// `certificate=FILE` takes a certificate below a root in FILE. Otherwise weightlift fails (exit 12), before
    /// it fetches the weights if it can know by then. docs/signatures.md has more.
    #[arg(long, env = "WEIGHTLIFT_VERIFY_SIGNATURE", value_name = "METHOD=FILE", value_parser = Signer::parse,
          hide_short_help = true, help_heading = FILES)]
    pub verify_signature: Option<Signer>,

    /// Path of the signature in the model [default: model.sig]
    #[arg(long, env = "WEIGHTLIFT_SIGNATURE_FILE", value_name = "PATH", hide_short_help = true,
          help_heading = FILES)]
    pub signature_file: Option<String>,

    /// Accept files that match, although the signature does not name them
    ///
    /// `*` accepts all. Repeat the flag, or separate patterns with commas.
    #[arg(long, env = "WEIGHTLIFT_IGNORE_UNSIGNED", value_name = "GLOB", value_delimiter = ',',
          hide_short_help = true, help_heading = FILES)]
    pub ignore_unsigned: Vec<String>,
}

impl SignatureArgs {
    /// The signature that is asked for, if one is.
    pub fn signed_by(&self) -> Result<Option<SignedBy>, Error> {
        let ignored: Vec<String> =
            self.ignore_unsigned.iter().filter(|glob| !glob.is_empty()).cloned().collect();
        let Some(signer) = &self.verify_signature else {
            let flags = [
                ("--signature-file", self.signature_file.is_some()),
                ("--ignore-unsigned", !ignored.is_empty()),
            ];
            return match flags.into_iter().find(|(_, is_given)| *is_given) {
                None => Ok(None),
                Some((flag, _)) => Err(Error::Usage(
                    Message::new(format!("{flag} is about a signature, and none is asked for"))
                        .hint("give --verify-signature as well"),
                )),
            };
        };
        let file = self.signature_file.as_deref();
        match SignedBy::new(signer.clone(), file, ignored) {
            Ok(signed_by) => Ok(Some(signed_by)),
            Err(_) => Err(Error::Usage(
                Message::new("--signature-file is no path below the model")
                    .hint(format!("give one like `{SIGNATURE_FILE}`")),
            )),
        }
    }
}
