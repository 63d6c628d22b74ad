"""The working directory of a run: the store, the servers, uploads and fetches."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import install
from xet_chunks import Chunker
from xet_servers import HUB_TOKEN, Servers, Stored, World

PEERS = Path(install.__file__).resolve().parent
STORE_PROGRAM = "local_cas_server"
# The longest that anything here may take; nothing is judged by its time.
PATIENCE = 300


@dataclass(frozen=True)
class Run:
    """What became of a fetch."""

    code: int
    told: dict
    errors: str
    seconds: float


class Lab:
    def __init__(self, folder: Path, binary: Path, tools: install.Installer, crates: Path):
        self.folder = folder
        self.binary = binary
        self.chunker = Chunker(crates)
        self.port = free_port()
        self.log = (folder / "store.log").open("wb")
        command = [tools.tools / STORE_PROGRAM, "--data-directory", folder / "store"]
        self.store = subprocess.Popen([*command, "--port", str(self.port)], stdout=self.log,
                                      stderr=subprocess.STDOUT)
        wait_for(self.port)
        self.world = World()
        self.servers = Servers(self.world, self.port)
        self.uploads = 0

    def stop(self) -> None:
        self.servers.stop()
        self.store.terminate()
        self.store.wait()
        self.log.close()

    def commit(self, repo: str, files: dict[str, bytes]) -> dict[str, Stored]:
        """Uploads files by the real client, which knows what it has uploaded before."""
        self.uploads += 1
        folder = self.folder / f"commit-{self.uploads}"
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        listed = self.folder / f"commit-{self.uploads}.json"
        command = [sys.executable, PEERS / "upload_xet.py", f"http://127.0.0.1:{self.port}", listed]
        memory = {"HF_HOME": str(self.folder / "client"), "HF_XET_CACHE": str(self.folder / "client")}
        subprocess.run([*command, *files], check=True, cwd=folder, env=os.environ | memory)
        hashes = json.loads(listed.read_text())
        stored = {path: Stored(folder / path, len(content), hashlib.sha256(content).hexdigest(),
                               hashes[path]) for path, content in files.items()}
        small = b'{"model_type": "oracle"}\n'
        (folder / "config.json").write_bytes(small)
        digest = hashlib.sha256(small).hexdigest()
        stored["config.json"] = Stored(folder / "config.json", len(small), digest)
        self.world.commit(repo, stored)
        return stored

    def terms(self, file: Stored) -> list[tuple[str, int, int, int]]:
        """Of what the store says a file is made: xorb, first chunk, end, bytes."""
        url = f"http://127.0.0.1:{self.port}/v1/reconstructions/{file.xet}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            terms = json.load(answer)["terms"]
        return [(it["hash"], it["range"]["start"], it["range"]["end"], it["unpacked_length"])
                for it in terms]

    def lengths_by_xorb(self, file: Stored) -> list[int]:
        """Bytes of the file until the next xorb, and so on."""
        by_xorb = groupby(self.terms(file), key=lambda term: term[0])
        return [sum(term[3] for term in terms) for _, terms in by_xorb]

    def fetch(self, repo: str, root: Path, *flags: str, dest: tuple = ("model",)) -> Run:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "HF_TOKEN": HUB_TOKEN,
                       "HF_ENDPOINT": self.servers.hub}
        command = [self.binary, "fetch", "--output", "json", "--all", "--root", root, *flags,
                   f"hf://{repo}", *dest]
        began = time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True,
                              timeout=PATIENCE)
        seconds = time.monotonic() - began
        lines = done.stdout.splitlines()
        return Run(done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr, seconds)

    def model(self) -> Path:
        return self.folder / "volume/model"

    def fresh_root(self) -> Path:
        root = self.model().parent
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        return root


def wrong_files(model: Path, stored: dict[str, Stored]) -> list[str]:
    """The files that are not there as they were uploaded, and those that nobody uploaded."""
    there = {str(path.relative_to(model.resolve())) for path in model.resolve().rglob("*")
             if path.is_file() and not path.name.startswith(".weightlift")} if model.exists() else set()
    wrong = [f"`{path}` is not of the commit" for path in sorted(there - set(stored))]
    for path, file in stored.items():
        if path not in there:
            wrong.append(f"`{path}` is missing")
        elif (model / path).read_bytes() != file.content.read_bytes():
            wrong.append(f"`{path}` has other bytes")
    return wrong


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    for _ in range(PATIENCE * 10):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")
