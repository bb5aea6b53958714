"""Bars of bytes as an SVG text that a browser, Prefect's UI and a file viewer show alike.

The picture brings its own background, so that it can be read on any page; where the viewer says that the
page is dark, picture and text turn dark together. Names come from users: they are escaped, shortened to what
fits and shown each in a box of its own that nothing leaves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

WIDTH = 700
"""[px] of every chart; a page scales it. Prefect's pages give an image 600 to 750."""
_MARGIN = 24
_LABELS = 156
"""[px] for the labels at the left."""
_NOTES = 190
"""[px] for the notes at the right."""
_ROW, _BAR = 26, 14
_COLUMN, _SMALL = 7.5, 6.2
"""[px] that a letter of average width takes in labels and in notes, in a wide font (DejaVu Sans)."""
_TITLE, _FIGURES, _LEGEND, _PANEL = 56, 62, 34, 30
"""[px] of height: title and subtitle, the row of figures, the legend, the heading of a panel."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML document may hold, escaped or not (https://www.w3.org/TR/xml/#charsets)."""

_COLOURS = (("#2a62c9", "#6d9df2"), ("#b4cdf5", "#35527f"), ("#e0a33c", "#e0a33c"), ("#8a8f98", "#8a8f98"))
"""Fill of each series on light and on dark ground. The first two differ in brightness, not only in hue."""


@dataclass(frozen=True)
class Bar:
    """One row: a label, the bytes of each series, and a note at its end."""

    label: str
    parts: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """Bars on one scale under a heading, in the order in which they are drawn."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Chart:
    """A whole picture: figures are (value, caption) pairs, ``series`` names the parts of each bar."""

    title: str
    subtitle: str
    figures: tuple[tuple[str, str], ...]
    series: tuple[str, ...]
    panels: tuple[Panel, ...]


def human_bytes(size: int) -> str:
    """Format a size [bytes] with three digits and binary units: ``1.50 KiB``, ``954 GiB``."""
    if size < 1024:
        return f"{size:,} B"
    scaled, unit = float(size), 0
    while scaled >= 1023.5 and unit < len(_UNITS) - 1:  # 1,023.5 KiB would be written as 1024 KiB
        scaled, unit = scaled / 1024, unit + 1
    decimals = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:,.{decimals}f} {_UNITS[unit]}"


def draw(chart: Chart) -> str:
    """Draw a chart -> an SVG document of its own, without scripts, links or fonts from elsewhere."""
    body: list[str] = []
    y = _MARGIN + _TITLE
    body += _heading(chart)
    body += _figures(chart.figures, y)
    y += _FIGURES if chart.figures else 0
    body += _legend(chart.series, y)
    y += _LEGEND
    for panel in chart.panels:
        body += _panel(panel, y)
        y += _PANEL + _ROW * max(len(panel.bars), 1) + _MARGIN // 2
    height = y + _MARGIN // 2
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
            f' height="{height}" role="img">',
            f"<title>{_text(chart.title)}</title>",
            f"<desc>{_text(_spoken(chart))}</desc>",
            f"<style>{_style()}</style>",
            f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10"/>',
            *body,
            "</svg>",
        ]
    )


def _heading(chart: Chart) -> Iterator[str]:
    yield _box(_MARGIN, _MARGIN - 4, WIDTH - 2 * _MARGIN, 26, _shortened(chart.title, 50), "title")
    yield _box(_MARGIN, _MARGIN + 22, WIDTH - 2 * _MARGIN, 20, _shortened(chart.subtitle, 90), "faint")


def _figures(figures: Sequence[tuple[str, str]], y: int) -> Iterator[str]:
    step = (WIDTH - 2 * _MARGIN) // max(len(figures), 1)
    for number, (value, caption) in enumerate(figures):
        x = _MARGIN + number * step
        yield _box(x, y, step - 8, 30, value, "figure")
        yield _box(x, y + 28, step - 8, 20, _shortened(caption, step / _SMALL), "faint")


def _legend(series: Sequence[str], y: int) -> Iterator[str]:
    x = float(_MARGIN)
    for number, name in enumerate(series):
        yield f'<rect class="s{number}" x="{x:.0f}" y="{y + 4}" width="12" height="12" rx="2"/>'
        width = _columns(name) * _SMALL + 18
        yield _box(x + 18, y, width, 20, name, "faint")
        x += 18 + width + 14


def _panel(panel: Panel, y: int) -> Iterator[str]:
    yield _box(_MARGIN, y, WIDTH - 2 * _MARGIN, 22, _shortened(panel.title, 80), "heading")
    y += _PANEL
    if not panel.bars:
        yield _box(_MARGIN, y, WIDTH - 2 * _MARGIN, _ROW, "nothing yet", "faint")
    longest = max((sum(bar.parts) for bar in panel.bars), default=0)
    for number, bar in enumerate(panel.bars):
        yield from _row(bar, y + number * _ROW, longest)


def _row(bar: Bar, y: int, longest: int) -> Iterator[str]:
    room = WIDTH - 2 * _MARGIN - _LABELS - _NOTES
    yield _box(_MARGIN, y, _LABELS - 12, _ROW, _shortened(bar.label, (_LABELS - 12) / _COLUMN), "label")
    x = float(_MARGIN + _LABELS)
    for number, part in enumerate(bar.parts):
        width = part / longest * room if longest else 0.0
        if part > 0:
            width = max(width, 1.5)  # what is there can be seen, however small
            top = y + (_ROW - _BAR) // 2
            yield f'<rect class="s{number}" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{_BAR}"/>'
        x += width
    yield _box(x + 8, y, _NOTES - 8, _ROW, _shortened(bar.note, _NOTES / _SMALL), "faint")


def _box(x: float, y: float, width: float, height: float, text: str, kind: str) -> str:
    """One line of text in a box that cuts off what does not fit."""
    return (
        f'<svg x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" overflow="hidden">'
        f'<text class="{kind}" y="50%" dy="0.35em">{_text(text)}</text></svg>'
    )


def _style() -> str:
    """Plain classes: viewers that know neither variables nor media queries show the light picture."""
    light = [f".s{number}{{fill:{light}}}" for number, (light, _) in enumerate(_COLOURS)]
    dark = [f".s{number}{{fill:{dark}}}" for number, (_, dark) in enumerate(_COLOURS)]
    return "".join(
        [
            "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;"
            "font-size:13px;fill:#1d2430;unicode-bidi:isolate}",
            ".ground{fill:#ffffff;stroke:#d5dae1}.title{font-size:18px;font-weight:600}",
            ".figure{font-size:22px;font-weight:600}.heading{font-weight:600}.faint{font-size:12px;fill:#5b6472}",
            *light,
            "@media(prefers-color-scheme:dark){text{fill:#e6e9ee}.ground{fill:#1b1f27;stroke:#363d49}",
            ".faint{fill:#a3acb9}",
            *dark,
            "}",
        ]
    )


def _spoken(chart: Chart) -> str:
    """What the picture shows, for those who have it read to them."""
    figures = [f"{value} {caption}" for value, caption in chart.figures]
    bars = [f"{panel.title}: {bar.label} {bar.note}" for panel in chart.panels for bar in panel.bars]
    return "; ".join([*figures, *bars])


def _text(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))


def _shortened(text: str, columns: float) -> str:
    """Cut a text to what about ``columns`` letters of average width take, with an ellipsis."""
    if _columns(text) <= columns:
        return text
    kept, used = [], 1.0
    for char in text:
        used += _columns(char)
        if used > columns:
            break
        kept.append(char)
    return "".join(kept) + "\u2026"


def _columns(text: str) -> float:
    """Estimate a text's width in letters of average width; only a browser knows its font."""
    return sum(_width(char) for char in text)


def _width(char: str) -> float:
    if unicodedata.combining(char):
        return 0.25  # not none: a text of marks alone would never be too long
    if unicodedata.east_asian_width(char) in "WF":
        return 1.9
    return 1.7 if char in "MWmw@%" else 1.2 if char.isupper() else 1.0
