"""The life of an update as a picture: what lies on the volume in each step, and what a kill leaves."""

from drawing import Theme, document, text

TITLE = "The life of an update"
LABELS = 166
STEP = 150
WIDTH = LABELS + 5 * STEP + 16
HEADS = 70
LANES = 142
LANE = 44
BAR = 26

STEPS = [
    ("1  Staged", ("New files arrive in", ".weightlift/attempts/.", "Equal files are linked.")),
    ("2  Hashed", ("Every file is compared", "with its digest, then", "synced to the disk.")),
    ("3  Published", ("One rename, of a link.", "It is the only step that", "a reader can see.")),
    ("4  Kept", ("The old revision stays", "for the servers that", "have loaded it.")),
    ("5  Removed", ("By a later update", "(--keep-revisions),", "or by weightlift prune.")),
]
KILLED = ["the old one is served;", "the old one is served;", "old or new is served;", "the new one is served", "the new one is served"]
THEN = ["the next run resumes", "the next run resumes", "never a mix", "", ""]
LANES_ARE = ["llama-3-8b (a link)", "old revision", "new revision", "a kill now means"]


def life(theme: Theme) -> str:
    height = LANES + LANE * len(LANES_ARE) + 22
    parts = [text(16, 28, TITLE, theme.text, 16, weight=600)]
    for number, (name, lines) in enumerate(STEPS):
        left = LABELS + STEP * number
        parts.append(f'<path d="M{left} {HEADS - 16}V{height - 14}" stroke="{theme.line}" fill="none"/>')
        parts.append(text(left + 8, HEADS, name, theme.text, 13, weight=600))
        parts += [text(left + 8, HEADS + 18 + 16 * n, line, theme.quiet, 11) for n, line in enumerate(lines)]
    for number, name in enumerate(LANES_ARE):
        parts.append(text(LABELS - 10, middle(number), name, theme.text, 13, "end", 600))
    turn = 2.5  # in the middle of the third step
    parts += bar(0, 0, turn, "leads to the old revision", theme.peers, theme)
    parts += bar(0, turn, 5, "leads to the new revision", theme.ours, theme)
    parts += bar(1, 0, 4, "whole, never changed", theme.peers, theme)
    parts += bar(2, 0, 2, "an attempt: not visible to readers", theme.ours, theme, dashed=True)
    parts += bar(2, 2, 5, "whole, with a sentinel that lists every file", theme.ours, theme)
    for number, lines in enumerate(zip(KILLED, THEN, strict=True)):
        for n, line in enumerate(filter(None, lines)):
            parts.append(text(LABELS + STEP * number + 8, middle(3) + 16 * n, line, theme.text, 11))
    return document(TITLE, described(), WIDTH, height, theme, parts)


def bar(lane: int, since: float, until: float, words: str, colour: str, theme: Theme, dashed: bool = False) -> list[str]:
    left, top = LABELS + STEP * since + 4, LANES + LANE * lane + (LANE - BAR) / 2
    line = ' stroke-dasharray="5 4"' if dashed else ""
    shape = (f'<rect x="{left:.1f}" y="{top:.1f}" width="{STEP * (until - since) - 8:.1f}" height="{BAR}" rx="4" '
             f'fill="{theme.background}" stroke="{colour}" stroke-width="2"{line}/>')  # fmt: skip
    return [shape, text(left + 10, middle(lane), words, theme.text, 12)]


def middle(lane: int) -> float:
    return LANES + LANE * lane + LANE / 2 + 4


def described() -> str:
    steps = " ".join(f"{name}: {' '.join(lines)}" for name, lines in STEPS)
    killed = "; ".join(f"in step {n}: {' '.join(filter(None, each))}" for n, each in enumerate(zip(KILLED, THEN), 1))
    return f"Five steps. {steps} What a kill leaves, {killed}."
