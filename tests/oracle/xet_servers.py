"""A Hub with the storage behind it, and a guard in front of the real CAS. They count what they send.

The guard is stricter than `local_cas_server`, which takes any token and serves any range of a link:
it wants the token of the repo and commit that has the file, and the ranges that a link was signed
for. What the Hub's token must never reach, it never reaches unseen: see `leaks`.
"""

import base64
import hashlib
import http.client
import json
import re
import sys
import threading
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HUB_TOKEN = "hf_oracle"
PIECE = 256 << 10


@dataclass(frozen=True)
class Stored:
    """A file of a commit. A file without a Xet hash is in the repository itself."""

    content: Path
    size: int
    sha256: str
    xet: str = ""

    def entry(self, path: str) -> dict:
        """As the tree lists it."""
        if not self.xet:
            return {"type": "file", "path": path, "size": self.size, "oid": self.git_sha1()}
        lfs = {"oid": self.sha256, "size": self.size, "pointerSize": 134}
        oid = hashlib.sha1(self.sha256.encode()).hexdigest()
        return {"type": "file", "path": path, "size": self.size, "oid": oid, "lfs": lfs,
                "xetHash": self.xet}

    def git_sha1(self) -> str:
        return hashlib.sha1(b"blob %d\0" % self.size + self.content.read_bytes()).hexdigest()


@dataclass
class World:
    """What the servers serve, how they behave, and what they have seen."""

    commits: dict[str, list[tuple[str, dict[str, Stored]]]] = field(default_factory=dict)
    bridge_refuses: bool = False
    cas_refuses: bool = False
    cas_is_v1: bool = False
    # Links serve their whole ranges only, and batches are refused, as `local_cas_server` does it.
    whole_ranges: bool = False
    no_batch: bool = False
    # Every so often a byte of the chunks is flipped.
    damaged: bool = False
    # Requests and bytes by what was asked for.
    requests: Counter = field(default_factory=Counter)
    sent: Counter = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def commit(self, repo: str, files: dict[str, Stored]) -> str:
        listing = json.dumps([files[path].entry(path) for path in sorted(files)])
        name = hashlib.sha1(listing.encode()).hexdigest()
        self.commits.setdefault(repo, []).append((name, files))
        return name

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, Stored]] | None:
        known = self.commits.get(repo, [])
        if revision == "main" and known:
            return known[-1]
        return next((it for it in known if it[0] == revision), None)

    def count(self, what: str, sent: int) -> None:
        with self.lock:
            self.requests[what] += 1
            self.sent[what] += sent

    def forget(self) -> None:
        """Starts counting anew."""
        with self.lock:
            self.requests.clear()
            self.sent.clear()
            self.leaks.clear()
            self.refusals.clear()

    def content_bytes(self) -> int:
        return self.sent["chunks"] + self.sent["bridge"]


class Servers:
    def __init__(self, world: World, cas_port: int):
        self.world = world
        self.cas_port = cas_port
        self.running = [start(handler, self) for handler in (Hub, Bridge, Guard)]
        self.hub, self.bridge, self.guard = (
            f"http://127.0.0.1:{server.server_port}" for server in self.running)

    def stop(self) -> None:
        for server in self.running:
            server.shutdown()


def start(handler: type, servers: Servers) -> ThreadingHTTPServer:
    bound = type(handler.__name__, (handler,), {"servers": servers, "world": servers.world})
    server = Quiet(("127.0.0.1", 0), bound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, address) -> None:
        """Clients may hang up."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, address)


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 << 10
    servers: Servers
    world: World

    def answer(self, status: int, body: bytes, what: str, headers: dict = {}) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.world.count(what, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value, what: str, headers: dict = {}) -> None:
        self.answer(200, json.dumps(value).encode(), what,
                    {"Content-Type": "application/json"} | headers)

    def refuse(self, status: int, why: str) -> None:
        self.world.refusals.append(f"{status} {why}: {self.command} {self.path[:120]}")
        self.answer(status, f"<Error><Code>{why}</Code></Error>".encode(), "refused")

    def bearer(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def must_be_anonymous(self) -> bool:
        """Signed links are for whoever has them, and storages answer 400 to a second credential."""
        if "Authorization" not in self.headers:
            return True
        self.world.leaks.append(f"{type(self).__name__} got Authorization: {self.path[:80]}")
        self.refuse(400, "InvalidArgument")
        return False

    def range(self, size: int | None) -> tuple[int, int] | None:
        """The range that is asked for, the end exclusive."""
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not found or (size is None and not found[2]):
            return None
        end = int(found[2]) + 1 if found[2] else size
        return int(found[1]), end if size is None else min(end, size)

    def log_message(self, *_) -> None:
        pass


class Hub(Server):
    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree|xet-read-token)/([^/]+)", path)
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        repo, revision = (api[1], api[3]) if api else (resolve[1], resolve[2]) if resolve else ("", "")
        found = self.world.files(repo, revision)
        if self.bearer() not in ("", HUB_TOKEN):
            self.world.leaks.append(f"the Hub got another token: {path}")
        if not found:
            return self.answer(404, b"{}", "hub", {"X-Error-Code": "RevisionNotFound"})
        commit, files = found
        if resolve:
            return self.resolve(repo, commit, resolve[3], files.get(resolve[3]))
        if api[2] == "revision":
            names = [{"rfilename": name} for name in files]
            return self.json({"id": repo, "sha": commit, "private": False, "siblings": names}, "hub")
        if api[2] == "tree":
            return self.json([files[name].entry(name) for name in sorted(files)], "hub")
        token = {"accessToken": f"cas:{repo}:{commit}", "exp": 4102444800,
                 "casUrl": self.servers.guard}
        self.json(token, "token", {"X-Xet-Cas-Url": token["casUrl"],
                                   "X-Xet-Access-Token": token["accessToken"],
                                   "X-Xet-Token-Expiration": "4102444800"})

    do_HEAD = do_GET

    def resolve(self, repo: str, commit: str, path: str, file: Stored | None) -> None:
        if not file:
            return self.answer(404, b"", "hub", {"X-Error-Code": "EntryNotFound"})
        if not file.xet:
            etag = f'"{file.git_sha1()}"'
            return self.answer(200, file.content.read_bytes(), "hub",
                               {"ETag": etag, "X-Repo-Commit": commit})
        route = f"{self.servers.hub}/api/models/{repo}/xet-read-token/{commit}"
        self.answer(302, b"", "resolve", {
            "Location": f"{self.servers.bridge}/{commit}/{urllib.parse.quote(path)}?repo={repo}",
            "X-Repo-Commit": commit, "X-Linked-Size": str(file.size),
            "X-Linked-Etag": f'"{file.sha256}"', "X-Xet-Hash": file.xet,
            "X-Xet-Refresh-Route": route})


class Bridge(Server):
    """Serves files without Xet, as the storage behind `/resolve` does."""

    def do_GET(self) -> None:
        if not self.must_be_anonymous():
            return
        url = urllib.parse.urlsplit(self.path)
        if self.world.bridge_refuses:
            return self.refuse(403, "AccessDenied")
        commit, path = urllib.parse.unquote(url.path)[1:].split("/", 1)
        file = self.world.files(urllib.parse.parse_qs(url.query)["repo"][0], commit)[1][path]
        asked = self.range(file.size)
        start, end = asked or (0, file.size)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{file.size}")
        self.send_header("ETag", f'"{file.sha256}"')
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command != "HEAD":
            self.send_part(file.content, start, end)

    do_HEAD = do_GET

    def send_part(self, content: Path, start: int, end: int) -> None:
        sent = 0
        try:
            with content.open("rb") as file:
                file.seek(start)
                while sent < end - start:
                    piece = file.read(min(PIECE, end - start - sent))
                    self.wfile.write(piece)
                    sent += len(piece)
        finally:
            self.world.count("bridge", sent)


class Guard(Server):
    """Passes on to `local_cas_server` what the real service would accept."""

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        if self.world.cas_refuses:
            return self.refuse(503, "ServiceUnavailable")
        if url.path == "/v1/fetch_term":
            return self.chunks(urllib.parse.parse_qs(url.query)["term"][0])
        if url.path == "/v1/reconstructions":
            return self.batch(urllib.parse.parse_qs(url.query).get("file_id", []))
        found = re.fullmatch(r"/(v[12])/reconstructions/([0-9a-f]{64})", url.path)
        if not found or (self.world.cas_is_v1 and found[1] == "v2"):
            return self.refuse(404, "NotFound")
        if self.may_read([found[2]]):
            self.pass_on(self.path, f"answer {found[1]}")

    def do_HEAD(self) -> None:
        found = re.fullmatch(r"/v1/files/([0-9a-f]{64})", self.path)
        if not found:
            return self.refuse(404, "NotFound")
        if self.may_read([found[1]]):
            self.pass_on(self.path, "size")

    def do_POST(self) -> None:
        """The batch of the documents, as the batch that `local_cas_server` has."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/v1/reconstructions" or self.world.no_batch:
            return self.refuse(405, "MethodNotAllowed")
        if self.world.cas_refuses:
            return self.refuse(503, "ServiceUnavailable")
        self.batch([it["hash"] for it in json.loads(body)])

    def batch(self, ids: list[str]) -> None:
        if self.may_read(ids):
            query = "&".join(f"file_id={it}" for it in ids)
            self.pass_on(f"/v1/reconstructions?{query}", "batch")

    def may_read(self, ids: list[str]) -> bool:
        token = self.bearer()
        if token == HUB_TOKEN:
            self.world.leaks.append(f"the CAS got the Hub's token: {self.path[:80]}")
        _, _, of = token.partition("cas:")
        found = self.world.files(*of.split(":")) if ":" in of else None
        if not found:
            self.refuse(401, "Unauthorized")
            return False
        readable = {file.xet for file in found[1].values()}
        if not readable.issuperset(ids):
            self.refuse(403, "NotOfThisCommit")
            return False
        return True

    def chunks(self, term: str) -> None:
        if not self.must_be_anonymous():
            return
        asked = self.range(None)
        if not asked:
            return self.refuse(403, "NoRange")
        _, _, signed = base64.urlsafe_b64decode(term + "==").decode().partition(":")
        ranges = [tuple(map(int, it.split("-"))) for it in signed.split(",") if it]
        inside = any(start <= asked[0] and asked[1] <= end for start, end in ranges)
        exact = asked in ranges
        # A link of the first version names no ranges.
        if ranges and not (exact if self.world.whole_ranges else inside):
            return self.refuse(403, "OutsideTheSignedRange")
        self.pass_on(self.path, "chunks", asked)

    def pass_on(self, path: str, what: str, asked: tuple[int, int] | None = None) -> None:
        """Links lead back here, because the store makes them from the header `Host`."""
        inner = http.client.HTTPConnection("127.0.0.1", self.servers.cas_port)
        headers = {"Host": self.headers["Host"]}
        if "Range" in self.headers:
            headers["Range"] = self.headers["Range"]
        inner.request("HEAD" if self.command == "HEAD" else "GET", path, headers=headers)
        answer = inner.getresponse()
        length = answer.getheader("Content-Length", "0")
        # The store says 200 or a 206 without Content-Range; storages say both as HTTP wants it.
        is_part = asked and answer.status in (200, 206)
        self.send_response(206 if is_part else answer.status)
        if is_part:
            self.send_header("Content-Range", f"bytes {asked[0]}-{asked[0] + int(length) - 1}/*")
        self.send_header("Content-Type", answer.getheader("Content-Type", "text/plain"))
        self.send_header("Content-Length", length)
        self.end_headers()
        sent = 0
        try:
            while piece := answer.read(PIECE):
                self.wfile.write(flipped(piece) if is_part and self.world.damaged else piece)
                sent += len(piece)
        finally:
            inner.close()
            self.world.count(what, sent)


def flipped(piece: bytes) -> bytes:
    """With another bit in the middle."""
    at = len(piece) // 2
    return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1:]
