"""Charts that any viewer can read, whatever users call their projects."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import chart
from mltrack_tasks.chart import Bar, Chart, Panel, draw, human_bytes

SVG = "{http://www.w3.org/2000/svg}"
UNITS = {"B": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4, "PiB": 5, "EiB": 6}
HOSTILE = (
    "<script>alert(1)</script>",
    '"/><image href="x"/>',
    "]]>&amp;<!--",
    "nul\0 bell\x07 \ud800 \uffff",
    "\u202egnirts",
    "W" * 300,
    "e" + "\u0301" * 300,
    "\u6f22" * 100,
)
anything = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(HOSTILE)


def drawn(*bars: Bar, title: str = "t", **changes: object) -> ET.Element:
    fields: dict[str, object] = {
        "subtitle": "s",
        "figures": (("1 B", "stored"),),
        "series": ("unique", "saved"),
        "panels": (Panel("p", bars),),
        **changes,
    }
    return ET.fromstring(draw(Chart(title=title, **fields)))  # type: ignore[arg-type]


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def bars_of(root: ET.Element, series: int) -> list[tuple[float, float]]:
    """Where the bars of a series begin and end [px]; its mark in the legend is square."""
    found = [each for each in root.iter(f"{SVG}rect") if each.get("class") == f"s{series}"]
    return [(float(r.attrib["x"]), float(r.attrib["x"]) + float(r.attrib["width"])) for r in found[1:]]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1,023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10 * 1024, "10.0 KiB"),
        (100 * 1024, "100 KiB"),
        (1024**2 - 1, "1.00 MiB"),
        (954 * 1024**3, "954 GiB"),
        (3 * 1024**6, "3.00 EiB"),
        (5000 * 1024**6, "5,000 EiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert human_bytes(size) == text


@given(st.integers(0, 2**62) | st.integers(0, 61).flatmap(lambda bits: st.integers(2**bits - 3, 2**bits + 3)))
def test_a_size_is_told_to_three_digits(size: int) -> None:
    size = max(size, 0)
    number, unit = human_bytes(size).replace(",", "").split()
    told = Fraction(number) * 1024 ** UNITS[unit]
    assert abs(told - size) <= Fraction(size, 200)
    assert unit == "B" or 1 <= Fraction(number) < 1024


@given(anything, anything, anything, anything)
def test_any_name_makes_a_document(title: str, label: str, note: str, series: str) -> None:
    """It parses, holds our elements only, and refers to nothing outside."""
    root = drawn(Bar(label, (2, 1), note), title=title, series=(series, "saved"))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "desc", "style", "rect", "text")
    }
    for element in root.iter():
        assert not [name for name in element.attrib if "href" in name or name.startswith("on")]


@pytest.mark.parametrize("name", HOSTILE[:3])
def test_what_fits_is_shown_as_it_is(name: str) -> None:
    assert name in texts(drawn(Bar("b", (1, 0), name)))


@pytest.mark.parametrize("name", HOSTILE[5:])
def test_what_does_not_fit_is_shortened(name: str) -> None:
    [label] = [text for text in texts(drawn(Bar(name, (1, 0)))) if text.endswith("\u2026")]
    assert name.startswith(label[:-1])
    assert len(label) < 120


def test_what_no_document_may_hold_is_replaced() -> None:
    assert "nul\ufffd bell\ufffd \ufffd \ufffd" in texts(drawn(Bar("b", (1,), HOSTILE[3])))


@given(st.lists(st.tuples(st.integers(0, 2**60), st.integers(0, 2**60)), min_size=1, max_size=20))
def test_bars_are_as_long_as_their_bytes(parts: list[tuple[int, int]]) -> None:
    root = drawn(*(Bar(str(number), pair) for number, pair in enumerate(parts)))
    longest = max(map(sum, parts))
    room = chart.WIDTH - 2 * chart._MARGIN - chart._LABELS - chart._NOTES
    for series in (0, 1):
        sizes = [pair[series] for pair in parts if pair[series]]
        drawn_bars = bars_of(root, series)
        assert len(drawn_bars) == len(sizes)
        for (begin, end), size in zip(drawn_bars, sizes, strict=True):
            assert end - begin == pytest.approx(max(size / longest * room, 1.5), abs=0.06)
            assert end <= chart._MARGIN + chart._LABELS + room + 2


def test_parts_are_stacked() -> None:
    root = drawn(Bar("a", (3, 1)))
    [(_, unique_ends)], [(saved_begins, _)] = bars_of(root, 0), bars_of(root, 1)
    assert saved_begins == pytest.approx(unique_ends, abs=0.11)


def test_nothing_at_all_is_a_chart_too() -> None:
    root = drawn(figures=())
    assert "nothing yet" in texts(root)
    assert bars_of(drawn(Bar("a", (0, 0))), 0) == []


def test_everything_lies_on_the_ground() -> None:
    """Each panel adds its height; boxes stay inside the picture."""
    panels = tuple(Panel(f"p{n}", tuple(Bar(f"b{m}", (m, n)) for m in range(12))) for n in range(3))
    root = drawn(panels=panels)
    width, height = int(root.attrib["width"]), int(root.attrib["height"])
    for box in root.findall(f"{SVG}svg"):
        assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width
        assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height


def test_it_can_be_read_aloud() -> None:
    root = drawn(Bar("weather", (1, 2), "1 B + 2 B saved"), title="Data usage")
    assert root.attrib["role"] == "img"
    assert root.findtext(f"{SVG}title") == "Data usage"
    assert "weather 1 B + 2 B saved" in (root.findtext(f"{SVG}desc") or "")


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2 (https://www.w3.org/TR/WCAG21/#dfn-relative-luminance)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_can_be_read_on_light_and_on_dark(dark: bool) -> None:
    """Text as WCAG 2 asks of text, bars as it asks of graphics; the two series apart in brightness."""
    light_style, dark_style = drawn().findtext(f"{SVG}style", "").split("@media(prefers-color-scheme:dark)")
    style = dark_style if dark else light_style
    fill = dict(re.findall(r"([.\w]+)\{[^}]*?fill:(#[0-9a-f]{6})", style))
    assert contrast(fill["text"], fill[".ground"]) >= 7
    assert contrast(fill[".faint"], fill[".ground"]) >= 4.5
    assert contrast(fill[".s0"], fill[".ground"]) >= 3
    assert contrast(fill[".s0"], fill[".s1"]) >= 2
