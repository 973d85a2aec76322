"""The same story as one PNG, for places that show no HTML. Drawn without a display; text in a font that has its
letters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.backtest.metrics import drawdown

from .arrays import column, days
from .charts import ic_by_model, rolling_mean
from .section import ReportSection
from .skill import ics
from .sources import Sources
from .words import benchmark_name, text

KOREAN = (
    "Pretendard",
    "Noto Sans CJK KR",
    "Noto Sans KR",
    "NanumGothic",
    "NanumBarunGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "AppleGothic",
    "UnDotum",
)
BLUE, ORANGE, TEAL, GREY, RED = "#2563c9", "#d2691e", "#0f8a7e", "#8b94a3", "#c0312b"
COLOURS = (BLUE, ORANGE, TEAL, RED)
PERCENT = FuncFormatter(lambda value, _: f"{value * 100:.0f} %")
FINE_PERCENT = FuncFormatter(lambda value, _: f"{value * 100:.2f} %")


def korean_font() -> str | None:
    """Return the first installed font known to have Korean letters, None without one."""
    have = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in KOREAN if name in have), None)


def draw(path: Path, numbers: dict[str, Any], sources: Sources, report: ReportSection) -> None:
    """Write the PNG to `path`: equity, drawdown, rank IC, losses, stage times, monthly returns.

    Without a Korean font the words are English whatever the language; names of symbols are not drawn.
    """
    font = korean_font()
    language = report.language if font or report.language != "ko" else "en"
    family = [font, "DejaVu Sans"] if font and language == "ko" else ["DejaVu Sans"]
    look: Any = {
        "font.family": family,
        "font.size": 10,
        "axes.unicode_minus": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e8eaee",
        "axes.titleweight": "bold",
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "legend.frameon": False,
        "legend.fontsize": 9,
    }
    with rc_context(look):
        figure = Figure(figsize=(15, 10), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(3, 2, height_ratios=(5, 4, 4))
        _equity(figure.add_subplot(grid[0, 0]), sources, language)
        _drawdown(figure.add_subplot(grid[1, 0]), sources, language)
        _months(figure.add_subplot(grid[2, 0]), numbers, language)
        _forecast(figure.add_subplot(grid[0, 1]), sources, report.ic_window, language)
        _learned(figure.add_subplot(grid[1, 1]), sources, language)
        _stages(figure.add_subplot(grid[2, 1]), numbers, language)
        title = report.title if report.title.isascii() or family[0] != "DejaVu Sans" else ""
        heading = f"{title or text(language, 'title')}: {text(language, 'v.' + numbers['verdict']['key'])}"
        figure.suptitle(heading, x=0.01, ha="left", fontsize=15, fontweight="bold")
        figure.savefig(path, format="png", metadata={"Software": ""})


def _equity(ax: Axes, sources: Sources, language: str) -> None:
    at = days(sources.equity)
    names = {"benchmark": benchmark_name(sources.backtest, language), "equity": text(language, "portfolio")}
    for key, colour in (("benchmark", GREY), ("equity", BLUE)):
        values = column(sources.equity, key)
        ax.plot(at, values / values[0] - 1, color=colour, label=names[key], linewidth=1.6)
    _dressed(ax, text(language, "equity"), PERCENT)
    ax.legend(loc="upper left")


def _drawdown(ax: Axes, sources: Sources, language: str) -> None:
    at = days(sources.equity)
    mine = drawdown(column(sources.equity, "equity"))
    ax.fill_between(at, mine, 0, color=RED, alpha=0.18, linewidth=0)
    ax.plot(at, mine, color=RED, linewidth=1.2)
    ax.plot(at, drawdown(column(sources.equity, "benchmark")), color=GREY, linewidth=1)
    _dressed(ax, text(language, "drawdown"), PERCENT)


def _months(ax: Axes, numbers: dict[str, Any], language: str) -> None:
    months = numbers["monthly"][-36:]
    values = [value for _, _, value in months]
    ax.bar(range(len(values)), values, color=[BLUE if v >= 0 else RED for v in values])
    every = max(1, len(months) // 9)
    ax.set_xticks(range(0, len(months), every), [f"{y}-{m:02d}" for y, m, _ in months[::every]])
    _dressed(ax, text(language, "monthly"), PERCENT)


def _forecast(ax: Axes, sources: Sources, window: int, language: str) -> None:
    at, by_model, _ = ic_by_model(ics(sources))
    used = min(window, max(len(at) // 4, 2))
    other = ax.twinx()
    for (name, values), colour in zip(by_model.items(), COLOURS):
        ax.plot(at, rolling_mean(values, used), color=colour, label=name, linewidth=1.6)
        other.plot(
            at, np.where(np.isfinite(values), np.nancumsum(values), np.nan), color=colour, linewidth=0.9, linestyle=":"
        )
    ax.axhline(0, color=GREY, linewidth=0.8)
    other.grid(visible=False)
    other.set_ylabel(f"{text(language, 'ic.sum')} (···)", color=GREY, fontsize=9)
    _dressed(ax, text(language, "ic.rolling", n=used), None)
    if by_model:
        ax.legend(loc="upper left")


def _learned(ax: Axes, sources: Sources, language: str) -> None:
    """Draw losses where there are models, else what each tenth of the scores earned."""
    if sources.history.num_rows:
        _training(ax, sources, language)
    elif found := sources.analysis["quantiles"]:
        mean = [np.nan if x is None else x for x in found["mean"]]
        ax.bar(range(1, len(mean) + 1), mean, color=BLUE)
        _dressed(ax, text(language, "a.quantiles", n=found["horizon"]), FINE_PERCENT)
    else:
        _dressed(ax, text(language, "a.missing"), None)


def _training(ax: Axes, sources: Sources, language: str) -> None:
    history = sources.history
    for model, colour in zip(sorted(pc.unique(history["model"]).to_pylist()), COLOURS):
        rows = history.filter(pc.equal(history["model"], model))
        valid, label = column(rows, "valid_loss"), text(language, "loss.valid", model=model)
        if rows.num_rows == 1:
            ax.axhline(valid[0], color=colour, linestyle="--", linewidth=1.2, label=label)
            continue
        ax.plot(valid, color=colour, label=label, linewidth=1.6)
        ax.plot(column(rows, "train_loss"), color=GREY, label=text(language, "loss.train", model=model), linewidth=1.2)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _dressed(ax, text(language, "loss"), None)
    if ax.lines:
        ax.legend()


def _stages(ax: Axes, numbers: dict[str, Any], language: str) -> None:
    rows = numbers["stages"][::-1]
    seconds = [row["seconds"] or 0.0 for row in rows]
    bars = ax.barh([row["stage"] for row in rows], seconds, color=TEAL, height=0.6)
    labels = [
        f"{s:.1f} s"
        + (f"  {row['rows_per_s']:,.0f} {text(language, 'rows_per_s').lower()}" if row["rows_per_s"] else "")
        for s, row in zip(seconds, rows)
    ]
    ax.bar_label(bars, labels, padding=4, fontsize=9)
    ax.set_xlim(0, max([*seconds, 0.1]) * 1.45)
    ax.grid(visible=False, axis="y")
    _dressed(ax, text(language, "stages"), None)


def _dressed(ax: Axes, title: str, form: FuncFormatter | None) -> None:
    ax.set_title(title)
    ax.tick_params(colors="#5b6472", labelsize=9)
    ax.margins(x=0.01)
    if form is not None:
        ax.yaxis.set_major_formatter(form)
