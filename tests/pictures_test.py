#!/usr/bin/env python3
"""Checks the tables and pictures that `benches/peers/publish.py` makes: that they are what the figures say, and can be read.

    python3 tests/pictures_test.py
"""

import copy
import re
import shutil
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches/peers"))
sys.dont_write_bytecode = True

import drawing  # noqa: E402
import publish  # noqa: E402
import running  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"
PICTURES = ("container", "life", "one-file")


def drawn():
    return dict(publish.pictures(publish.published(ROOT)))


def what_is_committed_is_what_the_figures_give():
    found = list(publish.differences(ROOT))
    assert not found, f"{found}: run benches/peers/publish.py"
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / publish.PICTURES).iterdir()}
    assert there == set(drawn()), there ^ set(drawn())


def a_figure_that_was_changed_is_noticed():
    """On the page, in a picture and in the JSON."""
    for path, old, new in [
        (publish.PAGE, "| rclone | 0.71 (", "| rclone | 0.91 ("),
        (f"{publish.PICTURES}/container-dark.svg", ">1.72<", ">1.12<"),
        (publish.PUBLISHED, '"peak_mib": 212.6', '"peak_mib": 612.6'),
    ]:
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            for each in (publish.PAGE, publish.PUBLISHED):
                (root / each).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / each, root / each)
            shutil.copytree(ROOT / publish.PICTURES, root / publish.PICTURES)
            text = (root / path).read_text(encoding="utf-8")
            assert old in text, f"{path} has no {old}"
            (root / path).write_text(text.replace(old, new), encoding="utf-8")
            assert list(publish.differences(root)), f"{path}: {new} is not noticed"


def every_picture_has_both_themes_and_says_what_it_shows():
    pictures = drawn()
    names = {f"{publish.PICTURES}/{name}-{theme.name}.svg" for name in PICTURES for theme in drawing.THEMES}
    assert set(pictures) == names, set(pictures) ^ names
    for path, text in pictures.items():
        root = ET.fromstring(text)
        title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
        assert root.get("role") == "img" and root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}", path
        assert len(title.text) > 15 and len(description.text) > 200, path
        # The same words and shapes in both themes: only colours differ.
        other = pictures[path.replace("-light", "-dark")]
        assert re.sub(r"#[0-9a-f]{6}", "", text) == re.sub(r"#[0-9a-f]{6}", "", other), path


def every_picture_is_shown_in_both_themes():
    pages = [path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]]
    for name in PICTURES:
        shown = rf'<source media="\(prefers-color-scheme: dark\)" srcset="[\w/]*pictures/{name}-dark\.svg">\s*<img alt="[^"]{{40,}}" src="[\w/]*pictures/{name}-light\.svg"'
        assert any(re.search(shown, page) for page in pages), f"no page shows {name}"


def light(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one, other):
    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def text_and_bars_stand_out():
    """By WCAG 2: 4.5 for text, 3 for what is not text."""
    assert round(contrast("#000000", "#ffffff")) == 21 and contrast("#818b98", "#ffffff") < 4.5
    for theme in drawing.THEMES:
        for colour, least in ((theme.text, 4.5), (theme.quiet, 4.5), (theme.ours, 3), (theme.peers, 3)):
            assert contrast(colour, theme.background) >= least, f"{theme.name}: {colour}"
    for path, text in drawn().items():
        (theme,) = [theme for theme in drawing.THEMES if path.endswith(f"-{theme.name}.svg")]
        used = {each.get("fill") for each in ET.fromstring(text).iter(f"{SVG}text")}
        assert used and used <= {theme.text, theme.quiet}, f"{path}: {used}"


def no_words_leave_a_picture():
    for path, text in drawn().items():
        root = ET.fromstring(text)
        width, height = map(float, root.get("viewBox").split()[2:])
        for each in root.iter(f"{SVG}text"):
            long = len(each.text) * float(each.get("font-size")) * 0.6
            left = float(each.get("x")) - (long if each.get("text-anchor") == "end" else 0)
            assert 0 <= left and left + long <= width and float(each.get("y")) <= height - 4, f"{path}: {each.text}"


def bars_begin_at_zero_and_are_as_long_as_their_values():
    for name, chart in publish.charts(publish.published(ROOT)):
        root = ET.fromstring(drawing.draw(chart, drawing.LIGHT))
        bars = [each for each in root.iter(f"{SVG}rect") if each.get("x")]
        values = [value for panel in chart.panels for value in panel.values]
        assert len(bars) == len(values) > 10, name
        count = len(chart.rows)
        for at, panel in enumerate(chart.panels):
            mine = bars[at * count : (at + 1) * count]
            assert len({bar.get("x") for bar in mine}) == 1, name
            per = [float(bar.get("width")) / value for bar, value in zip(mine, panel.values, strict=True)]
            assert max(per) / min(per) < 1.02, f"{name}, {panel.title}: {per}"
        words = {each.text for each in root.iter(f"{SVG}text")}
        missing = {panel.form.format(value) for panel in chart.panels for value in panel.values} - words
        assert not missing, f"{name}: {missing}"


def sample(wall, **more):
    return {"wall": wall, "sync": 0.5, "user": 1.0, "system": 0.5, "peak_kib": 20480} | more


def the_figures_of_a_run_are_taken():
    """Medians of what did not fail; and a run that measured less is refused."""
    data = publish.published(ROOT)
    runs = [sample(3.0), sample(1.0), sample(2.0), sample(9.0, failed="exit 1")]
    row = {"contender": "kserve-s3", "bytes": publish.GIB, "samples": runs}
    workloads = [entry["workload"] for entry in data["tables"] if entry["workload"] != "kserve"]
    raw = {"runs": 4, "workloads": [{"workload": name, "contenders": [row]} for name in (*workloads, "kserve-cold", "kserve-warm")]}
    raw["about"] = "# Whole processes compared\n\n2027-02-03 04:05 UTC, 9 minutes, `run --short`.\n\nA machine.\n\nrclone: rclone v2.0.\n"
    taken = publish.taken(copy.deepcopy(data), raw)
    one = next(entry for entry in taken["tables"] if entry["workload"] == "one")
    expected = {"name": "KServe, S3", "wall": [2.0, 1.0, 3.0], "wall_and_sync": 2.5, "cpu_per_gib": 1.5, "peak_mib": 20.0}
    assert one["rows"] == [expected] and one["rounds"] == 4, one
    warm = next(entry for entry in taken["tables"] if entry["workload"] == "kserve")["rows"][0]
    assert warm["warm_wall"] == 2.0 and "wall_and_sync" not in warm, warm
    about = taken["about"]
    assert (about["measured"], about["commands"], about["machine"]) == ("2027-02-03", ["run --short"], "A machine"), about
    assert publish.versioned("rclone", about["versions"]) == "rclone 2.0", about["versions"]
    raw["workloads"].pop()
    try:
        publish.taken(copy.deepcopy(data), raw)
    except SystemExit as refusal:
        assert "kserve" in str(refusal)
    else:
        raise AssertionError("figures of two runs are mixed")


TESTS = [
    what_is_committed_is_what_the_figures_give,
    a_figure_that_was_changed_is_noticed,
    every_picture_has_both_themes_and_says_what_it_shows,
    every_picture_is_shown_in_both_themes,
    text_and_bars_stand_out,
    no_words_leave_a_picture,
    bars_begin_at_zero_and_are_as_long_as_their_values,
    the_figures_of_a_run_are_taken,
]


def main():
    return running.run(TESTS)


if __name__ == "__main__":
    sys.exit(main())
