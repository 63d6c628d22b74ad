//! Serves folders as repositories of a model hub until killed.

use std::path::Path;
use std::time::Duration;
use std::{env, fs, process, thread};

use weightlift_fakes::{Blob, FakeHub, FakeHubBuilder, Tree};

const USAGE: &str = "usage: fake-hub --repo ORG/NAME=FOLDER … [--made ORG/NAME=MIB:SEED] [--token TOKEN] [--private ORG/NAME]
                [--gated ORG/NAME] [--granted ORG/NAME] [--renamed OLD=NEW]
                [--sha256sums ORG/NAME=FILE] [--cdn-url URL] [--hub-port N] [--cdn-port N]
                [--page-size N] [--sign-ranges] [--xet] [--port-file FILE]
                [--everywhere] [--public-cdn URL]

--repo        the same name again is its next commit, and main is the last
--made        as --repo, of a folder with a config.json and so many MiB of model.safetensors
--everywhere  listen at every address, as a pod must; without it at 127.0.0.1
--public-cdn  what clients are to call the port of the CDN
--sha256sums  digests of the files of a --repo before it, as sha256sum prints them
--cdn-url     redirect large files to URL/ORG/NAME/PATH instead of serving them
--xet         serve large files from a chunk store as well

HF_ENDPOINT/-/counts says what was sent, /-/clear forgets it, /-/speed/N slows the CDN to N bytes per
second and connection (0: no more).";

fn main() {
    if let Err(message) = run() {
        eprintln!("fake-hub: {message}\n{USAGE}");
        process::exit(2);
    }
}

fn run() -> Result<(), String> {
    let mut builder = FakeHub::builder();
    let mut port_file = None;
    let mut arguments = env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let without_value = match flag.as_str() {
            "--sign-ranges" => Some(FakeHubBuilder::sign_ranges as fn(_) -> _),
            "--xet" => Some(FakeHubBuilder::xet as fn(_) -> _),
            "--everywhere" => Some(FakeHubBuilder::everywhere as fn(_) -> _),
            _ => None,
        };
        if let Some(apply) = without_value {
            builder = apply(builder);
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("`{flag}` needs a value"))?;
        if flag == "--port-file" {
            port_file = Some(value);
        } else {
            builder = apply(builder, &flag, &value)?;
        }
    }
    let hub = builder.try_start().map_err(|error| format!("cannot listen: {error}"))?;
    if let Some(file) = port_file {
        // Renamed into place, so that whoever waits for it never reads half of it.
        let unfinished = format!("{file}.new");
        let port = hub.url().rsplit(':').next().unwrap_or_default().to_owned();
        fs::write(&unfinished, port)
            .and_then(|()| fs::rename(&unfinished, &file))
            .map_err(|error| format!("cannot write `{file}`: {error}"))?;
    }
    println!("HF_ENDPOINT={}", hub.url());
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn apply(builder: FakeHubBuilder, flag: &str, value: &str) -> Result<FakeHubBuilder, String> {
    let number = || value.parse().map_err(|_| format!("`{flag}` needs a number"));
    Ok(match flag {
        "--repo" => {
            let (id, folder) = pair(flag, value)?;
            let tree = Tree::from_dir(Path::new(folder))
                .map_err(|error| format!("cannot read `{folder}`: {error}"))?;
            builder.repo(id, tree)
        }
        "--made" => {
            let (id, made) = pair(flag, value)?;
            builder.repo(id, made_tree(made).ok_or_else(|| format!("cannot use `{value}`"))?)
        }
        "--public-cdn" => builder.public_cdn(value),
        "--sha256sums" => {
            let (id, file) = pair(flag, value)?;
            let sums = fs::read_to_string(file)
                .map_err(|error| format!("cannot read `{file}`: {error}"))?;
            builder.sha256sums(id, &sums).ok_or_else(|| format!("cannot use `{value}`"))?
        }
        "--cdn-url" => builder.external_cdn(value),
        "--renamed" => {
            let (old, new) = pair(flag, value)?;
            builder.renamed(old, new)
        }
        "--token" => builder.token(value),
        "--private" => builder.private(value),
        "--gated" => builder.gated(value),
        "--granted" => builder.granted(value),
        "--hub-port" => builder.hub_port(number()?),
        "--cdn-port" => builder.cdn_port(number()?),
        "--page-size" => builder.page_size(number()?.into()),
        _ => return Err(format!("unknown flag `{flag}`")),
    })
}

/// Of `MIB:SEED`: another seed is another model of the same size.
fn made_tree(made: &str) -> Option<Tree> {
    let (mib, seed) = made.split_once(':')?;
    let (mib, seed): (u64, u64) = (mib.parse().ok()?, seed.parse().ok()?);
    let size = mib << 20;
    let header = format!(
        "{{\"weights\":{{\"dtype\":\"U8\",\"shape\":[{size}],\"data_offsets\":[0,{size}]}}}}"
    );
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend(header.as_bytes());
    weights.extend(Blob::synthetic(size, seed).to_vec());
    let config = format!("{{\"made_from\": {seed}}}\n");
    Some(Tree::new().with("config.json", config).with("model.safetensors", weights))
}

fn pair<'a>(flag: &str, value: &'a str) -> Result<(&'a str, &'a str), String> {
    value.split_once('=').ok_or_else(|| format!("`{flag}` needs NAME=VALUE"))
}
