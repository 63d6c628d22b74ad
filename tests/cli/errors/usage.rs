//! What cannot be meant: arguments and variables.

use super::*;

#[test]
fn arguments_that_cannot_be_meant() {
    let mut page = Page::new("usage");
    let cases: &[(&str, &[&str])] = &[
        ("a command with a typo", &["fetsh", "hf://org/tiny"]),
        ("a flag with a typo", &["fetch", "hf://org/tiny", "--conections", "8"]),
        ("no SOURCE", &["fetch"]),
        ("a SOURCE without a scheme", &["fetch", "org/tiny"]),
        ("a SOURCE with an unknown scheme", &["fetch", "ftp://org/tiny"]),
        ("a SOURCE that is a page of the Hub", &["fetch", "https://huggingface.co/org/tiny"]),
        ("a file in the place of a repo", &["fetch", "hf://org/tiny/model.gguf"]),
        ("a bucket without a name", &["fetch", "s3:///llama/"]),
        ("a DEST that leaves the root", &["fetch", "hf://org/tiny", "../other"]),
        ("a DEST twice", &["fetch", "hf://org/a", "x", "hf://org/b", "x"]),
        ("a size without a unit", &["fetch", "hf://org/tiny", "--chunk-size", "64Q"]),
        ("a duration without a unit", &["fetch", "hf://org/tiny", "--deadline", "soon"]),
        ("a rate that is no rate", &["fetch", "hf://org/tiny", "--bandwidth", "2G"]),
        ("a number of connections that is none", &["fetch", "hf://org/tiny", "--connections", "0"]),
        (
            "a value that is not one of the possible ones",
            &["fetch", "hf://org/tiny", "--output", "yaml"],
        ),
        (
            "flags that contradict each other",
            &["fetch", "hf://org/tiny", "--layout", "hf-cache", "--replace"],
        ),
        (
            "a cache, and a SOURCE that is no repo",
            &["fetch", "s3://models/tiny/", "--layout", "hf-cache"],
        ),
        (
            "a lowest rate above the bandwidth",
            &["fetch", "hf://org/tiny", "--bandwidth", "1MB", "--min-rate", "2MB"],
        ),
        ("a value that is missing", &["fetch", "hf://org/tiny", "--output"]),
        ("a number that is a word", &["fetch", "hf://org/tiny", "--connections", "many"]),
        ("a switch that is a word", &["fetch", "hf://org/tiny", "--all=perhaps"]),
        ("a flag twice", &["fetch", "hf://org/tiny", "--connections", "8", "--connections", "9"]),
        ("no PATH", &["verify"]),
        ("a PATH too many", &["list", "/data/models"]),
        ("a SOURCE without its DEST", &["fetch", "hf://org/a", "x", "hf://org/b"]),
        ("a SOURCE and a models file", &["fetch", "hf://org/a", "--models", "models.yaml"]),
        ("a models file and a lock file", &["fetch", "--models", "a.yaml", "--locked", "a.lock"]),
        ("a SOURCE to check", &["mirror", "--check", "hf://org/a", "s3://models/a/"]),
        ("a mirror of nothing", &["mirror", "s3://models/a/"]),
        ("a mirror onto itself", &["mirror", "s3://models/a/", "s3://models/a/"]),
        (
            "a mirror to something else than a bucket",
            &["mirror", "hf://org/tiny", "/data/models/tiny"],
        ),
    ];
    for (title, arguments) in cases {
        page.case(title, 2, weightlift().args(*arguments));
    }
    page.case(
        "a proxy variable that is no URL",
        2,
        weightlift().args(["fetch", "hf://org/tiny"]).env("HTTPS_PROXY", "proxy.example:none"),
    );
    page.case(
        "an endpoint of the Hub that is no URL",
        2,
        weightlift().args(["fetch", "hf://org/tiny"]).env("HF_ENDPOINT", "hub.example"),
    );
    page.case(
        "an endpoint of S3 with a user",
        2,
        weightlift()
            .args(["fetch", "s3://models/tiny/"])
            .env("AWS_ENDPOINT_URL", "https://user:password@s3.example"),
    );
    page.compare();
}
