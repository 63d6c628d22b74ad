#!/usr/bin/env python3
"""Makes the tables and the charts of docs/performance.md from `published.json`.

    benches/peers/publish.py                      # writes them
    benches/peers/publish.py --check              # exit 1 if a table or a picture is not what this draws
    benches/peers/publish.py --from results.json  # takes the figures of a run into published.json first

A run (`benches/peers/run`) leaves every sample in results.json; what is published are medians, least and most.
"""

import argparse
import json
import re
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from drawing import THEMES, Chart, Panel, draw  # noqa: E402
from life import life  # noqa: E402

PUBLISHED = "benches/peers/published.json"
PAGE = "docs/performance.md"
PICTURES = "docs/pictures"
GIB = 1 << 30

# What a contender of a run is called on the page.
NAMES = {
    "weightlift-before": "weightlift before",
    "weightlift-direct": "weightlift `--direct-io on`",
    "floor-direct": "the floor, past the page cache",
    "kserve": "KServe, Hub",
    "kserve-s3": "KServe, S3",
    "kserve-xet": "KServe, Xet",
}
# The rows of each chart: those that do the same job, once each.
CONTAINER = ("weightlift", "weightlift-s3", "KServe, S3", "hf-xet", "KServe, Xet", "hf", "KServe, Hub")
ONE_FILE = ("rclone", "weightlift", "weightlift-s3", "s5cmd", "curl")
CALLED = {"hf": "hf, HTTP", "hf-xet": "hf, Xet", "KServe, Hub": "KServe, HTTP"}


def published(root):
    return json.loads((root / PUBLISHED).read_text(encoding="utf-8"))


# Tables


def table(entry):
    warm = "warm_wall" in entry["rows"][0]
    if warm:
        head = ["cold: wall s", "CPU s/GiB", "peak RSS MiB", "warm: wall s"]
    else:
        head = ["wall s (min–max)", "wall+sync s", "CPU s/GiB", "peak RSS MiB"]
    lines = ["| | " + " | ".join(head) + " |", "|---|" + "---|" * len(head)]
    for row in entry["rows"]:
        cells = [row["name"], f"{row['wall'][0]:.2f}"]
        if not warm:
            cells[1] += f" ({row['wall'][1]:.2f}–{row['wall'][2]:.2f})"
            cells.append(f"{row['wall_and_sync']:.2f}")
        cells += [f"{row['cpu_per_gib']:.2f}", f"{row['peak_mib']:.1f}"]
        lines.append("| " + " | ".join(cells + ([f"{row['warm_wall']:.2f}"] if warm else [])) + " |")
    return "\n".join(lines) + "\n"


def page(text, data):
    """The page with the table of each workload between its two marks."""
    for entry in data["tables"]:
        begin, end = f"<!-- published: {entry['workload']} -->\n", "<!-- end -->\n"
        before, found, rest = text.partition(begin)
        if not found:
            raise SystemExit(f"{PAGE} has no mark for {entry['workload']}")
        text = f"{before}{begin}{entry['rounds']} rounds:\n\n{table(entry)}\n{end}{rest.partition(end)[2]}"
    return text


# Charts


def versioned(name, versions):
    """`s5cmd 2.3.0`: a peer with its version, where one was noted."""
    if name.startswith("weightlift"):
        return {"weightlift-s3": "weightlift, S3"}.get(name, name)
    number = re.search(r"\d[\w.]*", versions.get(name.partition(",")[0], ""))
    program, comma, way = CALLED.get(name, name).partition(",")
    return f"{program} {number[0]}{comma}{way}" if number else f"{program}{comma}{way}"


def chart(entry, rows, title, conditions, versions):
    """Sorted by the time until the model is durable, or until the process has ended where that is all there is."""
    time = "wall_and_sync" if "wall_and_sync" in entry["rows"][0] else "wall"
    found = [row | {"time": row[time] if time == "wall_and_sync" else row["wall"][0]} for row in entry["rows"]]
    found = sorted((row for row in found if row["name"] in rows), key=lambda row: row["time"])
    assert len(found) == len(rows), f"{entry['workload']} has {len(found)} of {len(rows)} rows"
    figures = (("Time", "s", "{:.2f}", "time"), ("CPU", "s per GiB", "{:.2f}", "cpu_per_gib"), ("Peak memory", "MiB", "{:.0f}", "peak_mib"))
    panels = [Panel(name, unit, form, tuple(row[key] for row in found)) for name, unit, form, key in figures]
    return Chart(title, conditions, tuple(versioned(row["name"], versions) for row in found), tuple(panels))


def charts(data):
    tables = {entry["workload"]: entry for entry in data["tables"]}
    versions = data["about"]["versions"]
    container, one = tables["kserve"], tables["one"]
    when = f"measured {data['about']['measured']}"
    yield "container", chart(
        container, CONTAINER, "In the container of an initializer: 1 CPU, 1 GiB of memory",
        f"1 GiB in 16 files, plain HTTP, a local server, median of {container['rounds']} rounds, {when}. Shorter is better.", versions)
    yield "one-file", chart(
        one, ONE_FILE, "One file of 1 GiB to ext4, until it is on the disk",
        f"Two cores, plain HTTP, a local server, median of {one['rounds']} rounds, {when}. "
        "Of these, weightlift alone hashes.", versions)


def pictures(data):
    for theme in THEMES:
        for name, each in charts(data):
            yield f"{PICTURES}/{name}-{theme.name}.svg", draw(each, theme)
        yield f"{PICTURES}/life-{theme.name}.svg", life(theme)


# The figures of a run


def taken(data, raw):
    """`published.json` with the workloads that a run has measured, and where they are from."""
    measured = {each["workload"]: each for each in raw["workloads"]}
    known = {entry["workload"] for entry in data["tables"]}
    for entry in data["tables"]:
        name = entry["workload"]
        if name == "kserve" and {"kserve-cold", "kserve-warm"} <= set(measured):
            warm = {row["contender"]: row for row in measured["kserve-warm"]["contenders"]}
            rows = [summary(row, warm.get(row["contender"])) for row in measured["kserve-cold"]["contenders"]]
        elif name in measured:
            rows = [summary(row) for row in measured[name]["contenders"]]
        else:
            continue
        entry |= {"rounds": raw["runs"], "rows": [row for row in rows if row]}
        known.discard(name)
    if known:
        raise SystemExit(f"the run has no {', '.join(sorted(known))}: figures of two machines do not go into one file")
    told = [line for line in raw["about"].splitlines() if line]
    data["about"] |= {
        "measured": told[1][:10],
        "commands": re.findall(r"`([^`]*)`", told[1]),
        "machine": told[2].rstrip("."),
        "kept": "every sample, in the results.json of the run",
        "versions": data["about"]["versions"] | dict(re.findall(r"([\w-]+): ([^;]*?)[.;](?:\s|$)", told[3])),
    }
    return data


def summary(row, warm=None):
    ok = [sample for sample in row["samples"] if not sample.get("failed")]
    if not ok:
        return None
    walls = [sample["wall"] for sample in ok]
    cpu = statistics.median(sample["user"] + sample["system"] for sample in ok)
    name = row["contender"]
    found = {
        "name": NAMES.get(name, "the floor" if name.startswith("floor-") else name),
        "wall": [round(of(walls), 2) for of in (statistics.median, min, max)],
        "cpu_per_gib": round(cpu / (row["bytes"] / GIB), 2),
        "peak_mib": round(statistics.median(sample["peak_kib"] for sample in ok) / 1024, 1),
    }
    if warm:
        again = [sample["wall"] for sample in warm["samples"] if not sample.get("failed")]
        return found | {"warm_wall": round(statistics.median(again), 2)} if again else None
    return found | {"wall_and_sync": round(statistics.median(sample["wall"] + sample["sync"] for sample in ok), 2)}


def written(data):
    """As JSON that a person can compare: a row in a line."""
    about = json.dumps(data["about"], indent=1, ensure_ascii=False).replace("\n", "\n ")
    tables = []
    for entry in data["tables"]:
        head = json.dumps({key: value for key, value in entry.items() if key != "rows"}, ensure_ascii=False)[:-1]
        rows = ",\n   ".join(json.dumps(row, ensure_ascii=False) for row in entry["rows"])
        tables.append(f'  {head}, "rows": [\n   {rows}]}}')
    return f'{{\n "about": {about},\n "tables": [\n' + ",\n".join(tables) + "\n ]\n}\n"


def files(root):
    data = published(root)
    yield PAGE, page((root / PAGE).read_text(encoding="utf-8"), data)
    yield from pictures(data)


def differences(root):
    for path, expected in files(root):
        file = root / path
        if not file.exists() or file.read_text(encoding="utf-8") != expected:
            yield path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something differs")
    parser.add_argument("--from", dest="run", type=Path, metavar="results.json", help="a run whose figures are published")
    asked = parser.parse_args()
    if asked.run:
        data = taken(published(ROOT), json.loads(asked.run.read_text(encoding="utf-8")))
        (ROOT / PUBLISHED).write_text(written(data), encoding="utf-8")
    if asked.check:
        found = list(differences(ROOT))
        print(*(f"{path} is not what benches/peers/publish.py makes" for path in found), sep="\n", end="\n" if found else "")
        return 1 if found else 0
    for path, expected in files(ROOT):
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(expected, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
