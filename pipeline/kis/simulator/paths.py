"""Daily paths of the simulated market: hidden state, factors, raw prices on KRX ticks and inside the limits, volume and
turnover.

A path is a pure function of (seed, listing, signal): every random number has its place on the axis of all sessions from
ORIGIN to the end of the calendar, so that nothing depends on what was asked before or on where "now" is.

Legend: T sessions of the whole axis.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from pipeline import krx
from pipeline.kis.simulator.universe import ANCHOR, ORIGIN, SECTORS, Listing, stream

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

DAYS = krx.sessions(ORIGIN, krx.LAST)
OPENS, CLOSES = krx.session_opens(DAYS), krx.session_closes(DAYS)  # UTC
_ANCHOR = int(np.searchsorted(DAYS, np.datetime64(ANCHOR)))

PERSISTENCE = 0.9  # of the hidden state from one session to the next
OVERNIGHT = 0.25  # share of a session's variance and drift that comes before its opening
VOLUME_LOADING = 0.55  # log volume surprise per unit of the hidden state
VOLUME_NOISE = 0.35
_FLOOR = np.log(150.0)  # no price path goes lower, so that ticks of 1 KRW stay small against it
_SETTLE = 100  # sessions: limits of 6 % and more bring any price that a path can have to any other in this time
_FEWEST = 2_000.0  # shares on a day with trade: every minute can have some


def autoregressive(noise: Floats, persistence: float) -> Floats:
    """Return the AR(1) series x_t = p x_{t-1} + sqrt(1 - p^2) e_t (unit variance), x_0 = e_0; blocks keep p^-k
    small."""
    scaled = noise * np.sqrt(1.0 - persistence**2)
    scaled[0] = noise[0]
    block = int(min(len(noise), 18.0 / -np.log(persistence)))
    power: Floats = persistence ** np.arange(1.0, block + 1.0)
    whole = np.zeros((-(-len(scaled) // block), block))
    whole.ravel()[: len(scaled)] = scaled
    whole = np.cumsum(whole / power, axis=1)
    carry = np.zeros((len(whole), 1))
    for at in range(1, len(whole)):
        carry[at] = power[-1] * (whole[at - 1, -1] + carry[at - 1])
    return np.asarray((power * (whole + carry)).ravel()[: len(scaled)])


@dataclass(frozen=True)
class Factors:
    """What moves many listings at once, over all sessions; overnight and intraday log returns."""

    heat: Floats  # (T,) log of the market's volatility, unit variance
    market: tuple[Floats, Floats]
    sectors: dict[str, tuple[Floats, Floats]]


def factors(seed: int) -> Factors:
    """Return the market factor with clustered volatility and one factor for each sector."""
    rng = stream(seed, "market")
    heat = autoregressive(rng.standard_normal(len(DAYS)), 0.97)
    level = 0.0085 * np.exp(0.4 * heat - 0.08)
    market = (
        level * np.sqrt(OVERNIGHT) * rng.standard_normal(len(DAYS)),
        level * np.sqrt(1 - OVERNIGHT) * rng.standard_normal(len(DAYS)),
    )
    sectors = {}
    for code in (code for names in SECTORS.values() for code in names):
        draws = 0.006 * stream(seed, "sector", code).standard_normal((2, len(DAYS)))
        sectors[code] = (np.sqrt(OVERNIGHT) * draws[0], np.sqrt(1 - OVERNIGHT) * draws[1])
    return Factors(heat, market, sectors)


@dataclass(frozen=True)
class Path:
    """One listing's sessions from its listing to its delisting (or the end of the calendar), raw, in KRW and shares.

    A session without a trade has NaN open, high and low, the last close, zero volume and turnover, and `halted` True.
    """

    first: int  # place of the first row on the axis of all sessions
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    turnover: Floats
    base: Floats
    halted: Bools
    lower: Floats
    upper: Floats

    def cut(self, start: int, stop: int) -> "Path":
        """Return rows start to stop."""
        columns = {field.name: getattr(self, field.name)[start:stop] for field in fields(self)[1:]}
        return Path(self.first + start, **columns)


def hidden(seed: int, item: Listing) -> Floats:
    """Return the hidden state of a listing over all sessions, (T,), standard normal, AR(1)."""
    return autoregressive(stream(seed, "state", item.number).standard_normal(len(DAYS)), PERSISTENCE)


def span(item: Listing) -> tuple[int, int]:
    """Return the places of a listing's first session and of the one after its last."""
    first = int(np.searchsorted(DAYS, np.datetime64(item.listed)))
    return first, len(DAYS) if item.delisted is None else int(np.searchsorted(DAYS, np.datetime64(item.delisted)))


def path(seed: int, item: Listing, common: Factors, signal: float, since: int = 0) -> Path:
    """Return the raw daily path of a listing. `signal` is kappa: the drift of a session is kappa x sigma x the state
    before it.

    With `since`, a place on the axis of all sessions, rows before it are left out, which costs half and changes no row:
    trading then starts _SETTLE sessions earlier at the price that is wished for, and where a limit holds a price back
    so near that start that this may not be the price of the whole path, the whole path is made.
    """
    rng, state, size = stream(seed, "path", item.number), hidden(seed, item), len(DAYS)
    first, last = span(item)
    rows = slice(first, last)  # random numbers have their places on the whole axis; the rest is for these only
    count = last - first
    calm = np.exp(0.35 * autoregressive(rng.standard_normal(size), 0.96)[rows] - 0.06)
    sigma = item.sigma * calm
    drift = signal * item.sigma * np.append(0.0, state[:-1])[rows] + 0.0002
    sector = common.sectors[item.sector]
    weight = 0.0 if item.kind == "etf" else 1.0
    night = item.beta * common.market[0][rows] + weight * sector[0][rows] + OVERNIGHT * drift
    night = night + np.sqrt(OVERNIGHT) * sigma * rng.standard_normal(size)[rows]
    day = item.beta * common.market[1][rows] + weight * sector[1][rows] + (1 - OVERNIGHT) * drift
    day = day + np.sqrt(1 - OVERNIGHT) * sigma * rng.standard_normal(size)[rows]
    leap, reach = rng.random(size)[rows], rng.exponential(size=size)[rows]
    sudden = weight * (leap < 1 / 900) * np.where(leap < 0.6 / 900, 1.0, -1.0) * (0.12 + 0.25 * reach)
    night = night + sudden
    if item.delisted is not None:
        day[max(count - 45, 0) :] -= 0.03  # the fall of what is about to go
    latent = np.cumsum(night + day)
    latent = np.maximum(latent - latent[min(max(_ANCHOR - first, 0), count - 1)] + np.log(item.price), _FLOOR)
    multiplier = np.ones(count)
    for event in item.events:
        at = int(np.searchsorted(DAYS, np.datetime64(event.day))) - first
        latent[at:] += np.log(event.multiplier)
        multiplier[at] = event.multiplier
    halted = halts(seed, item)[rows]
    spread, surprise, middle = rng.random((2, size)), rng.standard_normal((2, size)), rng.standard_normal(size)
    slow = autoregressive(rng.standard_normal(size), 0.99)[rows]
    busy = np.log(shares(item)[rows] * item.turnover_rate) + 0.3 * slow + 0.2 * common.heat[rows]
    busy += VOLUME_LOADING * state[rows] + VOLUME_NOISE * surprise[0][rows] + 0.15 * np.abs(night + day) / item.sigma
    cut = max(min(since, last - 1) - _SETTLE - first, 0)
    while cut and halted[cut]:
        cut -= 1
    near = slice(first + cut, last)
    found = _trade(
        item,
        near.start,
        latent[cut:],
        day[cut:],
        multiplier[cut:],
        halted[cut:],
        spread[:, near],
        middle[near],
        sigma[cut:],
        busy[cut:],
    )
    if not cut:
        return found
    start = found.cut(0, _SETTLE)
    if (((start.close >= start.upper) | (start.close <= start.lower)) & ~start.halted).any():
        return path(seed, item, common, signal)
    return found.cut(_SETTLE, len(found.close))


def halts(seed: int, item: Listing) -> Bools:
    """Return on which sessions of the whole axis nothing trades: halts at random, and before some corporate actions.
    (T,)"""
    rng = stream(seed, "halts", item.number)
    starts, length = rng.random(len(DAYS)) < 1 / 1_500, rng.integers(1, 9, len(DAYS))
    halted = np.zeros(len(DAYS), bool)
    for start in np.flatnonzero(starts).tolist():
        halted[start : start + int(length[start])] = True
    for event in item.events:
        at = int(np.searchsorted(DAYS, np.datetime64(event.day)))
        halted[at - event.halted : at] = True
        halted[at] = False
    halted[span(item)[0]] = False
    return halted


def shares(item: Listing) -> Floats:
    """Return the listed shares on all sessions, (T,); a split or a rights issue changes them on its day, a spin-off
    does not."""
    out = np.full(len(DAYS), item.shares)
    for event in item.events:
        at = int(np.searchsorted(DAYS, np.datetime64(event.day)))
        grown = 1.0 if event.kind == "spin_off" else 1.0 / event.multiplier
        if at > _ANCHOR:
            out[at:] *= grown
        else:
            out[:at] /= grown
    return np.round(out)


def _trade(
    item: Listing, first: int, latent: Floats, day: Floats, multiplier: Floats, halted: Bools,
    spread: Floats, middle: Floats, sigma: Floats, busy: Floats,
) -> Path:  # fmt: skip
    days = DAYS[first : first + len(latent)]
    wish = np.exp(np.stack([latent - day, latent]))  # where the session would open and close
    wish = on_tick(wish, days, item)
    close, base, lower, upper = _inside_limits(
        wish[1], multiplier, halted, days, item, float(np.exp(latent[0] - day[0]))
    )
    opening = np.clip(wish[0], lower, upper)
    ends = on_tick(extremes(opening, close, (1 - OVERNIGHT) * sigma**2, spread), days, item)
    locked = (opening == close) & ((close == upper) | (close == lower))
    high = np.where(locked, close, np.clip(ends[0], np.maximum(opening, close), upper))
    low = np.where(locked, close, np.clip(ends[1], lower, np.minimum(opening, close)))
    volume = np.maximum(np.floor(np.exp(busy + np.where(locked, -2.0, 0.0))), _FEWEST)
    fair = (opening + high + low + close) / 4.0 + 0.04 * middle * (high - low)
    fair = np.clip(fair, low + 0.25 * (high - low), high - 0.25 * (high - low))
    turnover = np.clip(np.round(volume * fair), volume * low, volume * high)
    for column in (opening, high, low):
        column[halted] = np.nan
    volume[halted] = turnover[halted] = 0.0
    return Path(first, opening, high, low, close, volume, turnover, base, halted, lower, upper)


def extremes(opening: Floats, close: Floats, variance: Floats, uniform: Floats) -> Floats:
    """Return the highest and the lowest point of Brownian bridges from open to close, (2, T), each on its own uniform
    number (their joint law is ignored)."""
    swing, wide = np.log(close / opening), 2.0 * variance
    rise = 0.5 * (swing + np.sqrt(swing**2 - wide * np.log(1.0 - uniform[0])))
    fall = 0.5 * (swing - np.sqrt(swing**2 - wide * np.log(1.0 - uniform[1])))
    return np.stack([opening * np.exp(rise), opening * np.exp(fall)])


def on_tick(prices: Floats, days: krx.Days, item: Listing) -> Floats:
    """Return prices rounded to the ticks of days, at least one tick."""
    unit = krx.tick(prices, days, item.kind, item.market)
    return np.maximum(np.round(prices / unit) * unit, unit)


def _inside_limits(
    wish: Floats, multiplier: Floats, halted: Bools, days: krx.Days, item: Listing, offer: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return (close, base, lower, upper): closes as wished, but inside the limits about a base that follows from the
    close before.

    A clipped close moves the next day's base, so that the days after it are looked at again until nothing moves.
    """
    close = wish.copy()
    alive = np.maximum.accumulate(np.where(halted, 0, np.arange(len(close))))
    close = close[alive]  # a halt keeps the last close
    start = float(on_tick(np.array([offer]), days[:1], item)[0])
    base = np.empty_like(close)
    lower, upper = np.empty_like(close), np.empty_like(close)
    check = np.arange(len(close))
    while check.size:
        before = np.where(check > 0, close[check - 1], start)
        moved = before * multiplier[check]
        base[check] = np.where(multiplier[check] == 1.0, before, on_tick(moved, days[check], item))
        lower[check], upper[check] = krx.limits(base[check], days[check], item.kind, item.market)
        inside = np.where(halted[check], before, np.clip(wish[check], lower[check], upper[check]))
        wrong = inside != close[check]
        bad = check[wrong]
        head = ~np.isin(bad - 1, bad)  # the day before is settled
        close[bad[head]] = inside[wrong][head]
        after = bad[head] + 1
        check = np.union1d(after[after < len(close)], bad[~head])
    return close, base, lower, upper
