"""Minutes of one simulated session that add up to its day: open, high, low, close, volume and turnover, to the share
and the won.

A minute has as many shares as it needs trades to show its prices, so that no trade is of no share: thin issues keep a
price for some minutes and have no highs and lows of their own beside open and close.

Legend: M labels of a session (381 on a usual day: 09:00 to 15:19 and the closing auction at 15:30).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from pipeline import krx
from pipeline.kis.simulator.paths import Floats
from pipeline.kis.simulator.universe import Listing, stream

THIN = 12  # shares a minute, on average, below which a session is thin
_KEPT = 4  # minutes for which a thin issue keeps a price
_MINUTE = np.timedelta64(1, "m")
Bar = dict[str, float]  # open, high, low, close (KRW), volume (shares), turnover (KRW)


@dataclass(frozen=True)
class Minutes:
    """The minutes of a session, oldest first: start and end in UTC (datetime64[us]), prices KRW, volume shares,
    turnover KRW."""

    start: krx.Days
    end: krx.Days
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    turnover: Floats

    def until(self, now: np.datetime64) -> "Minutes":
        """Return the minutes that are over by `now` (UTC)."""
        keep = self.end <= now
        return Minutes(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


def merged(parts: Sequence[Minutes]) -> Minutes:
    """Put minutes of several venues together: the first of `parts` that has a minute opens it, the last closes it."""
    every = Minutes(*(np.concatenate([getattr(part, name) for part in parts]) for name in Minutes.__dataclass_fields__))
    order = np.argsort(every.start, kind="stable")
    start = every.start[order]
    first = np.flatnonzero(np.append(True, start[1:] != start[:-1])[: len(start)])
    last = np.append(first[1:], len(start))[: len(first)] - 1
    if not first.size:
        return every
    return Minutes(
        start[first],
        every.end[order][first],
        every.open[order][first],
        np.maximum.reduceat(every.high[order], first),
        np.minimum.reduceat(every.low[order], first),
        every.close[order][last],
        np.add.reduceat(every.volume[order], first),
        np.add.reduceat(every.turnover[order], first),
    )


def labels(day: date) -> tuple[krx.Days, krx.Days]:
    """Return (start, end) of the minutes of a regular session in UTC, (M,) datetime64[us]; the closing auction starts
    and ends at the close."""
    days = np.array([day], "datetime64[D]")
    opening, close = krx.session_opens(days)[0], krx.session_closes(days)[0]
    starts = np.arange(opening, close - krx.AUCTION, _MINUTE)
    return np.append(starts, close), np.append(starts + _MINUTE, close)


def split(seed: int, item: Listing, day: date, bar: Bar) -> Minutes:
    """Cut the bar of a regular session into minutes. The same day gives the same minutes, always."""
    rng, (start, end) = stream(seed, "minutes", item.number, day), labels(day)
    points = walk(rng, item, day, bar, len(start))
    thin = bar["volume"] < THIN * len(start)
    if thin:
        at = np.arange(len(points))
        points = np.append(points[at - at % _KEPT][:-1], points[-1])
    opening, close = points[:-1].copy(), points[1:]
    opening[-1] = close[-1]  # the auction is one print
    peak, trough = int(np.argmax(points[1:-1])), int(np.argmin(points[1:-1]))
    return spread(rng, item, day, bar, opening, close, start, end, (peak, trough), wicks=not thin, auction=True)


def walk(rng: np.random.Generator, item: Listing, day: date, bar: Bar, count: int) -> Floats:
    """Return prices on ticks from open to close inside the bar's range, (count + 1,): a bridge, folded back where it
    leaves the range."""
    first, last, high, low = (bar[name] for name in ("open", "close", "high", "low"))
    time = np.linspace(0.0, 1.0, count)
    step = np.cumsum(rng.standard_normal(count)) / np.sqrt(count)
    bridge = first + (last - first) * time + 0.9 * (high - low) * (step - step[0] - time * (step[-1] - step[0]))
    bridge = np.where(bridge > high, 2.0 * high - bridge, bridge)
    bridge = np.clip(np.where(bridge < low, 2.0 * low - bridge, bridge), low, high)
    unit = krx.tick(bridge, day, item.kind, item.market)
    close = np.clip(np.round(bridge / unit) * unit, low, high)
    close[-1] = last
    return np.append(first, close)


def spread(
    rng: np.random.Generator, item: Listing, day: date, bar: Bar, opening: Floats, close: Floats,
    start: krx.Days, end: krx.Days, extremes: tuple[int, int], *, wicks: bool, auction: bool = False,
) -> Minutes:  # fmt: skip
    """Make minutes of their opens and closes, (M,) on ticks inside the bar's range.

    extremes : the places of the minutes that reach the bar's high and low. wicks : others go beyond open and close.
    auction : the last minute is a single print. The bar must have some shares for each of the minutes (THIN).
    """
    high, low = np.maximum(opening, close), np.minimum(opening, close)
    if wicks:
        unit = krx.tick(close, day, item.kind, item.market)
        jitter = rng.integers(0, 3, (2, len(close))) * unit
        high, low = high + jitter[0], np.maximum(low - jitter[1], bar["low"])
        unit = krx.tick(high, day, item.kind, item.market)  # ticks grow with the price
        high = np.minimum(np.floor(high / unit) * unit, bar["high"])
    high[extremes[0]], low[extremes[1]] = bar["high"], bar["low"]
    if auction:
        high[-1] = low[-1] = close[-1]
    volume, turnover = _flow(rng, bar, opening, high, low, close)
    return Minutes(start, end, opening, high, low, close, volume, turnover)


def _flow(
    rng: np.random.Generator, bar: Bar, opening: Floats, high: Floats, low: Floats, close: Floats
) -> tuple[Floats, Floats]:
    """Spread volume and turnover over minutes: U-shaped activity, tilted so that the volume-weighted price is the
    day's.

    Each minute has a share for each trade that its prices need, and its other shares between low and high.
    """
    total, money, count = bar["volume"], bar["turnover"], len(close)
    price = (opening + high + low + close) / 4.0
    above, below = high > np.maximum(opening, close), low < np.minimum(opening, close)
    least = np.where(high == low, 1.0, 2.0 + above + below)
    least_money = np.where(high == low, close, opening + close + above * high + below * low)
    time = np.linspace(-1.0, 1.0, count)
    activity = (0.5 + time**2) * rng.gamma(1.2, size=count)
    activity[0] += 0.08 * activity.sum()
    activity[-1] += 0.06 * activity.sum()
    spare, rest = total - float(least.sum()), money - float(least_money.sum())
    target, reach = rest / max(spare, 1.0), float(price.max() - price.min())
    if reach > 0.0:
        scaled, aim, tilt = (price - price.mean()) / reach, (target - price.mean()) / reach, 0.0
        for _ in range(16):  # Newton steps on the mean of an exponentially tilted distribution
            weight = activity * np.exp(np.clip(tilt * scaled, -50.0, 50.0))
            weight /= weight.sum()
            mean = float(weight @ scaled)
            step = (aim - mean) / max(float(weight @ scaled**2) - mean**2, 1e-4)
            tilt += min(max(step, -4.0), 4.0)
        activity = activity * np.exp(np.clip(tilt * scaled, -50.0, 50.0))
    cumulative = np.floor(np.cumsum(activity) / activity.sum() * spare + 1e-9)
    cumulative[-1] = spare
    free: Floats = np.diff(cumulative, prepend=0.0)
    _trade_across(free, price, rest)
    own = np.round(free * price)
    rest -= float(own.sum())  # what rounding left over goes where there is room between low and high
    room = np.floor(free * high - own if rest > 0 else own - free * low)
    share = np.floor(room * min(1.0, abs(rest) / max(float(room.sum()), 1.0)))
    own += np.copysign(share, rest)
    rest -= float(np.copysign(share, rest).sum())
    for at in np.argsort(share - room, kind="stable").tolist():
        if rest == 0.0:
            break
        step = min(abs(rest), float((room - share)[at]))
        own[at] += np.copysign(step, rest)
        rest -= np.copysign(step, rest)
    turnover = least_money + own
    turnover[int(np.argmax(free))] += rest  # none, unless the shares of all minutes cannot reach the day's turnover
    return least + free, turnover


def _trade_across(volume: Floats, price: Floats, money: float) -> None:
    """Move single shares between cheap and dear minutes until volume x price comes as close to the turnover as shares
    permit.

    Only days with few shares need it: there whole shares miss the tilted weights by more than the minutes' ranges can
    take up.
    """
    rest = money - float(volume @ price)
    order = np.argsort(price, kind="stable")
    order = order if rest > 0.0 else order[::-1]
    receiver = order[-1]
    for giver in order[:-1]:
        gain = float(price[receiver] - price[giver])
        if gain == 0.0 or abs(rest) < abs(gain):
            return
        count = min(float(volume[giver]), np.floor(rest / gain))
        volume[giver] -= count
        volume[receiver] += count
        rest -= count * gain
