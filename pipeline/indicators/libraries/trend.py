"""Differences of means, directional movement, Aroon, Ichimoku, the day so far, falls from its highest, bands and
ratios of ranges."""

from __future__ import annotations

from math import inf
from typing import Any

from .algebra import Bars, Formula, Known, age, ema, true_range, typical, wilder


def macd(b: Bars, fast: int, slow: int, signal: int) -> list[Known]:
    close, ready = b.column("close"), slow + signal - 1
    line = ema(b, close, fast, slow - fast + 1) - ema(b, close, slow)
    mean = ema(b, line, signal, slow)
    return [(line, ready), (mean, ready), (line - mean, ready)]


def ppo(b: Bars, fast: int, slow: int, signal: int) -> list[Known]:
    close, ready = b.column("close"), slow + signal - 1
    long = ema(b, close, slow)
    line = b.where(long != 0.0, 100.0 * ((ema(b, close, fast) - long) / long), 0.0)
    mean = ema(b, line, signal, slow)
    return [(line, slow), (mean, ready), (line - mean, ready)]


def apo(b: Bars, fast: int, slow: int) -> list[Known]:
    close = b.column("close")
    return [(ema(b, close, fast) - ema(b, close, slow), slow)]


def adx(b: Bars, n: int) -> list[Known]:
    high, low, second = b.column("high"), b.column("low"), b.number() > 1.0
    rise, fall = high - b.lag(high, 1), b.lag(low, 1) - low
    moves = (
        b.where((rise > fall) & (rise > 0.0), rise, 0.0),
        b.where((fall > rise) & (fall > 0.0), fall, 0.0),
        true_range(b),
    )
    ups, downs, reach = (wilder(b, b.where(second, move, 0.0), n, 1) for move in moves)
    plus, minus = (b.where(reach > 0.0, 100.0 * move / reach, 0.0) for move in (ups, downs))
    both = plus + minus
    between = b.where(both > 0.0, 100.0 * (plus - minus).abs() / both, 0.0)
    return [(plus, n + 1), (minus, n + 1), (wilder(b, between, n, n + 1), 2 * n)]


def aroon(b: Bars, n: int) -> list[Known]:
    high, low = b.column("high"), b.column("low")
    top, bottom = b.highest(high, n + 1), b.lowest(low, n + 1)
    up, down = (100.0 / n * (n - age(b, x, best, n + 1, oldest=False)) for x, best in ((high, top), (low, bottom)))
    return [(up, n + 1), (down, n + 1), (up - down, n + 1)]


def _centre(b: Bars, n: int) -> Any:
    return 0.5 * (b.highest(b.column("high"), n) + b.lowest(b.column("low"), n))


def ichimoku(b: Bars, short: int, middle: int, long: int) -> list[Known]:
    close, conversion, base = b.column("close"), _centre(b, short), _centre(b, middle)
    span_a, span_b = b.lag(0.5 * (conversion + base), middle), b.lag(_centre(b, long), middle)
    lagging = close - b.lag(close, middle)
    return [
        (conversion, short),
        (base, middle),
        (span_a, 2 * middle),
        (span_b, long + middle),
        (lagging, middle + 1),
    ]


def session(b: Bars, n: int) -> list[Known]:
    high, low = b.column("high"), b.column("low")
    bar = b.running(high * 0.0 + 1.0, "sum", within_day=True)
    opened = b.running(b.where(bar == 1.0, b.column("open"), -inf), "max", within_day=True)
    out = [opened]
    for last in (inf, n):
        out.append(b.running(b.where(bar <= last, high, -inf), "max", within_day=True))
        out.append(b.running(b.where(bar <= last, low, inf), "min", within_day=True))
    return [(value, 1) for value in out]


def drawdown(b: Bars) -> list[Known]:
    close, number = b.column("close"), b.number()
    highest = b.running(close, "max")
    return [(close / highest - 1.0, 1), (number - b.running(b.where(close >= highest, number, 0.0), "max"), 1)]


def keltner(b: Bars, n: int, m: int, k: float) -> list[Known]:
    close, last = b.column("close"), max(n, m + 1)
    centre = ema(b, typical(b), n, last - n + 1)
    arm = k * wilder(b, true_range(b), m, last - m + 1)
    width = 2.0 * arm / centre
    place = b.where(width > 1e-9, 0.5 * (close - centre) / arm, 0.0) + 0.5
    return [(value, last) for value in (centre + arm, centre - arm, place, width)]


def atr_ratio(b: Bars, n: int, m: int) -> list[Known]:
    mean = wilder(b, true_range(b), n, 2)
    usual = ema(b, mean, m, n + 1)
    return [(b.where(usual > 0.0, mean / usual, 0.0), n + m)]


FORMULAS: dict[str, Formula] = {
    "macd": macd, "ppo": ppo, "apo": apo, "adx": adx, "aroon": aroon, "ichimoku": ichimoku, "session": session,
    "drawdown": drawdown, "keltner": keltner, "atr_ratio": atr_ratio,
}  # fmt: skip
