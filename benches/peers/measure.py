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
from edges import Relay
from servers import LOOPBACK
from surroundings import Limits, Link, Shape
from workloads import Workload
from xet import large_files

HERE = Path(__file__).resolve().parent


class Lab:
    """What every run needs to know."""

    def __init__(self, asked, servers, installer, links: dict[Shape, Link]):
        self.servers = servers
        self.installer = installer
        self.weightlift = asked.bin
        self.before = asked.before
        self.fsync = asked.fsync
        self.links = links
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

    def run(self, workload: Workload, contender: Contender, data: Data, number: int) -> dict:
        """The sample: numbers, and under `failed` what was wrong, if anything was.

        What is left to chance is the same for all contenders of the round `number`.
        """
        place = self.folder(workload) / contender.name
        warm_ready = bool(workload.warm) and place.exists()
        if not warm_ready:
            self.emptied(place)
        filled = self.fill(workload, contender, data, place)
        if workload.warm and not warm_ready:
            sample = self.measure(workload, contender.command, filled, place, number,
                                  limited=False)
            if sample["exit"] != 0:
                shutil.rmtree(place)
                return sample
        calm = {}
        if workload.calm:
            calm = self.measure(workload, contender.command, filled, place, number, calm=True)
            self.emptied(place)
        command = contender.warm if workload.warm else contender.command
        sample = self.measure(workload, command, filled, place, number)
        if sample["exit"] == 0:
            sample["failed"] = (wrong(filled["dest"], data)
                                or bypassed(workload, contender, data, sample))
            sample |= derived(workload, data, sample)
        if calm and "failed" not in calm:
            sample["calm_wall"] = calm["wall"]
        if not workload.warm:
            shutil.rmtree(place)
        return sample

    @staticmethod
    def emptied(place: Path) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)

    def fill(self, workload: Workload, contender: Contender, data: Data, place: Path) -> dict:
        address = self.links[workload.link].host if workload.link else LOOPBACK
        endpoint = self.servers.endpoint(workload.server, address)
        values = {
            "hub": endpoint.hub, "xet_hub": endpoint.xet_hub, "storage": endpoint.storage,
            "repo": data.spec.repo, "before": str(self.before), "fsync": str(int(self.fsync)),
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

    def measure(self, workload: Workload, command: str, values: dict, place: Path, number: int,
                limited: bool = True, calm: bool = False) -> dict:
        words = [word.format(**values) for word in shlex.split(command)] + list(workload.arguments)
        limits = Limits(workload.memory_limit, workload.cpus) if limited else Limits(0, 0)
        words = limits.words + words
        if workload.link:
            words = self.links[workload.link].inside(words)
            self.links[workload.link].forget()
        relay = self.relay(workload, number, calm) if workload.edges else None
        if relay:
            words = relay.inside(words)
        result, output = self.work / "result.json", self.work / "output.log"
        result.unlink(missing_ok=True)
        Path(values["dest"]).parent.mkdir(parents=True, exist_ok=True)
        os.sync()
        mark = self.servers.mark()
        measured = [self.installer.tools / "measured", result, place, limits.tasks,
                    values["dest"] if workload.read else "-", str(workload.timeout)]
        with output.open("wb") as file:
            subprocess.run([*measured, *words], env=values["environment"], cwd=place,
                           stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        edges = relay.close() if relay else []
        traffic = self.servers.traffic_since(mark)
        sample = json.loads(result.read_text()) if result.exists() else {"exit": 127}
        sample |= {"requests": traffic.requests, "sent": traffic.sent.total(),
                   "refused": traffic.errors}
        if relay:
            # nginx counts what it gave to the relay, of which some was not wanted any more.
            sample |= {"edges": edges, "sent": sum(it["bytes"] for it in edges)}
        sample |= limits.close()
        if workload.server in self.servers.xet_ports:
            sample["sent_by_store"] = traffic.sent[self.servers.xet_ports[workload.server][1]]
        if sample["exit"] != 0:
            last = output.read_bytes()[-400:].decode(errors="replace").strip()
            late = sample.get("wall", 0) >= workload.timeout
            last = f"stopped after {workload.timeout} s; {last}" if late else last
            sample["failed"] = f"exit {sample['exit']}: {last}"
        return sample

    def relay(self, workload: Workload, number: int, calm: bool) -> Relay:
        port = self.servers.ports[workload.server][1]
        nginx = f"{LOOPBACK}:{self.servers.ports['plain'][1]}"
        return Relay(self.installer.tools, self.work, workload.edges, port, nginx, number,
                     stalls=not calm)

    def commit(self, data: Data) -> str:
        repo = data.spec.repo
        if repo not in self.commits:
            url = f"{self.servers.endpoint('plain').hub}/api/models/{repo}"
            with urllib.request.urlopen(url) as answer:
                self.commits[repo] = json.load(answer)["sha"]
        return self.commits[repo]


def derived(workload: Workload, data: Data, sample: dict) -> dict:
    """Numbers that are made of others, run by run."""
    found = {}
    if workload.link:
        found["of_link"] = data.total / sample["wall"] / workload.link.bytes_per_second
    if workload.read:
        found["wall_and_read"] = sample["wall"] + sample["read"]
    if workload.edges:
        fastest = max(workload.edges.rates)
        for name, some in (("slow", [it for it in sample["edges"] if it["rate"] < fastest]),
                           ("fast", [it for it in sample["edges"] if it["rate"] == fastest])):
            for what in ("connections", "bytes", "stalled"):
                found[f"{name}_{what}"] = sum(it[what] for it in some)
    return found


def bypassed(workload: Workload, contender: Contender, data: Data, sample: dict) -> str:
    """Where the Hub or the store does not please a client, it quietly takes the plain way."""
    if not contender.uses_xet or workload.warm:
        return ""
    wanted = sum(data.sizes[path] for path in large_files(data))
    if sample["sent_by_store"] < wanted / 2:
        return f"only {sample['sent_by_store'] >> 20} MiB came from the Xet store"
    return ""


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
