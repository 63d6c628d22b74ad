"""Charts as SVG, light and dark: bars from figures. Knows nothing of where the figures are from.

Every axis begins at 0, every bar has its value, and `<desc>` tells all of them to those who do not see the bars.
"""

from dataclasses import dataclass
from xml.sax.saxutils import escape

FONT = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
WIDTH = 880
LABELS = 190  # to the left of the bars
VALUE = 50  # behind the longest bar
GAP = 18
TOP = 84
ROW = 26
BAR = 16


@dataclass(frozen=True)
class Theme:
    name: str
    background: str
    text: str
    quiet: str  # what explains
    line: str
    ours: str
    peers: str


LIGHT = Theme("light", "#ffffff", "#1f2328", "#59636e", "#d1d9e0", "#0969da", "#818b98")
DARK = Theme("dark", "#0d1117", "#f0f6fc", "#9198a1", "#3d444d", "#4493f8", "#7d8590")
THEMES = (LIGHT, DARK)


@dataclass(frozen=True)
class Panel:
    """One figure of all rows."""

    title: str
    unit: str
    form: str
    values: tuple


@dataclass(frozen=True)
class Chart:
    title: str
    conditions: str
    rows: tuple  # names, from the top
    panels: tuple
    ours: str = "weightlift"  # rows that begin so are ours


def draw(chart: Chart, theme: Theme) -> str:
    height = TOP + ROW * len(chart.rows) + 14
    parts = [text(16, 28, chart.title, theme.text, 16, weight=600), text(16, 48, chart.conditions, theme.quiet, 12)]
    for number, name in enumerate(chart.rows):
        weight = 600 if name.startswith(chart.ours) else 400
        parts.append(text(LABELS - 10, baseline(number), name, theme.text, 13, "end", weight))
    room = (WIDTH - LABELS - 16 - GAP * (len(chart.panels) - 1)) / len(chart.panels)
    for number, panel in enumerate(chart.panels):
        parts += bars(chart, panel, LABELS + number * (room + GAP), room, theme)
    return document(chart.title, described(chart), WIDTH, height, theme, parts)


def bars(chart: Chart, panel: Panel, left: float, room: float, theme: Theme) -> list[str]:
    bottom = TOP + ROW * len(chart.rows)
    unit = (room - VALUE) / max(panel.values)
    parts = [text(left, TOP - 10, f"{panel.title}, {panel.unit}", theme.text, 13, weight=600)]
    for number, (name, value) in enumerate(zip(chart.rows, panel.values, strict=True)):
        colour = theme.ours if name.startswith(chart.ours) else theme.peers
        top = TOP + ROW * number + (ROW - BAR) / 2
        parts.append(f'<rect x="{left:.1f}" y="{top:.1f}" width="{value * unit:.1f}" height="{BAR}" fill="{colour}"/>')
        parts.append(text(left + value * unit + 5, baseline(number), panel.form.format(value), theme.text, 12))
    parts.append(f'<path d="M{left:.1f} {TOP}V{bottom}" stroke="{theme.quiet}" fill="none"/>')
    return parts


def baseline(number: int) -> float:
    return TOP + ROW * number + ROW / 2 + 4.5


def described(chart: Chart) -> str:
    said = [chart.conditions]
    for panel in chart.panels:
        told = ", ".join(f"{name} {panel.form.format(value)}" for name, value in zip(chart.rows, panel.values, strict=True))
        said.append(f"{panel.title}, {panel.unit}: {told}.")
    return " ".join(said)


def document(title: str, description: str, width: float, height: float, theme: Theme, parts: list[str]) -> str:
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'role="img" aria-labelledby="title desc" font-family="{FONT}">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(description)}</desc>',
        f'<rect width="{width:g}" height="{height:g}" fill="{theme.background}"/>',
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, colour: str, size: int, anchor: str = "start", weight: int = 400) -> str:
    more = (f' text-anchor="{anchor}"' if anchor != "start" else "") + (f' font-weight="{weight}"' if weight != 400 else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"{more}>{escape(words)}</text>'
