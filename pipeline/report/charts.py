"""The report's charts: which numbers are drawn, and how."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.backtest.metrics import drawdown

from . import svg
from .arrays import column, days
from .svg import Band, Line
from .words import text

Floats = npt.NDArray[np.float64]
COLOURS = ("c1", "c2", "c3", "c4")
COSTS = (("commission", "c1"), ("tax", "c2"), ("slippage", "c3"), ("borrow", "c4"))


def equity(table: pa.Table, benchmark: str, language: str) -> str:
    """Draw the return since the start and, below it, the drawdown, both beside the benchmark of that name."""
    mine, other = column(table, "equity"), column(table, "benchmark")
    axis = svg.date_axis(days(table))
    names = text(language, "portfolio"), benchmark
    rise = [
        Line(names[1], other / other[0] - 1, "muted"),
        Line(names[0], mine / mine[0] - 1, "c1"),
    ]
    fall = [Line(names[1], drawdown(other), "muted"), Line(names[0], drawdown(mine), "loss", area=True)]
    return svg.line_chart(rise, axis, title=text(language, "equity"), height=300) + svg.line_chart(
        fall, axis, title=text(language, "drawdown"), height=170
    )


def ic_by_model(table: pa.Table) -> tuple[npt.NDArray[np.datetime64], dict[str, Floats], list[str]]:
    """Return the days of all sections, each model's rank IC on them (NaN = none) and the part of each section."""
    stamps = pa.table({"ts": pc.unique(table["ts"])}).sort_by("ts")
    place = {ts: i for i, ts in enumerate(stamps["ts"].to_pylist())}
    out: dict[str, Floats] = {}
    parts = [""] * len(place)
    split = table["split"].to_pylist() if "split" in table.column_names else [""] * table.num_rows
    for ts, model, value, part in zip(
        table["ts"].to_pylist(), table["model"].to_pylist(), column(table, "rank_ic"), split
    ):
        out.setdefault(model, np.full(len(place), np.nan))[place[ts]] = value
        parts[place[ts]] = part
    return days(stamps), dict(sorted(out.items())), parts


def rolling_mean(values: Floats, window: int) -> Floats:
    """Return the mean of the last `window` finite values at each; NaN before there are as many and where there is
    none.
    """
    out = np.full(len(values), np.nan)
    known = np.flatnonzero(np.isfinite(values))
    if len(known) >= window:
        total = np.cumsum(np.insert(values[known], 0, 0.0))
        out[known[window - 1 :]] = (total[window:] - total[:-window]) / window
    return out


def forecast(table: pa.Table, window: int, language: str) -> str:
    """Draw the rolling mean and the sum of rank ICs by model, with the parts marked."""
    stamps, by_model, parts = ic_by_model(table)
    axis = svg.date_axis(stamps)
    bands = [band for name in ("test",) if (band := _band(parts, name, language))]
    shown = list(zip(by_model.items(), COLOURS))
    means = [Line(name, rolling_mean(v, min(window, max(len(v) // 4, 2))), c) for (name, v), c in shown]
    sums = [Line(name, np.where(np.isfinite(v), np.nancumsum(v), np.nan), c) for (name, v), c in shown]
    used = min(window, max(len(stamps) // 4, 2))
    first = svg.line_chart(
        means, axis, title=text(language, "ic.rolling", n=used), height=220, form=svg.plain, bands=bands
    )
    return first + svg.line_chart(sums, axis, title=text(language, "ic.sum"), height=200, form=svg.plain, bands=bands)


def _band(parts: list[str], name: str, language: str) -> Band | None:
    at = [i for i, part in enumerate(parts) if part == name]
    return Band(at[0], at[-1], text(language, name)) if at and len(at) < len(parts) else None


def training(history: pa.Table, language: str) -> str:
    """Draw losses and validation rank IC by epoch; a model with one epoch is a dashed level."""
    models = sorted(pc.unique(history["model"]).to_pylist())  # as in the chart of rank ICs: one colour a model
    rows = {model: history.filter(pc.equal(history["model"], model)) for model in models}
    most = max((table.num_rows for table in rows.values()), default=0)
    if most == 0:
        return ""
    losses, ranks = [], []
    for (model, table), colour in zip(rows.items(), COLOURS):
        single = table.num_rows == 1
        valid = text(language, "loss.valid", model=model)
        losses.append(Line(valid, _levelled(column(table, "valid_loss"), most), colour, dashed=single))
        if not single:
            learned = text(language, "loss.train", model=model)
            losses.append(Line(learned, _levelled(column(table, "train_loss"), most), "muted"))
        ranks.append(Line(model, _levelled(column(table, "valid_rank_ic"), most), colour, dashed=single))
    axis = svg.number_axis(most)
    finite = np.concatenate([line.values[np.isfinite(line.values)] for line in losses])
    floor = float(finite.min()) if finite.size else 0.0
    return svg.line_chart(
        losses, axis, title=text(language, "loss"), height=210, form=_fine(finite), floor=floor
    ) + svg.line_chart(ranks, axis, title=text(language, "rank_ic.epoch"), height=180, form=svg.plain)


def _levelled(values: Floats, count: int) -> Floats:
    """Return a series of `count` points; one value alone becomes a level, a shorter series ends early."""
    if len(values) == 1:
        return np.full(count, values[0])
    return np.concatenate([values, np.full(count - len(values), np.nan)])


def _fine(values: Floats) -> Any:
    """Return a format with enough digits to tell the values apart."""
    spread = float(values.max() - values.min()) if values.size else 0.0
    digits = int(np.clip(np.ceil(-np.log10(spread)) + 2, 3, 7)) if spread > 0 else 4
    return lambda value: f"{value:.{digits}f}".replace("-", "−")


def costs(numbers: dict[str, Any], language: str) -> str:
    """Draw how the costs divide into commission, tax, slippage and, of shorts, borrowing."""
    kinds = [(kind, colour) for kind, colour in COSTS if kind in numbers["costs"]]
    parts = [
        (text(language, kind), float(numbers["costs"][kind]), f"₩{numbers['costs'][kind]:,}", colour)
        for kind, colour in kinds
    ]
    return svg.share_bar(parts, title=text(language, "costs")) if numbers["costs"]["total"] > 0 else ""


def trading(table: pa.Table, capital: float, language: str) -> str:
    """Draw what was invested and what trading had cost so far (commission, tax, and of shorts borrowing)."""
    axis = svg.date_axis(days(table))
    exposure = Line(text(language, "exposure.chart"), column(table, "gross_exposure"), "c1", area=True)
    paid = {name: column(table, name) for name in ("commission", "tax", "borrow")}
    title = "turnover.chart.borrow" if paid["borrow"].any() else "turnover.chart"
    spent = Line(text(language, title), np.cumsum(np.sum(list(paid.values()), axis=0)) / capital, "c2")
    return svg.line_chart([exposure], axis, title=exposure.name, height=150) + svg.line_chart(
        [spent], axis, title=spent.name, height=150
    )


def stages(rows: list[dict[str, Any]], language: str) -> str:
    """Draw the seconds of each stage with its throughput and memory."""
    bars = []
    for row in rows:
        label = f"{row['seconds']:,.1f} s" if row["seconds"] is not None else "–"
        if row["rows_per_s"]:
            label += f" · {row['rows_per_s']:,.0f} {text(language, 'rows_per_s').lower()}"
        bars.append((row["stage"], float(row["seconds"] or 0.0), label))
    return svg.bar_chart(bars, title=text(language, "stages"))
