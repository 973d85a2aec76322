"""What no other family has of Qlib's Alpha158: parts of a candle, shares of rises. See spec.py for the names used in
kernels.
"""

from __future__ import annotations

import math
from math import inf, nan

from ..recurrence import Floats
from .running import anchored, two_sums, unchanged
from .spec import Indicator, Output, Param


def _candle(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Body close - open (kmid), range high - low (klen), upper and lower shadow (kup, klow) and 2 close - high - low
    (ksft), over the open and, in names ending in 2, over the range; 0 of no range.
    """
    for t in range(first, x_CTS.shape[1]):
        for s in range(x_CTS.shape[2]):
            opened, high, low, close = x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t, s], x_CTS[3, t, s]
            top = close if close > opened else opened
            bottom = opened if close > opened else close
            body, above, below, shift = close - opened, high - top, bottom - low, 2.0 * close - high - low
            reach = high - low
            inverse, scale = 1.0 / opened, 1.0 / reach
            scale = scale if high > low else 0.0
            out_OTS[0, t, s] = body * inverse
            out_OTS[1, t, s] = reach * inverse
            out_OTS[2, t, s] = body * scale
            out_OTS[3, t, s] = above * inverse
            out_OTS[4, t, s] = above * scale
            out_OTS[5, t, s] = below * inverse
            out_OTS[6, t, s] = below * scale
            out_OTS[7, t, s] = shift * inverse
            out_OTS[8, t, s] = shift * scale


candle = Indicator(
    name="candle",
    kernel=_candle,
    inputs=("open", "high", "low", "close"),
    params=(),
    outputs=(
        Output("kmid", "ratio"),
        Output("klen", "ratio"),
        Output("kmid2", "ratio", bounds=(-1.0, 1.0)),
        Output("kup", "ratio"),
        Output("kup2", "ratio", bounds=(0.0, 1.0)),
        Output("klow", "ratio"),
        Output("klow2", "ratio", bounds=(0.0, 1.0)),
        Output("ksft", "ratio"),
        Output("ksft2", "ratio", bounds=(-1.0, 1.0)),
    ),
    state=1,
    past=lambda: 0,
    ready=lambda: 1,
    warmup=lambda: 1,
    source="Qlib Alpha158 KMID, KLEN, KMID2, KUP, KUP2, KLOW, KLOW2, KSFT, KSFT2",
)


def _bar(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Open, high and low of the bar as they are, to be set against its close."""
    for t in range(first, x_CTS.shape[1]):
        for s in range(x_CTS.shape[2]):
            out_OTS[0, t, s] = x_CTS[0, t, s]
            out_OTS[1, t, s] = x_CTS[1, t, s]
            out_OTS[2, t, s] = x_CTS[2, t, s]


bar = Indicator(
    name="bar",
    kernel=_bar,
    inputs=("open", "high", "low"),
    params=(),
    outputs=(
        Output("bar_open", "KRW", "price"),
        Output("bar_high", "KRW", "price"),
        Output("bar_low", "KRW", "price"),
    ),
    state=1,
    past=lambda: 0,
    ready=lambda: 1,
    warmup=lambda: 1,
    source="the bar itself; over the close Qlib Alpha158 OPEN0, HIGH0, LOW0",
)


def _change_shares(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Share of rises and of falls among the last n changes of the close, and the first less the second."""
    n, size, inverse = int(p[0]), p[0], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            close, before = x_CTS[0, t, s], x_CTS[0, t - 1, s]
            up = 1.0 if close > before else 0.0
            down = 1.0 if close < before else 0.0
            close, before = x_CTS[0, t - n, s], x_CTS[0, t - n - 1, s]
            left_up = 1.0 if close > before else 0.0
            left_down = 1.0 if close < before else 0.0
            ups = state_KS[1, s] + (up if count > 1.0 else 0.0) - (left_up if count > size + 1.0 else 0.0)
            downs = state_KS[2, s] + (down if count > 1.0 else 0.0) - (left_down if count > size + 1.0 else 0.0)
            state_KS[1, s] = ups
            state_KS[2, s] = downs
            known = count > size
            out_OTS[0, t, s] = ups * inverse if known else nan
            out_OTS[1, t, s] = downs * inverse if known else nan
            out_OTS[2, t, s] = (ups - downs) * inverse if known else nan


change_shares = Indicator(
    name="change_shares",
    kernel=_change_shares,
    inputs=("close",),
    params=(Param("n", 20, 2, 1000),),
    outputs=(
        Output("rise_share", "ratio", bounds=(0.0, 1.0)),
        Output("fall_share", "ratio", bounds=(0.0, 1.0)),
        Output("rise_less_fall", "ratio", bounds=(-1.0, 1.0)),
    ),
    state=3,
    past=lambda n: n + 1,
    ready=lambda n: n + 1,
    warmup=lambda n: n + 1,
    source="Qlib Alpha158 CNTP, CNTN, CNTD",
)


def _change_sums(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Sum of rises and sum of falls over that of all changes of the input over n bars, and the first less the second;
    all 0 where nothing changed.
    """
    n, size = int(p[0]), p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            change = x_CTS[0, t, s] - x_CTS[0, t - 1, s]
            left = x_CTS[0, t - n, s] - x_CTS[0, t - n - 1, s]
            change = change if count > 1.0 else 0.0
            left = left if count > size + 1.0 else 0.0
            up = change if change > 0.0 else 0.0
            down = -change if change < 0.0 else 0.0
            left_up = left if left > 0.0 else 0.0
            left_down = -left if left < 0.0 else 0.0
            still = unchanged(state_KS[6, s], change == 0.0, count)
            ups, downs = two_sums(state_KS, 1, s, up - left_up, up, down - left_down, down, count - 1.0, size)
            state_KS[6, s] = still
            ups = ups if ups > 0.0 else 0.0
            downs = downs if downs > 0.0 else 0.0
            both, known = ups + downs, count > size
            both = both if both > 0.0 else 1.0
            up, down = ups / both, downs / both
            up = up if still < size else 0.0
            down = down if still < size else 0.0
            out_OTS[0, t, s] = up if known else nan
            out_OTS[1, t, s] = down if known else nan
            out_OTS[2, t, s] = up - down if known else nan


change_sums = Indicator(
    name="change_sums",
    kernel=_change_sums,
    inputs=("close",),
    params=(Param("n", 20, 2, 500),),
    outputs=(
        Output("gain_share", "ratio", bounds=(0.0, 1.0)),
        Output("loss_share", "ratio", bounds=(0.0, 1.0)),
        Output("gain_less_loss", "ratio", bounds=(-1.0, 1.0)),
    ),
    state=7,
    past=lambda n: n + 1,
    ready=lambda n: n + 1,
    warmup=lambda n: 2 * n + 1,
    source="Qlib Alpha158 SUMP, SUMN, SUMD",
)

volume_change_sums = Indicator(
    name="volume_change_sums",
    kernel=_change_sums,
    inputs=("volume",),
    params=(Param("n", 20, 2, 500),),
    outputs=(
        Output("volume_gain_share", "ratio", bounds=(0.0, 1.0)),
        Output("volume_loss_share", "ratio", bounds=(0.0, 1.0)),
        Output("volume_gain_less_loss", "ratio", bounds=(-1.0, 1.0)),
    ),
    state=7,
    past=lambda n: n + 1,
    ready=lambda n: n + 1,
    warmup=lambda n: 2 * n + 1,
    source="Qlib Alpha158 VSUMP, VSUMN, VSUMD",
)


def _weighted_move(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Sample deviation over mean of the last n moves, a move being the absolute simple return times the volume; 0
    where they are equal.
    """
    n, size, sample = int(p[0]), p[0], math.sqrt(p[0] / (p[0] - 1.0))
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar - 1.0
            move = abs(x_CTS[0, t, s] / x_CTS[0, t - 1, s] - 1.0) * x_CTS[1, t, s]
            left = abs(x_CTS[0, t - n, s] / x_CTS[0, t - n - 1, s] - 1.0) * x_CTS[1, t - n, s]
            move = move if count > 0.0 else 0.0
            equal = unchanged(state_KS[10, s], move == state_KS[9, s], count)
            state_KS[9, s] = move
            state_KS[10, s] = equal
            anchor, mean, variance = anchored(state_KS, 1, s, move, left, count, size)
            value = sample * math.sqrt(variance) / (anchor + mean)
            value = 0.0 if value < 0.0 else value
            value = value if equal < size - 1.0 else 0.0
            out_OTS[0, t, s] = value if count >= size else nan


weighted_move = Indicator(
    name="weighted_move",
    kernel=_weighted_move,
    inputs=("close", "volume"),
    params=(Param("n", 20, 2, 500),),
    outputs=(Output("weighted_move", "ratio", bounds=(0.0, inf)),),
    state=11,
    past=lambda n: n + 1,
    ready=lambda n: n + 1,
    warmup=lambda n: 2 * n + 1,
    source="Qlib Alpha158 WVMA",
    tolerance=1e-6,  # one move 1e5 times the others leaves that much of their squares
)

ALL = (candle, bar, change_shares, change_sums, volume_change_sums, weighted_move)
