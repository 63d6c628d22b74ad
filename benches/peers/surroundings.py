"""What a run can be put into: a memory cgroup, a network namespace behind a slow link."""

import os
import subprocess
from pathlib import Path


class Unavailable(Exception):
    """The machine cannot do this; the text says why."""


class MemoryLimit:
    """A memory cgroup (of either version) for one run. The page cache counts."""

    def __init__(self, limit: int):
        root, self.version = hierarchy()
        self.folder = root / f"weightlift-peers-{os.getpid()}"
        self.folder.mkdir(exist_ok=True)
        self.tasks = self.folder / "cgroup.procs"
        if self.version == 1:
            names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
        else:
            names = ["memory.max"]
        for name in names:
            if (self.folder / name).exists():
                (self.folder / name).write_text(str(limit))

    def close(self) -> dict:
        def read(name: str) -> str:
            file = self.folder / name
            return file.read_text().strip() if file.exists() else ""

        peak = read("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")
        self.folder.rmdir()
        return {"cgroup_peak": int(peak or 0)}


def hierarchy() -> tuple[Path, int]:
    """Where memory cgroups are. Raises `Unavailable`."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, folder, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(folder), 1
    root = Path("/sys/fs/cgroup")
    controllers = root / "cgroup.subtree_control"
    if controllers.exists() and "memory" in (root / "cgroup.controllers").read_text().split():
        try:
            controllers.write_text("+memory")
        except OSError as error:
            raise Unavailable(f"no memory cgroup: {error}") from error
        return root, 2
    raise Unavailable("no memory cgroup is mounted (mount -t cgroup -o memory none DIRECTORY)")


class Link:
    """Two interfaces with a slow link between them; one is in a namespace of its own."""

    host = "10.213.77.1"
    peer = "10.213.77.2"

    def __init__(self, tools: Path, delay: str, loss: str, rate: str):
        self.shape = (delay, loss, rate)
        self.about = f"{rate} Mbit/s, {delay} ms round trip, {loss} % loss"
        self.name = f"peers{os.getpid() % 100000}"
        self.outer, self.inner = f"{self.name}a", f"{self.name}b"
        self.program = None
        try:
            self._make(tools)
        except Unavailable:
            self.close()
            raise

    def _make(self, tools: Path) -> None:
        if os.geteuid() != 0:
            raise Unavailable("a network namespace needs root")
        words = [tools / "slowlink", self.outer, self.inner, *self.shape]
        self.program = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        if self.program.stdout.readline() != "up\n":
            raise Unavailable(f"no slow link: {self.program.stderr.read().strip()}")
        command("ip", "netns", "add", self.name)
        command("ip", "link", "set", self.inner, "netns", self.name)
        inside = ("-n", self.name)
        for where, name, address in (((), self.outer, self.host), (inside, self.inner, self.peer)):
            command("ip", *where, "address", "add", f"{address}/30", "dev", name)
            command("ip", *where, "link", "set", name, "up")
        command("ip", *inside, "link", "set", "lo", "up")

    def inside(self, words: list[str]) -> list[str]:
        """`ip netns exec` becomes the program, so it is the program that is measured."""
        return ["ip", "netns", "exec", self.name, *words]

    def close(self) -> None:
        if self.program:
            self.program.kill()
            self.program.wait()
        subprocess.run(["ip", "netns", "delete", self.name], stderr=subprocess.DEVNULL)


def command(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Unavailable(f"`{words[0]}` is not installed") from error
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"`{' '.join(words)}`: {error.stderr.strip()}") from error
