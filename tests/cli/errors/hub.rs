//! What the Hub refuses, and what it does not have.

use std::process::Command;

use super::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const OTHER: &str = "0123456789abcdef0123456789abcdef01234567";

/// Two files, one of them large enough to come from the CDN.
fn tree() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(300_000, 1))
}

fn impatient(hub: &FakeHub, volume: &Volume, arguments: &[&str]) -> Command {
    let mut command = fetch(hub, volume, arguments);
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s").env("WEIGHTLIFT_RETRY_DELAY", "25ms");
    // Which file is refused first must not depend on luck.
    command.env("WEIGHTLIFT_CONNECTIONS", "1");
    command
}

fn page(name: &'static str, hub: &FakeHub, volume: &Volume) -> Page {
    let mut page = Page::new(name);
    page.place(hub.url(), "https://hub.example");
    page.place(hub.cdn_url(), "https://cdn.example");
    page.volume(volume);
    page
}

#[test]
fn the_hub_refuses_or_does_not_have_what_was_asked_for() {
    let hub = FakeHub::builder()
        .repo(REPO, tree())
        .repo("org/gated", tree())
        .repo("org/secret", tree())
        .gated("org/gated")
        .private("org/secret")
        .token(TOKEN)
        .start();
    let volume = Volume::new();
    let mut page = page("hub", &hub, &volume);
    let fetch = |arguments: &[&str]| impatient(&hub, &volume, arguments);
    page.case("a gated repo, and no token", 11, &mut fetch(&["hf://org/gated"]));
    page.case(
        "a gated repo, and the account has no access",
        11,
        fetch(&["hf://org/gated"]).env("HF_TOKEN", TOKEN),
    );
    page.case("a private repo, and no token", 11, &mut fetch(&["hf://org/secret"]));
    page.case(
        "a token that was revoked",
        11,
        fetch(&["hf://org/secret"]).env("HF_TOKEN", "hf_revoked"),
    );
    page.case("a name with a typo", 10, fetch(&["hf://org/tinny"]).env("HF_TOKEN", TOKEN));
    page.case("a revision that does not exist", 10, &mut fetch(&["hf://org/tiny@v2"]));
    page.case(
        "a quantisation in the place of a revision",
        10,
        &mut fetch(&["hf://org/tiny@Q4_K_M"]),
    );
    page.case(
        "another revision than expected",
        16,
        &mut fetch(&["hf://org/tiny", "--expect-revision", OTHER]),
    );
    page.case(
        "offline, and nothing is on the volume",
        10,
        fetch(&["hf://org/tiny"]).env("HF_HUB_OFFLINE", "1"),
    );
    let slow_down = Fault::status_with(429, &[("Retry-After", "300")], "");
    hub.script(Rule::on("GET", "/revision/").then(slow_down));
    page.case("too many requests", 21, &mut fetch(&["hf://org/tiny"]));
    hub.clear_script();
    hub.script(Rule::on("GET", "/revision/").then(Fault::status_with(503, &[], "maintenance")));
    page.case("the Hub is down", 20, &mut fetch(&["hf://org/tiny"]));
    page.compare();
}
