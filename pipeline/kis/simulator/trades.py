"""Lists of trades and the order book over REST: the tape of the session that is shown, in KIS's fields."""

import numpy as np

from pipeline import krx
from pipeline.kis import quotations
from pipeline.kis.layouts import Tr
from pipeline.kis.simulator import render
from pipeline.kis.simulator.charts import Rows, as_bytes
from pipeline.kis.simulator.market import Market, UnknownSymbol
from pipeline.kis.simulator.paths import DAYS
from pipeline.kis.simulator.ticks import LEVELS, Ints, Tape, Ticks
from pipeline.kis.simulator.views import View

_KST = np.timedelta64(9, "h")


class Trades:
    """Trades and books of one market at its clock's time."""

    def __init__(self, market: Market, ticks: Ticks | None = None) -> None:
        self.market, self.ticks = market, ticks or Ticks(market)

    def _tape(self, symbol: str, view: View) -> tuple[Tape, int]:
        """Return the tape of the running or last session and how many of its trades have happened. Raises
        UnknownSymbol, also for a delisted symbol."""
        running = self.market.running(view)
        day = DAYS[max(self.market.closed(view) - 1, 0) if running is None else running].item()
        item = self.market.listing(symbol)
        if item.delisted is not None and item.delisted <= day:
            raise UnknownSymbol(symbol)
        tape = self.ticks.tape(symbol, day, view)
        return tape, tape.until(self.market.instant())

    def latest(self, symbol: str, view: View = "J") -> Rows:
        """Return the rows of FHKST01010300, newest first. Raises UnknownSymbol."""
        tape, stop = self._tape(symbol, view)
        return _rows(quotations.TRADES, tape, np.arange(max(stop - quotations.TRADES.max_rows, 0), stop))

    def until(self, symbol: str, hour: int, view: View = "J") -> Rows:
        """Return the rows of FHPST01060000 at or before a time of day in seconds, newest first. Raises
        UnknownSymbol."""
        tape, stop = self._tape(symbol, view)
        end = np.datetime64(tape.day, "s") + np.timedelta64(hour + 1, "s") - _KST
        stop = min(stop, int(np.searchsorted(tape.ts, end)))
        return _rows(quotations.TRADES_OF_DAY, tape, np.arange(max(stop - quotations.TRADES_OF_DAY.max_rows, 0), stop))

    def book(self, symbol: str, view: View = "J") -> dict[str, str]:
        """Return `output1` of FHKST01010200 and what else is known of the best prices; all "0" without a trade. Raises
        UnknownSymbol."""
        tape, stop = self._tape(symbol, view)
        fields = quotations.BOOK.summary_fields
        if not stop:
            return dict.fromkeys(fields, "0") | {"aspr_acpt_hour": "000000", "new_mkop_cls_code": "00"}
        book, at = tape.book, stop - 1
        before = max(at - 1, 0)
        found = {"aspr_acpt_hour": _hours(tape.ts[at : at + 1])[0]}
        totals = {}
        for side, prices, sizes in (("askp", book.asks, book.ask_sizes), ("bidp", book.bids, book.bid_sizes)):
            moved = sizes[at].astype(np.int64) - sizes[before]
            for level in range(LEVELS):
                found[f"{side}{level + 1}"] = str(int(prices[at, level]))
                found[f"{side}_rsqn{level + 1}"] = str(int(sizes[at, level]))
                found[f"{side}_rsqn_icdc{level + 1}"] = str(int(moved[level]))
            totals[side] = int(sizes[at].sum())
            found[f"total_{side}_rsqn"] = str(totals[side])
            found[f"total_{side}_rsqn_icdc"] = str(int(moved.sum()))
        found["ntby_aspr_rsqn"] = str(totals["bidp"] - totals["askp"])
        found["new_mkop_cls_code"] = "20" if self.market.running(view) is not None else "31"
        return {field: found.get(field, "0") for field in fields}


def _hours(ts: krx.Days) -> list[str]:
    return [text[11:].replace(":", "") for text in np.datetime_as_string(ts + _KST, unit="s").tolist()]


def _rows(tr: Tr, tape: Tape, at: Ints) -> Rows:
    """Render trades by their places on the tape, newest first."""
    if not len(at):
        return []
    price = tape.price[at]
    change = price - tape.base
    bought = np.cumsum(np.where(tape.side > 0, tape.volume, 0.0))[at]
    sold = np.cumsum(np.where(tape.side < 0, tape.volume, 0.0))[at]
    best, ladder = tape.best[at], tape.ladder
    asks = np.where(best < len(ladder), ladder[np.clip(best, 0, len(ladder) - 1)], 0.0)
    bids = np.where(best > 0, ladder[np.clip(best - 1, 0, len(ladder) - 1)], 0.0)
    limit = np.where(price >= ladder[-1], "1", np.where(price <= ladder[0], "4", ""))
    sign = np.where(limit != "", limit, np.where(change > 0, "2", np.where(change < 0, "5", "3")))
    volume = render.whole(tape.volume[at])
    columns = {
        "stck_cntg_hour": _hours(tape.ts[at]),
        "stck_prpr": render.whole(price),
        "stck_pbpr": render.whole(price),
        "prdy_vrss": render.whole(change),
        "prdy_vrss_sign": sign.tolist(),
        "prdy_ctrt": render.decimal(100.0 * change / tape.base),
        "cntg_vol": volume,
        "cnqn": volume,
        "acml_vol": render.whole(tape.total[at]),
        "tday_rltv": render.decimal(100.0 * bought / np.maximum(sold, 1.0)),
        "askp": render.whole(asks),
        "bidp": render.whole(bids),
    }
    return as_bytes([dict(zip(tr.fields, row)) for row in zip(*(columns[field] for field in tr.fields))])[::-1]
