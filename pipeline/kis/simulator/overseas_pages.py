"""Pages of the calls about issues abroad. Changes are written without a sign beside KIS's sign code, rates with one.

Index codes (SHI, SZI) and the day market of US issues (BAY, BAQ, BAA) are known and have no issues.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta

import numpy as np

from pipeline import krx
from pipeline.kis.layouts import Tr
from pipeline.kis.quotations import OVERSEAS_DAILY, OVERSEAS_DETAIL, OVERSEAS_MINUTES, OVERSEAS_PRICE
from pipeline.kis.simulator import render
from pipeline.kis.simulator.charts import as_bytes, by_period
from pipeline.kis.simulator.market import Columns, Market
from pipeline.kis.simulator.overseas import AMOUNTS, Overseas
from pipeline.kis.simulator.overseas_issues import DAYS, EXCHANGES, Exchange, Issue
from pipeline.kis.simulator.pages import Handler, Invalid, Page
from pipeline.kis.simulator.paths import Floats
from pipeline.kis.wire import compact

_EXCHANGES = frozenset({*EXCHANGES, "SHI", "SZI", "BAY", "BAQ", "BAA"})
_PERIODS = {"0": ("D", 2), "1": ("W", 8), "2": ("M", 32)}  # GUBN -> period, calendar days that hold one
_MONTH = timedelta(days=31)  # minutes are kept about that long
_PAR = 0.001  # currency, par value of every issue
_TO_EARNINGS, _TO_BOOK = 20.0, 4.0  # price over them on the reference day
_NO_CHANGE = " 0.00"


class OverseasPages:
    """The pages of the markets abroad; `handlers` has them by path."""

    def __init__(self, market: Market) -> None:
        self.overseas = Overseas(market)
        self.handlers: dict[str, Handler] = {
            OVERSEAS_PRICE.path: self._price,
            OVERSEAS_DETAIL.path: self._price,
            OVERSEAS_DAILY.path: self._daily,
            OVERSEAS_MINUTES.path: self._minutes,
        }

    def _issue(self, query: Mapping[str, str]) -> Issue | None:
        """Return what is asked for, None for an unknown symbol or before all trade. Raises Invalid."""
        code = query["EXCD"]
        if code not in _EXCHANGES:
            raise Invalid("ERROR : INPUT INVALID_CHECK_EXCD")
        try:
            item = self.overseas.issue(code, query["SYMB"].strip().upper())
        except KeyError:
            return None
        return item if self.overseas.shown(item.exchange)[0] > 1 else None

    def _price(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        item = self._issue(query)
        known = {} if item is None else self._numbers(item)
        return Page({tr.summary: {field: known.get(field, "") for field in tr.summary_fields}})

    def _daily(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        item = self._issue(query)
        period, length = _PERIODS[_choice(query, "GUBN", _PERIODS)]
        adjusted = _choice(query, "MODP", "01") == "1"
        last = (_time(query, "BYMD", "%Y%m%d") if query["BYMD"].strip() else datetime.max).date()
        if item is None:
            return Page({tr.summary: dict.fromkeys(tr.summary_fields, "")}, [], tr.array)
        today = item.exchange.clock(self.overseas.market.now())[0]
        last = max(min(last, today), DAYS[0].item() - timedelta(1))  # so that there are days before it to subtract
        # A period is complete only with its days after `last`, and the first one with days before what is needed.
        first, reach = last - (tr.max_rows + 2) * timedelta(length), last + timedelta(length)
        days = self.overseas.days(item, first, reach, adjusted=adjusted)
        blank = np.zeros(len(days["date"]))
        whole = days | dict.fromkeys(("ratio", "sign", "lock", "reason"), blank) | {"halted": blank.astype(bool)}
        columns = by_period(whole, period)
        keep = np.flatnonzero(columns["date"] <= np.datetime64(last))[-tr.max_rows :]
        rows = _daily_rows(item.exchange, {name: columns[name][keep] for name in days})
        summary = {"rsym": _code(item), "zdiv": str(item.exchange.decimals), "nrec": str(len(rows))}
        return Page({tr.summary: summary}, as_bytes(rows[::-1]), tr.array)

    def _minutes(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        item = self._issue(query)
        step, most = _count(query, "NMIN"), min(_count(query, "NREC"), tr.max_rows)
        before = _choice(query, "PINC", "01") == "1"
        until = datetime.max
        if query["NEXT"].strip() and query["KEYB"].strip():
            until = _time(query, "KEYB", "%Y%m%d%H%M%S")
        if item is None:
            return Page({tr.summary: dict.fromkeys(tr.summary_fields, "")}, [], tr.array)
        exchange = item.exchange
        over, running = self.overseas.shown(exchange)
        latest = over if running else over - 1
        oldest = DAYS[latest].item() - _MONTH if before else DAYS[latest].item()
        rows: list[dict[str, str]] = []
        at = min(latest, int(np.searchsorted(DAYS, np.datetime64(until.date()), side="right")) - 1)
        while at >= 0 and DAYS[at].item() >= oldest and len(rows) <= most:
            rows += _minute_rows(exchange, DAYS[at].item(), _bars(self.overseas.minutes(item, at), step), until)
            at -= 1
        more, rows = len(rows) > most, rows[:most]
        ends, ahead = (exchange.hours[0][0], exchange.hours[-1][1]), exchange.to_korea(DAYS[latest].item())
        local = [datetime(2000, 1, 1) + timedelta(minutes=int(end)) for end in ends]
        times = [f"{moment:%H%M%S}" for moment in (*local, *(moment + ahead for moment in local))]
        summary = [_code(item), str(exchange.decimals), *times, str(int(more)), "0", str(len(rows))]
        return Page({tr.summary: dict(zip(tr.summary_fields, summary))}, as_bytes(rows), tr.array)

    def _numbers(self, item: Issue) -> dict[str, str]:
        """Return every number of a quote. From midnight to its first minute a session shows the close before it."""
        exchange, today = item.exchange, item.exchange.clock(self.overseas.market.now())[0]
        year = self.overseas.days(item, today - timedelta(days=365), today)
        waiting = self.overseas.waiting(exchange)
        last, base = (float(year[name][-1]) for name in ("close", "close" if waiting else "base"))
        now = {name: 0.0 if waiting else float(year[name][-1]) for name in ("open", "high", "low", *AMOUNTS)}
        before = {name: float(year[name][-1 if waiting else -2]) for name in AMOUNTS}
        top, bottom = int(np.argmax(year["high"])), int(np.argmin(year["low"]))
        split = item.ratio if today < item.split else 1.0
        shares, earnings, book = item.shares / split, item.price * split / _TO_EARNINGS, item.price * split / _TO_BOOK
        sign, rate, change = _signs([last], [base])[0], _rates([last], [base])[0], abs(last - base)
        prices = {"last": last, "base": base, "open": now["open"], "high": now["high"], "low": now["low"]}
        prices |= {"diff": change, "uplp": 0.0, "dnlp": 0.0, "e_hogau": exchange.tick}
        prices |= {"h52p": float(year["high"][top]), "l52p": float(year["low"][bottom])}
        amounts = {"tvol": now["volume"], "tamt": now["turnover"], "pvol": before["volume"], "pamt": before["turnover"]}
        amounts |= {"shar": shares, "mcap": shares * _PAR, "tomv": shares * last, "vnit": exchange.lot}
        amounts |= {"t_xprc": last * exchange.won, "t_xdif": change * exchange.won, "p_xprc": 0.0, "p_xdif": 0.0}
        ratios = {"perx": last / earnings, "pbrx": last / book, "epsx": earnings, "bpsx": book, "t_rate": exchange.won}
        return {
            **dict(zip(prices, _decimal(exchange, list(prices.values())))),
            **dict(zip(amounts, render.whole(list(amounts.values())))),
            **dict(zip(ratios, render.decimal(list(ratios.values())))),
            **dict(zip(("l52d", "h52d"), compact(year["date"][[bottom, top]]))),
            **dict.fromkeys(("rate", "t_xrat"), rate),
            "rsym": _code(item),
            "zdiv": str(exchange.decimals),
            "curr": exchange.currency,
            "sign": "0" if waiting else sign,
            "t_xsgn": sign,
            "p_xsng": "3",
            "p_xrat": _NO_CHANGE,
            "ordy": "매도불가",
            "e_ordyn": "매매 가능",
            "e_icod": exchange.symbols[item.symbol],
            "e_parp": f"{_PAR:.4f}",
        }


def _code(item: Issue) -> str:
    return f"D{item.exchange.code}{item.symbol}"


def _decimal(exchange: Exchange, values: Floats | list[float]) -> list[str]:
    return [f"{value:.{exchange.decimals}f}" for value in np.asarray(values, np.float64).tolist()]


def _signs(close: Floats | list[float], base: Floats | list[float]) -> list[str]:
    moved = np.round(np.subtract(close, base), 6)
    return np.select([moved > 0, moved < 0], ["2", "5"], "3").tolist()  # type: ignore[no-any-return]


def _rates(close: Floats | list[float], base: Floats | list[float]) -> list[str]:
    """Write changes in per cent with their sign."""
    texts = [f"{value:+.2f}" for value in (100.0 * (np.divide(close, base) - 1.0)).tolist()]
    return [_NO_CHANGE if text[1:] == "0.00" else text for text in texts]


def _daily_rows(exchange: Exchange, days: Columns) -> list[dict[str, str]]:
    """Render sessions or periods, oldest first. The best bid and ask are a tick about the close."""
    size = render.whole(100.0 * (1.0 + days["volume"] % 9.0))
    columns = {
        "xymd": compact(days["date"]),
        "clos": _decimal(exchange, days["close"]),
        "sign": _signs(days["close"], days["base"]),
        "diff": _decimal(exchange, np.abs(days["close"] - days["base"])),
        "rate": _rates(days["close"], days["base"]),
        **{name: _decimal(exchange, days[name]) for name in ("open", "high", "low")},
        "tvol": render.whole(days["volume"]),
        "tamt": render.whole(days["turnover"]),
        "pbid": _decimal(exchange, days["close"] - exchange.tick),
        "vbid": size,
        "pask": _decimal(exchange, days["close"] + exchange.tick),
        "vask": size,
    }
    return [dict(zip(OVERSEAS_DAILY.fields, row)) for row in zip(*(columns[field] for field in OVERSEAS_DAILY.fields))]


def _bars(minutes: Columns, step: int) -> Columns:
    """Put minutes together to bars of `step` minutes from the opening on."""
    bucket = (minutes["label"] - minutes["label"][0]) // step if len(minutes["label"]) else minutes["label"]
    begin = np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1])[: len(bucket)])
    if not len(begin):
        return minutes
    stop = np.append(begin[1:], len(bucket)) - 1
    return {
        "label": minutes["label"][0] + bucket[begin] * step,
        "open": minutes["open"][begin],
        "high": np.maximum.reduceat(minutes["high"], begin),
        "low": np.minimum.reduceat(minutes["low"], begin),
        "close": minutes["close"][stop],
        "volume": np.add.reduceat(minutes["volume"], begin),
        "turnover": np.add.reduceat(minutes["turnover"], begin),
    }


def _minute_rows(exchange: Exchange, day: date, bars: Columns, until: datetime) -> list[dict[str, str]]:
    """Render the bars of a session that begin at `until` (local) or before, newest first."""
    midnight = datetime(day.year, day.month, day.day)
    times = [midnight + timedelta(minutes=label) for label in bars["label"].tolist()]
    korea = exchange.to_korea(day)
    prices = (_decimal(exchange, bars[name]) for name in ("open", "high", "low", "close"))
    cells = zip(times, *prices, render.whole(bars["volume"]), render.whole(bars["turnover"]))
    rows = []
    for time, *values in cells:
        if time <= until:
            stamps = (f"{day:%Y%m%d}", *f"{time:%Y%m%d %H%M%S}".split(), *f"{time + korea:%Y%m%d %H%M%S}".split())
            rows.append(dict(zip(OVERSEAS_MINUTES.fields, (*stamps, *values))))
    return rows[::-1]


def _choice(query: Mapping[str, str], name: str, known: Mapping[str, object] | str) -> str:
    value = query[name].strip()
    if len(value) != 1 or value not in known:
        raise Invalid(f"ERROR : INPUT INVALID_CHECK_{name}")
    return value


def _count(query: Mapping[str, str], name: str) -> int:
    text = query[name].strip()
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10_000):
        raise Invalid(f"ERROR : INPUT INVALID_CHECK_{name}")
    return int(text)


def _time(query: Mapping[str, str], name: str, form: str) -> datetime:
    text = query[name].strip()
    try:
        if len(text) == len(f"{krx.LAST.item():{form}}") and text.isascii() and text.isdigit():
            return datetime.strptime(text, form)
    except ValueError:
        pass
    raise Invalid(f"ERROR : INPUT INVALID_CHECK_{name}")
