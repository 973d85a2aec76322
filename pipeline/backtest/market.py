"""What could be traded when, at which price: the lake's bars as matrices of sessions and symbols, with the exchange's
rules applied.

Everything that needs a calendar, a tick table, a price limit or a tax law happens here, for all symbols of a session
at once, so that the engine's loop holds only the order of events.

Shapes: T sessions, S symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import krx
from pipeline.receipt import Receipt

from .section import BacktestError, BacktestSection

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Days = npt.NDArray[np.datetime64]

INTERVAL = "1d"
BEFORE = timedelta(days=60)  # bars read ahead of the first session, for the last close of a symbol that is halted on it
RATE = 10_000_000  # tax rates are whole numbers of 1e-7, as in the engine
UNLIMITED = np.iinfo(np.int64).max
FUNDS = ("etf", "etn", "elw")


@dataclass(frozen=True)
class Market:
    """Hold the sessions that are traded; see `simulate` for the engine's matrices.

    ts_T : (T,) datetime64[us] UTC, close of each session; day_T : (T,) datetime64[D] KST. print_TS : (T, S) float64
    KRW, the price printed at the fill (open, or close where the source has only closes), NaN = not traded. carried_TS
    : (T, S) float64 KRW, last close up to and including t. base_TS : (T, S) float64 KRW, last close before t on the
    basis of t.
    """

    symbols: tuple[str, ...]
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
    columns = ["symbol", "ts", "close"] + ([] if receipt.close_only else ["open", "volume"])
    bars = receipt.bars(INTERVAL, columns=columns, start=first - BEFORE, end=last)
    stamp = bars["ts"].to_numpy().astype("datetime64[us]")
    ts_T = np.unique(stamp)
    begin = int(np.searchsorted(ts_T, _naive(first)))
    if begin >= len(ts_T):
        raise BacktestError(
            f"expected daily bars of source '{receipt.source}' from {first}, got none; widen ingest's range"
        )
    symbols = tuple(sorted(receipt.symbols))
    cell = (np.searchsorted(ts_T, stamp), _columns(bars["symbol"], symbols))
    shape = (len(ts_T), len(symbols))
    day_T = (ts_T + np.timedelta64(9, "h")).astype("datetime64[D]")

    close_TS = _positive(_laid_out(bars["close"], cell, shape))
    if receipt.close_only:
        print_TS, room_TS = close_TS, np.full(shape, UNLIMITED)
    else:
        print_TS, room_TS = _tradable(
            _laid_out(bars["open"], cell, shape), _laid_out(bars["volume"], cell, shape), section.participation
        )
    factor_TS = _factors(receipt.actions(), symbols, day_T)
    carried_TS, base_TS = _carried(close_TS, factor_TS)
    facts = _facts(receipt, symbols)
    buy_TS, sell_TS = _fills(print_TS, base_TS, day_T, facts, receipt.market, section.slippage_bp)
    cut = slice(begin, None)
    return Market(
        symbols=symbols,
        ts_T=ts_T[cut],
        day_T=day_T[cut],
        print_TS=print_TS[cut],
        buy_TS=buy_TS[cut],
        sell_TS=sell_TS[cut],
        room_TS=room_TS[cut],
        close_TS=close_TS[cut],
        factor_TS=factor_TS[cut],
        tax_TS=_taxes(day_T[cut], facts, receipt.market),
        delist_S=_delistings(facts, day_T, close_TS) - begin,
        last_S=carried_TS[begin - 1] if begin else np.full(len(symbols), np.nan),
        carried_TS=carried_TS[cut],
        base_TS=base_TS[cut],
    )


@dataclass(frozen=True)
class _Fact:
    """What the symbol table says about one symbol."""

    market: str
    kind: str
    delisted: date | None


def _facts(receipt: Receipt, symbols: tuple[str, ...]) -> list[_Fact]:
    """Return one fact a symbol; a symbol that the table does not know is a KOSPI stock that was never delisted."""
    table = receipt.symbol_table().select(["symbol", "market", "kind", "delisted"])
    known = {row["symbol"]: row for row in table.to_pylist()}
    out = []
    for symbol in symbols:
        row = known.get(symbol, {})
        name = str(row.get("market") or "").upper()
        market = next((m for m in ("KOSDAQ", "KONEX") if name.startswith(m)), "KOSPI")
        kind = str(row.get("kind") or "stock").lower()
        out.append(_Fact(market, kind if kind in FUNDS else "stock", row.get("delisted")))
    return out


def _alike(facts: list[_Fact]) -> dict[tuple[str, str], npt.NDArray[np.intp]]:
    """Return the columns of the symbols that the exchange treats alike, by (market, kind)."""
    groups: dict[tuple[str, str], list[int]] = {}
    for s, fact in enumerate(facts):
        groups.setdefault((fact.market, fact.kind), []).append(s)
    return {key: np.array(columns, np.intp) for key, columns in groups.items()}


def _tradable(open_TS: Floats, volume_TS: Floats, participation: float) -> tuple[Floats, Longs]:
    """Return printed prices and the room for an order: NaN and 0 on a halt (no opening price, or no volume).

    Where the source has no volume at all, volume says nothing: every printed session is tradable without a cap.
    """
    with np.errstate(invalid="ignore"):
        if not (volume_TS > 0).any():
            return _positive(open_TS), np.full(open_TS.shape, UNLIMITED)
        open_TS = np.where(volume_TS > 0, _positive(open_TS), np.nan)
        room_TS = np.floor(np.where(volume_TS > 0, volume_TS, 0.0) * participation + 1e-9)
    return open_TS, room_TS.astype(np.int64)


def _carried(close_TS: Floats, factor_TS: Floats) -> tuple[Floats, Floats]:
    """Return the last close up to each session, and the one before it on the session's own basis (the base price)."""
    carried_TS, base_TS = np.empty_like(close_TS), np.empty_like(close_TS)
    last_S = np.full(close_TS.shape[1], np.nan)
    for t in range(len(close_TS)):
        base_TS[t] = last_S / factor_TS[t]
        last_S = np.where(np.isfinite(close_TS[t]), close_TS[t], base_TS[t])
        carried_TS[t] = last_S
    return carried_TS, base_TS


def _fills(
    print_TS: Floats, base_TS: Floats, day_T: Days, facts: list[_Fact], market: str, slippage_bp: float
) -> tuple[Floats, Floats]:
    """Return the prices at which buys and sells fill, NaN where an order of that side finds nobody on the other.

    On the KRX a price at the upper limit cannot be bought and one at the lower cannot be sold; a price moved by
    slippage goes to the next tick on the worse side and stays inside the limits. A symbol without a base price (first
    session) has no limits.
    """
    slip = slippage_bp / 10_000
    buy_TS, sell_TS = print_TS * (1 + slip), print_TS * (1 - slip)
    if market != "KRX":
        return buy_TS, sell_TS
    days = day_T[:, None]
    for (name, kind), columns in _alike(facts).items():
        printed = print_TS[:, columns]
        lower, upper = krx.limits(np.rint(base_TS[:, columns]), days, kind, name)
        buy, sell = buy_TS[:, columns], sell_TS[:, columns]
        if slip > 0:
            up, down = krx.tick(buy, days, kind, name), krx.tick(sell, days, kind, name)
            buy = np.fmin(np.ceil(buy / up - 1e-9) * up, upper)
            sell = np.fmax(np.floor(sell / down + 1e-9) * down, lower)
            sell = np.where(sell > 0, sell, printed)  # one tick below the lowest price there is
        traded = np.isfinite(printed)  # fmin and fmax pass over NaN: a limit is no price where nothing was traded
        buy_TS[:, columns] = np.where(traded & ~(printed >= upper), buy, np.nan)
        sell_TS[:, columns] = np.where(traded & ~(printed <= lower), sell, np.nan)
    return buy_TS, sell_TS


def _taxes(day_T: Days, facts: list[_Fact], market: str) -> Longs:
    """Return the sale tax of each session and symbol in 1e-7; zero outside the KRX."""
    out = np.zeros((len(day_T), len(facts)), np.int64)
    if market == "KRX":
        for (name, kind), columns in _alike(facts).items():
            rate = krx.sale_tax(day_T, name, kind)
            out[:, columns] = np.rint(rate * RATE).astype(np.int64)[:, None]
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


def _delistings(facts: list[_Fact], day_T: Days, close_TS: Floats) -> Longs:
    """Return the session whose close ends each symbol, or one far behind the last.

    It is the first session on or after the delisting date, or the symbol's last bar where there are bars after that.
    """
    out = np.full(len(facts), UNLIMITED // 2, np.int64)
    for s, fact in enumerate(facts):
        if fact.delisted is None:
            continue
        at = int(np.searchsorted(day_T, np.datetime64(fact.delisted, "D")))
        if at < len(day_T):
            seen = np.flatnonzero(np.isfinite(close_TS[:, s]))
            out[s] = max(at, int(seen[-1]) if len(seen) else 0)
    return out


def _positive(price_TS: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.where(price_TS > 0, price_TS, np.nan)


def _laid_out(column: Any, cell: tuple[Any, Any], shape: tuple[int, int]) -> Floats:
    out = np.full(shape, np.nan)
    out[cell] = column.to_numpy()
    return out


def _columns(names: Any, symbols: tuple[str, ...]) -> npt.NDArray[np.intp]:
    """Return the place of each name in `symbols`."""
    found = pc.index_in(names, value_set=pa.array(symbols, pa.string()))
    return np.asarray(found.to_numpy(), np.intp)


def _naive(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")
