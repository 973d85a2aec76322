"""Twins: the families of features of Qlib's Alpha158 that nothing else covers."""

from __future__ import annotations

import numpy as np

from .rolling import sample_deviation
from .windows import Array, Bars, Outputs, before, empty, windowed


def candle(bars: Bars) -> Outputs:
    o, h, l, c = (bars[name] for name in ("open", "high", "low", "close"))
    parts = {"kmid": c - o, "kup": h - np.maximum(o, c), "klow": np.minimum(o, c) - l, "ksft": 2 * c - h - l}
    found = {"klen": (h - l) / o}
    for name, part in parts.items():
        found[name] = part / o
        found[f"{name}2"] = np.array([x / (a - b) if a > b else 0.0 for x, a, b in zip(part, h, l)])
    names = ("kmid", "klen", "kmid2", "kup", "kup2", "klow", "klow2", "ksft", "ksft2")
    return {name: found[name] for name in names}


def bar(bars: Bars) -> Outputs:
    return {f"bar_{name}": bars[name].copy() for name in ("open", "high", "low")}


def change_shares(bars: Bars, n: float) -> Outputs:
    change = bars["close"] - before(bars["close"])
    rises = windowed(change, int(n), lambda w: float(np.mean(w > 0)), 1)
    falls = windowed(change, int(n), lambda w: float(np.mean(w < 0)), 1)
    return {"rise_share": rises, "fall_share": falls, "rise_less_fall": rises - falls}


def sums(values: Array, n: int) -> tuple[Array, Array, Array]:
    """Return what gains and losses are of all change in n bars, and their difference; 0 where nothing changed."""

    def share(w: Array, sign: int) -> float:
        total = float(np.sum(np.abs(w)))
        return float(np.sum(np.maximum(sign * w, 0))) / total if total > 0 else 0.0

    change = values - before(values)
    gains, losses = (windowed(change, n, lambda w, sign=sign: share(w, sign), 1) for sign in (1, -1))
    return gains, losses, gains - losses


def change_sums(bars: Bars, n: float) -> Outputs:
    return dict(zip(("gain_share", "loss_share", "gain_less_loss"), sums(bars["close"], int(n))))


def volume_change_sums(bars: Bars, n: float) -> Outputs:
    names = ("volume_gain_share", "volume_loss_share", "volume_gain_less_loss")
    return dict(zip(names, sums(bars["volume"], int(n))))


def weighted_move(bars: Bars, n: float) -> Outputs:
    moves = np.abs(bars["close"] / before(bars["close"]) - 1) * bars["volume"]
    out = empty(bars)
    for t in range(int(n), len(out)):
        w = moves[t - int(n) + 1 : t + 1]
        out[t] = sample_deviation(w) / np.mean(w) if max(w) > 0 else 0.0
    return {"weighted_move": out}
