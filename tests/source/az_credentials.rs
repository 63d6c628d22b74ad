//! The ways in which a pod gets credentials for Azure's storage, each against a stand-in of its service.

use std::process::Command;

use serde_json::json;

use crate::support::*;
use weightlift_fakes::{Blob, FakeAzure, FakeAzureBuilder, Fault, Response, Rule, Server, Tree};

const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
const TENANT: &str = "99999999-8888-7777-6666-555555555555";

fn container() -> FakeAzureBuilder {
    FakeAzure::builder(AZURE_ACCOUNT).object("weights", "p/a.json", Blob::bytes("{}"))
}

fn bare(azure: &FakeAzure, volume: &Volume) -> Command {
    fetch_az(azure, volume, &["az://models/weights/p/"])
}

fn assert_fetched(command: &mut Command) {
    let volume = Volume::new();
    command.arg("--root").arg(volume.root()).run().assert_success();
    volume.assert_holds("p", &Tree::new().with("a.json", "{}"));
}

/// Microsoft's token service: it gives `TOKEN` for what `proves` takes as a proof.
fn authority(proves: impl Fn(&str) -> bool + Send + Sync + 'static) -> Server {
    Server::start(move |request| {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let is_right = request.path == format!("/{TENANT}/oauth2/v2.0/token")
            && form.contains(&format!("client_id={CLIENT}"))
            && form.contains("scope=https%3A%2F%2Fstorage.azure.com%2F.default");
        if !is_right || !proves(&form) {
            let said = "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1";
            let body = json!({ "error": "invalid_client", "error_description": said });
            return Response::json(401, &body);
        }
        Response::json(200, &json!({ "access_token": TOKEN, "expires_in": 3599 }))
    })
}

/// The service of a node that gives `TOKEN` to its managed identity, and to `CLIENT`.
fn node() -> Server {
    Server::start(|request| {
        let is_right = request.header("metadata") == Some("true")
            && request.query_value("resource").as_deref() == Some("https://storage.azure.com");
        if !is_right || request.query_value("client_id").is_some_and(|it| it != CLIENT) {
            let body =
                json!({ "error": "invalid_request", "error_description": "Identity not found" });
            return Response::json(400, &body);
        }
        Response::json(200, &json!({ "access_token": TOKEN, "expires_on": "4000000000" }))
    })
}

#[test]
fn a_key_and_a_connection_string() {
    let azure = container().key(AZURE_KEY).start();
    let volume = Volume::new();
    for (name, value) in [
        ("AZURE_STORAGE_KEY", AZURE_KEY.to_owned()),
        ("AZURE_STORAGE_ACCOUNT_KEY", format!("{AZURE_KEY}\n")),
        (
            "AZURE_STORAGE_CONNECTION_STRING",
            format!(
                "AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};BlobEndpoint={}/models;",
                azure.url()
            ),
        ),
    ] {
        assert_fetched(bare(&azure, &volume).env(name, value));
    }
    let run = bare(&azure, &volume).env("AZURE_STORAGE_KEY", "b3RoZXI=").run();
    run.assert_code(11).assert_says("with the key of AZURE_STORAGE_KEY");
    let run = bare(&azure, &volume).env("AZURE_STORAGE_KEY", format!("{SECRET_KEY}!")).run();
    run.assert_code(11).assert_says("AZURE_STORAGE_KEY");
}

#[test]
fn what_is_of_another_account_is_not_sent_to_this_one() {
    let (azure, node, volume) = (container().token(TOKEN).start(), node(), Volume::new());
    let other =
        format!("AccountName=other;AccountKey={AZURE_KEY};BlobEndpoint=http://127.0.0.1:9/;");
    for variables in [
        [("AZURE_STORAGE_ACCOUNT", "other"), ("AZURE_STORAGE_KEY", AZURE_KEY)],
        [("AZURE_STORAGE_ACCOUNT_NAME", "other"), ("AZURE_STORAGE_SAS_TOKEN", "sp=rl&sig=x")],
        [("AZURE_STORAGE_CONNECTION_STRING", &other), ("AZURE_STORAGE_ACCOUNT", "models")],
    ] {
        let mut command = bare(&azure, &volume);
        command.envs(variables).env("IDENTITY_ENDPOINT", node.url());
        assert_fetched(&mut command);
    }
    let bearer = format!("Bearer {TOKEN}");
    for request in azure.requests() {
        assert_eq!(request.header("authorization"), Some(&bearer[..]));
        assert!(!request.target.contains("sig="), "{}", request.target);
    }
}

#[test]
fn a_shared_access_signature_in_the_forms_that_it_is_copied_in() {
    let azure = container().signature("a+b/c=").start();
    let volume = Volume::new();
    for token in ["sv=2023-11-03&sp=rl&sig=a%2Bb%2Fc%3D", "?sv=2023-11-03&sp=rl&sig=a+b/c="] {
        assert_fetched(bare(&azure, &volume).env("AZURE_STORAGE_SAS_TOKEN", token));
    }
    let run =
        bare(&azure, &volume).env("AZURE_STORAGE_SAS_TOKEN", format!("sig={SECRET_KEY}")).run();
    let run = run.assert_code(11).assert_says("with the signature of AZURE_STORAGE_SAS_TOKEN");
    assert!(!run.stderr.contains("sig="), "{}", run.stderr);
}

#[test]
fn workload_identity_as_its_webhook_sets_it() {
    let (azure, volume) = (container().token(TOKEN).start(), Volume::new());
    let authority =
        authority(|form| form.contains("client_assertion=the-jwt") && form.contains("jwt-bearer"));
    let file = volume.path("token");
    std::fs::write(&file, "the-jwt").unwrap();
    let command = || {
        let mut command = bare(&azure, &volume);
        command.env("AZURE_CLIENT_ID", CLIENT).env("AZURE_TENANT_ID", TENANT);
        // With the slash that the webhook writes.
        command.env("AZURE_AUTHORITY_HOST", format!("{}/", authority.url()));
        command.env("AZURE_FEDERATED_TOKEN_FILE", &file);
        command
    };
    assert_fetched(&mut command());
    std::fs::write(&file, SECRET_KEY).unwrap();
    let run = command().run().assert_code(11);
    assert!(run.last_line().contains("AADSTS7000215: Invalid client secret provided."));
    std::fs::remove_file(&file).unwrap();
    command().run().assert_code(11).assert_says(CLIENT);
    command().env_remove("AZURE_TENANT_ID").run().assert_code(2).assert_says("AZURE_TENANT_ID");
}

#[test]
fn the_secret_of_an_application() {
    let (azure, volume) = (container().token(TOKEN).start(), Volume::new());
    let authority = authority(|form| form.contains(&format!("client_secret={SECRET_KEY}")));
    let mut command = bare(&azure, &volume);
    command.env("AZURE_CLIENT_ID", CLIENT).env("AZURE_TENANT_ID", TENANT);
    command.env("AZURE_AUTHORITY_HOST", authority.url()).env("AZURE_CLIENT_SECRET", SECRET_KEY);
    assert_fetched(&mut command);
}

#[test]
fn the_managed_identity_of_a_node() {
    let (azure, volume) = (container().token(TOKEN).start(), Volume::new());
    let node = node();
    let command = || {
        let mut command = bare(&azure, &volume);
        command.env("IDENTITY_ENDPOINT", node.url());
        command
    };
    assert_fetched(&mut command());
    assert_fetched(command().env("AZURE_CLIENT_ID", CLIENT));
    let mut wrong = command();
    wrong.env("AZURE_CLIENT_ID", TENANT).run().assert_code(11).assert_says("Identity not found");
}

#[test]
fn without_any_credentials_public_containers_are_read_and_others_say_what_to_set() {
    let (azure, volume) = (container().start(), Volume::new());
    let anonymous = |azure: &FakeAzure| {
        let mut command = bare(azure, &volume);
        command.env("AZURE_SKIP_SIGNATURE", "true").env("AZURE_STORAGE_KEY", AZURE_KEY);
        command
    };
    assert_fetched(&mut anonymous(&azure));
    assert!(azure.requests().iter().all(|it| it.header("authorization").is_none()));
    let private = container().token(TOKEN).start();
    let run = anonymous(&private).run().assert_code(11).assert_says("without credentials");
    run.assert_says("AZURE_STORAGE_SAS_TOKEN");
}

#[test]
fn a_signature_that_has_expired_says_so() {
    let (azure, volume) = (container().start(), Volume::new());
    let body = "<Error><Code>AuthenticationFailed</Code><Message>Server failed.</Message>\
                <AuthenticationErrorDetail>Signature not valid in the specified time frame\
                </AuthenticationErrorDetail></Error>";
    azure.script(Rule::on("GET", "").then(Fault::status_with(403, &[], body)));
    let run = bare(&azure, &volume).env("AZURE_STORAGE_SAS_TOKEN", "sig=x").run();
    run.assert_code(11).assert_says("have expired").assert_says("make a newer signature");
}
