//! A Kubernetes API server that knows Leases, and can misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::tls::{Authority, Front, Handshake};

pub const API_TOKEN: &str = "apiCANARYapiCANARYapi";

type Answer = (u16, Value);

#[derive(Default)]
struct State {
    leases: BTreeMap<String, Value>,
    version: u64,
    /// Method, path and body of each request.
    requests: Vec<(String, String, Value)>,
    /// Answers to be given instead: to which method, how often, which.
    faults: Vec<(&'static str, usize, Fault)>,
    /// What the service account may not do with Leases.
    denied: Vec<&'static str>,
}

#[derive(Clone)]
pub enum Fault {
    Status(u16, &'static str),
    /// The connection is closed without an answer.
    Close,
    /// Nothing is said for so long.
    Silence(Duration),
    /// It is done, and the answer is lost.
    DoneInVain,
}

#[derive(Clone)]
pub struct FakeCluster {
    state: Arc<Mutex<State>>,
    authority: Arc<Authority>,
    /// Speaks TLS.
    port: u16,
}

impl FakeCluster {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = listener.local_addr().unwrap().port();
        let authority = Arc::new(Authority::new("cluster"));
        let config = authority.certify("IP:127.0.0.1", 2020, 2090);
        let port = Front::start(config, upstream, |_| Handshake::Done).port;
        let cluster = Self { state: Arc::default(), authority, port };
        let server = cluster.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(&stream));
            }
        });
        cluster
    }

    /// What the kubelet gives to a pod: variables, and a service account in `dir`.
    pub fn tell(&self, command: &mut Command, dir: &Path) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::copy(self.authority.path(), dir.join("ca.crt")).unwrap();
        std::fs::write(dir.join("token"), format!("{API_TOKEN}\n")).unwrap();
        std::fs::write(dir.join("namespace"), "model-storage").unwrap();
        command.env("WEIGHTLIFT_SERVICE_ACCOUNT", dir);
        command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
        command.env("KUBERNETES_SERVICE_PORT", self.port.to_string());
    }

    /// The next `times` requests of `method` meet `fault`.
    pub fn fail(&self, method: &'static str, times: usize, fault: Fault) {
        self.state.lock().unwrap().faults.push((method, times, fault));
    }

    /// From now on the service account may not do this with Leases, if it asks whether it may.
    pub fn deny(&self, verb: &'static str) {
        self.state.lock().unwrap().denied.push(verb);
    }

    /// Whether every fault has been met by as many requests as it was meant for.
    pub fn has_failed(&self) -> bool {
        self.state.lock().unwrap().faults.iter().all(|(_, left, _)| *left == 0)
    }

    /// Has `holder` take the Lease, as `kubectl edit` or another node would.
    pub fn put(&self, name: &str, holder: &str, seconds: u32) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version.to_string();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": "model-storage", "resourceVersion": version},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 3},
        });
        state.leases.insert(name.into(), lease);
    }

    pub fn remove(&self, name: &str) {
        self.state.lock().unwrap().leases.remove(name);
    }

    pub fn lease(&self, name: &str) -> Option<Value> {
        self.state.lock().unwrap().leases.get(name).cloned()
    }

    pub fn holder(&self, name: &str) -> Option<String> {
        self.lease(name)?["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    pub fn requests(&self) -> Vec<(String, String, Value)> {
        self.state.lock().unwrap().requests.clone()
    }

    pub fn count(&self, method: &str) -> usize {
        self.requests().iter().filter(|(other, ..)| other == method).count()
    }

    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some((method, path, body)) = read_request(&mut reader) {
            let fault = self.fault(&method);
            let answer = match fault {
                None => Some(self.answer(&method, &path, body)),
                Some(Fault::Close) => None,
                Some(Fault::Status(code, message)) => Some(status(code, message)),
                Some(Fault::Silence(time)) => {
                    std::thread::sleep(time);
                    None
                }
                Some(Fault::DoneInVain) => {
                    self.answer(&method, &path, body);
                    None
                }
            };
            let Some((code, body)) = answer else { return };
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            if (&mut &*stream).write_all((head + &body).as_bytes()).is_err() {
                return;
            }
        }
    }

    fn fault(&self, method: &str) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        let fault = state.faults.iter_mut().find(|(of, left, _)| *of == method && *left > 0)?;
        fault.1 -= 1;
        Some(fault.2.clone())
    }

    fn answer(&self, method: &str, path: &str, mut lease: Value) -> Answer {
        let mut state = self.state.lock().unwrap();
        state.requests.push((method.into(), path.into(), lease.clone()));
        if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" && method == "POST" {
            let verb = lease["spec"]["resourceAttributes"]["verb"].as_str().unwrap();
            let allowed = !state.denied.contains(&verb);
            let reason = if allowed { "RBAC: allowed by a Role" } else { "" };
            lease["status"] = json!({"allowed": allowed, "reason": reason});
            return (201, lease);
        }
        let all = "/apis/coordination.k8s.io/v1/namespaces/model-storage/leases";
        let Some(name) = path.split('?').next().and_then(|path| path.strip_prefix(all)) else {
            return status(404, "no such path");
        };
        let name = match name.strip_prefix('/') {
            Some(name) => name.to_owned(),
            None => lease["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        };
        let known = state.leases.get(&name).cloned();
        match (method, known) {
            ("GET", Some(known)) => return (200, known),
            ("GET" | "PUT", None) => return status(404, "not found"),
            ("POST", Some(_)) => return status(409, "already exists"),
            ("PUT", Some(known)) => {
                let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
                if version(&lease) != version(&known) {
                    return status(409, "the object has been modified");
                }
            }
            ("POST", None) => {}
            _ => return status(405, "not here"),
        }
        state.version += 1;
        lease["metadata"]["resourceVersion"] = state.version.to_string().into();
        lease["metadata"]["namespace"] = "model-storage".into();
        state.leases.insert(name, lease.clone());
        (if method == "POST" { 201 } else { 200 }, lease)
    }
}

fn status(code: u16, message: &str) -> Answer {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        403 => "Forbidden",
        _ => "InternalError",
    };
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": message,
        "reason": reason,
    });
    (code, body)
}

fn read_request(reader: &mut impl BufRead) -> Option<(String, String, Value)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let (mut length, mut is_known) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|read| *read > 0)?;
        if header.trim().is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => is_known = value.trim() == format!("Bearer {API_TOKEN}"),
            _ => {}
        }
    }
    assert!(is_known, "without the token");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method, path, serde_json::from_slice(&body).unwrap_or_default()))
}
