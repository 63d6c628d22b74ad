"""nginx in front of everything, the fake Hub behind it, and the listing of the S3 bucket.

nginx has three pairs of ports (plain, TLS 1.3, capped), and each pair is an endpoint of the Hub
and the storage it redirects to, which is also the S3 endpoint. The fake Hub answers the API and
`/resolve`; every byte of a file comes from nginx, which is the same for every contender. A fourth
Hub redirects to a storage with several addresses, see `edges.py`. With a Xet store, each
pair has a second Hub that names it, see `xet.py`.
"""

import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import xet
from data import OWNER, Data
from edges import NAME
from s3_listing import Listing

FIRST_PORT = 18080
LOOPBACK = "127.0.0.1"
KINDS = ("plain", "tls", "capped")
# The storage of this one is a relay, which each run starts.
RELAY = "relay"
XET_KINDS = KINDS
CAP = "40m"


@dataclass(frozen=True)
class Endpoint:
    """Where a contender is sent to."""

    hub: str
    storage: str
    ca: Path
    xet_hub: str


@dataclass(frozen=True)
class Traffic:
    requests: int
    errors: int
    # Bytes by the port that they were sent from.
    sent: dict


class Servers:
    """Everything that answers; stops what it started when it is left."""

    def __init__(self, work: Path, data_root: Path, data: list[Data], fake_hub: Path,
                 link_addresses: list[str], store: xet.Store | None = None, say=print):
        self.store = store
        self.say = say
        self.work = work
        self.data_root = data_root
        self.data = data
        self.fake_hub = fake_hub
        self.addresses = [LOOPBACK, *link_addresses]
        self.log = work / "access.log"
        self.ca = work / "ca.pem"
        self.processes = []
        self.listing = None
        self.ports = {}
        self.xet_ports = {}
        self.xet_hashes = {}

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait()
        if self.listing:
            self.listing.stop()

    def endpoint(self, kind: str, address: str = LOOPBACK) -> Endpoint:
        scheme = "https" if kind == "tls" else "http"
        hub, storage = self.ports[kind]
        host = NAME if kind == RELAY else address
        xet_hub, _ = self.xet_ports.get(kind, ("", ""))
        return Endpoint(f"{scheme}://{address}:{hub}", f"{scheme}://{host}:{storage}", self.ca,
                        f"{scheme}://{address}:{xet_hub}" if xet_hub else "")

    def mark(self) -> int:
        """A place in the log, for `traffic_since`."""
        return self.log.stat().st_size

    def traffic_since(self, mark: int) -> Traffic:
        """What nginx answered since. It logs a request when it is over, so this waits a little."""
        size = -1
        while size != (size := self.log.stat().st_size):
            time.sleep(0.05)
        requests = errors = 0
        sent = Counter()
        with self.log.open() as log:
            log.seek(mark)
            for line in log:
                fields = line.split(" ", 6)
                requests += 1
                sent[int(fields[5])] += int(fields[3])
                errors += int(fields[1]) >= 400
        return Traffic(requests, errors, sent)

    def _start(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        make_certificate(self.work, self.addresses)
        self.log.touch()
        ports = free_ports(2 * len(KINDS) + 2 * len(XET_KINDS) + 4)
        hub_port, store_port = ports.pop(), ports.pop()
        self.ports = {kind: (ports.pop(0), ports.pop(0)) for kind in (*KINDS, RELAY)}
        self.listing = Listing(self.data_root / OWNER, OWNER)
        command = [self.fake_hub, "--hub-port", str(hub_port), "--cdn-url", f"http://{STORAGE}"]
        for data in self.data:
            command += ["--repo", f"{data.spec.repo}={data.folder}"]
            command += ["--sha256sums", f"{data.spec.repo}={data.sums_file}"]
        self._spawn(command, "fake-hub.log")
        wait_for_port(hub_port, self.processes[-1])
        if self.store:
            self._spawn(self.store.command(store_port), "xet.log")
            wait_for_port(store_port, self.processes[-1])
            self.xet_hashes = self.store.hashes(store_port, self.say)
            self.xet_ports = {kind: (ports.pop(0), ports.pop(0)) for kind in XET_KINDS}
        configuration = self.work / "nginx.conf"
        configuration.write_text(self._nginx(hub_port, store_port))
        self._spawn([nginx(), "-c", configuration, "-p", self.work], "nginx.log")
        for kind, (hub, storage) in self.ports.items():
            wait_for_port(hub, self.processes[-1])
            if kind != RELAY:
                wait_for_port(storage, self.processes[-1])

    def _spawn(self, command: list, log: str) -> None:
        with (self.work / log).open("wb") as output:
            self.processes.append(subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True))

    def _nginx(self, hub_port: int, store_port: int) -> str:
        blocks = []
        for kind, (hub, storage) in self.ports.items():
            extra = TLS if kind == "tls" else f"limit_rate {CAP};" if kind == "capped" else ""
            flag = " ssl" if kind == "tls" else ""

            def server(form: str, port: int, **values) -> str:
                listen = " ".join(f"listen {it}:{port}{flag} backlog=1024;"
                                  for it in self.addresses)
                return form % (values | {"listen": listen, "extra": extra, "data": self.data_root})

            host = NAME if kind == RELAY else "$host"
            proxy = PROXY % {"name": STORAGE, "storage": f"$scheme://{host}:{storage}"}
            blocks.append(server(HUB_SERVER, hub, proxy=proxy, xet=""))
            if kind != RELAY:
                blocks.append(server(STORAGE_SERVER, storage, bucket=OWNER))
            if kind in self.xet_ports:
                xet_hub, store = self.xet_ports[kind]
                locations = xet.HUB_LOCATIONS % {"store": store, "proxy": proxy}
                locations += xet.listings(self.xet_hashes, proxy)
                blocks.append(server(HUB_SERVER, xet_hub, proxy=proxy, xet=locations))
                blocks.append(server(xet.STORE_SERVER, store))
        return MAIN % {
            "user": "user root;" if os.geteuid() == 0 else "", "hub": hub_port,
            "listing": self.listing.port, "store": store_port,
            "xet": xet.hash_map(self.xet_hashes) if self.store else "",
            "servers": "\n".join(blocks)}


# The fake Hub redirects here; nginx puts the storage that belongs to the endpoint in its place.
STORAGE = "storage.invalid"

MAIN = """\
daemon off;
%(user)s
worker_processes 2;
worker_rlimit_nofile 8192;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 100000;
    keepalive_timeout 120s;
    send_timeout 300s;
    open_file_cache max=4096 inactive=300s;
    client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp;
    uwsgi_temp_path temp; scgi_temp_path temp;
    log_format peers '$msec $status $request_length $bytes_sent '
                     '$request_method $server_port $request_uri';
    access_log access.log peers;
    upstream hub { server 127.0.0.1:%(hub)s; keepalive 64; keepalive_requests 100000; }
    upstream listing { server 127.0.0.1:%(listing)s; }
    upstream xet { server 127.0.0.1:%(store)s; keepalive 64; keepalive_requests 100000; }
    map_hash_bucket_size 256;
    variables_hash_max_size 2048;
    # The Hub names the digest of a small file in the address that it redirects to.
    map $arg_etag $small_etag { "~^%%22(?<digest>[0-9a-f]+)%%22$" '"$digest"'; }
    # The next page of a listing has to be asked for at the origin the first one came from.
    map $upstream_http_link $next_page { "~^<http://(?<rest>.*)$" "<$scheme://$rest"; }
%(xet)s
%(servers)s
}
"""

TLS = """ssl_certificate server.pem; ssl_certificate_key server.key;
        ssl_protocols TLSv1.3; ssl_session_cache shared:tls:4m;"""

PROXY = """proxy_pass http://hub;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_max_temp_file_size 0;
            proxy_redirect http://%(name)s/ %(storage)s/;
            proxy_hide_header Link;"""

HUB_SERVER = """
    server {
        %(listen)s
        %(extra)s
        %(xet)s
        location / {
            %(proxy)s
            add_header Link $next_page always;
        }
        location ~ "^/api/resolve-cache/models/(?<repo>[^/]+/[^/]+)/(?<commit>[^/]+)/(?<path>.+)$" {
            alias %(data)s/$repo/$path;
            etag off;
            add_header ETag $small_etag;
            add_header X-Repo-Commit $commit;
        }
    }"""

STORAGE_SERVER = """
    server {
        %(listen)s
        %(extra)s
        root %(data)s;
        location = /%(bucket)s { proxy_pass http://listing; }
        location = /%(bucket)s/ { proxy_pass http://listing; }
    }"""


def nginx() -> str:
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not found:
        raise SystemExit("nginx is missing: apt-get install nginx-light")
    return found


def free_ports(count: int) -> list[int]:
    found, port = [], FIRST_PORT
    while len(found) < count:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
                found.append(port)
            except OSError:
                pass
        port += 1
    return found


def wait_for_port(port: int, process: subprocess.Popen) -> None:
    for _ in range(6000):
        if process.poll() is not None:
            raise SystemExit(f"{process.args[0]} ended with {process.returncode}, see its log")
        try:
            socket.create_connection((LOOPBACK, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


def make_certificate(work: Path, addresses: list[str]) -> None:
    """An authority that lives as long as this run, and a certificate for the addresses."""
    names = ",".join(["DNS:localhost"] + [f"IP:{address}" for address in addresses])
    extensions = work / "server.ext"
    extensions.write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=work, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30",
            "-subj", "/CN=peers authority")
    openssl("req", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", "server.pem", "-days", "30", "-extfile", "server.ext")
