"""Minutes of one simulated session that add up to its day: open, high, low, close, volume and turnover, to the share
and the won.

Legend: M labels of a session (381 on a usual day: 09:00 to 15:19 and the closing auction at 15:30).
"""

from dataclasses import dataclass
from datetime import date

import numpy as np

from pipeline import krx
from pipeline.kis.simulator.paths import Floats
from pipeline.kis.simulator.universe import Listing, stream

_AUCTION = np.timedelta64(10, "m")  # no trades in the ten minutes before the closing print


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


def labels(day: date) -> tuple[krx.Days, krx.Days]:
    """Return (start, end) of the minutes of a session in UTC, (M,) datetime64[us]; the closing auction starts and ends
    at the close."""
    days = np.array([day], "datetime64[D]")
    opening, close = krx.session_opens(days)[0], krx.session_closes(days)[0]
    starts = np.arange(opening, close - _AUCTION, np.timedelta64(1, "m"))
    ends = starts + np.timedelta64(1, "m")
    return np.append(starts, close), np.append(ends, close)


def split(seed: int, item: Listing, day: date, bar: dict[str, float]) -> Minutes:
    """Cut a day's bar (open, high, low, close, volume, turnover) into minutes. The same day gives the same minutes,
    always."""
    rng, (start, end) = stream(seed, "minutes", item.number, day), labels(day)
    count = len(start)
    close = _prices(rng, item, day, bar, count)
    opening = np.append(bar["open"], close[:-1])
    opening[-1] = close[-1]  # the auction is one print
    unit = krx.tick(close, day, item.kind, item.market)
    jitter = rng.integers(0, 3, (2, count)) * unit
    high = np.minimum(np.maximum(opening, close) + jitter[0], bar["high"])
    low = np.maximum(np.minimum(opening, close) - jitter[1], bar["low"])
    peak, trough = int(np.argmax(high[:-1])), int(np.argmin(low[:-1]))
    high[peak], low[trough] = bar["high"], bar["low"]
    high[-1] = low[-1] = close[-1]
    volume, turnover = _flow(rng, bar, opening, high, low, close)
    return Minutes(start, end, opening, high, low, close, volume, turnover)


def _prices(rng: np.random.Generator, item: Listing, day: date, bar: dict[str, float], count: int) -> Floats:
    """Return closes on the tick grid from open to close inside the day's range: a bridge, folded back where it leaves
    the range."""
    first, last, high, low = (bar[name] for name in ("open", "close", "high", "low"))
    time = np.linspace(0.0, 1.0, count)
    walk = np.cumsum(rng.standard_normal(count)) / np.sqrt(count)
    bridge = first + (last - first) * time + 0.9 * (high - low) * (walk - walk[0] - time * (walk[-1] - walk[0]))
    bridge = np.where(bridge > high, 2.0 * high - bridge, bridge)
    bridge = np.clip(np.where(bridge < low, 2.0 * low - bridge, bridge), low, high)
    unit = krx.tick(bridge, day, item.kind, item.market)
    close: Floats = np.clip(np.round(bridge / unit) * unit, low, high)
    close[-1] = last
    return close


def _flow(
    rng: np.random.Generator, bar: dict[str, float], opening: Floats, high: Floats, low: Floats, close: Floats
) -> tuple[Floats, Floats]:
    """Spread volume and turnover over minutes: U-shaped activity, tilted so that the volume-weighted price is the
    day's.

    Each minute's turnover lies between low x volume and high x volume wherever whole shares permit.
    """
    total, money, count = bar["volume"], bar["turnover"], len(close)
    price = (opening + high + low + close) / 4.0
    time = np.linspace(-1.0, 1.0, count)
    activity = (0.5 + time**2) * rng.gamma(1.2, size=count)
    activity[0] += 0.08 * activity.sum()
    activity[-1] += 0.06 * activity.sum()
    target, spread = money / total, float(price.max() - price.min())
    if spread > 0.0:
        scaled, aim, tilt = (price - price.mean()) / spread, (target - price.mean()) / spread, 0.0
        for _ in range(16):  # Newton steps on the mean of an exponentially tilted distribution
            weight = activity * np.exp(np.clip(tilt * scaled, -50.0, 50.0))
            weight /= weight.sum()
            mean = float(weight @ scaled)
            step = (aim - mean) / max(float(weight @ scaled**2) - mean**2, 1e-4)
            tilt += min(max(step, -4.0), 4.0)
        activity = activity * np.exp(np.clip(tilt * scaled, -50.0, 50.0))
    spare = total - count
    cumulative = np.floor(np.cumsum(activity) / activity.sum() * spare + 1e-9)
    cumulative[-1] = spare
    volume: Floats = np.diff(cumulative, prepend=0.0) + 1.0
    _trade_across(volume, price, money)
    turnover: Floats = np.round(volume * price)
    rest = money - float(turnover.sum())  # what rounding left over goes where there is room between low and high
    room = np.floor(volume * high - turnover if rest > 0 else turnover - volume * low)
    share = np.floor(room * min(1.0, abs(rest) / max(float(room.sum()), 1.0)))
    turnover += np.copysign(share, rest)
    turnover[int(np.argmax(room - share))] += money - float(turnover.sum())
    return volume, turnover


def _trade_across(volume: Floats, price: Floats, money: float) -> None:
    """Move single shares between cheap and dear minutes until volume x price comes as close to the day's turnover as
    shares permit.

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
        count = min(float(volume[giver]) - 1.0, np.floor(rest / gain))
        volume[giver] -= count
        volume[receiver] += count
        rest -= count * gain
