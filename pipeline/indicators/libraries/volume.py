"""How much is traded and on which side, and the parts of a candle."""

from __future__ import annotations

from math import inf
from typing import Any

from .algebra import Bars, Formula, Known, change, deviation, ema, equal, larger, never, smaller


def _positive(b: Bars, x: Any) -> Any:
    return b.where(x > 0.0, x, 0.0)


def obv(b: Bars) -> list[Known]:
    move, volume = change(b, b.column("close")), b.column("volume")
    signed = b.where(move < 0.0, -volume, b.where((move > 0.0) | (b.number() == 1.0), volume, 0.0))
    return [(b.running(signed, "sum"), 1)]


def relative_volume(b: Bars, n: int) -> list[Known]:
    volume = b.column("volume")
    return [(b.where(volume > 0.0, n * volume / b.total(volume, n), 0.0), n)]


def mfi(b: Bars, n: int) -> list[Known]:
    price = (b.column("high") + b.column("low") + b.column("close")) * (1.0 / 3.0)
    before, flow = b.lag(price, 1), price * b.column("volume")
    moves = [b.where(flag, flow, 0.0) for flag in (price > before, price < before)]
    up, down = (_positive(b, b.total(move, n)) for move in moves)
    both = up + down
    idle = never(b, (moves[0] != 0.0) | (moves[1] != 0.0), n) | (both < 1.0)
    return [(b.where(idle, 0.0, 100.0 * up / both), n + 1)]


def _flow(b: Bars) -> Any:
    """Return the volume times the place of the close in its bar, -1 at the low to 1 at the high."""
    high, low, close = b.column("high"), b.column("low"), b.column("close")
    place = ((close - low) - (high - close)) / (high - low)
    place = b.where(place > 1.0, 1.0, b.where(place < -1.0, -1.0, place))
    return b.column("volume") * b.where(high > low, place, 0.0)


def ad(b: Bars) -> list[Known]:
    return [(b.running(_flow(b), "sum"), 1)]


def chaikin(b: Bars, fast: int, slow: int) -> list[Known]:
    step = b.where(b.number() > 1.0, _flow(b), 0.0)
    near, far = (-0.5 * (n - 1.0) * b.smooth(step, 1, 2.0 / (n + 1.0), 1) for n in (fast, slow))
    return [(near - far, slow)]


def cmf(b: Bars, n: int) -> list[Known]:
    volume = b.column("volume")
    return [(b.where(never(b, volume != 0.0, n), 0.0, b.total(_flow(b), n) / b.total(volume, n)), n)]


def force(b: Bars, n: int) -> list[Known]:
    push = change(b, b.column("close")) * b.column("volume")
    return [(ema(b, b.where(push.abs() < inf, push, 0.0), n, 2), n + 1)]


def volume_ratio(b: Bars, n: int) -> list[Known]:
    move, volume = change(b, b.column("close")), b.column("volume")
    half = 0.5 * volume
    up, down = (
        b.where(with_it, volume, b.where(against, 0.0, half))
        for with_it, against in ((move > 0.0, move < 0.0), (move < 0.0, move > 0.0))
    )
    value = 100.0 * _positive(b, b.total(up, n)) / b.total(down, n)
    return [(b.where(never(b, down != 0.0, n), 0.0, value), n + 1)]


def price_volume_trend(b: Bars) -> list[Known]:
    close = b.column("close")
    step = (close / b.lag(close, 1) - 1.0) * b.column("volume")
    return [(b.running(b.where(step.abs() < inf, step, 0.0), "sum"), 1)]


def volume_deviation(b: Bars, n: int) -> list[Known]:
    volume = b.column("volume")
    of = (b.mean(volume, n), deviation(b, volume, n, 1))
    return [(b.where(volume > 0.0, value / volume, 0.0), n) for value in of]


def weighted_move(b: Bars, n: int) -> list[Known]:
    close = b.column("close")
    move = (close / b.lag(close, 1) - 1.0).abs() * b.column("volume")
    return [(b.where(equal(b, move, n), 0.0, deviation(b, move, n, 1) / b.mean(move, n)), n + 1)]


def candle(b: Bars) -> list[Known]:
    opened, high, low, close = (b.column(name) for name in ("open", "high", "low", "close"))
    top, bottom = larger(b, close, opened), smaller(b, close, opened)
    inverse, scale = 1.0 / opened, b.where(high > low, 1.0 / (high - low), 0.0)
    body, above, below, shift = close - opened, high - top, bottom - low, 2.0 * close - high - low
    out = [body * inverse, (high - low) * inverse, body * scale]
    out += [part * by for part in (above, below, shift) for by in (inverse, scale)]
    return [(value, 1) for value in out]


def bar(b: Bars) -> list[Known]:
    return [(b.column(name), 1) for name in ("open", "high", "low")]


FORMULAS: dict[str, Formula] = {
    "obv": obv, "relative_volume": relative_volume, "mfi": mfi, "ad": ad, "chaikin": chaikin, "cmf": cmf,
    "force": force, "volume_ratio": volume_ratio, "price_volume_trend": price_volume_trend,
    "volume_deviation": volume_deviation, "weighted_move": weighted_move, "candle": candle, "bar": bar,
}  # fmt: skip
