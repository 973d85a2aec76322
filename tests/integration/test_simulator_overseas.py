"""Issues abroad, asked for over real HTTP: fields, paging, times, sums, splits and refusals."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from pipeline.kis import quotations
from pipeline.kis.layouts import Tr
from pipeline.kis.quotations import OVERSEAS_DAILY, OVERSEAS_DETAIL, OVERSEAS_MINUTES, OVERSEAS_PRICE
from pipeline.kis.simulator.clock import Clock, moment
from pipeline.kis.simulator.market import Market
from pipeline.kis.simulator.overseas_issues import EXCHANGES, issue
from pipeline.kis.simulator.overseas_pages import OverseasPages

from .kis_server import server

CLOCK = "2026-11-20T23:47:30+09:00"  # a Friday, 09:47 in New York, after all closes in Asia
ALL = [(code, symbol) for code, exchange in EXCHANGES.items() for symbol in exchange.symbols]
Rows = list[dict[str, str]]


class Caller:
    """Calls over one connection, with a token."""

    def __init__(self, rest: str) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(rest).netloc, timeout=20)
        keys = {"appkey": "key", "appsecret": "secret"}
        self.connection.request("POST", "/oauth2/tokenP", json.dumps({"grant_type": "client_credentials", **keys}))
        token = json.loads(self.connection.getresponse().read())["access_token"]
        self.headers = {**keys, "authorization": f"Bearer {token}"}

    def ask(self, tr: Tr, **query: str) -> tuple[int, Any]:
        """Return status and body of a call; what it does not say is asked for in the usual way."""
        usual = {"AUTH": "", "EXCD": "NAS", "SYMB": "AAPL", "GUBN": "0", "BYMD": "", "MODP": "0"}
        usual |= {"NMIN": "1", "PINC": "1", "NEXT": "", "NREC": "120", "FILL": "", "KEYB": ""}
        sent = {name: value for name, value in (usual | query).items() if name in tr.params and value != "-"}
        self.connection.request("GET", f"{tr.path}?{urlencode(sent)}", headers=self.headers | {"tr_id": tr.tr_id})
        response = self.connection.getresponse()
        body = json.loads(response.read())
        assert response.headers["tr_cont"] == "" and response.headers["tr_id"] == tr.tr_id
        return response.status, body

    def rows(self, tr: Tr, **query: str) -> Rows:
        status, body = self.ask(tr, **query)
        assert (status, body["msg_cd"]) == (200, "MCA00000")
        return body[tr.array]  # type: ignore[no-any-return]

    def days(self, pages: int, **query: str) -> Rows:
        """Return pages of days, each ending the day before the oldest of the page before."""
        found = self.rows(OVERSEAS_DAILY, **query)
        for _ in range(pages - 1):
            end = datetime.strptime(found[-1]["xymd"], "%Y%m%d") - timedelta(days=1)
            found += self.rows(OVERSEAS_DAILY, **query | {"BYMD": f"{end:%Y%m%d}"})
        return found

    def minutes(self, **query: str) -> Rows:
        """Return all minutes that there are, page by page as KIS's documents say."""
        status, body = self.ask(OVERSEAS_MINUTES, **query)
        found: Rows = body["output2"]
        while status == 200 and body["output1"]["next"] == "1":
            before = local(found[-1]) - timedelta(minutes=int(query.get("NMIN", "1")))
            _, body = self.ask(OVERSEAS_MINUTES, **query, NEXT="1", KEYB=f"{before:%Y%m%d%H%M%S}")
            assert int(body["output1"]["nrec"]) == len(body["output2"]) <= 120
            found = found + body["output2"]
        return found


def local(row: dict[str, str]) -> datetime:
    return datetime.strptime(row["xymd"] + row["xhms"], "%Y%m%d%H%M%S")


def summed(rows: Rows) -> dict[str, Any]:
    """Add minutes (newest first) up to what a day says."""
    ends = {
        "open": rows[-1]["open"],
        "clos": rows[0]["last"],
        "high": max(rows, key=lambda r: float(r["high"]))["high"],
    }
    low = min(rows, key=lambda r: float(r["low"]))["low"]
    sums = {day: str(sum(int(row[minute]) for row in rows)) for day, minute in (("tvol", "evol"), ("tamt", "eamt"))}
    return ends | {"low": low} | sums


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    with server("--symbols", 1, "--quota", 0, clock=CLOCK) as rest:
        yield Caller(rest)


@pytest.mark.parametrize(("code", "symbol"), ALL)
def test_every_issue_has_every_documented_field(caller: Caller, code: str, symbol: str) -> None:
    asked = {"EXCD": code, "SYMB": symbol}
    for tr in (OVERSEAS_PRICE, OVERSEAS_DETAIL, OVERSEAS_DAILY, OVERSEAS_MINUTES):
        _, body = caller.ask(tr, **asked)
        first = body[tr.summary]
        assert tuple(first) == tr.summary_fields and first["rsym"] == f"D{code}{symbol}"
        if tr.array:
            assert {tuple(row) for row in body[tr.array]} == {tr.fields}
            assert len(body[tr.array]) == int(first["nrec"]) == tr.max_rows
        for name in ("last", "base", "open", "high", "low", "diff", "clos", "pbid", "pask"):
            values = [row[name] for row in (first, *body.get(tr.array, ())) if name in row]
            assert {len(value.partition(".")[2]) for value in values} <= {int(first["zdiv"])}


def test_a_quote_is_the_last_day(caller: Caller) -> None:
    for code, symbol in (("NAS", "AAPL"), ("TSE", "9984")):
        asked = {"EXCD": code, "SYMB": symbol}
        today, before = caller.rows(OVERSEAS_DAILY, **asked)[:2]
        price, detail = (caller.ask(tr, **asked)[1]["output"] for tr in (OVERSEAS_PRICE, OVERSEAS_DETAIL))
        for name, there in {"last": "clos", "tvol": "tvol", "tamt": "tamt"}.items():
            assert price[name] == detail[name] == today[there]
        assert all(detail[name] == today[name] for name in ("open", "high", "low"))
        assert all(price[name] == today[name] for name in ("sign", "diff", "rate"))
        assert price["base"] == before["clos"] and (price["pvol"], detail["pamt"]) == (before["tvol"], before["tamt"])
        year = [row for row in caller.days(3, **asked) if row["xymd"] >= "20251120"]
        highs, lows = ({row["xymd"]: float(row[name]) for row in year} for name in ("high", "low"))
        assert float(detail["h52p"]) == highs[detail["h52d"]] == max(highs.values())
        assert float(detail["l52p"]) == lows[detail["l52d"]] == min(lows.values())
        assert int(detail["t_xprc"]) == int(float(detail["last"]) * float(detail["t_rate"]))


def test_days_go_back_without_gap_newest_first(caller: Caller) -> None:
    rows = caller.days(4)
    dates = [datetime.strptime(row["xymd"], "%Y%m%d").date() for row in rows]
    weekdays = [date(2026, 11, 20) - timedelta(days=back) for back in range(600)]
    assert dates == [day for day in weekdays if day.weekday() < 5][: len(dates)] and len(dates) == 400
    for row, before in pairwise(rows):
        change = float(row["clos"]) - float(before["clos"])
        assert row["sign"] == ("2" if change > 1e-9 else "5" if change < -1e-9 else "3")
        assert row["diff"] == f"{abs(change):.4f}"
        assert float(row["rate"]) == pytest.approx(100 * change / float(before["clos"]), abs=0.0051)
        assert row["rate"][0] == {"2": "+", "5": "-", "3": " "}[row["sign"]] or abs(change) < 0.02
        low, high = float(row["low"]), float(row["high"])
        assert all(low <= float(row[name]) <= high for name in ("open", "clos"))
        assert float(row["pbid"]) < float(row["clos"]) < float(row["pask"])
        assert low * 0.999 <= float(row["tamt"]) / float(row["tvol"]) <= high * 1.001


@pytest.mark.parametrize(
    ("gubn", "key"), [("1", lambda day: day.isocalendar()[:2]), ("2", lambda day: (day.year, day.month))]
)
def test_weeks_and_months_are_sums_of_days(caller: Caller, gubn: str, key: Any) -> None:
    parts: dict[Any, Rows] = {}
    for row in caller.days(4, EXCD="HKS", SYMB="00700"):
        parts.setdefault(key(datetime.strptime(row["xymd"], "%Y%m%d").date()), []).append(row)
    whole = list(parts.values())[:-1]  # the last one may lack days
    periods = caller.rows(OVERSEAS_DAILY, EXCD="HKS", SYMB="00700", GUBN=gubn)
    assert len(periods) == 100 and len(whole) >= 18
    for period, days, older in zip(periods, whole, periods[1:]):
        assert (period["xymd"], period["clos"], period["open"]) == (days[0]["xymd"], days[0]["clos"], days[-1]["open"])
        assert float(period["high"]) == max(float(day["high"]) for day in days)
        assert float(period["low"]) == min(float(day["low"]) for day in days)
        assert all(int(period[name]) == sum(int(day[name]) for day in days) for name in ("tvol", "tamt"))
        assert period["diff"] == f"{abs(float(period['clos']) - float(older['clos'])):.3f}"
    end = datetime.strptime(periods[49]["xymd"], "%Y%m%d") - timedelta(days=1)
    older_page = caller.rows(OVERSEAS_DAILY, EXCD="HKS", SYMB="00700", GUBN=gubn, BYMD=f"{end:%Y%m%d}")
    assert older_page[:50] == periods[50:]


@pytest.mark.parametrize(("code", "symbol"), [("NAS", "AAPL"), ("HKS", "09988"), ("TSE", "8306"), ("HNX", "PVS")])
def test_minutes_add_up_to_days_and_go_back_a_month(caller: Caller, code: str, symbol: str) -> None:
    asked = {"EXCD": code, "SYMB": symbol}
    one, days = caller.minutes(**asked), {row["xymd"]: row for row in caller.rows(OVERSEAS_DAILY, **asked)}
    times = [local(row) for row in one]
    assert times == sorted(set(times), reverse=True)
    assert times[-1].date() == date(2026, 10, 20), "about a month"
    parts: dict[str, Rows] = {}
    for row in one:
        parts.setdefault(row["tymd"], []).append(row)
    assert list(parts) == list(days)[: len(parts)] and len(parts) == 24
    for day, rows in parts.items():
        assert summed(rows) == {name: days[day][name] for name in ("open", "clos", "high", "low", "tvol", "tamt")}
    hours = EXCHANGES[code].hours
    count = sum(end - start for start, end in hours) + 1
    assert {len(rows) for rows in list(parts.values())[1:]} == {count}
    assert len(parts["20261120"]) == (17 if code == "NAS" else count)
    fives: dict[str, Rows] = {}
    for row in one:
        fives.setdefault(row["xymd"] + f"{int(row['xhms'][:4]) // 5 * 5:04d}00", []).append(row)
    bars = caller.minutes(**asked, NMIN="5")
    assert [bar["xymd"] + bar["xhms"] for bar in bars] == list(fives)
    for bar, rows in zip(bars, fives.values()):
        names = {"open": "open", "clos": "last", "high": "high", "low": "low", "tvol": "evol", "tamt": "eamt"}
        assert summed(rows) == {day: bar[minute] for day, minute in names.items()}


def test_local_and_korean_time(caller: Caller) -> None:
    ahead = {"NAS": {13, 14}, "NYS": {13, 14}, "AMS": {13, 14}, "HKS": {1}, "SHS": {1}, "SZS": {1}, "TSE": {0}}
    for code, hours in (ahead | {"HSX": {2}, "HNX": {2}}).items():
        asked = {"EXCD": code, "SYMB": next(iter(EXCHANGES[code].symbols)), "NMIN": "60"}
        gaps = {}
        for row in caller.minutes(**asked):
            korea = datetime.strptime(row["kymd"] + row["khms"], "%Y%m%d%H%M%S")
            gaps[row["xymd"]] = (korea - local(row)) / timedelta(hours=1)
        assert set(gaps.values()) == hours
        if 13 in hours:  # summer time ended on 2026-11-01
            assert all((gap == 13) == (day < "20261101") for day, gap in gaps.items())
    _, body = caller.ask(OVERSEAS_MINUTES)
    times = {name: body["output1"][name] for name in ("stim", "etim", "sktm", "ektm")}
    assert times == {"stim": "093000", "etim": "160000", "sktm": "233000", "ektm": "060000"}


def test_a_page_of_minutes_is_as_long_as_asked_for(caller: Caller) -> None:
    assert len(caller.rows(OVERSEAS_MINUTES, NREC="7")) == 7
    assert len(caller.rows(OVERSEAS_MINUTES, NREC="500")) == 120
    today = caller.rows(OVERSEAS_MINUTES, PINC="0")
    assert {row["xymd"] for row in today} == {"20261120"} and len(today) == 17
    for count, more in (("16", "1"), ("17", "0"), ("18", "0")):
        assert caller.ask(OVERSEAS_MINUTES, PINC="0", NREC=count)[1]["output1"]["next"] == more
    first = caller.rows(OVERSEAS_MINUTES, NEXT="1")  # as the example of the documents
    assert first == caller.rows(OVERSEAS_MINUTES)


def test_a_split_is_taken_out_of_the_past_where_that_is_asked_for(caller: Caller) -> None:
    item = issue(7, EXCHANGES["NAS"], "NVDA")
    assert item.ratio > 1 and item.split < date(2026, 11, 20)
    asked = {"SYMB": "NVDA", "BYMD": f"{item.split + timedelta(days=30):%Y%m%d}"}
    raw, adjusted = (caller.rows(OVERSEAS_DAILY, **asked, MODP=modp) for modp in "01")
    for row, other in zip(raw, adjusted):
        ratio = item.ratio if row["xymd"] < f"{item.split:%Y%m%d}" else 1.0
        for name in ("open", "high", "low", "clos"):
            assert float(row[name]) == pytest.approx(ratio * float(other[name]), abs=1e-3)
        assert int(other["tvol"]) == int(row["tvol"]) * ratio and other["tamt"] == row["tamt"]
        assert row["rate"] == other["rate"] and abs(float(row["rate"])) < 20
    closes = [float(row["clos"]) for row in raw]
    assert max(before / after for after, before in pairwise(closes)) > item.ratio / 1.3


def test_refusals(caller: Caller) -> None:
    for tr, wrong, name in (
        (OVERSEAS_PRICE, {"EXCD": "XXX"}, "EXCD"),
        (OVERSEAS_DETAIL, {"EXCD": ""}, "EXCD"),
        (OVERSEAS_DAILY, {"EXCD": "nas"}, "EXCD"),
        (OVERSEAS_DAILY, {"GUBN": "3"}, "GUBN"),
        (OVERSEAS_DAILY, {"MODP": ""}, "MODP"),
        (OVERSEAS_DAILY, {"BYMD": "20261301"}, "BYMD"),
        (OVERSEAS_MINUTES, {"NMIN": "0"}, "NMIN"),
        (OVERSEAS_MINUTES, {"NREC": "many"}, "NREC"),
        (OVERSEAS_MINUTES, {"PINC": "2"}, "PINC"),
        (OVERSEAS_MINUTES, {"NEXT": "1", "KEYB": "20261120"}, "KEYB"),
    ):
        status, body = caller.ask(tr, **wrong)
        assert (status, body["rt_cd"], body["msg_cd"]) == (200, "2", "OPSQ2001")
        assert body["msg1"] == f"ERROR : INPUT INVALID_CHECK_{name}"
    _, body = caller.ask(OVERSEAS_DAILY, MODP="-")
    assert body["msg1"] == "ERROR INPUT FIELD NOT FOUND [MODP]"


@pytest.mark.parametrize("asked", [{"SYMB": "NONE"}, {"EXCD": "NYS"}, {"EXCD": "BAQ"}])
def test_an_unknown_symbol_is_blank(caller: Caller, asked: dict[str, str]) -> None:
    for tr in (OVERSEAS_PRICE, OVERSEAS_DETAIL, OVERSEAS_DAILY, OVERSEAS_MINUTES):
        status, body = caller.ask(tr, **asked)
        assert (status, body["rt_cd"]) == (200, "0")
        assert set(body[tr.summary].values()) == {""} and body.get(tr.array, []) == []


def test_the_far_past_is_empty(caller: Caller) -> None:
    for day in ("19940101", "00010101"):
        _, body = caller.ask(OVERSEAS_DAILY, BYMD=day)
        assert body["output1"]["nrec"] == "0" and body["output2"] == []
    assert caller.rows(OVERSEAS_DAILY, BYMD="19950105")[-1]["xymd"] == "19950103"
    assert caller.rows(OVERSEAS_MINUTES, NEXT="1", KEYB="20260101000000") == []


def at(clock: str, tr: Tr, **query: str) -> Any:
    pages = OverseasPages(Market(7, 1, clock=Clock(moment(clock), 0.0)))
    usual = {"AUTH": "", "EXCD": "NAS", "SYMB": "AAPL", "GUBN": "0", "BYMD": "", "MODP": "0"}
    return pages.handlers[tr.path](tr, usual | query, "")


def test_what_was_shown_once_never_changes(caller: Caller) -> None:
    rows = caller.rows(OVERSEAS_DAILY)
    later = [json.loads(row) for row in at("2026-12-01T12:00", OVERSEAS_DAILY, BYMD="20261119").rows]
    assert later[:99] == rows[1:]
    over = json.loads(at("2026-11-21T06:00", OVERSEAS_DAILY).rows[0])
    assert over["open"] == rows[0]["open"] and int(over["tvol"]) > int(rows[0]["tvol"])


def test_a_quote_before_the_opening_is_the_close_before() -> None:
    evening, night = "2026-11-20T20:00", "2026-11-20T23:30:59"
    close = json.loads(at(evening, OVERSEAS_DAILY).rows[0])
    for clock in (evening, night):
        price = at(clock, OVERSEAS_PRICE).objects["output"]
        assert (price["last"], price["base"], price["pvol"]) == (close["clos"], close["clos"], close["tvol"])
        assert (price["sign"], price["diff"], price["rate"], price["tvol"]) == ("0", "0.0000", " 0.00", "0")
    assert at("2026-11-20T23:31", OVERSEAS_PRICE).objects["output"]["base"] == close["clos"]
    assert at("2026-11-20T23:31", OVERSEAS_PRICE).objects["output"]["tvol"] != "0"
    weekend = at("2026-11-22T12:00", OVERSEAS_PRICE).objects["output"]
    assert weekend["base"] == close["clos"] and weekend["tvol"] != "0"


def test_paper_has_prices_and_days_only() -> None:
    with server("--symbols", 1, "--paper", clock=CLOCK) as rest:
        paper = Caller(rest)
        for tr in (tr for tr in quotations.ALL if "overseas" in tr.path):
            status, body = paper.ask(tr)
            known = tr in (OVERSEAS_PRICE, OVERSEAS_DAILY)
            assert (status, body["msg_cd"]) == ((200, "MCA00000") if known else (500, "EGW00213"))
