//! The binary needs nothing but a kernel and `/etc/resolv.conf`.

use std::process::Command;

use crate::support::*;
use weightlift_fakes::FakeHub;

#[test]
fn it_is_static() {
    if !has("ldd") || !has("readelf") {
        return;
    }
    let output = Command::new("ldd").arg(binary()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("statically linked") || told.contains("not a dynamic executable"),
        "{told}"
    );
    let headers = Command::new("readelf").args(["-lW"]).arg(binary()).output().unwrap();
    let headers = String::from_utf8_lossy(&headers.stdout).into_owned();
    assert!(headers.contains("LOAD") && !headers.contains("INTERP"), "{headers}");
}

#[test]
fn it_runs_in_an_empty_root_and_resolves_names() {
    if !is_root() || !has("chroot") || !has("unshare") {
        return;
    }
    let volume = Volume::new();
    let root = volume.path("root");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::create_dir_all(root.join("data")).unwrap();
    copy_binary(&root.join("weightlift"));
    // A name that only a resolver finds: asked of a server that the test runs.
    let dns = Dns::start();
    std::fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
    // Numeric non-root user, no /proc, no /dev, no /tmp.
    let hub = FakeHub::builder().repo(REPO, tiny()).start();
    let port = hub.url().rsplit(':').next().unwrap().to_owned();
    assert!(Command::new("chown").arg("65532").arg(root.join("data")).status().unwrap().success());
    let run = |endpoint: String| {
        let mut command = Command::new("chroot");
        command.args(["--userspec=65532:65532"]).arg(&root);
        command.args(["/weightlift", "fetch", "--root", "/data", "hf://org/tiny"]);
        command.env_clear().env("HF_ENDPOINT", endpoint).env("WEIGHTLIFT_RETRY_TIMEOUT", "3s");
        command.env("PATH", std::env::var_os("PATH").unwrap());
        command.run()
    };
    run(format!("http://127.0.0.1:{port}")).assert_success();
    assert_tree(&root.join("data/tiny"), &tiny_selected());
    std::fs::remove_dir_all(root.join("data/tiny")).unwrap();
    let Some(dns) = dns else {
        skip("127.0.0.53:53 cannot be bound");
        return;
    };
    run(format!("http://hub.models.test:{port}")).assert_success();
    assert_tree(&root.join("data/tiny"), &tiny_selected());
    assert!(dns.questions() > 0, "nobody asked the resolver");
    // TLS roots are built in: an untrusted certificate is refused for what it is, not for a
    // missing file. `run` with no listener shows that a client can be made at all.
    std::fs::remove_dir_all(root.join("data/tiny")).unwrap();
    run("https://127.0.0.1:9".into()).assert_code(20);
}

/// A name server for one name, enough for `getaddrinfo`.
struct Dns(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Dns {
    fn start() -> Option<Self> {
        let socket = std::net::UdpSocket::bind("127.0.0.53:53").ok()?;
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = count.clone();
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut packet) {
                let question = &packet[12..len];
                let name_end = question.iter().position(|byte| *byte == 0).unwrap_or(0) + 1;
                let is_a = question.get(name_end + 1) == Some(&1);
                let known = question.starts_with(b"\x03hub\x06models\x04test\0");
                let mut answer = packet[..2].to_vec();
                // Response, recursion available; NXDOMAIN for other names.
                answer.extend([
                    0x81,
                    if known { 0x80 } else { 0x83 },
                    0,
                    1,
                    0,
                    u8::from(known && is_a),
                ]);
                answer.extend([0, 0, 0, 0]);
                answer.extend(&question[..name_end + 4]);
                if known && is_a {
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
                }
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let _ = socket.send_to(&answer, from);
            }
        });
        Some(Self(count))
    }

    fn questions(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}
