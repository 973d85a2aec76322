"""The page: one offline HTML file, made of the numbers and nothing else."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

from . import audits, charts, tables
from .analysis import analysis
from .findings import traded
from .markup import card, percent, ratio, section, shown, signed_percent
from .section import ReportSection
from .skill import ics
from .sources import Sources
from .words import benchmark_name, text

Facts = dict[str, Any]
HERE = Path(__file__).parent
STYLE, SCRIPT = "page.css", "page.js"
PARTS = ("performance", "forecast", "analysis", "training", "trading", "data", "audit", "run", "provenance")


def page(numbers: Facts, sources: Sources, report: ReportSection) -> str:
    """Return the HTML text. Styles, script and charts are inside; nothing is fetched when it is opened."""
    language = report.language
    built = {
        "performance": card(charts.equity(sources.equity, benchmark_name(numbers["backtest"], language), language))
        + card(tables.performance(numbers, language))
        + card(tables.months(numbers, language)),
        "forecast": card(charts.forecast(ics(sources), report.ic_window, language))
        + card(tables.forecast(numbers, language))
        if numbers["forecast"]
        else "",
        "analysis": analysis(numbers, sources.course, language),
        "training": card(charts.training(sources.history, language) + tables.training(numbers, language))
        + card(tables.tuning(numbers, language))
        if numbers["training"]
        else "",
        "trading": card(
            charts.costs(numbers["backtest"]["metrics"], language)
            + charts.trading(sources.equity, numbers["backtest"]["capital"], language)
        )
        + card(tables.positions(numbers, language)),
        "data": card(tables.data(numbers, language)),
        "audit": card(audits.audit(numbers, language)) if numbers["certificates"] else "",
        "run": card(charts.stages(numbers["stages"], language) + tables.stages(numbers, language)),
        "provenance": card(tables.provenance(numbers, language)),
    }
    parts = [name for name in PARTS if built[name]]
    body = "".join(section(name, text(language, name), built[name]) for name in parts)
    title = numbers["title"] or text(language, "title")
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in (STYLE, SCRIPT))
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; img-src data:\">\n"
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n'
        f"{_head(numbers, title, parts, language)}\n<main>\n{_tiles(numbers, language)}\n{_words(numbers, language)}\n"
        f"{body}\n{_assumptions(numbers, language)}\n</main>\n{_foot(numbers, language)}\n"
        f"<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _head(numbers: Facts, title: str, parts: list[str], language: str) -> str:
    data, backtest = numbers["data"], numbers["backtest"]
    what = text(
        language,
        "data.what",
        source=data["source"],
        venue=data["venue"],
        symbols=f"{data['symbols']:,}",
        start=data["start"],
        end=data["end"],
    )
    links = "".join(f'<a href="#{name}">{escape(text(language, name))}</a>' for name in parts)
    span = f"{text(language, backtest['split'])} {backtest['metrics']['first_day']} – {backtest['metrics']['last_day']}"
    return (
        f'<header><div class="top"><div><h1>{escape(title)}</h1><p class="soft">{escape(what)} · {escape(span)} · '
        f"{escape(text(language, 'generated', when=numbers['generated']))}</p></div>"
        f'<button id="theme" type="button">{escape(text(language, "theme"))}</button></div><nav>{links}</nav></header>'
    )


def _tiles(numbers: Facts, language: str) -> str:
    backtest = numbers["backtest"]
    m, why = backtest["metrics"], backtest["reasons"]
    test = traded(numbers)
    which = "t.rank_ic" if backtest["scores"] == "predictions" else "mean_rank_ic"
    error = m["sharpe_standard_error"]
    t = test.get("t_newey_west")
    tiles = (
        ("m.total_return", shown(m["total_return"], signed_percent, language, coloured=True), text(language, "equity")),
        (
            "m.benchmark_total_return",
            shown(m["benchmark_total_return"], signed_percent, language),
            benchmark_name(backtest, language),
        ),
        (
            "m.sharpe",
            shown(m["sharpe"], ratio, language),
            why.get("sharpe", "") if error is None else f"± {ratio(error)}",
        ),
        ("m.max_drawdown", shown(m["max_drawdown"], percent, language), m["drawdown_trough"] or ""),
        (
            which,
            shown(test.get("mean_rank_ic"), lambda v: f"{v:.3f}".replace("-", "−"), language),
            f"t = {ratio(t)}" if t is not None else "",
        ),
        ("t.costs", shown(m["costs_of_capital"], percent, language), text(language, "t.of_capital")),
    )
    cells = "".join(
        f'<div class="tile"><div class="name">{escape(text(language, name))}</div><div class="value">{value}</div>'
        f'<div class="note">{escape(note)}</div></div>'
        for name, value, note in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _words(numbers: Facts, language: str) -> str:
    verdict = numbers["verdict"]
    meaning = " ".join(_unbroken(escape(f["text"])) for f in numbers["findings"] if f["kind"] == "meaning")
    doubts = "".join(f"<li>{_unbroken(escape(f['text']))}</li>" for f in numbers["findings"] if f["kind"] == "distrust")
    return card(
        f'<span class="badge {verdict["tone"]}">{escape(verdict["text"])}</span><p class="lead">{meaning}</p>'
        f'<h3>{escape(text(language, "distrust"))}</h3><ul class="doubts">{doubts}</ul>'
    )


def _unbroken(text: str) -> str:
    """Keep dates on one line."""
    return re.sub(r"\d{4}-\d{2}-\d{2}", r'<span class="nb">\g<0></span>', text)


def _assumptions(numbers: Facts, language: str) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in numbers["backtest"]["assumptions"])
    return section("assumptions", text(language, "assumptions"), card(f'<ul class="small">{items}</ul>'))


def _foot(numbers: Facts, language: str) -> str:
    heading, words = text(language, "disclaimer"), text(language, "disclaimer.text")
    return f"<footer><h3>{escape(heading)}</h3><p>{escape(words)}</p></footer>"
