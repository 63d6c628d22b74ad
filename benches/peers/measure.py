"""One run of one contender: prepared, measured by `measured`, checked, cleared away."""

import json
import os
import shlex
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

from contenders import Contender
from data import OWNER, Data, sha256_of
from surroundings import Link, MemoryLimit
from workloads import Workload

HERE = Path(__file__).resolve().parent
TIMEOUT = 900


class Lab:
    """What every run needs to know."""

    def __init__(self, asked, servers, installer, weightlift: Path, link: Link | None):
        self.servers = servers
        self.installer = installer
        self.weightlift = weightlift
        self.link = link
        self.work = servers.work
        self.dest = asked.dest
        self.disk = asked.cache / f"dest-{os.getpid()}"
        self.tmpfs = Path("/dev/shm") / f"weightlift-peers-{os.getpid()}"
        self.commits = {}

    def close(self) -> None:
        for folder in (self.disk, self.tmpfs):
            shutil.rmtree(folder, ignore_errors=True)

    def folder(self, workload: Workload) -> Path:
        return self.tmpfs if (self.dest or workload.dest) == "tmpfs" else self.disk

    def run(self, workload: Workload, contender: Contender, data: Data) -> dict:
        """The sample: numbers, and under `failed` what was wrong, if anything was."""
        place = self.folder(workload) / contender.name
        warm_ready = bool(workload.warm) and place.exists()
        if not warm_ready:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        filled = self.fill(workload, contender, data, place)
        if workload.warm and not warm_ready:
            sample = self.measure(workload, contender.command, filled, place, limited=False)
            if sample["exit"] != 0:
                shutil.rmtree(place)
                return sample
        command = contender.warm if workload.warm else contender.command
        sample = self.measure(workload, command, filled, place, limited=True)
        if sample["exit"] == 0:
            sample["failed"] = wrong(filled["dest"], data)
        if not workload.warm:
            shutil.rmtree(place)
        return sample

    def fill(self, workload: Workload, contender: Contender, data: Data, place: Path) -> dict:
        address = self.link.host if workload.link else "127.0.0.1"
        endpoint = self.servers.endpoint(workload.server, address)
        values = {
            "hub": endpoint.hub, "storage": endpoint.storage, "repo": data.spec.repo,
            "storage_host": endpoint.storage.split("//")[1], "bucket": OWNER,
            "prefix": f"{data.spec.key}/", "dest": str(place / "model"), "here": str(HERE),
            "ca": str(endpoint.ca), "bin": str(self.weightlift), "venv": str(self.installer.venv),
            "tools": str(self.installer.tools), "list": str(self.work / "list"), "revision": "main",
        }
        if workload.warm == "commit":
            values["revision"] = self.commit(data)
        lines = list_lines(contender.list_format, data, values)
        Path(values["list"]).write_text("".join(line + "\n" for line in lines))
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(place / "home"),
                       "TMPDIR": str(place)}
        if workload.server == "tls":
            for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
                environment[name] = values["ca"]
        for name, value in contender.env.items():
            environment[name] = value.format(**values)
        return values | {"environment": environment}

    def measure(self, workload: Workload, command: str, values: dict, place: Path,
                limited: bool) -> dict:
        words = [word.format(**values) for word in shlex.split(command)] + list(workload.arguments)
        if workload.link:
            words = self.link.inside(words)
        limit = MemoryLimit(workload.memory_limit) if limited and workload.memory_limit else None
        result, output = self.work / "result.json", self.work / "output.log"
        result.unlink(missing_ok=True)
        Path(values["dest"]).parent.mkdir(parents=True, exist_ok=True)
        os.sync()
        mark = self.servers.mark()
        measured = [self.installer.tools / "measured", result, place,
                    limit.tasks if limit else "-", str(TIMEOUT)]
        with output.open("wb") as file:
            subprocess.run([*measured, *words], env=values["environment"], cwd=place,
                           stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        traffic = self.servers.traffic_since(mark)
        sample = json.loads(result.read_text()) if result.exists() else {"exit": 127}
        sample |= {"requests": traffic.requests, "sent": traffic.sent, "refused": traffic.errors}
        if limit:
            sample |= limit.close()
        if sample["exit"] != 0:
            last = output.read_bytes()[-600:].decode(errors="replace").strip()
            sample["failed"] = f"exit {sample['exit']}: {last}"
        return sample

    def commit(self, data: Data) -> str:
        repo = data.spec.repo
        if repo not in self.commits:
            url = f"{self.servers.endpoint('plain').hub}/api/models/{repo}"
            with urllib.request.urlopen(url) as answer:
                self.commits[repo] = json.load(answer)["sha"]
        return self.commits[repo]


def list_lines(form: str, data: Data, values: dict) -> list[str]:
    """What a plain downloader is told to get."""
    lines = []
    for path in data.sums:
        target = urllib.parse.quote(f"/{data.spec.repo}/{path}")
        url = values["storage"] + target
        if form.startswith("aria2"):
            lines += [url, f"  out={path}"]
            if form == "aria2-sha256":
                lines.append(f"  checksum=sha-256={data.sums[path]}")
        elif form == "curl":
            lines += [f'url = "{url}"', f'output = "{values["dest"]}/{path}"']
        elif form == "floor":
            lines.append(f"{data.sizes[path]} {target} {path}")
    return lines


def wrong(dest: str, data: Data) -> str:
    """What is not as it should be below `dest`: every size, and the digest of two files."""
    found = Path(dest)
    # The cache of the Hub's clients: the files are links in a directory for the revision.
    for snapshot in found.glob("models--*/snapshots/*"):
        found = snapshot
    for path, size in data.sizes.items():
        file = found / path
        if not file.is_file():
            return f"{path} is missing"
        if file.stat().st_size != size:
            return f"{path} has {file.stat().st_size} bytes instead of {size}"
    names = sorted(data.sums)
    for path in {names[0], names[-1]}:
        if sha256_of(found / path) != data.sums[path]:
            return f"{path} has other bytes"
    return ""
