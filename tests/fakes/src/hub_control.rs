//! What a program that only has a hub's port may ask of it: counts, another speed.
//!
//! Tests in Rust have [`Log`] and [`Script`] themselves. A rig that runs the hub in a pod, or as a
//! process, asks here. Nothing of this is logged.

use serde_json::{Map, Value, json};

use crate::http::{Request, Response};
use crate::hub_repos::Snapshot;
use crate::hub_routes::State;
use crate::log::{Log, Logged};
use crate::script::{Fault, Rule, Script};

/// `None` for what is no business of the control.
///
/// `/-/counts` answers counts, `/-/clear` forgets what was counted, and `/-/speed/N` lets each answer
/// of the CDN come at N bytes per second; 0 is as fast as it goes.
pub(crate) fn answer(
    request: &Request,
    state: &State,
    log: &Log,
    script: &Script,
) -> Option<Response> {
    let asked = request.path.strip_prefix("/-/")?;
    match asked.split_once('/').unwrap_or((asked, "")) {
        ("counts", "") => Some(Response::json(200, &counts(state, log))),
        ("clear", "") => {
            log.clear();
            Some(Response::text(200, "cleared\n"))
        }
        ("speed", number) => Some(match number.parse() {
            Ok(bytes_per_second) => {
                script.clear();
                if bytes_per_second > 0 {
                    let slow = Fault::Drip { bytes_per_second };
                    script.add(Rule::on("GET", "").at("cdn").then(slow));
                }
                Response::text(200, "changed\n")
            }
            Err(_) => Response::text(400, "no number\n"),
        }),
        _ => Some(Response::text(404, "counts, clear, speed/N\n")),
    }
}

fn counts(state: &State, log: &Log) -> Value {
    let from_cdn = |it: &&Logged| it.origin == "cdn";
    let requests = log.requests();
    json!({
        "requests": requests.len(),
        "cdn_bytes": requests.iter().filter(from_cdn).map(|it| it.body_bytes_sent).sum::<u64>(),
        "bytes_sent_twice": log.bytes_sent_twice(),
        "repositories": repositories(state),
    })
}

/// Of each repository its commits, with the files of each: size, SHA-256, and the Git id where the Hub
/// publishes no other digest.
fn repositories(state: &State) -> Map<String, Value> {
    let repos = state.repos();
    let described = repos.iter().map(|(id, repo)| {
        let commits: Map<String, Value> = repo
            .commits
            .iter()
            .map(|(commit, snapshot)| (commit.clone(), Value::Object(files(snapshot))))
            .collect();
        (id.clone(), json!({"main": repo.branches.get("main"), "commits": commits}))
    });
    described.collect()
}

fn files(snapshot: &Snapshot) -> Map<String, Value> {
    let described = snapshot.files.iter().map(|(path, file)| {
        let described = match &file.lfs {
            Some(lfs) => json!({"size": file.blob.len(), "sha256": lfs.sha256}),
            None => {
                json!({"size": file.blob.len(), "sha256": file.blob.sha256(), "git_sha1": file.oid})
            }
        };
        (path.clone(), described)
    });
    described.collect()
}
