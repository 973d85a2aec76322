"""Charts as inline SVG: crisp at any size, coloured by the page's theme, no library, nothing fetched.

A chart is a figure with a legend, an SVG and its values as data for the page's hover script. All text is escaped here.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WIDTH = 1040
LEFT, RIGHT, TOP, BOTTOM = 58, 74, 12, 26
MOST_POINTS = 1600  # more than a screen shows
LABEL_GAP = 15


@dataclass(frozen=True)
class Line:
    """One series: `colour` names a CSS class (c1..c4, muted, gain, loss); NaN breaks the line; `area` fills it to
    zero.
    """

    name: str
    values: Floats
    colour: str = "c1"
    area: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """Horizontal axis: one text a point (shown on hover) and the ticks (index, text)."""

    labels: Sequence[str]
    ticks: Sequence[tuple[int, str]]


@dataclass(frozen=True)
class Band:
    """A stretch of the horizontal axis, from index to index, with a name: a part of the data."""

    first: int
    last: int
    name: str


def percent(value: float) -> str:
    return f"{value * 100:,.1f} %".replace("-", "−")


def plain(value: float) -> str:
    digits = 3 if abs(value) < 1 else 1 if abs(value) < 100 else 0
    text = f"{value:,.{digits}f}"
    return text.replace("-", "−")


def steps(low: float, high: float, about: int = 6) -> list[float]:
    """Return round numbers that cover low..high: multiples of 1, 2 or 5 times a power of ten, near `about` of them."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / about))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda one: abs(math.log(span / one / (about - 1))))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def date_axis(days: npt.NDArray[np.datetime64]) -> Axis:
    """Return an axis of days: ticks at months, quarters or years, at most about ten."""
    labels = [str(day) for day in days]
    if len(days) == 0:
        return Axis(labels, [])
    months = days.astype("datetime64[M]").astype(int)
    total = int(months[-1] - months[0]) + 1
    if total <= 2:
        every = max(1, len(days) // 6)
        return Axis(labels, [(i, labels[i]) for i in range(0, len(days), every)])
    step = next((s for s in (1, 2, 3, 6, 12, 24, 60) if total / s <= 11), 120)
    ticks = []
    for i in range(1, len(days)):
        if months[i] != months[i - 1] and months[i] % step == 0:
            year, month = 1970 + months[i] // 12, months[i] % 12 + 1
            ticks.append((i, f"{year}" if step >= 12 else f"{year}-{month:02d}"))
    return Axis(labels, ticks)


def number_axis(count: int, first: int = 0) -> Axis:
    """Return an axis of whole numbers."""
    labels = [str(first + i) for i in range(count)]
    every = max(1, math.ceil(count / 12))
    return Axis(labels, [(i, labels[i]) for i in range(0, count, every)])


def line_chart(
    lines: Sequence[Line],
    axis: Axis,
    *,
    title: str,
    height: int = 260,
    form: Callable[[float], str] = percent,
    bands: Sequence[Band] = (),
    floor: float | None = None,
) -> str:
    """Draw lines over a common axis; `floor` is a value that the vertical axis has to reach (zero unless given)."""
    kept = _kept(len(axis.labels), lines)
    shown = [Line(one.name, one.values[kept], one.colour, one.area, one.dashed) for one in lines]
    finite = np.concatenate([one.values[np.isfinite(one.values)] for one in shown]) if shown else np.empty(0)
    if finite.size == 0:
        return f'<figure class="chart"><figcaption>{escape(title)}</figcaption><p class="empty">–</p></figure>'
    anchor = 0.0 if floor is None else floor
    low, high = min(float(finite.min()), anchor), max(float(finite.max()), anchor)
    if low == high:
        high = low + 1.0
    margin = 0.06 * (high - low)
    low, high = low - (margin if low < anchor else 0.0), high + (margin if high > anchor else 0.0)
    grid = [value for value in steps(low, high) if low - 1e-9 * margin <= value <= high + 1e-9 * margin]
    place = {int(old): new for new, old in enumerate(kept)}
    n = len(kept)

    def x(i: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (i / (n - 1) if n > 1 else 0.5)

    def y(value: float) -> float:
        return TOP + (height - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [_band(band, kept, x, height) for band in bands]
    parts += [_rule(value, y(value), form) for value in grid]
    for index, label in axis.ticks:
        at = x(place.get(index, int(np.searchsorted(kept, index))))
        parts.append(f'<text class="tick" x="{at:.1f}" y="{height - 8}" text-anchor="middle">{escape(label)}</text>')
    for one in shown:
        parts += _drawn(one, x, y, max(low, min(0.0, high)))
    parts += _ends(shown, x, y, form, height)
    data = {
        "x": [axis.labels[i] for i in kept],
        "s": [[one.name, one.colour, [form(v) if math.isfinite(v) else "–" for v in one.values]] for one in shown],
    }
    hover = f'<line class="cross" y1="{TOP}" y2="{height - BOTTOM}"/>'
    return (
        f'<figure class="chart" data-left="{LEFT}" data-right="{WIDTH - RIGHT}" '
        f'data-values="{escape(json.dumps(data, ensure_ascii=False, separators=(",", ":")), quote=True)}">'
        f"<figcaption>{escape(title)}{_legend(shown)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title, quote=True)}">'
        f'{"".join(parts)}{hover}</svg><div class="tip" hidden></div></figure>'
    )


def bar_chart(rows: Sequence[tuple[str, float, str]], *, title: str, colour: str = "c1") -> str:
    """Draw horizontal bars: (name, value, text behind the bar)."""
    most = max((value for _, value, _ in rows), default=0.0) or 1.0
    row, left = 28, 130
    parts = []
    for i, (name, value, label) in enumerate(rows):
        top, length = 4 + i * row, max(2.0, (WIDTH - left - 300) * value / most)
        parts.append(
            f'<text class="name" x="{left - 10}" y="{top + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="fill {colour}" x="{left}" y="{top + 2}" width="{length:.1f}" height="18" rx="3"/>'
            f'<text class="tick" x="{left + length + 8:.1f}" y="{top + 15}">{escape(label)}</text>'
        )
    height = 8 + row * len(rows)
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg></figure>'
    )


def share_bar(parts: Sequence[tuple[str, float, str, str]], *, title: str) -> str:
    """Draw one bar cut into shares: (name, value, text, colour); the legend names them with their values."""
    total = sum(value for _, value, _, _ in parts)
    drawn, at = [], 0.0
    for name, value, _, colour in parts:
        width = WIDTH * value / total if total else 0.0
        tip = f"<title>{escape(name)}</title>"
        drawn.append(f'<rect class="fill {colour}" x="{at:.1f}" y="0" width="{width:.1f}" height="26">{tip}</rect>')
        at += width
    keys = "".join(
        f'<span class="key"><i class="{colour}"></i>{escape(name)} <b>{escape(label)}</b></span>'
        for name, _, label, colour in parts
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}<span class="legend">{keys}</span></figcaption>'
        f'<svg class="share" viewBox="0 0 {WIDTH} 26" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title, quote=True)}">{"".join(drawn)}</svg></figure>'
    )


def _kept(count: int, lines: Sequence[Line]) -> npt.NDArray[np.int64]:
    """Return the points to draw: all, or of each stretch the first, the highest and the lowest of every line."""
    if count <= MOST_POINTS:
        return np.arange(count)
    keep = {0, count - 1}
    for part in np.array_split(np.arange(count), MOST_POINTS // (1 + 2 * len(lines))):
        keep.add(int(part[0]))
        for one in lines:
            values = one.values[part]
            if np.isfinite(values).any():
                keep |= {int(part[np.nanargmax(values)]), int(part[np.nanargmin(values)])}
    return np.array(sorted(keep))


def _band(band: Band, kept: npt.NDArray[np.int64], x: Callable[[float], float], height: int) -> str:
    a, b = (x(float(np.searchsorted(kept, i))) for i in (band.first, band.last))
    return (
        f'<rect class="band" x="{a:.1f}" y="{TOP}" width="{max(b - a, 1):.1f}" height="{height - TOP - BOTTOM}"/>'
        f'<text class="tick" x="{a + 6:.1f}" y="{TOP + 13}">{escape(band.name)}</text>'
    )


def _rule(value: float, at: float, form: Callable[[float], str]) -> str:
    kind = "zero" if value == 0 else "grid"
    return (
        f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{escape(_short(form(value)))}</text>'
    )


def _short(text: str) -> str:
    """Drop zeros behind the point, which an axis does not need."""
    number, _, unit = text.partition(" ")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    number = "0" if number == "−0" else number
    return f"{number} {unit}".strip()


def _drawn(one: Line, x: Callable[[float], float], y: Callable[[float], float], base: float) -> list[str]:
    path, runs, run = [], [], list[str]()
    for i, value in enumerate(one.values):
        if not math.isfinite(value):
            runs.append(run)
            run = []
            continue
        run.append(f"{x(i):.1f},{y(float(value)):.1f}")
    runs.append(run)
    out = []
    for points in filter(None, runs):
        path.append("M" + " L".join(points) + (" l0.1,0" if len(points) == 1 else ""))
        if one.area:
            first, last = points[0].split(",")[0], points[-1].split(",")[0]
            edge = f"M{first},{y(base):.1f} L{' L'.join(points)} L{last},{y(base):.1f}Z"
            out.append(f'<path class="area {one.colour}" d="{edge}"/>')
    dash = " dashed" if one.dashed else ""
    return [*out, f'<path class="line {one.colour}{dash}" d="{" ".join(path)}"/>']


def _ends(
    lines: Sequence[Line],
    x: Callable[[float], float],
    y: Callable[[float], float],
    form: Callable[[float], str],
    height: int,
) -> list[str]:
    """Write each line's last value beside its end, moved apart where they would overlap."""
    at, shown = [], []
    for one in lines:
        known = np.flatnonzero(np.isfinite(one.values))
        if len(known):
            last = float(one.values[known[-1]])
            at.append(y(last) + 4)
            shown.append((form(last), one.colour))
    order = sorted(range(len(at)), key=lambda i: at[i])
    for above, below in itertools.pairwise(order):
        at[below] = max(at[below], at[above] + LABEL_GAP)
    over = max(0.0, at[order[-1]] - (height - BOTTOM + 4)) if order else 0.0
    return [
        f'<text class="end {colour}" x="{WIDTH - RIGHT + 7}" y="{place - over:.1f}">{escape(label)}</text>'
        for place, (label, colour) in zip(at, shown)
    ]


def _legend(lines: Sequence[Line]) -> str:
    if len(lines) < 2:
        return ""
    keys = "".join(
        f'<span class="key"><i class="{one.colour}{" dashed" if one.dashed else ""}"></i>{escape(one.name)}</span>'
        for one in lines
    )
    return f'<span class="legend">{keys}</span>'
