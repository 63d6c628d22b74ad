//! A real registry (`docker-registry` of Debian), filled by pushes of the test's own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::*;
use weightlift_fakes::{Blob, Tree};

struct RealRegistry {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl RealRegistry {
    fn start(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("storage");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
                 http:\n  addr: 127.0.0.1:{port}\n{more}",
                storage.display()
            ),
        )
        .unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the registry answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port, _dir: dir }
    }

    /// The status and the head of the answer.
    fn send(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Length: {}\r\n{headers}\r\n",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn push_blob(&self, name: &str, authorization: &str, bytes: &[u8]) -> String {
        let answer = self.send("POST", &format!("/v2/{name}/blobs/uploads/"), authorization, b"");
        let location = answer
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .unwrap_or_else(|| panic!("no Location: {answer}"));
        let target = location.trim().splitn(4, '/').nth(3).unwrap();
        let digest = format!("sha256:{}", hex(&Sha256::digest(bytes)));
        let target = format!("/{target}&digest={digest}");
        let headers = format!("Content-Type: application/octet-stream\r\n{authorization}");
        let answer = self.send("PUT", &target, &headers, bytes);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        digest
    }

    fn push(&self, name: &str, tag: &str, authorization: &str, tree: &Tree) {
        let config = self.push_blob(name, authorization, b"{}");
        let layers: Vec<_> = tree
            .iter()
            .map(|(path, blob)| {
                json!({
                    "mediaType": "application/vnd.cncf.model.weight.v1.raw",
                    "digest": self.push_blob(name, authorization, &blob.to_vec()),
                    "size": blob.len(),
                    "annotations": {"org.cncf.model.filepath": path},
                })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.cncf.model.config.v1+json", "digest": config, "size": 2},
            "layers": layers,
        });
        let headers =
            format!("Content-Type: application/vnd.oci.image.manifest.v1+json\r\n{authorization}");
        let target = format!("/v2/{name}/manifests/{tag}");
        let answer = self.send("PUT", &target, &headers, manifest.to_string().as_bytes());
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_model_is_published_from_a_real_registry_by_tag_and_by_digest() {
    if !has("docker-registry") {
        return;
    }
    let (registry, volume) = (RealRegistry::start(""), Volume::new());
    let tree = tiny_selected().with_blob("big.bin", Blob::synthetic((4 << 20) + 11, 9));
    registry.push("org/tiny", "v1", "", &tree);
    let uri = format!("oci://localhost:{}/org/tiny", registry.port);
    let fetch = |uri: &str, dest: &str| {
        let mut command = weightlift();
        command.arg("fetch").arg("--root").arg(volume.root()).args([uri, dest]);
        command.args(["--chunk-size", "1MiB", "--output", "json"]).run()
    };
    let run = fetch(&format!("{uri}:v1"), "m").assert_success();
    volume.assert_holds("m", &tree);
    let told: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let digest = told["revision"].as_str().unwrap();
    fetch(&format!("{uri}@{digest}"), "n").assert_success();
    volume.assert_holds("n", &tree);
    fetch(&format!("{uri}:absent"), "o").assert_code(10).assert_says("MANIFEST_UNKNOWN");
}

#[test]
fn a_real_registry_with_a_password_is_read_with_a_pull_secret() {
    if !has("docker-registry") {
        return;
    }
    let volume = Volume::new();
    // `htpasswd -nbB me passwordCANARYpasswordCANARY`, at the least cost.
    let users = volume.path("users");
    std::fs::write(&users, "me:$2y$05$abcdefghijklmnopqrstuuLhvJ5EBfBSRfs9YPnl5.5BhzGqln2P2\n")
        .unwrap();
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", users.display());
    let registry = RealRegistry::start(&auth);
    let basic = format!("Authorization: Basic {}\r\n", BASIC);
    registry.push("org/tiny", "v1", &basic, &tiny_selected());
    let uri = format!("oci://127.0.0.1:{}/org/tiny:v1", registry.port);
    let mut command = weightlift();
    command.arg("fetch").arg("--root").arg(volume.root()).args([&uri, "m"]);
    command.run().assert_code(11).assert_says("mount a pull secret");
    let secret = volume.path("secret");
    std::fs::create_dir(&secret).unwrap();
    let auths = format!(r#"{{"auths":{{"127.0.0.1:{}":{{"auth":"{BASIC}"}}}}}}"#, registry.port);
    std::fs::write(secret.join(".dockerconfigjson"), auths).unwrap();
    command.env("DOCKER_CONFIG", &secret).run().assert_success();
    volume.assert_holds("m", &tiny_selected());
}

/// The user and the password in base64.
const BASIC: &str = "bWU6cGFzc3dvcmRDQU5BUllwYXNzd29yZENBTkFSWQ==";
