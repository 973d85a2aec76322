"""Small pieces of HTML: numbers as people write them, tables, cards. Everything that comes from data is escaped
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

from .words import text

Number = float | int | None
Form = Callable[[float], str]


def minus(shown: str) -> str:
    """Return a number's text with a true minus sign."""
    return shown.replace("-", "−")


def percent(value: float) -> str:
    return minus(f"{_tenth(value):,.1f} %")


def signed_percent(value: float) -> str:
    return minus(f"{_tenth(value):+,.1f} %")


def points(value: float) -> str:
    """Return a difference of shares in percentage points, without the unit."""
    return minus(f"{_tenth(value):+.1f}")


def _tenth(value: float) -> float:
    """Return a share in percent, rounded to tenths and never minus zero."""
    return round(value * 100, 1) + 0.0


def ratio(value: float) -> str:
    return minus(f"{value:,.2f}")


def fine(value: float) -> str:
    return minus(f"{value:,.4f}")


def count(value: float) -> str:
    return minus(f"{value:,.0f}")


def won(value: float) -> str:
    return minus(f"₩{value:,.0f}").replace("₩−", "−₩")


def shown(value: Number, form: Form, language: str, why: str = "", *, coloured: bool = False) -> str:
    """Return a number as HTML; None is "n/a" with the reason beside it."""
    if value is None:
        reason = f' <span class="why">{escape(why)}</span>' if why else ""
        return f'<span class="soft">{escape(text(language, "na"))}</span>{reason}'
    if coloured and value != 0:
        return f'<span class="{"gain" if value > 0 else "loss"}">{escape(form(value))}</span>'
    return escape(form(value))


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, texts: Sequence[int] = (0,), strong: Sequence[int] = ()
) -> str:
    """Return a table of cells that are HTML already; `texts` are the columns aligned left, `strong` the rows in
    bold.
    """

    def cell(tag: str, i: int, content: str) -> str:
        return f"<{tag}{' class=text' if i in texts else ''}>{content}</{tag}>"

    top = "".join(cell("th", i, escape(name)) for i, name in enumerate(head))
    body = "".join(
        f"<tr{' class=strong' if n in strong else ''}>{''.join(cell('td', i, c) for i, c in enumerate(row))}</tr>"
        for n, row in enumerate(rows)
    )
    thead = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    return f'<div class="scroll"><table>{thead}<tbody>{body}</tbody></table></div>'


def card(content: str) -> str:
    return f'<div class="card">{content}</div>' if content else ""


def section(name: str, heading: str, content: str) -> str:
    return f'<section id="{name}"><h2>{escape(heading)}</h2>{content}</section>'


def folded(heading: str, content: str) -> str:
    return f"<details><summary>{escape(heading)}</summary>{content}</details>"


def plain(value: Any) -> str:
    """Return any value as escaped text, empty for None."""
    return "" if value is None else escape(str(value))
