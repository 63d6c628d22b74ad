#!/usr/bin/env python3
"""Holds the pages to plain words, those of `tests/english.txt`, and to sentences that are not too long.

    python3 tests/english_test.py           # the tests
    python3 tests/english_test.py --long 25 # lists the sentences of more than 25 words

A line of `english.txt` is a word or phrase, a tab, and what to write in its place.
"""

import re
import sys
from pathlib import Path

import running

ROOT = Path(__file__).resolve().parent.parent
WORDS = "tests/english.txt"
PAGES = ["README.md", "SECURITY.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/*.md", "manifests/README.md",
         "charts/weightlift/README.md", "benches/peers/README.md"]  # fmt: skip
# What is applied, or printed by `helm install`: comments and messages.
APPLIED = ["manifests/**/*.yaml", "charts/weightlift/values.yaml", "charts/weightlift/templates/*"]
LONGEST = 25  # words in a sentence
SHORT_SENTENCES = [page for page in PAGES if page not in ("ARCHITECTURE.md", "CHANGELOG.md")]


def words(text):
    """From each hard word to the plain one."""
    found = {}
    for line in text.splitlines():
        hard, tab, plain = line.partition("\t")
        assert hard and tab and plain, f"{WORDS}: {line!r} has not two columns"
        assert hard not in found, f"{WORDS}: {hard} is there twice"
        found[hard] = plain
    return found


def pages(patterns):
    found = {path: path.read_text(encoding="utf-8") for pattern in patterns for path in sorted(ROOT.glob(pattern))}
    return {path.relative_to(ROOT).as_posix(): text for path, text in found.items()}


def hard_words(text, listed):
    """The lines that have one, each with the plain word. A line that is broken inside of a phrase is found as well."""
    # A span without a space is a name: a file, a test, a key of JSON.
    text = re.sub(r"`[^`\s]+`", lambda span: "_" * len(span[0]), text)
    for hard, plain in listed.items():
        pattern = r"(?<![\w-])" + r"\s+".join(map(re.escape, hard.split())) + r"(?![\w-])"
        for match in re.finditer(pattern, text, re.IGNORECASE):
            number = text.count("\n", 0, match.start()) + 1
            yield f"{number}: `{hard}`; write: {plain}"


def sentences(text):
    """The sentences of paragraphs and of items of lists. Code, tables and headings have none."""
    text = re.sub(r"(?ms)^ *(```|~~~).*?^ *\1$", "\n", text)
    text = re.sub(r"(?<=\n\n)(?: {4}.*\n)+", "\n", text)
    text = re.sub(r"(?m)^ *(\||#|<).*$", "\n", text)
    text = re.sub(r"(?m)^ *(?:[-*]|\d+\.) ", "\n\n", text)
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = re.sub(r"`[^`]*`", "`x`", " ".join(paragraph.split()))
        paragraph = re.sub(r"\]\([^)]*\)", "]", paragraph)
        yield from re.split(r"(?<=[.:;!?])(?:\*\*)?\s+(?=[\w`*\[(\"])", paragraph)


def long_sentences(text, most):
    for sentence in sentences(text):
        count = len(re.findall(r"[\w`'’-]+", sentence))
        if count > most:
            yield f"{count} words: {sentence}"


def no_page_has_a_hard_word():
    listed = words((ROOT / WORDS).read_text(encoding="utf-8"))
    read = pages(PAGES + APPLIED)
    assert len(read) > 100 and len(listed) > 15, f"{len(read)} pages, {len(listed)} words"
    found = [f"{page}:{each}" for page, text in read.items() for each in hard_words(text, listed)]
    assert not found, "\n" + "\n".join(found)


def sentences_are_not_too_long():
    found = [f"{page}: {each}" for page, text in pages(SHORT_SENTENCES).items() for each in long_sentences(text, LONGEST)]
    assert not found, "\n" + "\n".join(found)


def what_is_hard_to_read_is_noticed():
    listed = words("goes on\tcontinues\nanew\tagain\n")
    assert len(list(hard_words("It goes\non. Anew, `asks anew`.", listed))) == 3
    assert not list(hard_words("a_test_goes_on `anew` `commands/anew.rs` anew_x renewed go one", listed))
    assert next(hard_words("one\n\nIt goes on", listed)) == "3: `goes on`; write: continues"
    long = "This " + "very " * 10 + "long sentence ends here."
    for text in (long, f"- item\n- {long}", f"Short. {long} Short.", long.replace(" very ", "\nvery ", 3)):
        assert len(list(long_sentences(text, 10))) == 1, text
    for text in (f"```\n{long}\n```", f"Run:\n\n    {long}\n", f"| {long} |", "`" + long + "` is code.", long.replace("very", "it.")):
        assert not list(long_sentences(text, 10)), text
    for wrong in ("no tab", "two\t", "a\tb\na\tc"):
        try:
            words(wrong)
        except AssertionError:
            continue
        raise AssertionError(f"{wrong!r} is taken")


TESTS = [
    no_page_has_a_hard_word,
    sentences_are_not_too_long,
    what_is_hard_to_read_is_noticed,
]


def main():
    if sys.argv[1:2] == ["--long"]:
        for page, text in pages(PAGES).items():
            for each in long_sentences(text, int(sys.argv[2])):
                print(f"{page}: {each}")
        return 0
    return running.run(TESTS)


if __name__ == "__main__":
    sys.exit(main())
