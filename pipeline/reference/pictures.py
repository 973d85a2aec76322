"""A picture of each indicator over one random walk: prices above with what is in their unit, the other outputs below.

The same specs and the same Matplotlib give the same bytes: the walk is fixed, and numbers are rounded before and after
they are drawn.
"""

from __future__ import annotations

import functools
import io
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ..indicators import Indicator, Spec, compute, resolve
from ..indicators.spec import Output

BARS, DAY_BARS = 140, 70  # in all, and of a day for indicators of the day
TOGETHER, ALIKE = 3, 8.0  # lines of one panel, and how many times as far one may reach as another
COLOURS = ("#2563c9", "#d2691e", "#0f8a7e", "#c0312b", "#7a4fbf")
WIDTH, PRICES, PANEL = 7.0, 1.9, 0.95  # inches
LOOK: Any = {
    "svg.hashsalt": "indicators",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "axes.grid": True,
    "grid.color": "#e8eaee",
    "legend.frameon": False,
    "legend.fontsize": 7,
    "legend.columnspacing": 1.2,
}


Line = tuple[Output, npt.NDArray[np.float64]]


@functools.cache
def walk(*, intraday: bool) -> pd.DataFrame:
    """Return bars of one symbol with every column that kernels read; days of a year, or five-minute bars of two."""
    rng = np.random.default_rng(11)
    market, own, up, down = 0.008 * rng.standard_normal(BARS), *(rng.standard_normal(BARS) for _ in range(3))
    drift = 0.006 * np.sin(np.arange(BARS) / 18.0)
    close = np.round(50_000 * np.exp(np.cumsum(drift + market + 0.012 * own)))
    opened = np.append(50_000.0, close[:-1]) * (1.0 + 0.003 * np.roll(own, 7))
    high, low = (np.maximum(opened, close), np.minimum(opened, close))
    high, low = high * (1.0 + 0.006 * np.abs(up)), low * (1.0 - 0.006 * np.abs(down))
    volume = np.round(100_000 * np.exp(0.4 * up + 20.0 * np.abs(market + 0.012 * own)))
    first = pd.Timestamp("2024-01-02 15:30", tz="Asia/Seoul")
    ends = pd.bdate_range(first, periods=BARS)
    if intraday:
        step = pd.to_timedelta(5 * (np.arange(BARS) % DAY_BARS - DAY_BARS), unit="min")
        ends = pd.bdate_range(first, periods=BARS // DAY_BARS).repeat(DAY_BARS) + step
    return pd.DataFrame(
        {
            "symbol": "000000",
            "ts": ends.tz_convert("UTC").astype("datetime64[us, UTC]"),
            **{name: np.round(x) for name, x in {"open": opened, "high": high, "low": low, "close": close}.items()},
            "volume": volume,
            "turnover": volume * np.round((high + low + 2 * close) / 4),
            "market": np.round(2_500 * np.exp(np.cumsum(drift + market)), 2),
        }
    )


def draw(one: Indicator, path: Path) -> None:
    """Write an indicator's picture as SVG."""
    intraday = "day" in one.inputs
    bars = walk(intraday=intraday)
    columns = resolve([Spec(indicator=one.name)])
    values = compute(bars, [Spec(indicator=one.name)], dtype=np.float64)
    lines = list(zip(one.outputs, (values[c.name].to_numpy() for c in columns)))
    above = [line for line in lines if line[0].scales_with == "price"]
    panels = _panels([line for line in lines if line[0].scales_with != "price"])
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, PRICES + PANEL * len(panels)), layout="constrained")
        FigureCanvasSVG(figure)
        ratios = [PRICES, *[PANEL] * len(panels)]
        axes = figure.subplots(1 + len(panels), sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        _prices(axes[0], bars, one)
        for ax, of in zip(axes, [above, *panels]):
            _lines(ax, of)
        axes[-1].set_xlabel("bar of five minutes, 70 a day" if intraday else "day")
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = re.sub(r"\d+\.\d{2,}", lambda found: f"{float(found[0]):.1f}", out.getvalue().decode())
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def _panels(lines: list[Line]) -> list[list[Line]]:
    """Put outputs of one unit that reach about as far into a panel."""
    out: list[list[Line]] = []
    for line in lines:
        for panel in out:
            first, reach = panel[0], _reach(line) / _reach(panel[0])
            if line[0].unit == first[0].unit and len(panel) < TOGETHER and 1 / ALIKE < reach < ALIKE:
                panel.append(line)
                break
        else:
            out.append([line])
    return out


def _reach(line: Line) -> float:
    return float(np.nanmax(line[1]) - np.nanmin(line[1])) or 1.0


def _prices(ax: Axes, bars: pd.DataFrame, one: Indicator) -> None:
    x = np.arange(len(bars))
    ax.fill_between(x, bars["low"], bars["high"], color="#dfe3ea", linewidth=0)
    ax.plot(x, bars["close"], color="#4a5160", linewidth=0.9, label="close")
    ax.set_ylabel("KRW")
    if "market" in one.inputs:
        scaled = bars["market"] * (bars["close"].iloc[0] / bars["market"].iloc[0])
        ax.plot(x, np.round(scaled), color="#b08a2e", linewidth=0.8, label="market, scaled")
    if {"volume", "turnover"} & {*one.inputs}:
        beside = ax.twinx()
        beside.fill_between(x, 0, bars["volume"], step="mid", color="#9db4d8", alpha=0.6, linewidth=0)
        beside.set_ylim(0, 4 * bars["volume"].max())
        beside.set_yticks([])
        beside.grid(visible=False)


def _lines(ax: Axes, lines: list[Line]) -> None:
    for colour, (output, values) in zip(itertools.cycle(COLOURS), lines):
        exact = np.array([float(f"{v:.5g}") for v in values])
        ax.plot(np.arange(len(exact)), exact, color=colour, linewidth=1.0, label=output.name)
        if output.scales_with != "price":
            ax.set_ylabel(output.unit)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.0, ncols=5)
    ax.set_xlim(0, BARS - 1)
