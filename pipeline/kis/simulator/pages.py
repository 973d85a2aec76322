"""One page of each quotation call: what was asked, checked, and what the market answers to it. No HTTP here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

import numpy as np
import orjson

from pipeline import krx
from pipeline.kis import layouts, quotations
from pipeline.kis.layouts import SUCCESS, Tr
from pipeline.kis.simulator.charts import Asked, Charts, Rewriting, Rows
from pipeline.kis.simulator.flows import investors_daily
from pipeline.kis.simulator.indices import INDICES
from pipeline.kis.simulator.market import Market, UnknownSymbol
from pipeline.kis.simulator.quotes import Quotes
from pipeline.kis.simulator.trades import Trades
from pipeline.kis.simulator.views import View

_VIEWS = frozenset({"J", "UN", "NX"})
_FLOWS_KNOWN = time(15, 41)  # flows by kind of investor of today are there from then on
_STEPS = {30: 60, 60: 60, 600: 600, 3600: 3600}  # FID_INPUT_HOUR_1 of index minutes -> seconds of a bar


class Invalid(Exception):
    """A call with a parameter that KIS refuses; the text is its msg1."""


@dataclass(frozen=True)
class Page:
    """The answer to one call: single objects by name, rendered rows by name, and what continuation needs."""

    objects: Mapping[str, Any] = field(default_factory=dict)
    rows: Rows | None = None
    array: str = ""
    more: bool | None = None
    code: str = SUCCESS


Handler = Callable[[Tr, Mapping[str, str], str], Page]  # (call, query, header tr_cont); may raise Invalid


class Pages:
    """The pages of one market, and `others` by path."""

    def __init__(
        self, market: Market, rewriting: Rewriting | None = None, others: Mapping[str, Handler] | None = None
    ) -> None:
        self.market, self.charts = market, Charts(market, rewriting)
        self.quotes, self.trades = Quotes(market, self.charts), Trades(market)
        self._by_path: dict[str, Handler] = {
            **(others or {}),
            layouts.PRICE.path: self._price,
            layouts.DAILY_PRICE.path: self._daily_price,
            layouts.DAILY.path: self._daily,
            layouts.MINUTES_TODAY.path: self._minutes_today,
            layouts.MINUTES_PAST.path: self._minutes_past,
            layouts.INDEX_DAILY.path: self._index,
            layouts.INVESTORS.path: self._investors,
            layouts.HOLIDAYS.path: self._holidays,
            layouts.STOCK_INFO.path: self._stock_info,
            quotations.TRADES.path: self._trades,
            quotations.TRADES_OF_DAY.path: self._trades_of_day,
            quotations.BOOK.path: self._book,
            quotations.INDEX_MINUTES.path: self._index_minutes,
            quotations.INVESTORS_DAILY.path: self._investors_daily,
            quotations.PRODUCT_INFO.path: self._product_info,
            quotations.QUOTES_OF_MANY.path: self._quotes_of_many,
        }

    def page(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        """Answer a call; names of the query in upper case, `cont` the header tr_cont. Raises Invalid."""
        missing = next((name for name in tr.params if name not in query), None)
        if missing is not None:
            raise Invalid(f"ERROR INPUT FIELD NOT FOUND [{missing}]")
        return self._by_path[tr.path](tr, query, cont)

    def _price(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        return Page(objects={"output": self.quotes.price(query["FID_INPUT_ISCD"], _view(query))})

    def _daily_price(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        symbol, view = query["FID_INPUT_ISCD"], _view(query)
        period, adjusted = _period(query, "DWM"), _flag(query, "FID_ORG_ADJ_PRC") == 1
        asked = Asked(symbol, krx.FIRST, krx.LAST, period, adjusted, view)
        return Page(rows=_or_empty(lambda: self.charts.latest_prices(asked, tr.max_rows)), array="output")

    def _daily(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        symbol, view = query["FID_INPUT_ISCD"], _view(query)
        start, end = (np.datetime64(_day(query, f"FID_INPUT_DATE_{side}"), "D") for side in (1, 2))
        asked = Asked(symbol, start, end, _period(query, "DWMY"), _flag(query, "FID_ORG_ADJ_PRC") == 0, view)
        rows = _or_empty(lambda: self.charts.daily(asked, tr.max_rows))
        return Page({"output1": self.quotes.summary(symbol, tr.summary_fields, view)}, rows, tr.array)

    def _minutes_today(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        symbol, view = query["FID_INPUT_ISCD"], _view(query)
        until, past = _hour(query), query["FID_PW_DATA_INCU_YN"] == "Y"
        if until == 0:  # clients send 000000 for "the latest"
            now = self.market.now().astimezone(krx.KST)
            until = now.hour * 3600 + now.minute * 60
        rows = _rows(lambda: self.charts.minutes_today(symbol, until, past=past, most=tr.max_rows, view=view))
        return Page({"output1": self.quotes.summary(symbol, tr.summary_fields, view)}, rows, tr.array)

    def _minutes_past(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        symbol, view = query["FID_INPUT_ISCD"], _view(query)
        day = _day(query, "FID_INPUT_DATE_1")
        until, past = _hour(query), query["FID_PW_DATA_INCU_YN"] == "Y"
        rows = _rows(lambda: self.charts.minutes_past(symbol, day, until, past=past, most=tr.max_rows, view=view))
        return Page({"output1": self.quotes.summary(symbol, tr.summary_fields, view)}, rows, tr.array)

    def _index(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        code = _index_code(query)
        start, end = (np.datetime64(_day(query, f"FID_INPUT_DATE_{side}"), "D") for side in (1, 2))
        rows, columns = self.charts.index(code, start, end, _period(query, "DWMY"), tr.max_rows)
        return Page({"output1": self.quotes.index_summary(code, columns)}, rows or [b"{}"], tr.array)

    def _investors(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        symbol, view = query["FID_INPUT_ISCD"], _view(query)
        return Page(rows=_or_empty(lambda: self.charts.investors(symbol, tr.max_rows, view)), array=tr.array)

    def _holidays(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        name = "CTX_AREA_NK" if cont == "N" and query["CTX_AREA_NK"].strip() else "BASS_DT"
        start = _day(query, name)
        if not krx.FIRST.item() <= start <= krx.LAST.item():
            raise Invalid("ERROR : INPUT INVALID_CHECK_BASS_DT")
        rows, following = self.quotes.holidays(start)
        context = {
            "ctx_area_nk": f"{following:%Y%m%d}".ljust(20) if following else " " * 20,
            "ctx_area_fk": query["BASS_DT"].ljust(20),
        }
        code = layouts.CONTINUED if following else SUCCESS
        return Page(context, [orjson.dumps(row) for row in rows], tr.array, following is not None, code)

    def _stock_info(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        try:
            return Page(objects={"output": self.quotes.stock_info(query["PDNO"])})
        except UnknownSymbol:
            return Page(code="KIER2620")

    def _trades(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        symbol, view = query["FID_INPUT_ISCD"], _view(query)
        return Page(rows=_rows(lambda: self.trades.latest(symbol, view)), array=tr.array)

    def _trades_of_day(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        symbol, view, hour = query["FID_INPUT_ISCD"], _view(query), _hour(query)
        rows = _rows(lambda: self.trades.until(symbol, hour or 86_399, view))
        return Page({"output1": self.quotes.summary(symbol, tr.summary_fields, view)}, rows, tr.array)

    def _book(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        symbol, view = query["FID_INPUT_ISCD"], _view(query)
        book, known = self._book_of(symbol, view), self.quotes.summary(symbol, ("stck_sdpr", *tr.fields), view)
        base = known["stck_sdpr"]  # with an expected price of 0 the change is the whole base, as in captured frames
        known |= {"antc_cnpr": "0", "antc_cntg_vrss_sign": "5", "antc_cntg_vrss": f"-{base}" if base != "0" else "0"}
        known |= {"antc_cntg_prdy_ctrt": "-100.00", "antc_vol": "0", "stck_shrn_iscd": symbol}
        first = {name: book.get(name, "0") for name in tr.summary_fields}
        return Page({"output1": first, "output2": {name: known[name] for name in tr.fields}})

    def _index_minutes(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        code, step = _index_code(query), query["FID_INPUT_HOUR_1"].strip().lstrip("0")
        seconds = _STEPS.get(int(step)) if step.isascii() and step.isdigit() else None
        if seconds is None:
            raise Invalid("ERROR : INPUT INVALID_CHECK_INPUT_HOUR_1")
        past = query["FID_PW_DATA_INCU_YN"] == "Y"
        rows, columns = self.charts.index_minutes(code, seconds, past=past, most=tr.max_rows)
        return Page({"output1": self.quotes.index_summary(code, columns)}, rows or [b"{}"], tr.array)

    def _investors_daily(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        view, symbol, day = _view(query), query["FID_INPUT_ISCD"], _day(query, "FID_INPUT_DATE_1")
        now = self.market.now().astimezone(krx.KST)
        if day >= now.date() and now.time() < _FLOWS_KNOWN:
            raise Invalid("TIME LIMIT 00:00 ~ 15:40")
        rows = _or_empty(lambda: investors_daily(self.market, symbol, day, tr.max_rows, view))
        return Page({"output1": self.quotes.summary(symbol, tr.summary_fields, view)}, rows, tr.array)

    def _product_info(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        try:
            if query["PRDT_TYPE_CD"] == "300":
                return Page(objects={"output": self.quotes.product_info(query["PDNO"])})
        except UnknownSymbol:
            pass
        return Page(code="KIER2620")

    def _quotes_of_many(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        asked = []
        for number in range(1, quotations.MANY + 1):
            symbol = query.get(f"FID_INPUT_ISCD_{number}", "").strip()
            if symbol:
                asked.append((symbol, _view(query, f"_{number}")))
        rows = [orjson.dumps(self.quotes.brief(symbol, self._book_of(symbol, view), view)) for symbol, view in asked]
        return Page(rows=rows or [b"{}"], array=tr.array)

    def _book_of(self, symbol: str, view: View) -> dict[str, str]:
        try:
            return self.trades.book(symbol, view)
        except UnknownSymbol:
            return {}


def _index_code(query: Mapping[str, str]) -> str:
    code = query["FID_INPUT_ISCD"]
    if query["FID_COND_MRKT_DIV_CODE"] != "U" or code not in INDICES:
        raise Invalid("ERROR : INPUT INVALID_CHECK_MRKT_DIV_CODE")
    return code


def _rows(rows: Callable[[], Rows]) -> Rows:
    """Return the rows; an unknown symbol has none."""
    try:
        return rows()
    except UnknownSymbol:
        return []


def _or_empty(rows: Callable[[], Rows]) -> Rows:
    """Return the rows, or one empty object where there are none, as the daily chart does. Clients that page through
    minutes stop at an empty array and break on an empty object."""
    return _rows(rows) or [b"{}"]


def _view(query: Mapping[str, str], end: str = "") -> View:
    view = query.get(f"FID_COND_MRKT_DIV_CODE{end}", "")
    if view not in _VIEWS:
        raise Invalid("ERROR : INPUT INVALID_CHECK_MRKT_DIV_CODE")
    return view


def _period(query: Mapping[str, str], known: str) -> str:
    period = query["FID_PERIOD_DIV_CODE"]
    if len(period) != 1 or period not in known:
        raise Invalid("ERROR : INPUT INVALID_CHECK_PERIOD_DIV_CODE")
    return period


def _flag(query: Mapping[str, str], name: str) -> int:
    text = query[name].strip() or "0"
    if not (text.isascii() and text.isdigit()):
        raise Invalid(f"ERROR : INPUT INVALID_CHECK_{name.removeprefix('FID_')}")
    return int(text)  # clients pad it with zeros


def _day(query: Mapping[str, str], name: str) -> date:
    text = query[name].strip()
    if len(text) == 8 and text.isascii() and text.isdigit():
        if text < "19000101":  # clients ask from 00000101 for "all there is"
            return date(1900, 1, 1)
        try:
            return datetime.strptime(text, "%Y%m%d").date()
        except ValueError:
            pass
    raise Invalid(f"ERROR : INPUT INVALID_CHECK_{name.removeprefix('FID_')}")


def _hour(query: Mapping[str, str]) -> int:
    text = query["FID_INPUT_HOUR_1"].strip() or "000000"
    if len(text) != 6 or not (text.isascii() and text.isdigit()):
        raise Invalid("ERROR : INPUT INVALID_CHECK_INPUT_HOUR_1")
    return int(text[:2]) * 3600 + int(text[2:4]) * 60 + int(text[4:])
