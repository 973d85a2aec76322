"""Columns around zero as inline SVG: values that belong side by side, such as the returns of quantiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from .svg import BOTTOM, LEFT, RIGHT, TOP, WIDTH, percent, steps

GAP = 0.28  # share of a group's width that stays empty


@dataclass(frozen=True)
class Columns:
    """One series: a column in each group; None = no column. `colour` names a CSS class, as of a line."""

    name: str
    values: Sequence[float | None]
    colour: str = "c1"


def column_chart(
    series: Sequence[Columns],
    labels: Sequence[str],
    *,
    title: str,
    height: int = 220,
    form: Callable[[float], str] = percent,
) -> str:
    """Draw groups of columns over their labels, with the values of a series above or below its columns where there is
    one series and room.
    """
    known = [value for one in series for value in one.values if value is not None and math.isfinite(value)]
    if not known:
        return f'<figure class="chart"><figcaption>{escape(title)}</figcaption><p class="empty">–</p></figure>'
    low, high = min(0.0, *known), max(0.0, *known)
    high = high if high > low else low + 1.0
    margin = 0.12 * (high - low)
    low, high = low - (margin if low < 0 else 0.0), high + (margin if high > 0 else 0.0)
    slot = (WIDTH - LEFT - RIGHT) / len(labels)
    width = slot * (1 - GAP) / len(series)

    def y(value: float) -> float:
        return TOP + (height - TOP - BOTTOM) * (high - value) / (high - low)

    parts = []
    for value in steps(low, high):
        if low <= value <= high:
            kind = "zero" if value == 0 else "grid"
            parts.append(
                f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
                f'<text class="tick" x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">'
                f"{escape(form(value))}</text>"
            )
    for i, label in enumerate(labels):
        middle = LEFT + slot * (i + 0.5)
        parts.append(
            f'<text class="tick" x="{middle:.1f}" y="{height - 8}" text-anchor="middle">{escape(label)}</text>'
        )
        for n, one in enumerate(series):
            value = math.nan if (found := one.values[i]) is None else found
            if not math.isfinite(value):
                continue
            at, top = middle + width * (n - len(series) / 2), y(max(value, 0.0))
            tall = max(abs(y(value) - y(0.0)), 0.5)
            parts.append(
                f'<rect class="fill {one.colour}" x="{at:.1f}" y="{top:.1f}" width="{max(width - 1, 1):.1f}" '
                f'height="{tall:.1f}"><title>{escape(f"{label} · {one.name} {form(value)}")}</title></rect>'
            )
            if len(series) == 1 and len(labels) <= 12:
                above = top - 4 if value >= 0 else top + tall + 12
                parts.append(
                    f'<text class="tick" x="{middle:.1f}" y="{above:.1f}" text-anchor="middle">'
                    f"{escape(form(value))}</text>"
                )
    keys = "".join(
        f'<span class="key"><i class="{one.colour}"></i>{escape(one.name)}</span>' for one in series if len(series) > 1
    )
    legend = f'<span class="legend">{keys}</span>' if keys else ""
    return (
        f'<figure class="chart"><figcaption>{escape(title)}{legend}</figcaption><svg viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg></figure>'
    )
