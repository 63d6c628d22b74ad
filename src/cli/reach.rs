//! What each command touches: the files and directories that its flags, its models and the environment name. The process
//! confines itself to that (`sandbox`).

use std::path::{Path, PathBuf};

use super::models::absolute;
use super::values::LockKind;
use super::{Cli, Command, DoctorArgs, FetchArgs, MirrorArgs, PinArgs};
use crate::environment;
use crate::model::{SignedBy, SourceUri};
use crate::sandbox::{Reach, Read};

/// What the resolver of the system reads, what the kernel tells of us, and devices that are no files.
const OF_SYSTEM: [&str; 7] = ["/etc", "/usr", "/lib", "/lib64", "/proc", "/sys", "/dev"];
/// Links that may lead out of these.
const NAMES_OF_HOSTS: [&str; 3] = ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"];
/// Variables that name a file to read.
const FILES: [&str; 11] = [
    "HF_TOKEN_PATH",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CA_BUNDLE",
    "REGISTRY_AUTH_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_FEDERATED_TOKEN_FILE",
    "NETRC",
    "SSL_CERT_FILE",
];
/// Variables that name a directory, and the files in it that are read.
const DIRECTORIES: [(&str, &[&str]); 5] = [
    ("HF_HOME", &["token"]),
    ("XDG_CACHE_HOME", &["huggingface/token"]),
    ("DOCKER_CONFIG", OF_DOCKER),
    ("CLOUDSDK_CONFIG", &["application_default_credentials.json"]),
    ("CA_BUNDLE_VOLUME_MOUNT_POINT", &["cabundle.crt"]),
];
const OF_DOCKER: &[&str] = &["config.json", ".dockerconfigjson", ".dockercfg"];
/// What is read in the home where no variable names another place.
const IN_HOME: [&str; 8] = [
    ".cache/huggingface/token",
    ".aws/config",
    ".aws/credentials",
    ".config/gcloud/application_default_credentials.json",
    ".docker/config.json",
    ".docker/.dockerconfigjson",
    ".docker/.dockercfg",
    ".netrc",
];

const FROM_A_PIPE: &str = "the list of models is read from a pipe";
const WRITES_ANYWHERE: &str = "this command writes where it is told to";
const STARTS_A_PROGRAM: &str = "a profile of AWS starts a program (credential_process)";

impl Cli {
    /// What this run touches, or why nobody can tell. Looks at files.
    pub fn reach(&self) -> Result<Reach, &'static str> {
        let mut reach = match &self.command {
            Command::Fetch(args) => of_fetch(args, args.dry_run)?,
            Command::Plan(args) => of_fetch(args, true)?,
            Command::Pin(args) => of_pin(args)?,
            Command::Mirror(args) => of_mirror(args)?,
            Command::Doctor(args) => of_doctor(args)?,
            // These ask no network: whatever they read stays here.
            Command::Prune(args) => {
                Reach { writes: args.root.path().into_iter().collect(), reads: None }
            }
            Command::Wait(args) => {
                Reach { writes: args.link.iter().map(|link| above(link)).collect(), reads: None }
            }
            Command::Verify(_) | Command::List(_) => Reach::default(),
            // It writes where it is told to, and reads nothing.
            Command::Generate(_) => return Err(WRITES_ANYWHERE),
        };
        let global = &self.global;
        let replaced = [&global.progress_file, &global.metrics_file];
        reach.writes.extend(replaced.into_iter().flatten().map(|file| above(file)));
        // Made by the kubelet; nobody makes one in its place.
        if global.termination_log.exists() {
            reach.writes.push(global.termination_log.clone());
        }
        Ok(reach)
    }
}

fn of_fetch(args: &FetchArgs, only_looks: bool) -> Result<Reach, &'static str> {
    let listed = [&args.listed.models_file, &args.locked];
    let mut reads = of_network(listed.into_iter().flatten())?;
    let mut roots = Vec::new();
    // What cannot be used is an error of the run, which then touches nothing.
    for model in args.models().unwrap_or_default() {
        reads.extend(directories([&model.uri].into_iter().chain(&model.also)));
        reads.extend(model.signed_by.as_ref().map(keys));
        roots.push(model.destination.root);
    }
    if args.lock == LockKind::Kubernetes {
        reads.extend(account(&args.service_account));
    }
    let mut writes: Vec<PathBuf> = args.link.iter().map(|link| above(link)).collect();
    // Files of an adopted directory are given second names, for which the kernel asks the same of both directories.
    roots.extend(args.adopt.iter().cloned());
    match only_looks {
        true => reads.extend(roots.into_iter().map(Read::Below)),
        false => writes.extend(roots),
    }
    Ok(Reach { writes, reads: Some(reads) })
}

fn of_pin(args: &PinArgs) -> Result<Reach, &'static str> {
    let listed = args.listed.models_file.iter().map(PathBuf::as_path);
    let mut reads = of_network(listed.chain([args.lock_path()]))?;
    let entries = args.before().and_then(|before| args.entries(before.as_ref()));
    for entry in entries.unwrap_or_default() {
        reads.extend(directories([&entry.source].into_iter().chain(&entry.also)));
        reads.extend(entry.signed_by.as_ref().map(keys));
    }
    let writes = if args.check { Vec::new() } else { vec![above(args.lock_path())] };
    Ok(Reach { writes, reads: Some(reads) })
}

fn of_mirror(args: &MirrorArgs) -> Result<Reach, &'static str> {
    let mut reads = of_network([&args.models_file, &args.locked].into_iter().flatten())?;
    for model in args.models().unwrap_or_default() {
        reads.extend(directories(model.source.iter().chain(&model.also)));
    }
    Ok(Reach { writes: Vec::new(), reads: Some(reads) })
}

fn of_doctor(args: &DoctorArgs) -> Result<Reach, &'static str> {
    let mut reads = of_network(args.models_file.iter())?;
    for entry in args.entries().unwrap_or_default() {
        reads.extend(directories([&entry.source].into_iter().chain(&entry.also)));
    }
    reads.extend(args.account().into_iter().flat_map(account));
    Ok(Reach {
        writes: args.root().map(|root| root.path).into_iter().collect(),
        reads: Some(reads),
    })
}

/// What everything reads that asks a network, and `listed`, the files of models, which are read twice.
fn of_network(
    listed: impl IntoIterator<Item = impl AsRef<Path>>,
) -> Result<Vec<Read>, &'static str> {
    let mut reads: Vec<Read> = OF_SYSTEM.into_iter().map(|path| Read::Below(path.into())).collect();
    reads.extend(NAMES_OF_HOSTS.into_iter().map(|path| Read::File(path.into())));
    for file in listed {
        let file = file.as_ref();
        if std::fs::metadata(file).is_ok_and(|about| !about.is_file()) {
            return Err(FROM_A_PIPE);
        }
        reads.push(Read::File(file.into()));
    }
    let profiles =
        [("AWS_CONFIG_FILE", ".aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")];
    for (variable, usual) in profiles {
        let Some(path) = named(variable).or_else(|| in_home(usual)) else { continue };
        let text = std::fs::read(path).unwrap_or_default();
        for (key, value) in
            String::from_utf8_lossy(&text).lines().filter_map(|it| it.split_once('='))
        {
            match key.trim() {
                "credential_process" => return Err(STARTS_A_PROGRAM),
                "web_identity_token_file" => {
                    // A comment may stand behind it.
                    let path = value.split(" #").next().and_then(|it| it.split(" ;").next());
                    let path = path.unwrap_or_default();
                    reads.push(Read::File(path.trim().into()));
                }
                _ => {}
            }
        }
    }
    reads.extend(FILES.into_iter().filter_map(named).map(Read::File));
    for (variable, files) in DIRECTORIES {
        let directory = named(variable);
        reads.extend(
            directory.iter().flat_map(|dir| files.iter().map(|file| Read::File(dir.join(file)))),
        );
    }
    if let Some(certificates) = named("SSL_CERT_DIR") {
        let entries = std::fs::read_dir(&certificates).into_iter().flatten().flatten();
        reads.extend(entries.map(|entry| Read::File(entry.path())));
        reads.push(Read::Below(certificates));
    }
    reads.extend(IN_HOME.into_iter().filter_map(in_home).map(Read::File));
    Ok(reads)
}

/// The directories among the places of a model.
fn directories<'a>(places: impl Iterator<Item = &'a SourceUri>) -> impl Iterator<Item = Read> {
    places.filter_map(|place| match place {
        SourceUri::Directory(path) => Some(Read::File(path.into())),
        _ => None,
    })
}

/// Where the keys of a signature lie. A key that is given as such is the path of nothing.
fn keys(signed_by: &SignedBy) -> Read {
    Read::File(signed_by.signer.given().into())
}

fn account(directory: &Path) -> [Read; 2] {
    [Read::Below(directory.into()), Read::File(directory.join("token"))]
}

/// The directory in which a file is replaced.
fn above(file: &Path) -> PathBuf {
    let file = absolute(file).unwrap_or_else(|| file.into());
    file.parent().unwrap_or(Path::new("/")).to_owned()
}

/// The path that a variable names.
fn named(variable: &str) -> Option<PathBuf> {
    let path = environment::os(variable)?;
    let Some(text) = path.to_str() else { return Some(path.into()) };
    match (text.trim(), text.trim().strip_prefix("~/")) {
        ("", _) => None,
        (_, Some(rest)) => in_home(rest),
        (text, None) => Some(text.into()),
    }
}

fn in_home(path: &str) -> Option<PathBuf> {
    environment::text("HOME").map(|home| PathBuf::from(home).join(path))
}
