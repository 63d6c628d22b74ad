#!/usr/bin/env python3
"""Checks what the pages of the project lead to: relative links, anchors, files in backticks, and tests beside promises.

    python3 tests/links_test.py

Nothing is asked over the network: a link with a scheme is taken as it is.
"""

import re
import sys
from pathlib import Path

import running

ROOT = Path(__file__).resolve().parent.parent
IGNORED = {".git", "target", "node_modules", ".venv", ".cache", "fixtures"}
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
IMAGE = re.compile(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)")
DEFINED = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$")
HTML = re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\"")
HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:")
# A file of the project, named from its root, as people write it. With a `*`, at least one has to be there.
NAMED = re.compile(r"^(?:tests|docs|manifests|charts|benches|fixtures|src|\.ci|\.github)/[\w./*-]*$")

PROGRAMS = {"huggingface_hub"}  # in the tables of tests, and no tests


def pages(root):
    found = (path for path in root.rglob("*.md") if not IGNORED & set(path.relative_to(root).parts))
    return sorted(found)


def prose(text):
    """The lines outside of code blocks, with their numbers."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if fence is None and mark:
            fence = mark[1]
        elif fence is not None and mark and mark[1].startswith(fence) and line.strip() == mark[1]:
            fence = None
        elif fence is None:
            yield number, line


def slug(heading):
    """As GitHub makes an anchor of a heading."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    text = re.sub(r"<[^>]+>", "", text).replace("`", "").replace("*", "")
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def anchors(path):
    seen, found = {}, set()
    for _, line in prose(path.read_text(encoding="utf-8")):
        found.update(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", line))
        heading = HEADING.match(line)
        if heading:
            name = slug(heading[2])
            count = seen.get(name, 0)
            seen[name] = count + 1
            found.add(f"{name}-{count}" if count else name)
    return found


def wrong_link(root, page, target):
    """What is wrong with a link, or None."""
    if SCHEME.match(target) or target.startswith("//"):
        return None
    path, _, anchor = target.partition("#")
    file = (root / path.lstrip("/") if path.startswith("/") else page.parent / path).resolve() if path else page
    if root not in [file, *file.parents]:
        return "leaves the project"
    if not file.exists():
        return "is not there"
    if anchor and (file.suffix != ".md" or anchor not in anchors(file)):
        return "has no such anchor"
    return None


def problems(root):
    for page in pages(root):
        name = page.relative_to(root).as_posix()
        for number, line in prose(page.read_text(encoding="utf-8")):
            without_code = re.sub(r"`[^`]*`", lambda span: "`" + "x" * (len(span[0]) - 2) + "`", line)
            found = LINK.findall(without_code) + IMAGE.findall(without_code) + DEFINED.findall(without_code)
            for target in dict.fromkeys(found + HTML.findall(line)):
                reason = wrong_link(root, page, target)
                if reason:
                    yield f"{name}:{number}: {target} {reason}"
            for span in re.findall(r"`([^`]+)`", line):
                word = span.split(" ")[0].split("::")[0]
                if NAMED.match(word) and not list(root.glob(word.rstrip("/"))):
                    yield f"{name}:{number}: `{word}` is not there"


def count(root):
    return sum(len(LINK.findall(line)) for page in pages(root) for _, line in prose(page.read_text(encoding="utf-8")))


def every_link_of_the_project_leads_somewhere():
    found = list(problems(ROOT))
    assert not found, "\n" + "\n".join(found)
    assert len(pages(ROOT)) > 15 and count(ROOT) > 60, f"{len(pages(ROOT))} pages, {count(ROOT)} links"


def unknown_tests(text, sources):
    """Tests that the last cells of tables name and nobody has: `module`, `a_test`, `the_start_of_one_…`."""
    functions = set(re.findall(r"\bfn (\w+)", "\n".join(sources.values())))
    modules = {path.parent.name if path.stem == "mod" else path.stem for path in sources}
    rows = (line for line in text.splitlines() if line.startswith("| "))
    for span in (span for row in rows for span in re.findall(r"`([^`]+)`", row.strip("| ").split(" | ")[-1])):
        name = span.removeprefix("--lib ").rstrip(":").split("::")[-1]
        if "/" in name or "." in name or name in PROGRAMS:
            continue
        pattern = ".*".join(map(re.escape, name.split("…")))
        known = functions if "…" in name else functions | modules
        if not any(re.fullmatch(pattern, each) for each in known):
            yield span


def every_test_that_is_named_beside_a_promise_is_there():
    sources = {path: path.read_text(encoding="utf-8") for top in ("tests", "src") for path in (ROOT / top).rglob("*.rs")}
    architecture = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    invariants = architecture.partition("## Invariants and their tests\n")[2].partition("\n## ")[0]
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("## Dependencies\n")[0]
    for text in [invariants, security]:
        assert text.count("\n| ") > 15, "where is the table?"
        assert not list(unknown_tests(text, sources)), list(unknown_tests(text, sources))
    for planted in ["nowhere", "`prune`: `a_test_that_nobody_…`", "--lib engine::no_such_module", "…_that_nobody_has"]:
        planted = planted if "`" in planted else f"`{planted}`"
        assert len(list(unknown_tests(f"{invariants}\n| a | b | {planted} |", sources))) == 1, planted


def every_page_of_docs_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    linked = {target.partition("#")[0] for target in LINK.findall(index)}
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if page.name not in linked | {"README.md"}]
    assert not missing, missing


def what_leads_nowhere_is_found():
    import tempfile

    good = "# A `b` & c\n\n## Same\n\n## Same\n\n[a](two.md) [b](#a-b--c) [c](two.md#over-there) [d](https://example.com/no.md) [e](#same-1)\n"
    good += "`tests/a.py` `tests/*.py` `[x](no.md)`\n\n```sh\n# Not a heading\n[f](no.md)\n```\n\n[![alt](tests/a.py)](two.md \"title\")\n"
    bad = [
        ("[a](three.md)", "three.md is not there"),
        ("[a](two.md#nowhere)", "two.md#nowhere has no such anchor"),
        ("[a](#not-a-heading)", "#not-a-heading has no such anchor"),
        ("[a](#same-2)", "#same-2 has no such anchor"),
        ("[a](../two.md)", "../two.md leaves the project"),
        ("[a `b` c](three.md)", "three.md is not there"),
        ("[a\u200b]: three.md", "three.md is not there"),
        ("[![alt](no.svg)](two.md)", "no.svg is not there"),
        ('<img src="no.svg">', "no.svg is not there"),
        ("`tests/b.py`", "`tests/b.py` is not there"),
        ("`tests/b.py::name`", "`tests/b.py` is not there"),
        ("`docs/*.md`", "`docs/*.md` is not there"),
    ]
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        (root / "tests").mkdir()
        (root / "tests/a.py").touch()
        (root / "two.md").write_text("# Over there\n")
        (root / "one.md").write_text(good)
        assert not list(problems(root)), list(problems(root))
        for text, reason in bad:
            (root / "one.md").write_text(f"{good}\n{text}\n")
            found = list(problems(root))
            assert len(found) == 1 and found[0].endswith(reason), f"{text}: {found}"


TESTS = [
    every_link_of_the_project_leads_somewhere,
    every_page_of_docs_is_in_the_index,
    every_test_that_is_named_beside_a_promise_is_there,
    what_leads_nowhere_is_found,
]


def main():
    return running.run(TESTS)


if __name__ == "__main__":
    sys.exit(main())
