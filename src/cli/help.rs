//! How help is laid out: what comes first, under which heading a flag stands, what `-h` leaves to `--help`.

use std::ffi::OsString;

use clap::{Arg, Command};

// The headings of flags.
pub const MODELS: &str = "Models";
pub const FILES: &str = "Files";
pub const SOURCE: &str = "Source";
pub const VOLUME: &str = "Volume";
pub const PUBLICATION: &str = "Publication";
pub const TRANSFER: &str = "Transfer";
pub const LIMITS: &str = "Limits and time";
pub const LOCKS: &str = "Locks and Kubernetes";
pub const OUTPUT: &str = "Output";

/// Examples stand before the flags.
pub const TEMPLATE: &str = "\
{about-with-newline}
{usage-heading} {usage}

{before-help}{all-args}{after-help}";

/// What ends `-h` of a command.
pub const MORE: &str = "\
`--help` has all flags, their details and variables. `weightlift --help` has the exit codes.";

/// What ends `-h` of the program.
pub const COMMANDS: &str = "\
`weightlift COMMAND -h` has the flags of a command, `weightlift COMMAND --help` all details.
`weightlift --help` has the exit codes.";

/// What `--help` of `fetch` and `plan` says behind the flags.
pub const SOURCES: &str = "\
SOURCE is one of:
  hf://org/name[@revision]            Hugging Face Hub; also hf://datasets/org/name
                                      and hf://spaces/org/name
  s3://bucket/prefix/                 S3; also one object; also the ARN of an
                                      access point in place of the bucket
  gs://bucket/prefix/                 Google Cloud Storage
  az://account/container/prefix/      Azure Blob Storage
  oci://registry/name[:tag][@sha256:…]  a model in an OCI registry
  https://host/path/                  a directory with SHA256SUMS or a sentinel
  https://host/one.gguf#sha256=…      one file
  ms://org/name[@revision]            ModelScope
  file:///directory                   a model that weightlift has published there

DEST is a directory below --root, or an absolute path. The default is the last part of
the name of SOURCE, in lower case. Several models: SOURCE DEST SOURCE DEST …

Credentials and endpoints come from variables and files:
  Hub         HF_TOKEN, HF_TOKEN_PATH, HF_HOME/token, HF_ENDPOINT, HF_HUB_OFFLINE
  S3          the default chain of AWS; AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL;
              S3_ENDPOINT and other variables of KServe
  Google      GOOGLE_APPLICATION_CREDENTIALS, gcloud, the metadata server
  Azure       AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY,
              AZURE_STORAGE_SAS_TOKEN, AZURE_CLIENT_SECRET,
              AZURE_FEDERATED_TOKEN_FILE, a managed identity
  OCI         config.json in DOCKER_CONFIG or ~/.docker, a mounted pull secret,
              REGISTRY_AUTH_FILE; WEIGHTLIFT_OCI_PLAIN_HTTP
  ModelScope  MODELSCOPE_API_TOKEN, MODELSCOPE_ENDPOINT
  Web         the netrc file: NETRC, or ~/.netrc
  Leases      POD_NAMESPACE and POD_NAME, from the downward API
  Network     HTTPS_PROXY, HTTP_PROXY, ALL_PROXY (also socks5h://), NO_PROXY;
              SSL_CERT_FILE, SSL_CERT_DIR, AWS_CA_BUNDLE add trusted roots

Units: a SIZE is 64MiB, 64M or 67108864 (bytes). A DURATION is 500ms, 90s, 5m, 2h or 7d.
Exit codes: `weightlift --help`.";

/// `command` as `arguments` ask for its help, if they do; none at all do. `-h` has one line for each flag: `--help` tells the variable
/// and the values. Neither shows what a variable holds, which may be a secret.
pub fn fitting(command: Command, arguments: &[OsString]) -> Command {
    let is_given = |words: &[&str]| arguments.iter().any(|it| words.iter().any(|word| it == word));
    let change: fn(Arg) -> Arg = if is_given(&["-h"]) || arguments.len() < 2 {
        |argument| {
            let has_values = argument.get_action().takes_values();
            argument.hide_env(true).hide_possible_values(has_values)
        }
    } else if is_given(&["--help", "help"]) {
        |argument| argument.hide_env_values(true)
    } else {
        return command;
    };
    command.mut_args(change).mut_subcommands(|command| command.mut_args(change))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    const HEADINGS: [&str; 8] =
        [MODELS, FILES, SOURCE, VOLUME, PUBLICATION, TRANSFER, LIMITS, LOCKS];

    #[test]
    fn each_flag_stands_under_a_heading_and_those_of_every_command_come_last() {
        for command in Cli::command().get_subcommands().filter(|it| !it.is_hide_set()) {
            let flags = command.get_arguments().filter(|it| !it.is_positional());
            for flag in flags.filter(|flag| !flag.is_hide_set()) {
                let heading = flag.get_help_heading().unwrap_or_default();
                assert!(HEADINGS.contains(&heading), "{}: `{heading}`", flag.get_id());
                assert_ne!(heading, OUTPUT, "{}", flag.get_id());
            }
        }
        let program = Cli::command();
        let globals: Vec<_> = program.get_arguments().filter(|it| it.is_global_set()).collect();
        assert!(globals.len() > 5);
        for flag in globals {
            assert_eq!(flag.get_help_heading(), Some(OUTPUT), "{}", flag.get_id());
        }
    }
}
