"""From samples to a Markdown table, and what machine it was."""

import os
import platform
import re
import shutil
import statistics
import subprocess
from pathlib import Path

from data import GIB, MIB

HEAD = ("contender", "verifies", "ok", "wall s (min–max)", "wall+sync s", "× weightlift",
        "CPU s", "CPU s/GiB", "peak RSS MiB", "requests", "MiB sent")


def median(samples: list[dict], of) -> float:
    return statistics.median(of(sample) for sample in samples)


def wall(sample: dict) -> float:
    return sample["wall"]


def wall_and_sync(sample: dict) -> float:
    return sample["wall"] + sample["sync"]


def cpu(sample: dict) -> float:
    return sample["user"] + sample["system"]


def section(title: str, rows: list[dict], notes: list[str]) -> str:
    """`rows` have `name`, `verifies`, `bytes` and `samples`."""
    lines = [f"### {title}", ""]
    if rows:
        sizes = ", ".join(dict.fromkeys(f"{row['bytes'] / MIB:,.1f}" for row in rows))
        lines += [f"{sizes} MiB.", "", line(HEAD),
                  line(["---"] * 3 + ["---:"] * (len(HEAD) - 3))]
    ours = [good(row) for row in rows if row["name"] == "weightlift"]
    unit = median(ours[0], wall) if ours and ours[0] else None
    faults = []
    for row in rows:
        ok = good(row)
        bad = [it for it in row["samples"] if it.get("failed")]
        cells = [row["name"], row["verifies"], f"{len(ok)}/{len(row['samples'])}"]
        cells += numbers(ok, row["bytes"], unit) if ok else ["failed"] + [""] * 7
        lines.append(line(cells))
        if bad:
            faults.append(f"{row['name']}: {' '.join(bad[0]['failed'].split())[:300]}")
        if any(it["refused"] for it in ok):
            count = int(median(ok, lambda it: it["refused"]))
            faults.append(f"{row['name']}: {count} of the requests were answered with an error")
    lines += [""] if rows else []
    lines += [f"- {note}" for note in notes + faults]
    return "\n".join(lines) + "\n"


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
