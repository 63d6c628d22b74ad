//! Where an S3 is, who asks, what a SOURCE names there, and what a listing may look like.
//!
//! | said or answered | what happens |
//! |---|---|
//! | white space around a value, variables set to nothing | as if it were not there |
//! | control characters inside a value | exit 11 for credentials, 2 for settings, by name |
//! | an endpoint that can never work | exit 2 before any request, by the name of what says it |
//! | a bucket in the path, in the host, in the endpoint | each of them is found |
//! | another region, told in a header or in words | asked again there |
//! | a listing in a form of its own | read, as long as it has keys |
//! | a refusal | told in its own words |

use std::process::Command;

use crate::support::table::{check, row};
use crate::support::*;
use weightlift_fakes::{
    Blob, FakeS3, FakeS3Builder, Fault, Logged, OldListing, Response, Rule, Server, Tree,
};

fn model() -> Tree {
    Tree::new().with("a.json", "{}").with("sub/b.json", "[]")
}

/// A bucket `models` with the model below `p/`, which checks every signature.
fn builder() -> FakeS3Builder {
    unsigned().credentials(ACCESS_KEY, SECRET_KEY)
}

fn unsigned() -> FakeS3Builder {
    model().iter().fold(FakeS3::builder().bucket("models"), |builder, (path, blob)| {
        builder.object("models", &format!("p/{path}"), blob.clone())
    })
}

/// A fetch without a flag for S3, with credentials in variables.
fn fetch(volume: &Volume, source: &str) -> Command {
    let mut command = weightlift();
    command.args(["fetch", source, "m", "--root"]).arg(volume.root());
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command.env("AWS_REGION", "us-east-1").env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "5s");
    command
}

/// The same at the endpoint of `s3`.
fn fetch_at(s3: &FakeS3, volume: &Volume, source: &str) -> Command {
    let mut command = fetch(volume, source);
    command.env("AWS_ENDPOINT_URL_S3", s3.url());
    command
}

/// The same without credentials in variables.
fn bare(s3: &FakeS3, volume: &Volume) -> Command {
    let mut command = fetch_at(s3, volume, "s3://models/p/");
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command
}

#[track_caller]
fn assert_fetched(command: &mut Command, volume: &Volume) -> Run {
    let run = command.run().assert_success();
    volume.assert_holds("m", &model());
    run
}

fn is_signed(request: &Logged) -> bool {
    request.header("authorization").is_some() || request.target.contains("X-Amz-Signature")
}

fn error_xml(code: &str, message: &str, more: &str) -> String {
    format!("<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>")
}

fn error(status: u16, code: &str, message: &str) -> Fault {
    let headers = [("Content-Type", "application/xml")];
    Fault::status_with(status, &headers, &error_xml(code, message, ""))
}

fn write(volume: &Volume, name: &str, text: &str) -> String {
    let path = volume.path(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_endpoint_may_have_a_path_wherever_it_is_named() {
    let rows = ["", "/", "//"].into_iter().flat_map(|end| {
        let named = |name: &'static str, set: fn(&mut Command, &Volume, &str)| {
            row(name, move || {
                let (s3, volume) = (builder().below("/gate/s3").start(), Volume::new());
                let endpoint = format!("{}/gate/s3{end}", s3.url());
                let mut command = fetch(&volume, "s3://models/p/");
                set(&mut command, &volume, &endpoint);
                assert_fetched(&mut command, &volume);
            })
        };
        [
            named("the flag", |command, _, url| _ = command.args(["--s3-endpoint", url])),
            named("its variable", |command, _, url| _ = command.env("WEIGHTLIFT_S3_ENDPOINT", url)),
            named("AWS_ENDPOINT_URL", |command, _, url| _ = command.env("AWS_ENDPOINT_URL", url)),
            named("AWS_ENDPOINT_URL_S3", |command, _, url| {
                command
                    .env("AWS_ENDPOINT_URL_S3", url)
                    .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
            }),
            named("S3_ENDPOINT", |command, _, url| {
                let url = url.trim_start_matches("http://");
                command.env("S3_ENDPOINT", url).env("S3_USE_HTTPS", "0");
            }),
            named("the profile", |command, volume, url| {
                let config = format!("[default]\nendpoint_url = {url}\n");
                command.env("AWS_CONFIG_FILE", write(volume, "config", &config));
            }),
            named("the services of a profile", |command, volume, url| {
                let config = format!(
                    "[profile x]\nservices = here\nendpoint_url = http://127.0.0.1:1\n\
                     [services here]\ns3 =\n  endpoint_url = {url}\n"
                );
                command.env("AWS_CONFIG_FILE", write(volume, "config", &config));
                command.env("AWS_PROFILE", "x");
            }),
        ]
    });
    check(rows);
}

#[test]
fn white_space_around_a_value_is_cut_off() {
    let rows =
        [("\n", "\n"), ("\u{feff}", "\r\n"), (" \t", " ")].into_iter().map(|(left, right)| {
            row("white space", move || {
                let s3 = builder().session_token("sessionCANARY").start();
                let around = |text: &str| format!("{left}{text}{right}");
                let volume = Volume::new();
                let mut command = fetch(&volume, "s3://models/p/");
                for (name, value) in [
                    ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
                    ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
                    ("AWS_SESSION_TOKEN", "sessionCANARY"),
                    ("AWS_REGION", "us-east-1"),
                    ("AWS_ENDPOINT_URL", &s3.url()),
                ] {
                    command.env(name, around(value));
                }
                assert_fetched(&mut command, &volume);

                // The same in a profile, whose file begins with the mark of UTF-8.
                let volume = Volume::new();
                let profile = format!(
                    "\u{feff}[models]\r\naws_access_key_id = {ACCESS_KEY} \r\n\
                 aws_secret_access_key = {SECRET_KEY}\t\r\naws_session_token= sessionCANARY \r\n\
                 region = us-east-1 \r\n"
                );
                let mut command = bare(&s3, &volume);
                command.env("AWS_SHARED_CREDENTIALS_FILE", write(&volume, "credentials", &profile));
                command.env("AWS_PROFILE", around("models")).env_remove("AWS_REGION");
                assert_fetched(&mut command, &volume);
            })
        });
    check(rows);
}

#[test]
fn what_stands_inside_a_value_is_refused_by_the_name_of_its_variable() {
    let mut rows = Vec::new();
    for inside in ["a\nb", "a\u{1b}b", "a\u{1}b", "a\u{feff}b"] {
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            rows.push((name, inside, 11));
        }
    }
    for inside in ["a\nb", "a\u{1b}b"] {
        for name in [
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
            "AWS_PROFILE",
            "AWS_ENDPOINT_URL",
            "AWS_ENDPOINT_URL_S3",
            "AWS_ENDPOINT_URL_STS",
            "AWS_ROLE_ARN",
            "AWS_CONFIG_FILE",
            "AWS_EXECUTION_ENV",
        ] {
            rows.push((name, inside, 2));
        }
    }
    rows.push(("AWS_EXECUTION_ENV", "x\n", 2));
    rows.push(("AWS_REGION", "evil.example/", 2));
    check(rows.into_iter().map(|(name, value, code)| {
        row(name, move || {
            let (s3, volume) = (builder().start(), Volume::new());
            let mut command = fetch(&volume, "s3://models/p/");
            if name != "AWS_REGION" {
                command.env("AWS_ENDPOINT_URL", s3.url());
            }
            let run = command.env(name, value).run().assert_code(code);
            assert!(run.last_line().contains(name), "{}", run.stderr);
            assert!(!run.stderr.contains("panic"), "{}", run.stderr);
            assert_eq!(s3.requests().len(), 0);
        })
    }));
}

#[test]
fn secrets_of_a_profile_that_cannot_be_sent_are_an_access_error() {
    let (s3, volume) = (builder().start(), Volume::new());
    let profile = format!(
        "[default]\naws_access_key_id = AKID\u{1}X\naws_secret_access_key = {SECRET_KEY}\n"
    );
    let mut command = bare(&s3, &volume);
    command.env("AWS_SHARED_CREDENTIALS_FILE", write(&volume, "credentials", &profile));
    command.run().assert_code(11).assert_says("control characters");
    let config = "[default]\nregion = eu\u{1}west\n";
    let mut command = fetch_at(&s3, &volume, "s3://models/p/");
    command.env("AWS_CONFIG_FILE", write(&volume, "config", config)).env_remove("AWS_REGION");
    command.run().assert_code(2).assert_says("`region` of profile `default`");
}

#[test]
fn variables_that_are_set_to_nothing_are_not_set() {
    const OTHERS: [&str; 37] = [
        "AWS_SESSION_TOKEN",
        "AWS_SECURITY_TOKEN",
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_STS",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
        "AWS_MAX_ATTEMPTS",
        "AWS_RETRY_MODE",
        "AWS_USE_FIPS_ENDPOINT",
        "AWS_USE_DUALSTACK_ENDPOINT",
        "AWS_STS_REGIONAL_ENDPOINTS",
        "AWS_CA_BUNDLE",
        "AWS_NO_SIGN_REQUEST",
        "AWS_SDK_UA_APP_ID",
        "AWS_REQUEST_CHECKSUM_CALCULATION",
        "awsAnonymousCredential",
        "S3_ENDPOINT",
        "S3_USE_HTTPS",
        "S3_VERIFY_SSL",
        "S3_USER_VIRTUAL_BUCKET",
        "SSL_CERT_FILE",
        "WEIGHTLIFT_S3_PATH_STYLE",
    ];
    check(["", " ", " \n"].into_iter().map(|nothing| {
        row("nothing", move || {
            let (s3, volume) = (builder().start(), Volume::new());
            let mut command = fetch_at(&s3, &volume, "s3://models/p/");
            for name in OTHERS {
                command.env(name, nothing);
            }
            assert_fetched(&mut command, &volume);

            // With a key id that is empty the profile is asked, and so on to the agent of the pod.
            let (s3, volume) = (builder().session_token("t").start(), Volume::new());
            let agent = agent("pod-token");
            let mut command = fetch_at(&s3, &volume, "s3://models/p/");
            command.env("AWS_ACCESS_KEY_ID", nothing).env("AWS_SECRET_ACCESS_KEY", nothing);
            for name in ["AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"] {
                command.env(name, nothing);
            }
            command.env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", nothing);
            command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/c\n", agent.url()));
            command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", nothing);
            command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod-token\n");
            assert_fetched(&mut command, &volume);
        })
    }));
}

/// The agent of Pod Identity, which gives the usual credentials for one token.
fn agent(token: &'static str) -> Server {
    Server::start(move |request| {
        if request.header("authorization") != Some(token) {
            return Response::text(401, "no");
        }
        let credentials = serde_json::json!({
            "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": "t\n",
            "Expiration": "2099-01-01T00:00:00Z",
        });
        Response::json(200, &credentials)
    })
}

#[test]
fn token_files_may_end_in_a_line_end() {
    let s3 = builder().session_token("t").start();
    let (volume, agent) = (Volume::new(), agent("pod-token"));
    let mut command = bare(&s3, &volume);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/c", agent.url()));
    let token = write(&volume, "token", "pod-token\r\n");
    command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", format!("{token}\n"));
    assert_fetched(&mut command, &volume);

    let sts = Server::start(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if !body.split('&').any(|pair| pair == "WebIdentityToken=the-jwt") {
            return Response::text(400, "no");
        }
        Response::text(
            200,
            &format!(
                "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                 <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{ACCESS_KEY}</AccessKeyId>\
                 <SecretAccessKey>{SECRET_KEY}</SecretAccessKey><SessionToken>t</SessionToken>\
                 <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
                 <AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn><AssumedRoleId>x:s</AssumedRoleId>\
                 </AssumedRoleUser></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            ),
        )
        .header("Content-Type", "text/xml")
    });
    let volume = Volume::new();
    let token = write(&volume, "token", "the-jwt\n");
    let mut command = bare(&s3, &volume);
    command
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", &token)
        .env("AWS_ROLE_ARN", " arn:aws:iam::1:role/r\n");
    assert_fetched(command.env("AWS_ENDPOINT_URL_STS", format!("{}\n", sts.url())), &volume);

    // By a profile.
    let volume = Volume::new();
    let token = write(&volume, "token", "the-jwt\n");
    let profile =
        format!("[default]\nrole_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = {token}\n");
    let mut command = bare(&s3, &volume);
    command.env("AWS_CONFIG_FILE", write(&volume, "config", &profile));
    assert_fetched(command.env("AWS_ENDPOINT_URL_STS", sts.url()), &volume);
}

#[test]
fn an_endpoint_that_can_never_work_is_refused_before_any_request() {
    let bad = [
        "minio:9000",
        "minio.example",
        "ftp://minio.example",
        "https://",
        "http://:9000",
        "https://user:secretCANARY@minio.example",
        "https://minio.example/?token=secretCANARY",
        "https://minio.example/#secretCANARY",
        "https://minio.example:99999",
        "https://mi nio.example",
    ];
    let named = ["--s3-endpoint", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "profile `default`"];
    check(bad.into_iter().flat_map(|bad| {
        named.into_iter().map(move |name| {
            row(bad, move || {
                let volume = Volume::new();
                let mut command = fetch(&volume, "s3://models/p/");
                match name {
                    "--s3-endpoint" => _ = command.args(["--s3-endpoint", bad]),
                    "profile `default`" => {
                        let config = format!("[default]\nendpoint_url = {bad}\n");
                        command.env("AWS_CONFIG_FILE", write(&volume, "config", &config));
                    }
                    name => _ = command.env(name, bad),
                }
                let run = command.run().assert_code(2).assert_says(name);
                assert!(!run.stderr.contains("secretCANARY"), "{}", run.stderr);
            })
        })
    }));
    let s3 = builder().start();
    for (name, config) in [
        ("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint = true"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint = true"),
    ] {
        let volume = Volume::new();
        fetch_at(&s3, &volume, "s3://models/p/")
            .env(name, "true")
            .run()
            .assert_code(2)
            .assert_says(name);
        let config = write(&volume, "config", &format!("[default]\n{config}\n"));
        let mut command = fetch_at(&s3, &volume, "s3://models/p/");
        command
            .env("AWS_CONFIG_FILE", config)
            .run()
            .assert_code(2)
            .assert_says("profile `default`");
    }
    let volume = Volume::new();
    let mut command = fetch(&volume, "s3://models/p/");
    command.env("AWS_REGION", "auto").run().assert_code(2).assert_says("AWS_REGION");
    let mut command = fetch_at(&s3, &volume, "s3://models/p/");
    command.args(["--s3-path-style=false"]).run().assert_code(2).assert_says("--s3-path-style");
    assert_eq!(s3.requests().len(), 0);
}

#[test]
fn a_bucket_is_named_as_the_endpoint_wants_it() {
    /// What is asked for through a proxy, which is the S3.
    fn through(s3: &FakeS3, volume: &Volume, endpoint: &str) -> Command {
        let mut command = fetch(volume, "s3://models/p/");
        command.env("AWS_ENDPOINT_URL", endpoint).env("HTTP_PROXY", s3.url());
        command
    }
    type Change = fn(&mut Command);
    let none: Change = |_| {};
    let in_host: [(&str, &str, Change); 5] = [
        ("the host names the bucket", "http://models.s3.example.com", none),
        ("the flag says so", "http://s3.example.com:81", |command| {
            command.arg("--s3-path-style=false");
        }),
        ("the variable says so", "http://s3.example.com", |command| {
            command.env("WEIGHTLIFT_S3_PATH_STYLE", "false");
        }),
        ("KServe says so", "http://s3.example.com", |command| {
            command.env("S3_USER_VIRTUAL_BUCKET", "true");
        }),
        ("both say so", "http://models.s3.example.com/", |command| {
            command.arg("--s3-path-style=false");
        }),
    ];
    let in_path: [(&str, &str, Change); 5] = [
        ("nothing is said", "http://s3.example.com", none),
        (
            "a service of the cluster that is called like the bucket",
            "http://models.storage.svc:9000",
            none,
        ),
        ("a name that only begins like the bucket", "http://models-2.s3.example.com", none),
        ("the flag says so", "http://models.s3.example.com", |command| {
            command.arg("--s3-path-style");
        }),
        ("the flag is before the variable", "http://s3.example.com", |command| {
            command.arg("--s3-path-style=true").env("WEIGHTLIFT_S3_PATH_STYLE", "false");
        }),
    ];
    check(in_host.into_iter().map(|(name, endpoint, change)| {
        row(name, move || {
            let (s3, volume) = (builder().virtual_host("s3.example.com").start(), Volume::new());
            let mut command = through(&s3, &volume, endpoint);
            change(&mut command);
            assert_fetched(&mut command, &volume);
        })
    }));
    check(in_path.into_iter().map(|(name, endpoint, change)| {
        row(name, move || {
            let (s3, volume) = (builder().start(), Volume::new());
            let mut command = through(&s3, &volume, endpoint);
            change(&mut command);
            assert_fetched(&mut command, &volume);
        })
    }));
}

#[test]
fn a_server_that_does_not_see_the_bucket_in_its_host_is_told_apart() {
    let (s3, volume) = (builder().start(), Volume::new());
    let buckets = b"<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>";
    s3.script(Rule::on("GET", "/?list-type=2").then(Fault::status_with(
        200,
        &[("Content-Type", "application/xml")],
        std::str::from_utf8(buckets).unwrap(),
    )));
    let command = || {
        let mut command = fetch(&volume, "s3://models/p/");
        command.env("AWS_ENDPOINT_URL", "http://models.example.com").env("HTTP_PROXY", s3.url());
        command
    };
    command().run().assert_code(2).assert_says("--s3-path-style");
    s3.clear_script();
    assert_fetched(command().arg("--s3-path-style"), &volume);
}

#[test]
fn what_kserve_sets_is_read() {
    check([
        row("S3_ENDPOINT is the last to be asked", || {
            let (s3, volume) = (builder().start(), Volume::new());
            let mut command = fetch_at(&s3, &volume, "s3://models/p/");
            command.env("S3_ENDPOINT", "127.0.0.1:1").env("S3_USE_HTTPS", "0");
            assert_fetched(&mut command, &volume);
        }),
        row("anonymous credentials", || {
            for (name, value) in
                [("awsAnonymousCredential", "True"), ("AWS_NO_SIGN_REQUEST", "YES")]
            {
                let (s3, volume) = (unsigned().start(), Volume::new());
                let mut command = fetch_at(&s3, &volume, "s3://models/p/");
                assert_fetched(command.env(name, value), &volume);
                assert!(!s3.requests().iter().any(is_signed));
            }
        }),
        row("the flag is before them", || {
            let (s3, volume) = (builder().start(), Volume::new());
            let mut command = fetch_at(&s3, &volume, "s3://models/p/");
            command.env("awsAnonymousCredential", "true").arg("--s3-anonymous=false");
            assert_fetched(&mut command, &volume);
        }),
        row("S3_VERIFY_SSL means nothing without TLS", || {
            let (s3, volume) = (builder().start(), Volume::new());
            let mut command = fetch_at(&s3, &volume, "s3://models/p/");
            let run = assert_fetched(command.env("S3_VERIFY_SSL", "0"), &volume);
            assert!(!run.stderr.contains("S3_VERIFY_SSL"), "{}", run.stderr);
        }),
        row("all that the webhook makes of a Secret's annotations", || {
            // MinIO: an endpoint without a scheme, and everything else said or left empty.
            for (said, is_signed_for) in [("false", true), ("", true), ("true", false)] {
                let s3 = if is_signed_for { builder().start() } else { unsigned().start() };
                let volume = Volume::new();
                let host = s3.url().strip_prefix("http://").unwrap().to_owned();
                let mut command = weightlift();
                command.args(["fetch", "s3://models/p/"]).arg(volume.family("m"));
                command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY);
                command.env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
                command.env("S3_ENDPOINT", &host).env("AWS_ENDPOINT_URL", s3.url());
                command.env("S3_USE_HTTPS", "0").env("AWS_DEFAULT_REGION", "us-east-1");
                command.env("awsAnonymousCredential", said).env("S3_VERIFY_SSL", "0");
                command.env("S3_USER_VIRTUAL_BUCKET", if said.is_empty() { "" } else { "false" });
                command.env("S3_USE_ACCELERATE", if said.is_empty() { "" } else { "false" });
                command.env("AWS_CA_BUNDLE", "").env("CA_BUNDLE_CONFIGMAP_NAME", "");
                let run = assert_fetched(&mut command, &volume);
                assert!(!run.stderr.contains("honoured"), "{}", run.stderr);
                assert_eq!(s3.requests().iter().all(is_signed), is_signed_for);
                // Older ones do not set AWS_ENDPOINT_URL.
                let (again, mut old) = (Volume::new(), weightlift());
                old.args(["fetch", "s3://models/p/"]).arg(again.family("m"));
                let all = command.get_envs().filter(|(name, _)| *name != "AWS_ENDPOINT_URL");
                old.envs(all.filter_map(|(name, value)| Some((name, value?))));
                assert_fetched(&mut old, &again);
            }
        }),
        row("several pairs below one mount, as for several storageUris", || {
            let (s3, volume) = (builder().start(), Volume::new());
            let mount = volume.root();
            std::fs::create_dir(&mount).unwrap();
            let mut command = weightlift();
            let [base, adapter] = ["base", "adapters/one"].map(|name| mount.join(name));
            command.args(["fetch", "s3://models/p/"]).arg(&base).arg("s3://models/p/");
            command.arg(&adapter).env("AWS_ENDPOINT_URL", s3.url());
            command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY);
            command.env("AWS_SECRET_ACCESS_KEY", SECRET_KEY).env("AWS_REGION", "us-east-1");
            let run = command.run().assert_success();
            assert_eq!(run.stdout, format!("{}\n{}\n", base.display(), adapter.display()));
            assert_tree(&base, &model());
            assert_tree(&adapter, &model());
        }),
        row("the authorities that a cluster mounts", || {
            if !has("openssl") {
                return;
            }
            let (s3, volume) = (builder().start(), Volume::new());
            let authority = tls::Authority::new("private");
            let port = s3.url().rsplit(':').next().unwrap().parse().unwrap();
            let config = authority.certify("IP:127.0.0.1", 2024, 2099);
            let front = tls::Front::start(config, port, |_| tls::Handshake::Done);
            let mount = volume.path("custom-certs");
            std::fs::create_dir(&mount).unwrap();
            let command = || {
                let mut command = fetch(&volume, "s3://models/p/");
                command.env("AWS_ENDPOINT_URL", front.url());
                command.env("CA_BUNDLE_VOLUME_MOUNT_POINT", &mount);
                command
            };
            let named = || {
                let mut command = command();
                command.env("CA_BUNDLE_CONFIGMAP_NAME", "odh-kserve-custom-ca-bundle");
                command
            };
            let run = named().run().assert_code(2);
            assert!(run.stderr.contains("CA_BUNDLE_VOLUME_MOUNT_POINT"), "{}", run.stderr);
            std::fs::copy(authority.path(), mount.join("cabundle.crt")).unwrap();
            command().run().assert_code(14);
            assert_fetched(&mut named(), &volume);
        }),
        row("certificates are verified, and AWS_CA_BUNDLE adds to those who sign them", || {
            if !has("openssl") {
                return;
            }
            let (s3, volume) = (builder().start(), Volume::new());
            let authority = tls::Authority::new("private");
            let port = s3.url().rsplit(':').next().unwrap().parse().unwrap();
            let config = authority.certify("IP:127.0.0.1", 2024, 2099);
            let front = tls::Front::start(config, port, |_| tls::Handshake::Done);
            let command = || {
                let mut command = fetch(&volume, "s3://models/p/");
                command.env("AWS_ENDPOINT_URL", front.url()).env("S3_VERIFY_SSL", "0");
                command
            };
            let run = command().run().assert_code(14);
            assert!(run.stderr.contains("S3_VERIFY_SSL=0 is ignored"), "{}", run.stderr);
            assert_fetched(command().env("AWS_CA_BUNDLE", authority.path()), &volume);
        }),
    ]);
}

#[test]
fn a_region_is_learned_from_a_header_or_from_words() {
    /// Everything that is signed for another region than this one is answered `wrong`; HEAD without
    /// a body, and in the second case without the header as well.
    fn wrong(status: u16, code: &str, message: &str, more: &str) -> Response {
        let body = error_xml(code, message, more);
        Response::new(status).header("Content-Type", "application/xml").body(body.into_bytes())
    }
    let malformed = "The authorization header is malformed; the region 'us-east-1' is wrong; \
                     expecting 'eu-west-1'";
    let illegal = "The eu-west-1 location constraint is incompatible for the region specific \
                   endpoint this request was sent to.";
    let answers: [(&str, u16, &str, &str, &str); 6] = [
        ("a header", 301, "PermanentRedirect", "", "header"),
        ("an element", 400, "AuthorizationHeaderMalformed", "", "<Region>eu-west-1</Region>"),
        ("a message", 400, "AuthorizationHeaderMalformed", malformed, ""),
        ("a message of 403", 403, "AuthorizationHeaderMalformed", malformed, ""),
        ("a location", 400, "IllegalLocationConstraintException", illegal, ""),
        (
            "an endpoint",
            301,
            "PermanentRedirect",
            "",
            "<Endpoint>models.s3.eu-west-1.amazonaws.com</Endpoint>",
        ),
    ];
    check(answers.into_iter().flat_map(|(name, status, code, message, more)| {
        ["s3://models/p/", "s3://models/p/a.json"].into_iter().map(move |source| {
            row(name, move || {
                let (s3, volume) = (unsigned().region("eu-west-1").start(), Volume::new());
                let upstream = s3.url();
                let gate = Server::start(move |request| {
                    let signed_for = |region: &str| {
                        request.header("authorization").is_some_and(|it| it.contains(region))
                            || request.query.contains(region)
                    };
                    if signed_for("eu-west-1") {
                        return forward(&upstream, request);
                    }
                    if more == "header" {
                        let answer =
                            Response::new(status).header("x-amz-bucket-region", "eu-west-1");
                        return answer.header("Content-Type", "application/xml");
                    }
                    wrong(status, code, message, more)
                });
                let mut command = fetch(&volume, source);
                command.env("AWS_ENDPOINT_URL", gate.url()).run().assert_success();
                assert!(volume.family("m/a.json").exists());
            })
        })
    }));
}

/// The answer of another server to the same request.
fn forward(upstream: &str, request: &weightlift_fakes::Request) -> Response {
    use std::io::{Read, Write};
    let address = upstream.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "{} {} HTTP/1.1\r\n", request.method, request.target()).unwrap();
    for (name, value) in &request.headers {
        write!(stream, "{name}: {value}\r\n").unwrap();
    }
    write!(stream, "Connection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let is_head = request.method == "HEAD";
    let response = headers.fold(Response::new(status), |response, (name, value)| {
        let of_body = matches!(name.to_ascii_lowercase().as_str(), "content-length" | "connection");
        if of_body && !is_head { response } else { response.header(name, value) }
    });
    if is_head { response } else { response.body(answer[end + 4..].to_vec()) }
}

#[test]
fn only_a_404_proves_that_an_object_is_not_there() {
    check([
        row("a refusal of HEAD, and not of the object", || {
            for status in [400, 403, 405, 501] {
                let (s3, volume) = (builder().start(), Volume::new());
                s3.script(Rule::on("HEAD", "").once().then(Fault::status(status)));
                let run = fetch_at(&s3, &volume, "s3://models/p/a.json").run();
                assert_eq!(run.code, 0, "{status}: {}", run.stderr);
                volume.assert_holds("m", &Tree::new().with("a.json", "{}"));
            }
        }),
        row("an object that may not be read", || {
            let (s3, volume) = (builder().start(), Volume::new());
            s3.script(Rule::on("*", "/models/p/a.json").then(error(403, "AccessDenied", "no")));
            let run = fetch_at(&s3, &volume, "s3://models/p/a.json").run().assert_code(11);
            assert!(run.last_line().contains("probably `s3:GetObject`"), "{}", run.stderr);
        }),
        row("a prefix, where no key of this name may be read", || {
            let (s3, volume) = (builder().start(), Volume::new());
            s3.script(Rule::on("*", "/models/p?").then(error(403, "AccessDenied", "no")));
            s3.script(Rule::on("HEAD", "/models/p").once().then(Fault::status(403)));
            assert_fetched(&mut fetch_at(&s3, &volume, "s3://models/p"), &volume);
        }),
        row("a key that is neither", || {
            let (s3, volume) = (builder().start(), Volume::new());
            fetch_at(&s3, &volume, "s3://models/q").run().assert_code(10);
        }),
    ]);
}

#[test]
fn an_object_and_a_prefix_of_one_name() {
    let with = |content: &str| builder().object("models", "p", Blob::bytes(content)).start();
    let (s3, volume) = (with(""), Volume::new());
    assert_fetched(&mut fetch_at(&s3, &volume, "s3://models/p"), &volume);
    let (s3, volume) = (with("x"), Volume::new());
    let run = fetch_at(&s3, &volume, "s3://models/p").run().assert_code(16);
    assert!(run.last_line().contains("`p`") && run.last_line().contains("`p/`"), "{}", run.stderr);
    assert!(run.last_line().contains("trailing slash"), "{}", run.stderr);
    assert_fetched(&mut fetch_at(&s3, &volume, "s3://models/p/"), &volume);
    // A marker alone is no prefix, and an empty object alone is an object.
    let s3 = builder()
        .object("models", "q", Blob::bytes("x"))
        .object("models", "q/", Blob::bytes(""))
        .object("models", "e", Blob::bytes(""))
        .start();
    for (source, content) in [("q", "x"), ("e", "")] {
        let volume = Volume::new();
        fetch_at(&s3, &volume, &format!("s3://models/{source}")).run().assert_success();
        volume.assert_holds("m", &Tree::new().with(source, content));
    }
    // Who may read the object, and not list.
    let s3 = builder().object("models", "q", Blob::bytes("x")).deny_list().start();
    let volume = Volume::new();
    fetch_at(&s3, &volume, "s3://models/q").run().assert_success();
}

#[test]
fn keys_that_are_nothing_of_a_model_are_skipped_and_that_is_said() {
    let keys = [
        ("p/sub/", "11 of bytes", "name of a directory"),
        ("p/", "eleven", "name of a directory"),
        ("p//x", "x", "`//`"),
        ("p/sub//x", "x", "`//`"),
        ("p//", "x", "name of a directory"),
        ("p/.weightlift/attempts/1/x", "x", "working files"),
        ("p/.weightlift/locks/a", "", "working files"),
        ("p/sub/.weightlift-complete.json", "{}", "working files"),
    ];
    check(keys.into_iter().map(|(key, content, said)| {
        row(key, move || {
            let s3 = builder().object("models", key, Blob::bytes(content)).start();
            let volume = Volume::new();
            let run = assert_fetched(&mut fetch_at(&s3, &volume, "s3://models/p/"), &volume);
            let line = run.stderr.lines().find(|line| line.contains(said));
            let line = line.unwrap_or_else(|| panic!("not said: {}", run.stderr));
            assert!(line.contains("skipped"), "{line}");
        })
    }));
    // What leaves the directory is judged, if it is selected.
    for key in ["p/../x", "p/a\\b", "p/a\nb", "p/./x"] {
        let s3 = builder().object("models", key, Blob::bytes("x")).start();
        let volume = Volume::new();
        fetch_at(&s3, &volume, "s3://models/p/").run().assert_code(13);
        let mut command = fetch_at(&s3, &volume, "s3://models/p/");
        command.args(["--include", "*.json"]);
        assert_fetched(&mut command, &volume);
    }
}

/// A page of a listing with `a.json` and `sub/b.json`, written as `contents` writes an object.
fn page(head: &str, contents: impl Fn(&str, &str, usize) -> String) -> Fault {
    let s3 = builder().start();
    let objects: String = model()
        .iter()
        .map(|(path, blob)| {
            let key = format!("p/{path}");
            let etag = s3.etag("models", &key).unwrap();
            contents(&key, &etag, blob.to_vec().len())
        })
        .collect();
    Fault::ReplaceBody(format!("<?xml version=\"1.0\"?>{head}{objects}</ListBucketResult>").into())
}

#[test]
fn a_listing_is_read_in_whatever_form_it_comes() {
    const HEAD: &str = "<ListBucketResult>";
    fn usual(key: &str, etag: &str, size: usize) -> String {
        format!("<Contents><Key>{key}</Key><ETag>{etag}</ETag><Size>{size}</Size></Contents>")
    }
    let twice = |key: &str, etag: &str, size: usize| usual(key, etag, size).repeat(2);
    let dated = |date: &'static str| {
        move |key: &str, etag: &str, size: usize| {
            usual(key, etag, size)
                .replace("<Key>", &format!("<LastModified>{date}</LastModified><Key>"))
        }
    };
    let odd = |key: &str, etag: &str, size: usize| {
        usual(key, etag, size).replace(
            "<Key>",
            "<Owner><ID>x</ID><Key>no</Key></Owner><StorageClass>NEW</StorageClass>\
             <RestoreStatus><IsRestoreInProgress>maybe</IsRestoreInProgress></RestoreStatus><Key>",
        )
    };
    let unsized_object = |key: &str, etag: &str, _: usize| {
        format!("<Contents><Key>{key}</Key><ETag>{etag}</ETag></Contents>")
    };
    let unquoted = |key: &str, etag: &str, size: usize| usual(key, etag.trim_matches('"'), size);
    let encoded = |key: &str, etag: &str, size: usize| usual(&key.replace('/', "%2F"), etag, size);
    let namespaced = |key: &str, etag: &str, size: usize| usual(key, etag, size);
    let rows = [
        ("the same twice", page(HEAD, twice)),
        ("a date in seconds", page(HEAD, dated("1700000000"))),
        ("a date as in mail", page(HEAD, dated("Mon, 01 Jan 2024 00:00:00 GMT"))),
        ("a date of a database", page(HEAD, dated("2024-01-01 00:00:00"))),
        ("a date that is empty", page(HEAD, dated(""))),
        ("a date without a zone", page(HEAD, dated("2024-01-01T00:00:00"))),
        ("what nobody needs", page(HEAD, odd)),
        ("no size", page(HEAD, unsized_object)),
        ("ETags without quotes", page(HEAD, unquoted)),
        ("keys that are encoded, which is not said", page(HEAD, encoded)),
        (
            "keys that are encoded, which is said",
            page("<ListBucketResult><EncodingType>url</EncodingType>", encoded),
        ),
        (
            "keys that are not encoded, which is said",
            page("<ListBucketResult><EncodingType>url</EncodingType>", usual),
        ),
        (
            "a count that is wrong",
            page("<ListBucketResult><KeyCount>77</KeyCount><MaxKeys>x</MaxKeys>", usual),
        ),
        (
            "another namespace",
            page("<ListBucketResult xmlns=\"http://doc.s3.amazonaws.com/2006-03-01\">", namespaced),
        ),
        (
            "a token that is empty",
            page(
                "<ListBucketResult><IsTruncated>False</IsTruncated>\
                 <NextContinuationToken></NextContinuationToken>",
                usual,
            ),
        ),
    ];
    check(rows.into_iter().map(|(name, fault)| {
        row(name, move || {
            let (s3, volume) = (builder().start(), Volume::new());
            s3.script(Rule::on("GET", "list-type=2").then(fault));
            assert_fetched(&mut fetch_at(&s3, &volume, "s3://models/p/"), &volume);
        })
    }));
    let differs = |key: &str, etag: &str, size: usize| {
        usual(key, etag, size) + &usual(key, "&quot;00000000&quot;", size)
    };
    let (s3, volume) = (builder().start(), Volume::new());
    s3.script(Rule::on("GET", "list-type=2").once().then(page(HEAD, differs)));
    assert_fetched(&mut fetch_at(&s3, &volume, "s3://models/p/"), &volume);
    s3.script(Rule::on("GET", "list-type=2").then(page(HEAD, differs)));
    let mut command = fetch_at(&s3, &Volume::new(), "s3://models/p/");
    command.run().assert_code(20).assert_says("twice");
}

#[test]
fn a_server_that_lists_in_the_older_way_is_understood() {
    let ways = [400, 405, 501].map(OldListing::Refuses).into_iter().chain([OldListing::Ignores]);
    check(ways.map(|way| {
        row("the older way", move || {
            let tree =
                (0..25).fold(Tree::new(), |tree, n| tree.with(&format!("d/f {n}.json"), "{}"));
            let builder = FakeS3::builder().bucket("models").page_size(4).old_listing(way);
            let s3 = tree.iter().fold(builder, |builder, (path, blob)| {
                builder.object("models", &format!("p/{path}"), blob.clone())
            });
            let (s3, volume) = (s3.start(), Volume::new());
            fetch_at(&s3, &volume, "s3://models/p/").run().assert_success();
            volume.assert_holds("m", &tree);
            let asked_in_the_newer_way = s3.count("GET", "list-type=2");
            assert_eq!(asked_in_the_newer_way, 1, "once");
        })
    }));
    // A no that is about something else is told as it was.
    let (s3, volume) = (builder().start(), Volume::new());
    s3.script(Rule::on("GET", "prefix=p/").then(error(400, "InvalidBucketName", "odd")));
    fetch_at(&s3, &volume, "s3://models/p/").run().assert_code(11).assert_says("InvalidBucketName");
}

#[test]
fn a_source_may_hold_spaces_and_name_an_access_point() {
    let s3 = builder()
        .object("models", "my models/Llama 3/a b+c%.json", Blob::bytes("{}"))
        .object("models", "my models/one two.json", Blob::bytes("[]"))
        .start();
    let volume = Volume::new();
    fetch_at(&s3, &volume, "s3://models/my models/Llama 3/").run().assert_success();
    volume.assert_holds("m", &Tree::new().with("a b+c%.json", "{}"));
    let volume = Volume::new();
    fetch_at(&s3, &volume, "s3://models/my models/one two.json").run().assert_success();
    volume.assert_holds("m", &Tree::new().with("one two.json", "[]"));
    for source in
        ["s3://models/a\nb/", "s3://models/a\u{1b}b/", "s3://mod els/a/", "s3://models/a/\n"]
    {
        fetch_at(&s3, &volume, source).run().assert_code(2);
    }

    // An access point has a host of its own, and its region in its name.
    let point = "arn:aws:s3:eu-west-1:123456789012:accesspoint";
    for source in [format!("s3://{point}/point/p/"), format!("s3://{point}:point/p/")] {
        let bucket = "point-123456789012";
        let s3 = model().iter().fold(FakeS3::builder().bucket(bucket), |builder, (path, blob)| {
            builder.object(bucket, &format!("p/{path}"), blob.clone())
        });
        let s3 = s3.virtual_host("s3.example.com").credentials(ACCESS_KEY, SECRET_KEY).start();
        let volume = Volume::new();
        let mut command = fetch(&volume, &source);
        command.env("AWS_ENDPOINT_URL", "http://s3.example.com").env("HTTP_PROXY", s3.url());
        assert_fetched(&mut command, &volume);
        // Warm: the same place.
        assert_fetched(&mut command, &volume);
        let requests = s3.requests();
        let signed_for_its_region = |request: &Logged| {
            request.target.contains("eu-west-1")
                || request.header("authorization").is_some_and(|it| it.contains("eu-west-1"))
        };
        assert!(requests.iter().all(signed_for_its_region), "{requests:?}");
    }
    let lambda = "s3://arn:aws:s3-object-lambda:eu-west-1:123456789012:accesspoint/name/p/";
    // Whatever lies at DEST.
    let volume = Volume::new();
    let mut command = fetch(&volume, lambda);
    command
        .env("AWS_USE_DUALSTACK_ENDPOINT", "true")
        .run()
        .assert_code(2)
        .assert_says("Dual-stack");
    // An access point is a part of the host's name, which an address has none of.
    let mut command = fetch(&volume, "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/name/p/");
    let run = command.args(["--s3-endpoint", "http://127.0.0.1:9"]).run().assert_code(2);
    assert!(run.last_line().contains("endpoint of an access point"), "{}", run.stderr);

    let many = "s3://arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap/p/";
    fetch(&volume, many).run().assert_code(2).assert_says("multi-Region access point");
}

#[test]
fn a_refusal_is_told_in_its_own_words() {
    check([
        row("403 of a listing that is no denial", || {
            let (s3, volume) = (builder().start(), Volume::new());
            s3.script(Rule::on("GET", "list-type=2").then(error(
                403,
                "QuotaExceeded",
                "Pay first",
            )));
            let run = fetch_at(&s3, &volume, "s3://models/p/").run().assert_code(11);
            assert!(run.last_line().contains("QuotaExceeded: Pay first"), "{}", run.stderr);
            assert!(!run.stderr.contains("s3:ListBucket"), "{}", run.stderr);
        }),
        row("401 of an object", || {
            let (s3, volume) = (builder().start(), Volume::new());
            s3.script(Rule::on("GET", "/p/a.json").then(error(401, "Unauthorized", "log in")));
            let run = fetch_at(&s3, &volume, "s3://models/p/").run().assert_code(11);
            assert!(run.last_line().contains("Unauthorized: log in"), "{}", run.stderr);
            assert!(!run.stderr.contains("s3:GetObject"), "{}", run.stderr);
        }),
        row("a denial says what is probably missing", || {
            let (s3, volume) = (builder().deny_list().start(), Volume::new());
            let run = fetch_at(&s3, &volume, "s3://models/p/").run().assert_code(11);
            assert!(run.last_line().contains("probably `s3:ListBucket`"), "{}", run.stderr);
        }),
        row("a HEAD without words is asked for its words", || {
            let (s3, volume) = (builder().start(), Volume::new());
            s3.script(Rule::on("*", "/models/p/a.json").then(error(403, "UserSuspended", "sorry")));
            let run = fetch_at(&s3, &volume, "s3://models/p/a.json").run().assert_code(11);
            assert!(run.last_line().contains("UserSuspended: sorry"), "{}", run.stderr);
        }),
    ]);
}

#[test]
fn credentials_that_cannot_be_used_are_named_in_plain_words() {
    let sso = "[profile x]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n\
               [sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://x.awsapps.com/start\n";
    let old_sso = "[profile x]\nsso_start_url = https://x.awsapps.com/start\nsso_region = eu-west-1\n\
                   sso_account_id = 1\nsso_role_name = r\n";
    let through = format!(
        "[profile x]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = y\n{}",
        sso.replace("[profile x]", "[profile y]")
    );
    let profiles: [(&str, String, &[&str]); 7] = [
        ("SSO", sso.into(), &["profile `x`", "SSO (IAM Identity Center)", "cannot use"]),
        ("SSO of before", old_sso.into(), &["profile `x`", "SSO"]),
        ("SSO behind a role", through, &["profile `x`", "SSO"]),
        ("another profile", "[profile z]\nregion = eu-west-1\n".into(), &["AWS_PROFILE", "`x`", "no profile file"]),
        ("no profile", String::new(), &["AWS_PROFILE", "`x`", "no profile file"]),
        (
            "a process that fails",
            "[profile x]\ncredential_process = /nonexistent/tool --secret hunter2hunter2hunter2\n".into(),
            &["credential_process", "`x`", "/nonexistent/tool"],
        ),
        (
            "a token that is not there",
            "[profile x]\nrole_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = /nonexistent/t\n".into(),
            &["/nonexistent/t", "web_identity_token_file"],
        ),
    ];
    check(profiles.into_iter().map(|(name, config, words)| {
        row(name, move || {
            let (s3, volume) = (builder().start(), Volume::new());
            let mut command = bare(&s3, &volume);
            command.env("AWS_CONFIG_FILE", write(&volume, "config", &config));
            command.env("PATH", "/usr/bin:/bin");
            let run = command.env("AWS_PROFILE", "x").run().assert_code(11);
            for word in words {
                assert!(run.last_line().contains(word), "`{word}` is not in: {}", run.stderr);
            }
            assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
            assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        })
    }));
    let (s3, volume) = (builder().start(), Volume::new());
    let run = bare(&s3, &volume).run().assert_code(11).assert_says("`--s3-anonymous`");
    assert!(run.stderr.contains("no AWS credentials were found"), "{}", run.stderr);
    let mut command = bare(&s3, &volume);
    let run = command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).run().assert_code(11);
    assert!(run.stderr.contains("AWS_SECRET_ACCESS_KEY is not"), "{}", run.stderr);
}
