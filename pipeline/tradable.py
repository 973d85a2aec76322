"""Which bars can be bought, which can be sold, and at which price orders fill: one answer for labels and backtest.

A label that buys what the backtest may not, or the other way round, is a promise that no portfolio can keep. So the
exchange's dated limits and ticks, halts, base prices and the facts about symbols are put together here and nowhere
else. All functions take arrays of any one shape: rows of bars or matrices of sessions and symbols.

Shapes: N rows, S symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from . import krx
from .receipt import Receipt
from .recurrence import Series

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]

NEVER = int(np.iinfo(np.int64).max)
MARKETS = ("KOSDAQ", "KONEX")  # by the first word: KOSDAQ GLOBAL is KOSDAQ; everything else is KOSPI
FUNDS = ("etf", "etn", "elw")
SMALLEST_LIMIT = 0.03  # no limit of any year is nearer to a base price from FEW_TICKS on, a tick of tolerance included
LARGEST_TICK = 0.006  # of a price from FEW_TICKS on, and of one that slipped from there
FEW_TICKS = 1_000.0  # KRW; below it a tick may be more than that
TICKS_KNOWN = np.datetime64("2010-10-04")  # before, the tick table of that day stands in for coarser ones
WINDOW = timedelta(days=31)


class Listing(NamedTuple):
    """What the exchange's rules ask about symbols, in their order.

    markets : KOSPI, KOSDAQ or KONEX; kinds : etf, etn, elw or stock; delisted : None = goes on.
    """

    markets: tuple[str, ...]
    kinds: tuple[str, ...]
    delisted: tuple[date | None, ...]

    def rules(self) -> tuple[list[tuple[str, str]], Longs]:
        """Return the distinct (market, kind) and which of them each symbol has, (S,)."""
        pairs = list(zip(self.markets, self.kinds))
        found = sorted(set(pairs))
        return found, np.array([found.index(pair) for pair in pairs], np.int64)


def listing(symbols: Sequence[str], table: pa.Table) -> Listing:
    """Look symbols up in a table of SYMBOLS rows; one that it does not know is a KOSPI stock that goes on."""
    known = {row["symbol"]: row for row in table.select(["symbol", "market", "kind", "delisted"]).to_pylist()}
    rows = [known.get(symbol, {}) for symbol in symbols]
    names = [str(row.get("market") or "").upper() for row in rows]
    kinds = [str(row.get("kind") or "").lower() for row in rows]
    return Listing(
        tuple(next((m for m in MARKETS if name.startswith(m)), "KOSPI") for name in names),
        tuple(kind if kind in FUNDS else "stock" for kind in kinds),
        tuple(row.get("delisted") for row in rows),
    )


def volume_since(receipt: Receipt, interval: str) -> int:
    """Return the end of the first bar of any symbol with a volume, microseconds UTC; NEVER where there is none.

    Before it a zero says nothing: sources that know no volume write it too. Bars that come later never move it, so
    that what it decides about a bar depends on nothing after that bar.
    """
    return _volume_since(receipt.model_dump_json(), interval)


@lru_cache(maxsize=8)
def _volume_since(text: str, interval: str) -> int:
    # A receipt names its rows by their digest, so that the tasks of one process may share the answer.
    receipt = Receipt.model_validate_json(text)
    begin = datetime.combine(receipt.start, time(), krx.KST)
    for end in (begin + WINDOW, None):  # a month answers nearly always
        bars = receipt.bars(interval, columns=["ts", "volume"], end=end)
        first = pc.min(bars["ts"].filter(pc.greater(bars["volume"], 0.0))).cast(pa.int64()).as_py()
        if first is not None:
            return int(first)
    return NEVER


def untraded(volume: Any, end: Any, receipt: Receipt, interval: str) -> Any:
    """Say which bars stand for a halt although they have prices: the last close repeated, without any volume.

    volume : shares; end : microseconds UTC, the same kind of array or column. An unknown volume (NaN, null) says
    nothing, nor does a zero before the source's first volume, see `volume_since`.
    """
    none = volume == 0
    return none & (end >= volume_since(receipt, interval)) if bool(none.any()) else none


def bases(close_N: Floats, factor_N: Floats, day_N: Any, series: Series) -> Floats:
    """Return each bar's base price: the last close of the day before, on the basis of the bar's own day; NaN where
    there is none.

    close_N : (N,) raw KRW; factor_N : (N,) adjusted / raw price; day_N : (N,) KST days.
    """
    size = close_N.size
    first = np.zeros(size, bool)
    first[series.starts] = True
    new_day = first | np.append(True, day_N[1:] != day_N[:-1])[:size]
    opening = np.maximum.accumulate(np.where(new_day, np.arange(size), 0))
    begins = np.repeat(series.starts, series.lengths)
    before = np.maximum(opening - 1, 0)
    return np.where(opening > begins, close_N[before] * factor_N[before] / factor_N, np.nan)


def fills(
    price: Floats, base: Floats, day: Any, owner: Any, of: Listing | None, *, slippage: float = 0.0
) -> tuple[Floats, Floats]:
    """Return the prices at which buys and sells fill, KRW, NaN where an order of that side finds nobody on the other.

    price : raw KRW at which orders meet (open, or close where there are only closes), NaN = not traded; base : raw KRW,
    NaN = none, then there are no limits; day : KST days; owner : places of the symbols in `of`; all of one shape or
    broadcast to that of price. of : None = an exchange without limits and ticks. slippage : fraction by which orders
    fill worse than the price, before rounding to the worse tick; never beyond a limit.

    A price at the day's upper limit cannot be bought, one at the lower cannot be sold. Where the limit is not known to
    the won, a tick beside it is at it: a price or base on no tick comes from a source that stores adjusted prices,
    which are rounded, and before 2010-10-04 ticks were coarser than the table says.
    """
    buy, sell = price * (1 + slippage), price * (1 - slippage)
    if of is None:
        return buy, sell
    known, slips = np.isfinite(price), slippage > 0
    reach = slippage + LARGEST_TICK if slips else 0.0  # how far an order may fill from the price
    with np.errstate(invalid="ignore"):
        near = known & ((np.abs(price - base) + reach * price >= SMALLEST_LIMIT * base) | (base < FEW_TICKS))
    day, base = np.broadcast_to(day, price.shape), np.broadcast_to(base, price.shape)
    rules, rule_S = of.rules()
    for number, (market, kind) in enumerate(rules):
        mine = known if len(rules) == 1 else known & (rule_S[owner] == number)
        if slips:  # most orders are so far from a limit that it need not be known
            at: Any = ... if len(rules) == 1 else np.nonzero(mine)
            buy[at], low = _on_ticks(buy[at], sell[at], day[at], kind, market)
            sell[at] = np.where(low > 0, low, price[at])
        at = np.nonzero(mine & near)
        paid, taken = price[at] * (1 + slippage), price[at] * (1 - slippage)
        buy[at], sell[at] = _inside(price[at], paid, taken, np.rint(base[at]), day[at], kind, market, slips)
    return buy, sell


def _on_ticks(buy_N: Floats, sell_N: Floats, day_N: Any, kind: str, market: str) -> tuple[Floats, Floats]:
    """Round fills to the worse tick; a sell one tick below the lowest price there is comes out as zero."""
    up, down = krx.tick(buy_N, day_N, kind, market), krx.tick(sell_N, day_N, kind, market)
    return np.ceil(buy_N / up - 1e-9) * up, np.floor(sell_N / down + 1e-9) * down


def _inside(
    price_N: Floats, buy_N: Floats, sell_N: Floats, base_N: Floats, day_N: Any, kind: str, market: str, slips: bool
) -> tuple[Floats, Floats]:
    """Bring fills of one kind of security inside the limits, NaN where nothing can be bought or sold."""
    lower, upper, below, above = _locks(price_N, base_N, day_N, kind, market)
    if slips:
        buy_N, sell_N = _on_ticks(buy_N, sell_N, day_N, kind, market)
        buy_N, sell_N = np.fmin(buy_N, upper), np.fmax(sell_N, lower)
        sell_N = np.where(sell_N > 0, sell_N, price_N)  # one tick below the lowest price there is
    full, empty = (price_N > base_N) & (price_N >= above), (price_N < base_N) & (price_N <= below)
    return np.where(full, np.nan, buy_N), np.where(empty, np.nan, sell_N)


def locks(price_N: Floats, base_N: Floats, day_N: Any, kind: str, market: str) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the day's lower and upper limit of one security, the price up to which nobody buys, and the one from which
    nobody sells, KRW; infinite where there is no base price. See `fills` for what a price on no tick does.
    """
    found = _locks(price_N, np.rint(base_N), day_N, kind, market)
    none = ~np.isfinite(base_N)
    lower, upper, below, above = found
    # Beside a low base the tolerance of a tick may reach the base itself, which is no limit.
    below, above = np.minimum(below, np.nextafter(base_N, 0.0)), np.maximum(above, np.nextafter(base_N, np.inf))
    return tuple(np.where(none, end, x) for x, end in zip((lower, upper, below, above), _OPEN))  # type: ignore[return-value]


_OPEN = (-np.inf, np.inf, -np.inf, np.inf)


def _locks(
    price_N: Floats, base_N: Floats, day_N: Any, kind: str, market: str
) -> tuple[Floats, Floats, Floats, Floats]:
    lower, upper = krx.limits(base_N, day_N, kind, market)
    off = [np.mod(p, krx.tick(p, day_N, kind, market)) != 0 for p in (price_N, base_N)]
    vague = off[0] | off[1] | (day_N < TICKS_KNOWN)
    above = upper - np.where(vague, krx.tick(upper, day_N, kind, market), 0.0)
    below = lower + np.where(vague, krx.tick(lower, day_N, kind, market), 0.0)
    return lower, upper, below, above
