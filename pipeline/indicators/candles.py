"""Shapes that one, two or three bars draw, as TA-Lib knows them with its default settings: 100 where there is one, -100
where a falling one, else 0.

A body is the distance of open and close, shadows are what is beyond it; a bar is white where the close is not below the
open, else black. Long and short are meant beside the bars before, this one left out. See spec.py for the names used in
kernels.
"""

from __future__ import annotations

from math import nan

from ..recurrence import Floats
from .spec import Indicator, Output


def lengths(x_CTS: Floats, t: int, out_OTS: Floats, row: int) -> None:
    """Write what lengths at bar t are measured by, for all lanes, to four output rows from `row` on: mean body and mean
    range of the 10 bars before, then the sums of both over the 5 before, which are read back 5 bars later.
    """
    for s in range(x_CTS.shape[2]):
        body, reach = 0.0, 0.0
        for u in range(t - 5, t):
            body += abs(x_CTS[3, u, s] - x_CTS[0, u, s])
            reach += x_CTS[1, u, s] - x_CTS[2, u, s]
        out_OTS[row, t, s] = (body + out_OTS[row + 2, t - 5, s]) / 10.0
        out_OTS[row + 1, t, s] = (reach + out_OTS[row + 3, t - 5, s]) / 10.0
        out_OTS[row + 2, t, s] = body
        out_OTS[row + 3, t, s] = reach


def body_of(x_CTS: Floats, t: int, s: int) -> tuple[float, float, bool]:
    """Return top and bottom of the body of lane s at bar t, and whether it is white."""
    opened, close = x_CTS[0, t, s], x_CTS[3, t, s]
    white = close >= opened
    return (close if white else opened), (opened if white else close), white


def _one_bar_shapes(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Doji: a body of at most a tenth of the mean range. Hammer and hanging man: a short body, a lower shadow longer
    than it and hardly an upper one, near the low (hammer) or the high of the bar before. Inverted hammer and shooting
    star: an upper shadow longer than the short body and hardly a lower one, below (inverted hammer) or above the body
    before. Marubozu: a long body with hardly a shadow. Spinning top: a short body and both shadows longer.

    Hardly is below a tenth of the mean range, near within a fifth. The last two have the sign of the color.
    """
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        lengths(x_CTS, t, out_OTS, 7)
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            high, low, before_high, before_low = x_CTS[1, t, s], x_CTS[2, t, s], x_CTS[1, t - 1, s], x_CTS[2, t - 1, s]
            top, bottom, white = body_of(x_CTS, t, s)
            before_top, before_bottom, _ = body_of(x_CTS, t - 1, s)
            body, upper, lower = top - bottom, high - top, bottom - low
            mean, tiny, near = out_OTS[7, t, s], 0.1 * out_OTS[8, t, s], 0.2 * (out_OTS[10, t - 1, s] / 5.0)
            hangs = body < mean and lower > body and upper < tiny
            stands = body < mean and upper > body and lower < tiny
            color = 100.0 if white else -100.0
            known, settled = count > 10.0, count > 11.0
            doji = 100.0 if body <= tiny else 0.0
            hammer = 100.0 if hangs and bottom <= before_low + near else 0.0
            hanging = -100.0 if hangs and bottom >= before_high - near else 0.0
            star = -100.0 if stands and bottom > before_top else 0.0
            inverted = 100.0 if stands and top < before_bottom else 0.0
            marubozu = color if body > mean and upper < tiny and lower < tiny else 0.0
            spinning = color if body < mean and upper > body and lower > body else 0.0
            out_OTS[0, t, s] = doji if known else nan
            out_OTS[1, t, s] = hammer if settled else nan
            out_OTS[2, t, s] = hanging if settled else nan
            out_OTS[3, t, s] = star if settled else nan
            out_OTS[4, t, s] = inverted if settled else nan
            out_OTS[5, t, s] = marubozu if known else nan
            out_OTS[6, t, s] = spinning if known else nan


one_bar_shapes = Indicator(
    name="one_bar_shapes",
    kernel=_one_bar_shapes,
    inputs=("open", "high", "low", "close"),
    params=(),
    outputs=(
        Output("doji", "percent", bounds=(0.0, 100.0)),
        Output("hammer", "percent", bounds=(0.0, 100.0)),
        Output("hanging_man", "percent", bounds=(-100.0, 0.0)),
        Output("shooting_star", "percent", bounds=(-100.0, 0.0)),
        Output("inverted_hammer", "percent", bounds=(0.0, 100.0)),
        Output("marubozu", "percent", bounds=(-100.0, 100.0)),
        Output("spinning_top", "percent", bounds=(-100.0, 100.0)),
    ),
    scratch=4,
    state=1,
    past=lambda: 5,
    own=lambda: 5,
    ready=lambda: 12,
    warmup=lambda: 12,
    source=(
        "TA-Lib CDLDOJI, CDLHAMMER, CDLHANGINGMAN, CDLSHOOTINGSTAR, CDLINVERTEDHAMMER, CDLMARUBOZU, CDLSPINNINGTOP"
    ),
)


def _two_bar_shapes(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Engulfing: a body around that of the bar before and of the other color (sign of this bar). Harami: a short body
    within the long one before (sign against that). Piercing: after a long black body a long white one that opens below
    that bar's low and closes above the middle of its body and within it. Dark cloud cover: after a long white body a
    black one that opens above that bar's high and closes below the middle of its body and within it.

    80 for the first two where the inner body shares an end with the outer one.
    """
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        lengths(x_CTS, t, out_OTS, 4)
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            opened, close, was_opened, was = x_CTS[0, t, s], x_CTS[3, t, s], x_CTS[0, t - 1, s], x_CTS[3, t - 1, s]
            was_high, was_low = x_CTS[1, t - 1, s], x_CTS[2, t - 1, s]
            top, bottom, white = body_of(x_CTS, t, s)
            before_top, before_bottom, was_white = body_of(x_CTS, t - 1, s)
            long = top - bottom > out_OTS[4, t, s]
            before = before_top - before_bottom
            was_long = before > out_OTS[4, t - 1, s]
            turned = white != was_white
            around = top >= before_top and bottom <= before_bottom
            wider = top > before_top or bottom < before_bottom
            strict = top > before_top and bottom < before_bottom
            engulfing = 100.0 if strict else 80.0
            engulfing = engulfing if white else -engulfing
            engulfing = engulfing if turned and around and wider else 0.0
            within = top <= before_top and bottom >= before_bottom
            strict = top < before_top and bottom > before_bottom
            harami = 100.0 if strict else 80.0
            harami = -harami if was_white else harami
            harami = harami if within and was_long and not long else 0.0
            middle, half = was_long and turned, 0.5 * before
            rises = white and long and opened < was_low and close > was + half and close < was_opened
            falls = was_white and opened > was_high and close > was_opened and close < was - half
            piercing = 100.0 if middle and rises else 0.0
            cover = -100.0 if middle and falls else 0.0
            known = count > 11.0
            out_OTS[0, t, s] = engulfing if count > 2.0 else nan
            out_OTS[1, t, s] = harami if known else nan
            out_OTS[2, t, s] = piercing if known else nan
            out_OTS[3, t, s] = cover if known else nan


two_bar_shapes = Indicator(
    name="two_bar_shapes",
    kernel=_two_bar_shapes,
    inputs=("open", "high", "low", "close"),
    params=(),
    outputs=(
        Output("engulfing", "percent", bounds=(-100.0, 100.0)),
        Output("harami", "percent", bounds=(-100.0, 100.0)),
        Output("piercing", "percent", bounds=(0.0, 100.0)),
        Output("dark_cloud_cover", "percent", bounds=(-100.0, 0.0)),
    ),
    scratch=4,
    state=1,
    past=lambda: 5,
    own=lambda: 5,
    ready=lambda: 12,
    warmup=lambda: 12,
    source="TA-Lib CDLENGULFING, CDLHARAMI, CDLPIERCING, CDLDARKCLOUDCOVER",
)


def steps_up(x_CTS: Floats, t: int, s: int, near: float, far: float) -> bool:
    """Return whether a soldier at bar t follows one: higher close, open in or near that body, body not much less."""
    opened, close, body = x_CTS[0, t - 1, s], x_CTS[3, t - 1, s], x_CTS[3, t, s] - x_CTS[0, t, s]
    begins = x_CTS[0, t, s] > opened and x_CTS[0, t, s] <= close + near
    return bool(x_CTS[3, t, s] > close and begins and body > close - opened - far)


def steps_down(x_CTS: Floats, t: int, s: int) -> bool:
    """Return whether a crow at bar t follows one: lower close, open within that body."""
    opened, close = x_CTS[0, t - 1, s], x_CTS[3, t - 1, s]
    return bool(x_CTS[3, t, s] < close and x_CTS[0, t, s] < opened and x_CTS[0, t, s] > close)


def _three_bar_shapes(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Morning star: a long black body, a short one below it, a white one, not short, that closes above 0.3 of the
    first; evening star: the reverse. Three white soldiers: white bodies with hardly an upper shadow, each opening in or
    near the one before, closing higher and not much shorter, the last not short. Three black crows: after a white bar
    three black bodies with hardly a lower shadow, each opening within the one before and closing lower, the first
    below the high of the white bar.
    """
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        lengths(x_CTS, t, out_OTS, 4)
        for s in range(x_CTS.shape[2]):
            count, close = state_KS[0, s] + bar, x_CTS[3, t, s]
            top1, bottom1, white1 = body_of(x_CTS, t - 2, s)
            top2, bottom2, white2 = body_of(x_CTS, t - 1, s)
            top3, bottom3, white3 = body_of(x_CTS, t, s)
            _, _, white0 = body_of(x_CTS, t - 3, s)
            body1, body3 = top1 - bottom1, top3 - bottom3
            tiny1, tiny2, tiny3 = 0.1 * out_OTS[5, t - 2, s], 0.1 * out_OTS[5, t - 1, s], 0.1 * out_OTS[5, t, s]
            range1, range2 = out_OTS[7, t - 2, s] / 5.0, out_OTS[7, t - 1, s] / 5.0
            long = body3 > out_OTS[4, t, s]
            star = long and body1 > out_OTS[4, t - 2, s] and top2 - bottom2 <= out_OTS[4, t - 1, s]
            low = star and not white1 and bottom1 > top2 and white3
            high = star and white1 and bottom2 > top1 and not white3
            morning = 100.0 if low and close > bottom1 + 0.3 * body1 else 0.0
            evening = -100.0 if high and close < top1 - 0.3 * body1 else 0.0
            even = x_CTS[1, t - 2, s] - top1 < tiny1 and x_CTS[1, t - 1, s] - top2 < tiny2
            even = even and x_CTS[1, t, s] - top3 < tiny3 and white1 and white2 and white3
            up = steps_up(x_CTS, t - 1, s, 0.2 * range1, 0.6 * range1)
            up = up and steps_up(x_CTS, t, s, 0.2 * range2, 0.6 * range2)
            soldiers = 100.0 if even and up and long else 0.0
            even = bottom1 - x_CTS[2, t - 2, s] < tiny1 and bottom2 - x_CTS[2, t - 1, s] < tiny2
            even = even and bottom3 - x_CTS[2, t, s] < tiny3 and not (white1 or white2 or white3)
            down = steps_down(x_CTS, t - 1, s) and steps_down(x_CTS, t, s)
            crows = -100.0 if even and down and white0 and x_CTS[1, t - 3, s] > bottom1 else 0.0
            known = count > 12.0
            out_OTS[0, t, s] = morning if known else nan
            out_OTS[1, t, s] = evening if known else nan
            out_OTS[2, t, s] = soldiers if known else nan
            out_OTS[3, t, s] = crows if count > 13.0 else nan


three_bar_shapes = Indicator(
    name="three_bar_shapes",
    kernel=_three_bar_shapes,
    inputs=("open", "high", "low", "close"),
    params=(),
    outputs=(
        Output("morning_star", "percent", bounds=(0.0, 100.0)),
        Output("evening_star", "percent", bounds=(-100.0, 0.0)),
        Output("three_white_soldiers", "percent", bounds=(0.0, 100.0)),
        Output("three_black_crows", "percent", bounds=(-100.0, 0.0)),
    ),
    scratch=4,
    state=1,
    past=lambda: 5,
    own=lambda: 5,
    ready=lambda: 14,
    warmup=lambda: 14,
    source="TA-Lib CDLMORNINGSTAR, CDLEVENINGSTAR, CDL3WHITESOLDIERS, CDL3BLACKCROWS",
)

ALL = (one_bar_shapes, two_bar_shapes, three_bar_shapes)
