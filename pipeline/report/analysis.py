"""The section of what stands behind the result: quantiles, decay, exposures, capacity; or why one is missing."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pyarrow as pa

from . import svg
from .arrays import column, days
from .columns import Columns, column_chart
from .markup import card, count, percent, ratio, shown, signed_percent, table, won
from .svg import Line
from .words import text

Facts = dict[str, Any]
SECTORS = 12  # groups that a chart has room for: those held most
PARTS = ("quantiles", "decay", "half_life", "sector", "size")  # what may be missing


def analysis(numbers: Facts, course: pa.Table, language: str) -> str:
    """Return the cards of the section; `course` : one row a session, as the backtest leaves it."""
    found = numbers["analysis"]
    cards = (
        _quantiles(found, course, language),
        _decay(found, language),
        _exposure(found, course, language),
        _trading(found, language),
        _capacity(found, language),
        _missing(found, language),
    )
    return "".join(card(one) for one in cards)


def _quantiles(found: Facts, course: pa.Table, language: str) -> str:
    one = found["quantiles"]
    if one is None:
        return ""
    n = len(one["mean"])
    labels = [str(i + 1) for i in range(n)]
    title = text(language, "a.quantiles", n=count(one["horizon"]))
    bars = column_chart([Columns(text(language, "a.mean"), one["mean"])], labels, title=title, form=_fine_percent)
    lines = [
        Line(text(language, "a.lowest"), column(course, "q1") - 1, "loss"),
        Line(text(language, "a.highest"), column(course, f"q{n}") - 1, "c1"),
        Line(text(language, "a.spread"), column(course, "spread") - 1, "c2"),
    ]
    grown = svg.line_chart(lines, svg.date_axis(days(course)), title=text(language, "a.curves"), height=220)
    turnover = one["name_turnover"]
    rows = (
        ("a.spread.mean", shown(one["spread"], _fine_percent, language, coloured=True)),
        ("a.spread.t", shown(one["spread_t"], ratio, language, text(language, "a.few"))),
        ("a.monotonicity", shown(one["monotonicity"], ratio, language)),
        ("a.turnover.highest", shown(turnover[-1], percent, language)),
        ("a.turnover.lowest", shown(turnover[0], percent, language)),
    )
    return bars + grown + _facts(rows, language) + _note("a.quantiles.note", language)


def _decay(found: Facts, language: str) -> str:
    one = found["decay"]
    if one is None:
        return ""
    rank, error = (
        np.array([np.nan if x is None else x for x in one[name]], np.float64) for name in ("rank_ic", "standard_error")
    )
    lines = [
        Line(text(language, "a.band"), rank + 2 * error, "muted", dashed=True),
        Line(text(language, "a.band.low"), rank - 2 * error, "muted", dashed=True),
        Line(text(language, "mean_rank_ic"), rank, "c1"),
    ]
    horizons = [str(h) for h in one["horizon"]]
    every = max(1, len(horizons) // 12)
    axis = svg.Axis(horizons, [(i, horizons[i]) for i in range(0, len(horizons), every)])
    chart = svg.line_chart(lines, axis, title=text(language, "a.decay"), height=220, form=svg.plain)
    ranks = found["rank_autocorrelation"]
    rows = [("a.half_life", shown(one["half_life"], ratio, language, found["reasons"].get("half_life", "")))]
    rows += [(f"a.ranks.{lag}", shown(ranks[lag], ratio, language)) for lag in sorted(ranks, key=int)]
    return chart + _facts(rows, language) + _note("a.decay.note", language)


def _exposure(found: Facts, course: pa.Table, language: str) -> str:
    axis = svg.date_axis(days(course))
    lines = [
        Line(text(language, "a.gross"), column(course, "gross"), "muted"),
        Line(text(language, "a.net"), column(course, "net"), "c1"),
    ]
    out = svg.line_chart(lines, axis, title=text(language, "a.exposure"), height=170)
    for kind, one in found["exposure"].items():
        held = [abs(x or 0.0) + abs(y or 0.0) for x, y in zip(one["net"], one["benchmark"])]
        kept = sorted(sorted(range(len(held)), key=lambda i: -held[i])[:SECTORS])
        kept = [i for i in kept if one["names"][i] or held[i] > 0]
        names = [one["names"][i] or text(language, "a.unknown") for i in kept]
        series = [
            Columns(text(language, "portfolio"), [one["net"][i] for i in kept]),
            Columns(text(language, "a.benchmark"), [one["benchmark"][i] for i in kept], "muted"),
        ]
        out += column_chart(series, names, title=text(language, f"a.exposure.{kind}"))
    rows = (("a.positions_alike", shown(found["positions_alike"], ratio, language)),)
    return out + _facts(rows, language)


def _trading(found: Facts, language: str) -> str:
    held = found["holding"]
    middle = None if held["quartiles"] is None else held["quartiles"][1]
    why = text(language, "a.none_closed")
    rows = (
        ("a.holding.mean", shown(held["mean"], ratio, language, why)),
        ("a.holding.median", shown(middle, ratio, language, why)),
        ("a.holding.open", shown(held["open"], count, language)),
    )
    head = [text(language, name) for name in ("a.cost", "a.bp_of_traded", "a.cost_a_year")]
    costs = [
        (
            escape(text(language, kind)),
            shown(one["bp_of_traded"], ratio, language),
            shown(one["a_year"], _fine_percent, language),
        )
        for kind, one in found["costs"].items()
    ]
    return f"<h3>{escape(text(language, 'a.trading'))}</h3>" + _facts(rows, language) + table(head, costs)


def _capacity(found: Facts, language: str) -> str:
    one = found["capacity"]
    names = ("capital", "unfilled", "total_return", "mean_participation", "impact_bp", "impact_a_year")
    forms = (won, percent, signed_percent, _fine_percent, ratio, _fine_percent)
    rows = [
        (f"{scale['scale']} ×", *(shown(scale[name], form, language) for name, form in zip(names, forms)))
        for scale in one["scales"]
    ]
    line = shown(one["equity"], won, language, one["why"])
    head = [text(language, "a.scale"), *(text(language, f"a.{name}") for name in names)]
    what = escape(text(language, "a.capacity.equity", share=percent(one["participation"])))
    return (
        f"<h3>{escape(text(language, 'a.capacity'))}</h3><p>{what}: <b>{line}</b></p>"
        + table(head, rows)
        + _note("a.capacity.note", language)
    )


def _missing(found: Facts, language: str) -> str:
    """Return what is not shown and why, nothing where all is."""
    rows = [
        (escape(text(language, f"a.part.{name}")), escape(found["reasons"][name]))
        for name in PARTS
        if name in found["reasons"]
    ]
    return f"<h3>{escape(text(language, 'a.missing'))}</h3>{table(('', ''), rows, texts=(0, 1))}" if rows else ""


def _facts(rows: Any, language: str) -> str:
    return table(("", ""), [(escape(text(language, name)), value) for name, value in rows])


def _note(key: str, language: str) -> str:
    return f'<p class="soft small">{escape(text(language, key))}</p>'


def _fine_percent(value: float) -> str:
    return f"{ratio(value * 100)} %"
