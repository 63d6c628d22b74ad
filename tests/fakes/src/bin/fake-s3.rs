//! Serves folders as S3 buckets until killed.

use std::path::Path;
use std::time::Duration;
use std::{env, process, thread};

use weightlift_fakes::{Checksum, FakeS3, FakeS3Builder, ObjectOptions, Tree};

const USAGE: &str = "usage: fake-s3 --bucket NAME=FOLDER … [--access-key KEY --secret-key KEY]
               [--session-token TOKEN] [--region REGION] [--port N] [--page-size N]
               [--part-size BYTES]   objects are multipart, with composite SHA-256 checksums
               [--redirect-wrong-region] [--versioned] [--deny-list] [--deny-get]";

fn main() {
    if let Err(message) = run() {
        eprintln!("fake-s3: {message}\n{USAGE}");
        process::exit(2);
    }
}

fn run() -> Result<(), String> {
    let mut builder = FakeS3::builder();
    let (mut access_key, mut secret_key) = (String::new(), String::new());
    let mut part_size = None;
    let mut folders = Vec::new();
    let mut arguments = env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("`{flag}` needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("`{flag}` needs a number"));
        match flag.as_str() {
            "--bucket" => folders.push(value()?),
            "--access-key" => access_key = value()?,
            "--secret-key" => secret_key = value()?,
            "--session-token" => builder = builder.session_token(&value()?),
            "--region" => builder = builder.region(&value()?),
            "--port" => builder = builder.port(number(value()?)?),
            "--page-size" => builder = builder.page_size(number(value()?)?.into()),
            "--part-size" => part_size = value()?.parse().ok().filter(|size| *size > 0),
            "--redirect-wrong-region" => builder = builder.redirect_wrong_region(),
            "--versioned" => builder = builder.versioned(),
            "--deny-list" => builder = builder.deny_list(),
            "--deny-get" => builder = builder.deny_get(),
            _ => return Err(format!("unknown flag `{flag}`")),
        }
    }
    for folder in folders {
        let (bucket, folder) = folder.split_once('=').ok_or("`--bucket` needs NAME=FOLDER")?;
        builder = add_folder(builder, bucket, folder, part_size)?;
    }
    if !access_key.is_empty() {
        builder = builder.credentials(&access_key, &secret_key);
    }
    let s3 = builder.try_start().map_err(|error| format!("cannot listen: {error}"))?;
    println!("AWS_ENDPOINT_URL={}", s3.url());
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn add_folder(
    mut builder: FakeS3Builder,
    bucket: &str,
    folder: &str,
    part_size: Option<u64>,
) -> Result<FakeS3Builder, String> {
    let tree = Tree::from_dir(Path::new(folder))
        .map_err(|error| format!("cannot read `{folder}`: {error}"))?;
    builder = builder.bucket(bucket);
    for (key, blob) in tree.iter() {
        let size = blob.len();
        let options = match part_size {
            Some(part) if size > part => ObjectOptions {
                checksum: Some(Checksum::Sha256),
                parts: Some((0..size.div_ceil(part)).map(|n| part.min(size - n * part)).collect()),
                composite: true,
                ..ObjectOptions::default()
            },
            _ => ObjectOptions { checksum: Some(Checksum::Crc64Nvme), ..ObjectOptions::default() },
        };
        builder = builder.object_with(bucket, key, blob.clone(), options);
    }
    Ok(builder)
}
