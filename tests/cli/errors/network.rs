//! Names, addresses, proxies and certificates.

use std::net::TcpListener;
use std::process::Command;

use super::*;
use crate::support::tls::{Authority, Front, Handshake};
use weightlift_fakes::{Response, Server};

#[test]
fn the_network_does_not_lead_to_the_source() {
    let volume = Volume::new();
    let mut page = Page::new("network");
    page.volume(&volume);
    let fetch = |endpoint: &str| -> Command {
        let mut command = weightlift();
        command.args(["fetch", "hf://org/tiny"]).arg("--root").arg(volume.root());
        command.env("HF_ENDPOINT", endpoint).env("WEIGHTLIFT_RETRY_TIMEOUT", "1s");
        command
    };
    // Nobody listens there any more.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    page.place(closed.clone(), "hub.example");
    page.case("nobody listens at the address", 20, &mut fetch(&format!("http://{closed}")));
    // What the resolver says depends on whether it reaches a server of names.
    for reason in ["Name or service not known", "Temporary failure in name resolution"] {
        page.place(reason, "<reason>");
    }
    page.case("a name that DNS does not have", 20, &mut fetch("https://hub.invalid"));

    let proxy = Server::start(|_| Response::new(407));
    page.place(proxy.url(), "http://proxy.example");
    let mut through = fetch("https://hub.example");
    page.case("a proxy that needs a password", 20, through.env("HTTPS_PROXY", proxy.url()));
    let mut through = fetch("http://hub.example");
    page.case(
        "a proxy that needs a password, without TLS",
        20,
        through.env("HTTP_PROXY", proxy.url()),
    );
    let mut through = fetch("https://hub.example");
    let gone = format!("http://{closed}");
    page.case("a proxy that does not listen", 20, through.env("HTTPS_PROXY", gone));

    let title = "a certificate of an unknown authority";
    if has("openssl") {
        let hub = hub_of_tiny();
        let config = Authority::new("unknown").certify("IP:127.0.0.1", 2020, 2049);
        let port = hub.url().rsplit(':').next().unwrap().parse().unwrap();
        let front = Front::start(config, port, |_| Handshake::Done);
        page.place(front.url(), "https://hub.example");
        page.case(title, 14, &mut fetch(&front.url()));
    } else {
        page.skip(title);
    }
    page.case(
        "a file of certificates that is missing",
        2,
        fetch("https://hub.example").env("SSL_CERT_FILE", "/etc/ssl/ours.pem"),
    );
    page.compare();
}
