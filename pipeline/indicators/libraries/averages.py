"""Moving averages, also weighted by volume. Each formula gives what the indicator of its name promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .algebra import Bars, Formula, Known, ema, never, typical


def sma(b: Bars, n: int) -> list[Known]:
    return [(b.mean(b.column("close"), n), n)]


def exponential(b: Bars, n: int) -> list[Known]:
    return [(ema(b, b.column("close"), n), n)]


def _weighted(b: Bars, x: Any, n: int) -> Any:
    return b.weighted(x, np.arange(1.0, n + 1.0)) * (2.0 / (n * (n + 1.0)))


def wma(b: Bars, n: int) -> list[Known]:
    return [(_weighted(b, b.column("close"), n), n)]


def hma(b: Bars, n: int) -> list[Known]:
    close, root = b.column("close"), math.isqrt(n)
    return [(_weighted(b, 2.0 * _weighted(b, close, n // 2) - _weighted(b, close, n), root), n + root - 1)]


def nested(b: Bars, n: int, depth: int) -> list[Any]:
    """Return the exponential mean of closes, the mean of that, and so on."""
    out = [b.column("close")]
    for level in range(depth):
        out.append(ema(b, out[-1], n, 1 + level * (n - 1)))
    return out[1:]


def dema(b: Bars, n: int) -> list[Known]:
    one, two = nested(b, n, 2)
    return [(2.0 * one - two, 2 * n - 1)]


def tema(b: Bars, n: int) -> list[Known]:
    one, two, three = nested(b, n, 3)
    return [(3.0 * (one - two) + three, 3 * n - 2)]


def trix(b: Bars, n: int) -> list[Known]:
    mean = nested(b, n, 3)[-1]
    before = b.lag(mean, 1)
    return [(b.where(before != 0.0, 100.0 * (mean / before - 1.0), 0.0), 3 * n - 1)]


def t3(b: Bars, n: int, v: float) -> list[Known]:
    _, _, c, d, e, f = nested(b, n, 6)
    w3, w4, w5, w6 = (1.0 + v) ** 3, -3.0 * v * (1.0 + v) ** 2, 3.0 * v * v * (1.0 + v), -v * v * v
    return [(w3 * c + w4 * d + w5 * e + w6 * f, 6 * n - 5)]


def _by_volume(b: Bars, price: Any, n: int) -> list[Known]:
    volume = b.column("volume")
    shares = b.total(volume, n)
    idle = never(b, volume != 0.0, n) | (shares <= 0.0)
    return [(b.where(idle, price, b.total(price * volume, n) / shares), n)]


def vwap(b: Bars, n: int) -> list[Known]:
    return _by_volume(b, typical(b), n)


def vwma(b: Bars, n: int) -> list[Known]:
    return _by_volume(b, b.column("close"), n)


def session_vwap(b: Bars) -> list[Known]:
    price, volume = typical(b), b.column("volume")
    paid, shares = (b.running(x, "sum", within_day=True) for x in (price * volume, volume))
    return [(b.where(shares > 0.0, paid / shares, price), 1)]


def average_price(b: Bars) -> list[Known]:
    volume = b.column("volume")
    return [(b.where(volume > 0.0, b.column("turnover") / volume, b.column("close")), 1)]


FORMULAS: dict[str, Formula] = {
    "sma": sma, "ema": exponential, "wma": wma, "hma": hma, "dema": dema, "tema": tema, "trix": trix, "t3": t3,
    "vwap": vwap, "vwma": vwma, "session_vwap": session_vwap, "average_price": average_price,
}  # fmt: skip
