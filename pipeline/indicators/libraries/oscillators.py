"""How fast prices go and where they stand in what they lately did."""

from __future__ import annotations

from typing import Any

from .algebra import Bars, Formula, Known, change, equal, larger, never, rises, smaller, true_range, wilder


def _gains(b: Bars, n: int) -> tuple[Any, Any]:
    """Return Wilder's means of rises and of falls of the close."""
    close = b.column("close")
    return wilder(b, rises(b, close), n, 2), wilder(b, rises(b, -close), n, 2)


def _rsi(b: Bars, n: int) -> Any:
    up, down = _gains(b, n)
    both = up + down
    return b.where(both > 0.0, 100.0 * up / both, 0.0)


def rsi(b: Bars, n: int) -> list[Known]:
    return [(_rsi(b, n), n + 1)]


def cmo(b: Bars, n: int) -> list[Known]:
    up, down = _gains(b, n)
    both = up + down
    return [(b.where(both > 0.0, 100.0 * (up - down) / both, 0.0), n + 1)]


def roc(b: Bars, n: int) -> list[Known]:
    close = b.column("close")
    return [(close / b.lag(close, n) - 1.0, n + 1)]


def momentum(b: Bars, n: int) -> list[Known]:
    close = b.column("close")
    return [(close - b.lag(close, n), n + 1)]


def lag(b: Bars, n: int) -> list[Known]:
    return [(b.lag(b.column("close"), n), n + 1)]


def stochastic(b: Bars, n: int) -> list[Known]:
    close = b.column("close")
    top, bottom = b.highest(b.column("high"), n), b.lowest(b.column("low"), n)
    scale = b.where(top != bottom, 100.0 / (top - bottom), 0.0)
    fast = (close - bottom) * scale
    slow = (fast + b.lag(fast, 1) + b.lag(fast, 2)) * (1.0 / 3.0)
    slowest = (slow + b.lag(slow, 1) + b.lag(slow, 2)) * (1.0 / 3.0)
    return [(fast, n), (slow, n + 2), (slowest, n + 4), ((close - top) * scale, n)]


def stoch_rsi(b: Bars, n: int, k: int, d: int) -> list[Known]:
    value = _rsi(b, n)
    bottom = b.lowest(value, k)
    width = b.highest(value, k) - bottom
    place = b.where(width > 1e-9, 100.0 * (value - bottom) / width, 0.0)
    return [(place, n + k), (sum(b.lag(place, back) for back in range(d)) / d, n + k + d - 1)]


def cci(b: Bars, n: int) -> list[Known]:
    price = (b.column("high") + b.column("low") + b.column("close")) * (1.0 / 3.0)
    mean = b.mean(price, n)
    away = sum((price.shift(back) - mean).abs() for back in range(n)) / n
    return [(b.where(equal(b, price, n), 0.0, (price - mean) / (0.015 * away)), n)]


def ultimate(b: Bars, short: int, middle: int, long: int) -> list[Known]:
    close, reach = b.column("close"), true_range(b)
    pressure = close - smaller(b, b.column("low"), b.lag(close, 1))
    value = 0.0
    for n, weight in ((short, 400.0 / 7.0), (middle, 200.0 / 7.0), (long, 100.0 / 7.0)):
        under = b.total(reach, n)
        still = never(b, reach != 0.0, n) | (under <= 0.0)
        value = value + b.where(still, 0.0, weight * b.total(pressure, n) / under)
    return [(value, long + 1)]


def balance_of_power(b: Bars) -> list[Known]:
    width = b.column("high") - b.column("low")
    return [(b.where(width > 0.0, (b.column("close") - b.column("open")) / width, 0.0), 1)]


def _shares(b: Bars, x: Any, n: int) -> list[Known]:
    """Return rises, falls and their difference over all changes of n bars; 0 where nothing changed."""
    still = equal(b, x, n + 1)
    up, down = (b.total(rises(b, value), n) for value in (x, -x))
    up, down = larger(b, up, up * 0.0), larger(b, down, down * 0.0)
    more, less = (b.where(still, 0.0, part / (up + down)) for part in (up, down))
    return [(more, n + 1), (less, n + 1), (more - less, n + 1)]


def change_sums(b: Bars, n: int) -> list[Known]:
    return _shares(b, b.column("close"), n)


def volume_change_sums(b: Bars, n: int) -> list[Known]:
    return _shares(b, b.column("volume"), n)


def change_shares(b: Bars, n: int) -> list[Known]:
    move = change(b, b.column("close"))
    up, down = (b.total(b.where(flag, 1.0, 0.0), n) for flag in (move > 0.0, move < 0.0))
    return [(up / n, n + 1), (down / n, n + 1), ((up - down) / n, n + 1)]


FORMULAS: dict[str, Formula] = {
    "rsi": rsi, "cmo": cmo, "roc": roc, "momentum": momentum, "lag": lag, "stochastic": stochastic,
    "stoch_rsi": stoch_rsi, "cci": cci, "ultimate": ultimate, "balance_of_power": balance_of_power,
    "change_sums": change_sums, "volume_change_sums": volume_change_sums, "change_shares": change_shares,
}  # fmt: skip
