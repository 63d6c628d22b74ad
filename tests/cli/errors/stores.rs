//! What object stores, registries and web servers refuse, and what they do not have.

use std::process::Command;

use super::*;
use weightlift_fakes::{
    Access, Blob, FakeAzure, FakeGcs, FakeRegistry, FakeS3, FakeWeb, Fault, Rule,
};

fn s3_error(status: u16, code: &str, message: &str) -> Fault {
    let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Fault::status_with(status, &[], &body)
}

fn blob() -> Blob {
    Blob::synthetic(1_000, 1)
}

#[test]
fn s3_refuses_or_does_not_have_what_was_asked_for() {
    let s3 = FakeS3::builder()
        .object("models", "llama/w.bin", blob())
        .credentials(ACCESS_KEY, SECRET_KEY)
        .start();
    let volume = Volume::new();
    let mut page = Page::new("s3");
    page.place(s3.url(), "https://s3.example");
    page.place("127.0.0.1", "s3.example");
    page.volume(&volume);
    let fetch = |source: &str| fetch_s3(&s3, &volume, &[source]);
    let mut bare = fetch("s3://models/llama/");
    bare.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    bare.env("AWS_EC2_METADATA_DISABLED", "true");
    page.case("no credentials", 11, &mut bare);
    let mut half = fetch("s3://models/llama/");
    half.env_remove("AWS_SECRET_ACCESS_KEY").env("AWS_EC2_METADATA_DISABLED", "true");
    page.case("half of the credentials", 11, &mut half);
    let mut profile = fetch("s3://models/llama/");
    profile.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    profile.env("AWS_EC2_METADATA_DISABLED", "true");
    page.case("a profile that does not exist", 11, profile.env("AWS_PROFILE", "prod"));
    page.case("a bucket that does not exist", 10, &mut fetch("s3://modles/llama/"));
    page.case("nothing below the prefix", 10, &mut fetch("s3://models/lama/"));
    let faults = [
        (
            "expired credentials",
            11,
            s3_error(400, "ExpiredToken", "The provided token has expired."),
        ),
        (
            "a wrong secret",
            11,
            s3_error(403, "SignatureDoesNotMatch", "The signature does not match."),
        ),
        ("no permission to list", 11, s3_error(403, "AccessDenied", "Access Denied")),
        (
            "a bucket of another region",
            2,
            s3_error(301, "PermanentRedirect", "Use another endpoint."),
        ),
        (
            "a wrong clock",
            14,
            s3_error(403, "RequestTimeTooSkewed", "The difference is too large."),
        ),
    ];
    for (title, code, fault) in faults {
        s3.script(Rule::on("GET", "list-type").then(fault));
        page.case(title, code, &mut fetch("s3://models/llama/"));
        s3.clear_script();
    }
    page.compare();
}

#[test]
fn other_stores_and_registries_refuse_or_do_not_have_what_was_asked_for() {
    let volume = Volume::new();
    let mut page = Page::new("stores");
    page.volume(&volume);

    let gcs = FakeGcs::builder().object("models", "llama/w.bin", blob()).token(TOKEN).start();
    page.place(gcs.url(), "https://gcs.example");
    let source = ["gs://models/llama/"];
    page.case("a private bucket of Google", 11, &mut fetch_gs(&gcs, None, &volume, &source));
    let gcs = FakeGcs::builder().object("models", "llama/w.bin", blob()).start();
    page.place(gcs.url(), "https://gcs.example");
    let mut other = fetch_gs(&gcs, None, &volume, &["gs://models/lama/"]);
    page.case("nothing below the prefix in Google", 10, other.env("GOOGLE_SKIP_SIGNATURE", "true"));

    let azure = FakeAzure::builder(AZURE_ACCOUNT)
        .object("models", "llama/w.bin", blob())
        .key(AZURE_KEY)
        .start();
    page.place(azure.url(), "https://azure.example");
    let mut anonymous = fetch_az(&azure, &volume, &["az://models/models/llama/"]);
    page.case("a private container of Azure", 11, anonymous.env("AZURE_SKIP_SIGNATURE", "true"));

    let layers = [weightlift_fakes::Layer::file("w.bin", blob())];
    let registry = FakeRegistry::builder()
        .access(Access::user("me", PASSWORD))
        .artifact("org/tiny", "v1", &layers)
        .start();
    page.place(registry.host(), "registry.example");
    page.case("a private registry", 11, &mut fetch_oci(&registry, &volume, "org/tiny:v1", &[]));
    let registry = FakeRegistry::builder().artifact("org/tiny", "v1", &layers).start();
    page.place(registry.host(), "registry.example");
    page.case(
        "a tag that does not exist",
        10,
        &mut fetch_oci(&registry, &volume, "org/tiny:v2", &[]),
    );

    let web = FakeWeb::builder().file("llama/w.bin", blob()).start();
    page.place(web.url(), "https://web.example");
    let fetch = |source: &str| -> Command {
        let mut command = weightlift();
        command.arg("fetch").arg(format!("{}/{source}", web.url()));
        command.arg("--root").arg(volume.root());
        command
    };
    page.case("a directory without a list", 10, &mut fetch("llama/"));
    page.case("a file that does not exist", 10, &mut fetch("llama/x.gguf"));
    let wrong = format!("llama/w.bin#sha256={}", "0".repeat(64));
    page.case("a file with another digest", 12, &mut fetch(&wrong));
    page.compare();
}
