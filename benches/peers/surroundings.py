"""What a run can be put into: control groups, a network namespace behind a slow link."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


class Unavailable(Exception):
    """The machine cannot do this; the text says why."""


class Limits:
    """Control groups (of either version) for one run. The page cache counts as memory."""

    def __init__(self, memory: int, cpus: int):
        self.memory = None
        self.folders = []
        # Words in front of the command, where there is no controller for the processors.
        self.words = []
        if memory:
            self.memory = self._group("memory")
            for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max"):
                self._set(self.memory, name, str(memory))
        if cpus and quota_missing():
            self.words = ["taskset", "--cpu-list", f"0-{cpus - 1}"]
        elif cpus:
            group = self._group("cpu")
            self._set(group, "cpu.cfs_period_us", str(PERIOD))
            self._set(group, "cpu.cfs_quota_us", str(cpus * PERIOD))
            self._set(group, "cpu.max", f"{cpus * PERIOD} {PERIOD}")

    @property
    def tasks(self) -> str:
        """Files that a process is written into, as `measured` wants them."""
        return ",".join(str(it / "cgroup.procs") for it in self.folders) or "-"

    def _group(self, controller: str) -> Path:
        folder = hierarchy(controller)[0] / f"weightlift-peers-{os.getpid()}"
        folder.mkdir(exist_ok=True)
        if folder not in self.folders:
            self.folders.append(folder)
        return folder

    def _set(self, folder: Path, name: str, value: str) -> None:
        """Each version has files of its own."""
        if (folder / name).exists():
            (folder / name).write_text(value)

    def close(self) -> dict:
        peaks = [self.memory / name for name in ("memory.max_usage_in_bytes", "memory.peak")
                 if self.memory]
        told = {"cgroup_peak": int(it.read_text()) for it in peaks if it.exists()}
        for folder in self.folders:
            removed(folder)
        return told


def removed(folder: Path) -> None:
    """A process that was killed is in its group for a little longer."""
    for _ in range(500):
        try:
            return folder.rmdir()
        except OSError:
            time.sleep(0.02)
    folder.rmdir()


PERIOD = 100_000


def quota_missing() -> str:
    """Why there can be no quota for the processors, or nothing."""
    try:
        hierarchy("cpu")
        return ""
    except Unavailable as reason:
        return str(reason)


def hierarchy(controller: str) -> tuple[Path, int]:
    """Where the groups of a controller are. Raises `Unavailable`."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, folder, kind, options, *_ = line.split()
        if kind == "cgroup" and controller in options.split(","):
            return Path(folder), 1
    root = Path("/sys/fs/cgroup")
    controllers = root / "cgroup.subtree_control"
    if controllers.exists() and controller in (root / "cgroup.controllers").read_text().split():
        try:
            controllers.write_text(f"+{controller}")
        except OSError as error:
            raise Unavailable(f"no {controller} cgroup: {error}") from error
        return root, 2
    raise Unavailable(f"no {controller} cgroup is mounted "
                      f"(mount -t cgroup -o {controller} none DIRECTORY)")


@dataclass(frozen=True)
class Shape:
    """Of a slow link. Without a name, the congestion control is the machine's."""

    delay_ms: float
    loss_percent: float
    mbit: float
    congestion: str = ""

    def __str__(self) -> str:
        name = (self.congestion or CONGESTION.read_text().strip()).upper()
        return (f"{self.mbit:g} Mbit/s, {self.delay_ms:g} ms round trip, {self.loss_percent:g} % "
                f"loss, {name}")

    @property
    def bytes_per_second(self) -> float:
        """Content at most: 1448 bytes of each packet of 1514."""
        return self.mbit * 1e6 / 8 * 1448 / 1514


CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")


class Link:
    """Two interfaces with a slow link between them; one is in a namespace of its own."""

    def __init__(self, tools: Path, shape: Shape, number: int):
        self.shape = shape
        self.host, self.peer = (f"10.213.{77 + number}.{it}" for it in (1, 2))
        self.name = f"peers{os.getpid() % 100000}{number}"
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
        numbers = (self.shape.delay_ms, self.shape.loss_percent, self.shape.mbit)
        words = [tools / "slowlink", self.outer, self.inner, *(str(it) for it in numbers)]
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
        if self.shape.congestion:
            # By the route, so that nothing else on the machine is changed.
            network = self.host.rsplit(".", 1)[0] + ".0/30"
            command("ip", "route", "change", network, "dev", self.outer, "proto", "kernel",
                    "scope", "link", "src", self.host, "congctl", self.shape.congestion)

    def forget(self) -> None:
        """The kernel remembers what it learned of a path; the next contender is not to profit."""
        # Fails when there is nothing to forget.
        subprocess.run(["ip", "tcp_metrics", "delete", self.peer], stderr=subprocess.DEVNULL)

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
