//! What the engine relies on, asked of every source.

use std::ops::Range;

use crate::support::{ACCESS_KEY, REPO, SECRET_KEY};
use weightlift::content::Source;
use weightlift::model::{RemoteFile, SourceUri};
use weightlift::net::SourceError;
use weightlift::net::http::{Deadlines, Http};
use weightlift::source::{
    Hub, HubSettings, Mirrors, ModelScope, Oci, OciSettings, Place, Published, S3, S3Settings,
    SourceSettings, Xet, emulated_az, emulated_gs,
};
use weightlift_fakes::{
    Blob, FakeAzure, FakeGcs, FakeHub, FakeModelScope, FakeRegistry, FakeS3, FakeWeb, Fault,
    ObjectOptions, Rule, Tree,
};

const BIG: u64 = 300_000;

fn tree() -> Tree {
    Tree::new()
        .with("config.json", "{}")
        .with("empty", "")
        .with("sub/dir/we ird+a%[1]é#?.json", "odd")
        .with_blob("big.bin", Blob::synthetic(BIG, 5))
}

/// Scripts faults for the next read of the large file.
type Script = Box<dyn Fn(&[Fault])>;

/// A source over `tree()`, a way to script faults for its bytes, which a disk has none of, and what keeps
/// it alive.
struct Subject {
    source: Box<dyn Source>,
    http: Http,
    script: Option<Script>,
}

fn http() -> Http {
    let deadlines = Deadlines { stall: std::time::Duration::from_secs(1), ..Deadlines::default() };
    Http::new(deadlines).unwrap()
}

fn hub() -> Subject {
    let hub = FakeHub::serving(REPO, tree());
    let SourceUri::Hub(repo) = SourceUri::parse("hf://org/tiny").unwrap() else { panic!() };
    let http = http();
    let settings = HubSettings::new(&hub.url(), None).unwrap();
    let source = Box::new(Hub::new(repo, settings, http.clone()).unwrap());
    Subject {
        source,
        http,
        script: Some(Box::new(move |faults| {
            let rule = Rule::on("GET", "").at("cdn").once();
            hub.script(faults.iter().cloned().fold(rule, Rule::then));
        })),
    }
}

/// The chunk store of the Hub; the faults are those of the host that has the xorbs.
fn xet() -> Subject {
    let hub = FakeHub::builder().repo(REPO, tree()).lfs_threshold(1).xet().start();
    let SourceUri::Hub(repo) = SourceUri::parse("hf://org/tiny").unwrap() else { panic!() };
    let http = http();
    let settings = HubSettings::new(&hub.url(), None).unwrap();
    let source = Hub::new(repo, settings, http.clone()).unwrap();
    Subject {
        source: Box::new(Xet::new(std::sync::Arc::new(source))),
        http,
        script: Some(Box::new(move |faults| {
            let rule = Rule::on("GET", "").at("transfer").once();
            hub.script(faults.iter().cloned().fold(rule, Rule::then));
        })),
    }
}

/// A web server, with a `SHA256SUMS` or with the sentinel of `volume`.
fn web(volume: Option<&std::path::Path>) -> Subject {
    let web = match volume {
        None => FakeWeb::builder().with_sums("m", &tree()),
        Some(dir) => {
            let files = Tree::from_dir(dir).unwrap();
            let put = |web: weightlift_fakes::FakeWebBuilder, (path, blob): (&str, &Blob)| {
                web.file(&format!("m/{path}"), blob.clone())
            };
            files.iter().fold(FakeWeb::builder(), put)
        }
    };
    let (web, http) = (web.start(), http());
    let uri = SourceUri::parse(&format!("{}/m/", web.url())).unwrap();
    let source = weightlift::source::registry::open(&uri, &SourceSettings::default(), &http);
    Subject {
        source: source.unwrap(),
        http,
        script: Some(Box::new(move |faults| {
            let rule = Rule::on("GET", "big.bin").once();
            web.script(faults.iter().cloned().fold(rule, Rule::then));
        })),
    }
}

/// ModelScope; the faults are those of the storage behind it.
fn modelscope() -> Subject {
    let there = FakeModelScope::builder().model("org/tiny", tree()).lfs_threshold(1).start();
    let http = http();
    let SourceUri::ModelScope(repo) = SourceUri::parse("ms://org/tiny").unwrap() else { panic!() };
    let source = ModelScope::new(&repo, &there.url(), http.clone()).unwrap();
    Subject {
        source: Box::new(source),
        http,
        script: Some(Box::new(move |faults| {
            let rule = Rule::on("GET", "").at("storage").once();
            there.script(faults.iter().cloned().fold(rule, Rule::then));
        })),
    }
}

fn s3() -> Subject {
    s3_with(weightlift_fakes::Checksum::Crc64Nvme)
}

fn s3_with(checksum: weightlift_fakes::Checksum) -> Subject {
    let mut builder = FakeS3::builder().bucket("models").page_size(2);
    for (path, blob) in tree().iter() {
        let options = ObjectOptions { checksum: Some(checksum), ..Default::default() };
        builder = builder.object_with("models", &format!("m/{path}"), blob.clone(), options);
    }
    let s3 = builder.start();
    let SourceUri::S3(location) = SourceUri::parse("s3://models/m/").unwrap() else { panic!() };
    let http = http();
    let settings = S3Settings {
        endpoint: Some(s3.url()),
        path_style: Some(true),
        anonymous: Some(true),
        ..S3Settings::default()
    };
    let source = Box::new(S3::new(location, settings, http.clone()).unwrap());
    Subject {
        source,
        http,
        script: Some(Box::new(move |faults| {
            let rule = Rule::on("GET", "big.bin").once();
            s3.script(faults.iter().cloned().fold(rule, Rule::then));
        })),
    }
}

/// A registry; the faults are those of the store behind it.
fn oci() -> Subject {
    let registry = FakeRegistry::serving("org/tiny", "v1", &tree());
    let uri = format!("oci://{}/org/tiny:v1", registry.host());
    let SourceUri::Oci(artifact) = SourceUri::parse(&uri).unwrap() else { panic!() };
    let http = http();
    let settings = OciSettings::anonymous(&artifact, "").unwrap();
    let source = Box::new(Oci::new(artifact, settings, http.clone()).unwrap());
    Subject {
        source,
        http,
        script: Some(Box::new(move |faults| {
            let rule = Rule::on("GET", "").at("store").once();
            registry.script(faults.iter().cloned().fold(rule, Rule::then));
        })),
    }
}

fn gs() -> Subject {
    let mut builder = FakeGcs::builder().bucket("models").page_size(2);
    for (path, blob) in tree().iter() {
        builder = builder.object("models", &format!("m/{path}"), blob.clone());
    }
    let gcs = builder.start();
    let SourceUri::Gs(location) = SourceUri::parse("gs://models/m/").unwrap() else { panic!() };
    let http = http();
    let source = Box::new(emulated_gs(&location, &gcs.url(), &http).unwrap());
    Subject {
        source,
        http,
        script: Some(Box::new(move |faults| {
            let rule = Rule::on("GET", "big.bin").once();
            gcs.script(faults.iter().cloned().fold(rule, Rule::then));
        })),
    }
}

fn az() -> Subject {
    let mut builder = FakeAzure::builder("models").page_size(2);
    for (path, blob) in tree().iter() {
        builder = builder.object("weights", &format!("m/{path}"), blob.clone());
    }
    let azure = builder.start();
    let uri = SourceUri::parse("az://models/weights/m/").unwrap();
    let SourceUri::Az(location) = uri else { panic!() };
    let http = http();
    let source = Box::new(emulated_az(&location, &azure.url(), &http).unwrap());
    Subject {
        source,
        http,
        script: Some(Box::new(move |faults| {
            let rule = Rule::on("GET", "big.bin").once();
            azure.script(faults.iter().cloned().fold(rule, Rule::then));
        })),
    }
}

/// A directory that weightlift has published; `dir` lives as long as the test.
fn volume(dir: &std::path::Path) -> Subject {
    use weightlift::model::{Digest, RelPath, Selection, Sentinel, SentinelFile, Sha256};
    let tree = tree();
    let files = tree.iter().map(|(path, blob)| {
        let at = dir.join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, blob.to_vec()).unwrap();
        let digest = Digest::sha256_from_hex(&blob.sha256()).unwrap();
        let Digest::Sha256(sha256) = digest else { panic!() };
        let path = RelPath::parse(path).unwrap();
        let file = RemoteFile {
            path,
            size: blob.len(),
            digest: Some(digest),
            validator: None,
            xet_hash: None,
        };
        SentinelFile::new(&file, Sha256(sha256), file.digest.as_ref(), None)
    });
    let uri = SourceUri::parse("hf://org/tiny").unwrap();
    let (files, none) = (files.collect::<Vec<_>>(), Selection::default());
    let (name, commit) = (uri.source_name(), "0".repeat(40));
    let sentinel = Sentinel::new(&uri, name, commit, none, String::new(), files, Vec::new());
    let out = std::fs::File::create(dir.join(".weightlift-complete.json")).unwrap();
    sentinel.write(out).unwrap();
    Subject { source: Box::new(Published::new(dir)), http: http(), script: None }
}

/// The Hub, whose large file a bucket has as well; the faults are the bucket's.
fn mirrors() -> Subject {
    let (hub, s3) = (hub(), s3_with(weightlift_fakes::Checksum::Sha256));
    let place =
        |name: &str, source: Box<dyn Source>| Place { name: name.into(), source: source.into() };
    let also = vec![place("s3", s3.source)];
    let patience = std::time::Duration::from_secs(30);
    let source = Box::new(Mirrors::new(also, place("hub", hub.source), patience));
    Subject {
        source,
        http: hub.http,
        script: Some(Box::new(move |faults| {
            // Its script keeps the Hub alive.
            let _ = &hub.script;
            s3.script.as_ref().unwrap()(faults);
        })),
    }
}

fn for_each_source(check: impl AsyncFn(&str, &Subject)) {
    let _ = (ACCESS_KEY, SECRET_KEY);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, subject) in [
        ("hub", hub()),
        ("xet", xet()),
        ("s3", s3()),
        ("oci", oci()),
        ("gs", gs()),
        ("az", az()),
        ("mirrors", mirrors()),
        ("volume", volume(dir.path())),
        ("web with a sentinel", web(Some(dir.path()))),
        ("web with sums", web(None)),
        ("modelscope", modelscope()),
    ] {
        runtime.block_on(check(name, &subject));
    }
}

async fn read(
    subject: &Subject,
    file: &RemoteFile,
    range: Range<u64>,
) -> Result<Vec<u8>, SourceError> {
    let client = subject.http.client().unwrap();
    let mut body = subject.source.read(&client, file, range).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

async fn big(subject: &Subject) -> RemoteFile {
    subject.source.revision().await.unwrap();
    let files = subject.source.snapshot().await.unwrap().files;
    files.into_iter().find(|file| file.path.as_str() == "big.bin").unwrap()
}

#[test]
fn a_snapshot_lists_every_file_with_its_size_and_digest() {
    for_each_source(async |name, subject| {
        let revision = subject.source.revision().await.unwrap();
        assert_eq!(revision, subject.source.revision().await.unwrap());
        let snapshot = subject.source.snapshot().await.unwrap();
        assert_eq!(snapshot.revision, revision, "{name}");
        let tree = tree();
        assert_eq!(snapshot.files.len(), tree.len(), "{name}");
        for file in &snapshot.files {
            let blob = tree.blob(file.path.as_str()).unwrap();
            assert_eq!(file.size, blob.len(), "{name} {}", file.path);
            assert!(file.digest.is_some(), "{name} {}", file.path);
        }
    });
}

#[test]
fn every_range_of_every_file_has_the_right_bytes() {
    for_each_source(async |name, subject| {
        subject.source.revision().await.unwrap();
        for file in subject.source.snapshot().await.unwrap().files {
            let content = tree().blob(file.path.as_str()).unwrap().to_vec();
            let size = file.size;
            for range in [0..size, 0..size.min(1), size / 2..size, size.saturating_sub(1)..size] {
                if range.is_empty() {
                    continue;
                }
                let expected = &content[range.start as usize..range.end as usize];
                let found = read(subject, &file, range.clone()).await.unwrap();
                assert!(found == expected, "{name} {} {range:?}", file.path);
            }
        }
    });
}

#[test]
fn a_body_is_never_short_long_or_another_range() {
    for faults in [
        vec![Fault::CutAfter(100)],
        vec![Fault::ResetAfter(100)],
        vec![Fault::WrongRange],
        vec![Fault::NoContentRange],
        vec![Fault::ExtraBytes(10)],
        vec![Fault::ShortLength(10)],
        vec![Fault::IgnoreRange],
        vec![Fault::StallAfter(100, std::time::Duration::from_secs(30))],
        vec![Fault::WrongTotal(BIG - 1)],
        // Only the count of bytes can tell that these are not complete.
        vec![Fault::NoLength, Fault::CutAfter(100)],
    ] {
        for_each_source(async |name, subject| {
            let Some(script) = &subject.script else { return };
            let file = big(subject).await;
            // Once in order, so that any link is known.
            read(subject, &file, 10..20).await.unwrap();
            script(&faults);
            let result = read(subject, &file, 1_000..200_000).await;
            // Or another place gives what one has not.
            let expected = &tree().blob("big.bin").unwrap().to_vec()[1_000..200_000];
            // How long a xorb is nobody has told; and what has the right length is looked at by chunks.
            let is_open = matches!(faults[..], [Fault::WrongTotal(_)] | [Fault::NoContentRange]);
            let may_be = name == "mirrors" || (name == "xet" && is_open);
            let is_right = may_be && result.as_ref().is_ok_and(|it| it == expected);
            assert!(result.is_err() || is_right, "{name}: {faults:?} was not noticed");
            assert!(
                read(subject, &file, 1_000..200_000).await.is_ok(),
                "{name}: not over after {faults:?}"
            );
        });
    }
}

#[test]
fn only_what_may_pass_is_transient() {
    for (status, transient) in [(500, true), (503, true), (429, true), (408, true)] {
        for_each_source(async |name, subject| {
            let Some(script) = &subject.script else { return };
            let file = big(subject).await;
            read(subject, &file, 10..20).await.unwrap();
            script(&[Fault::status(status)]);
            match read(subject, &file, 10..20).await {
                Err(error) => {
                    assert_eq!(error.is_transient(), transient, "{name} {status}: {error}");
                }
                // Another place has given it.
                Ok(_) => assert_eq!(name, "mirrors", "{status}"),
            }
        });
    }
}
