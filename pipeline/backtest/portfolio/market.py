"""The lake's bars as matrices of sessions and symbols: what could be traded when, at which price and tax.

Everything that needs a calendar, a tick table, a price limit or a tax law happens before the engine's loop, which holds
only the order of events. What can be bought and sold is said by pipeline/tradable.py, as for the labels.

Shapes: T sessions, S symbols, N bars.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import krx
from pipeline.receipt import Receipt
from pipeline.tradable import Listing, fills, listing, untraded

from ..money import RATE
from ..section import BacktestError, BacktestSection
from .schedule import sessions_of

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Days = npt.NDArray[np.datetime64]

INTERVAL = "1d"
BEFORE = timedelta(days=60)  # bars read ahead of the first session, for the last close of a symbol that is halted on it
DAY = timedelta(days=1)
UNLIMITED = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Market:
    """Hold the sessions that are traded; see `simulate` for the engine's matrices.

    ts_T : (T,) datetime64[us] UTC, close of each session; day_T : (T,) datetime64[D] KST. print_TS : (T, S) float64
    KRW, the price printed at the fill (open, or close where the source has only closes), NaN = not traded. carried_TS
    : (T, S) float64 KRW, last close up to and including t. base_TS : (T, S) float64 KRW, last close before t on the
    basis of t. past_VS : (V, S) float64, returns of the sessions read ahead of the first, as `returns`. shortable_T :
    (T,) bool, sessions in which the exchange lets shares be sold short. listed_S : (S,) float64, shares that there are
    on the days listed_on_S, NaN = unknown. index_T : (T,) float64, closes of the index that is the benchmark, carried;
    empty = another benchmark.
    """

    symbols: tuple[str, ...]
    venue: str
    ts_T: Days
    day_T: Days
    print_TS: Floats
    buy_TS: Floats
    sell_TS: Floats
    room_TS: Longs
    close_TS: Floats
    factor_TS: Floats
    tax_TS: Longs
    delist_S: Longs
    last_S: Floats
    carried_TS: Floats
    base_TS: Floats
    past_VS: Floats
    shortable_T: npt.NDArray[np.bool_]
    listed_S: Floats
    listed_on_S: Days
    index_T: Floats

    @property
    def return_TS(self) -> Floats:
        """Return the simple returns from close to close, adjusted for corporate actions; NaN = no bar."""
        return returns(self.close_TS, self.base_TS)


def load(receipt: Receipt, first: datetime, last: datetime | None, section: BacktestSection) -> Market:
    """Read the daily bars from `first` to `last` (closes, inclusive, UTC; None = all there are) and say what could be
    traded.

    Prices are raw. Raises BacktestError when the receipt has no daily bars in the range.
    """
    if INTERVAL not in receipt.intervals:
        raise BacktestError(
            f"expected '{INTERVAL}' bars to trade, got a receipt with {list(receipt.intervals)}; "
            "ingest daily bars as well"
        )
    columns = ["symbol", "ts", "close", "volume"] + ([] if receipt.close_only else ["open"])
    ahead = BEFORE if section.weights != "inverse_volatility" else max(BEFORE, 2 * section.volatility_window * DAY)
    bars = receipt.bars(INTERVAL, columns=columns, start=first - ahead, end=last)
    ts_T, row_N = sessions_of(bars["ts"])
    begin = int(np.searchsorted(ts_T, _naive(first)))
    if begin >= len(ts_T):
        raise BacktestError(
            f"expected daily bars of source '{receipt.source}' from {first}, got none; widen ingest's range"
        )
    symbols = tuple(sorted(receipt.symbols))
    shape, column_N = (len(ts_T), len(symbols)), _columns(bars["symbol"], symbols)
    cell = row_N * len(symbols) + column_N
    day_T = (ts_T + np.timedelta64(9, "h")).astype("datetime64[D]")

    table = receipt.symbol_table()
    of = listing(symbols, table)
    volume_N = bars["volume"].to_numpy()
    halted_N = untraded(volume_N, bars["ts"].cast(pa.int64()).to_numpy(), receipt, INTERVAL)
    printed_N = np.where(halted_N, np.nan, _positive(bars["close" if receipt.close_only else "open"].to_numpy()))
    close_TS = _laid_out(_positive(bars["close"].to_numpy()), cell, shape)
    factor_TS = _factors(receipt.actions(), symbols, day_T)
    carried_TS, base_TS = _carried(close_TS, factor_TS)
    buy_N, sell_N = fills(
        printed_N,
        base_TS.reshape(-1)[cell],
        day_T[row_N],
        column_N,
        of if receipt.market == "KRX" else None,
        slippage=section.slippage_bp / 10_000,
    )
    print_TS, buy_TS, sell_TS = (_laid_out(price_N, cell, shape) for price_N in (printed_N, buy_N, sell_N))
    room_TS = _laid_out(_room(volume_N, section.participation), cell, shape)
    cut = slice(begin, None)
    listed_S, listed_on_S = _listed(table, symbols)
    return Market(
        symbols=symbols,
        venue=receipt.venue,
        ts_T=ts_T[cut],
        day_T=day_T[cut],
        print_TS=print_TS[cut],
        buy_TS=buy_TS[cut],
        sell_TS=sell_TS[cut],
        room_TS=room_TS[cut],
        close_TS=close_TS[cut],
        factor_TS=factor_TS[cut],
        tax_TS=_taxes(day_T[cut], of, receipt.market),
        delist_S=_delistings(of, day_T, close_TS) - begin,
        last_S=carried_TS[begin - 1] if begin else np.full(len(symbols), np.nan),
        carried_TS=carried_TS[cut],
        base_TS=base_TS[cut],
        past_VS=returns(close_TS[:begin], base_TS[:begin]),
        shortable_T=krx.short_sales(day_T[cut]) if receipt.market == "KRX" else np.ones(len(day_T[cut]), bool),
        listed_S=listed_S,
        listed_on_S=listed_on_S,
        index_T=_index(receipt, ts_T, section.benchmark)[cut],
    )


def returns(close_TS: Floats, base_TS: Floats) -> Floats:
    """Return close over base less one; NaN where there is no close or nothing before it."""
    return close_TS / base_TS - 1.0


def _room(volume_N: Floats, participation: float) -> Longs:
    """Return the most shares that an order may take; unlimited where the source has no volume."""
    known = volume_N > 0
    share = np.floor(np.where(known, volume_N, 0.0) * participation + 1e-9).astype(np.int64)
    return np.where(known, share, UNLIMITED)


def _carried(close_TS: Floats, factor_TS: Floats) -> tuple[Floats, Floats]:
    """Return the last close up to each session, and the one before it on the session's own basis (the base price)."""
    carried_TS, base_TS = np.empty_like(close_TS), np.empty_like(close_TS)
    last_S = np.full(close_TS.shape[1], np.nan)
    for t in range(len(close_TS)):
        base_TS[t] = last_S / factor_TS[t]
        last_S = np.where(np.isfinite(close_TS[t]), close_TS[t], base_TS[t])
        carried_TS[t] = last_S
    return carried_TS, base_TS


def _listed(table: pa.Table, symbols: tuple[str, ...]) -> tuple[Floats, Days]:
    """Return the shares of each symbol and the day that they are of; NaN and some day where they are not known."""
    shares_S, day_S = np.full(len(symbols), np.nan), np.full(len(symbols), np.datetime64(0, "D"))
    at = _columns(table["symbol"], symbols)
    shares_S[at] = table["shares"].to_numpy()
    day_S[at] = table["as_of"].to_numpy().astype("datetime64[D]")
    return np.where(shares_S > 0, shares_S, np.nan), day_S


def _index(receipt: Receipt, ts_T: Days, name: str) -> Floats:
    """Return the closes of an index of the receipt, the last one carried; empty where it is none."""
    if name not in receipt.indices:
        return np.empty(0)
    bars = receipt.bars(INTERVAL, symbols=[name], columns=["ts", "close"])
    stamp = bars["ts"].to_numpy().astype("datetime64[us]")
    at = np.searchsorted(stamp, ts_T, side="right") - 1
    close = bars["close"].to_numpy()
    return np.where(at >= 0, close[np.maximum(at, 0)], np.nan) if len(close) else np.full(len(ts_T), np.nan)


def _taxes(day_T: Days, of: Listing, market: str) -> Longs:
    """Return the sale tax of each session and symbol in 1e-7; zero outside the KRX."""
    out = np.zeros((len(day_T), len(of.markets)), np.int64)
    if market == "KRX":
        rules, rule_S = of.rules()
        for number, (name, kind) in enumerate(rules):
            rate = krx.sale_tax(day_T, name, kind)
            out[:, rule_S == number] = np.rint(rate * RATE).astype(np.int64)[:, None]
    return out


def _factors(actions: pa.Table, symbols: tuple[str, ...], day_T: Days) -> Floats:
    """Return shares after / shares before for each session: actions take effect at the first session on or after
    their ex-date.
    """
    out = np.ones((len(day_T), len(symbols)))
    if actions.num_rows == 0:
        return out
    days = actions["ex_date"].to_numpy().astype("datetime64[D]")
    at = np.searchsorted(day_T, days)
    inside = (at < len(day_T)) & (days > day_T[0])
    columns = _columns(actions["symbol"], symbols)
    np.multiply.at(out, (at[inside], columns[inside]), actions["factor"].to_numpy()[inside])
    return out


def _delistings(of: Listing, day_T: Days, close_TS: Floats) -> Longs:
    """Return the session whose close ends each symbol, or one far behind the last.

    It is the first session on or after the delisting date, or the symbol's last bar where there are bars after that.
    """
    out = np.full(len(of.delisted), UNLIMITED // 2, np.int64)
    for s, day in enumerate(of.delisted):
        if day is None:
            continue
        at = int(np.searchsorted(day_T, np.datetime64(day, "D")))
        if at < len(day_T):
            seen = np.flatnonzero(np.isfinite(close_TS[:, s]))
            out[s] = max(at, int(seen[-1]) if len(seen) else 0)
    return out


def _positive(price_N: Floats) -> Floats:
    return np.where(price_N > 0, price_N, np.nan)


def _laid_out(value_N: Any, cell_N: Longs, shape: tuple[int, int]) -> Any:
    """Return a matrix of values by their places in it, NaN or 0 where there is none."""
    out = np.full(shape, np.nan if value_N.dtype.kind == "f" else 0, value_N.dtype)
    out.reshape(-1)[cell_N] = value_N
    return out


def _columns(names: Any, symbols: tuple[str, ...]) -> npt.NDArray[np.intp]:
    """Return the place of each name in `symbols`."""
    found = pc.index_in(names, value_set=pa.array(symbols, pa.string()))
    return np.asarray(found.to_numpy(), np.intp)


def _naive(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")
