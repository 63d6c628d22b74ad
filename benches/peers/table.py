"""From samples to a Markdown table, and what machine it was."""

import os
import platform
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data import GIB, MIB
from workloads import Workload

HEAD = ("contender", "verifies", "ok", "wall s (min–max)", "wall+sync s", "× weightlift",
        "CPU s", "CPU s/GiB", "peak RSS MiB", "requests", "MiB sent")


@dataclass(frozen=True)
class Column:
    """A median of one number of the samples, or what `of` makes of them; empty where all lack it."""

    title: str
    key: str
    form: str = "{:.2f}"
    unit: float = 1
    of: Callable = statistics.median

    def cell(self, ok: list[dict]) -> str:
        values = [it[self.key] for it in ok if it.get(self.key) is not None]
        return self.form.format(self.of(values) / self.unit) if values else ""


def columns(workload: Workload) -> list[Column]:
    """What a workload is about, beside what all have."""
    found = []
    if workload.link:
        found += [Column("× link", "of_link")]
    if workload.edges and len(workload.edges.rates) > 1:
        for name in ("slow", "fast"):
            found += [Column(f"{name} connections", f"{name}_connections", "{:g}"),
                      Column(f"{name} MiB", f"{name}_bytes", "{:.0f}", MIB)]
    if workload.calm:
        found += [Column("wall s without stalls", "calm_wall"),
                  Column("connections", "fast_connections", "{:g}"),
                  Column("stalled, of all rounds", "fast_stalled", "{:g}", of=sum)]
    if workload.read:
        found += [Column("in memory %", "cached", "{:.0f}", 0.01), Column("first read s", "read"),
                  Column("wall + first read s", "wall_and_read")]
    if workload.cpus:
        found += [Column("cgroup peak MiB", "cgroup_peak", "{:.0f}", MIB)]
    return found


def median(samples: list[dict], of) -> float:
    return statistics.median(of(sample) for sample in samples)


def wall(sample: dict) -> float:
    return sample["wall"]


def wall_and_sync(sample: dict) -> float:
    return sample["wall"] + sample["sync"]


def cpu(sample: dict) -> float:
    return sample["user"] + sample["system"]


def section(title: str, rows: list[dict], notes: list[str], extra: list[Column]) -> str:
    """`rows` have `name`, `verifies`, `bytes` and `samples`."""
    lines = [f"### {title}", ""]
    head = (*HEAD, *(it.title for it in extra))
    if rows:
        sizes = ", ".join(dict.fromkeys(f"{row['bytes'] / MIB:,.1f}" for row in rows))
        lines += [f"{sizes} MiB, {rounds(rows)}.", "", line(head),
                  line(["---"] * 3 + ["---:"] * (len(head) - 3))]
    ours = [good(row) for row in rows if row["name"] == "weightlift"]
    unit = median(ours[0], wall) if ours and ours[0] else None
    faults = []
    for row in rows:
        ok = good(row)
        bad = [it for it in row["samples"] if it.get("failed")]
        cells = [row["name"], row["verifies"], f"{len(ok)}/{len(row['samples'])}"]
        cells += numbers(ok, row["bytes"], unit) if ok else ["failed"] + [""] * 7
        cells += [it.cell(ok) for it in extra]
        lines.append(line(cells))
        if bad:
            faults.append(f"{row['name']}: {' '.join(bad[0]['failed'].split())[:500]}")
        if any(it["refused"] for it in ok):
            count = int(median(ok, lambda it: it["refused"]))
            faults.append(f"{row['name']}: {count} of the requests were answered with an error")
    lines += [""] if rows else []
    lines += [f"- {note}" for note in notes + faults + flatness(rows)]
    lines += addresses(rows)
    return "\n".join(lines) + "\n"


def rounds(rows: list[dict]) -> str:
    counts = sorted({len(row["samples"]) for row in rows})
    return f"{'–'.join(map(str, counts))} round{'' if counts == [1] else 's'}"


def flatness(rows: list[dict]) -> list[str]:
    """Of one contender at several sizes: whether what a GiB costs stays the same."""
    notes = []
    for contender in dict.fromkeys(row["contender"] for row in rows):
        mine = [row for row in rows if row["contender"] == contender and good(row)]
        small, large = (of(mine, key=lambda row: row["bytes"], default=None) for of in (min, max))
        if not mine or small["bytes"] < 16 * MIB or small["bytes"] == large["bytes"]:
            continue
        cost, peak = ([of(good(row)) for row in (small, large)] for of in (
            lambda ok: median(ok, cpu), lambda ok: median(ok, lambda it: it["peak_kib"])))
        factor = large["bytes"] / small["bytes"]
        notes.append(f"{contender} at {factor:g} times the size: CPU per GiB × "
                     f"{cost[1] / cost[0] / factor:.2f}, peak RSS × {peak[1] / peak[0]:.2f}")
    return notes


def addresses(rows: list[dict]) -> list[str]:
    """Connections and MiB of each address in the last round, where there are several."""
    found = {row["name"]: row["samples"][-1].get("edges", []) for row in rows}
    found = {name: edges for name, edges in found.items() if len(edges) > 1}
    if not found:
        return []
    lines = ["", "Connections / MiB of each address in the last round:", "",
             line(["address", "MB/s each", *found]),
             line(["---"] + ["---:"] * (len(found) + 1))]
    for told in zip(*found.values()):
        cells = [f"{it['connections']} / {it['bytes'] / MIB:.1f}" for it in told]
        lines.append(line([told[0]["address"], f"{told[0]['rate'] / 1e6:.1f}", *cells]))
    return lines


def good(row: dict) -> list[dict]:
    return [it for it in row["samples"] if not it.get("failed")]


def numbers(ok: list[dict], total: int, unit: float | None) -> list[str]:
    walls = [wall(it) for it in ok]
    half = statistics.median(walls)
    used = median(ok, cpu)
    return [
        f"{half:.2f} ({min(walls):.2f}–{max(walls):.2f})",
        f"{median(ok, wall_and_sync):.2f}",
        f"{half / unit:.2f}" if unit else "",
        f"{used:.2f}",
        f"{used / (total / GIB):.2f}" if total >= 16 * MIB else "",
        f"{median(ok, lambda it: it['peak_kib']) / 1024:.1f}",
        f"{median(ok, lambda it: it['requests']):.0f}",
        f"{median(ok, lambda it: it['sent']) / MIB:.1f}",
    ]


def line(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def machine(folder: Path) -> str:
    """CPU, memory, kernel, and what the destination on disk is."""
    info = Path("/proc/cpuinfo").read_text()
    names = [it.split(":", 1)[1].strip() for it in info.splitlines() if it.startswith("model name")]
    flags = " with SHA-NI" if " sha_ni" in info else ", no SHA-NI"
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    return (f"{names[0] if names else platform.machine()}{flags}, {os.cpu_count()} cores, "
            f"{memory:.0f} GiB, Linux {platform.release()}, disk {filesystem(folder)}, "
            f"Python {platform.python_version()}")


def filesystem(folder: Path) -> str:
    best = ("", "unknown")
    for mount in Path("/proc/mounts").read_text().splitlines():
        _, point, kind, *_ = mount.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def version(command: str) -> str:
    """The first line of what a program says of itself, or nothing."""
    words = command.split()
    if not shutil.which(words[0]):
        return ""
    home = {"HOME": "/nonexistent", "PATH": os.environ["PATH"]}
    said = subprocess.run(words, capture_output=True, text=True, env=home)
    text = COLOURS.sub("", said.stdout.strip() or said.stderr.strip()).splitlines()
    numbered = [it.strip() for it in text if any(char.isdigit() for char in it)]
    return numbered[0].split(" (")[0] if numbered else ""


COLOURS = re.compile(r"\x1b\[[0-9;]*m")
