"""KIS clients of others, unmodified, against the simulator: what they make of its answers is what our parser makes.

Each lives in an environment of its own, made once for each version in the folder named by KRX_TEST_CLIENTS, or in
pytest's cache, from the package index. They are pointed at the simulator by their own constants and settings.

How the official sample (kis_auth.py of koreainvestment/open-trading-api) reads an answer is written down here.
"""

import asyncio
import http.client
import json
import os
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pyarrow as pa
import pytest

from pipeline import krx
from pipeline.kis import layouts, quotations, wire
from pipeline.kis.client import KisClient
from pipeline.kis.layouts import Tr
from pipeline.kis.section import KisSection

ROOT = Path(__file__).resolve().parents[2]
SYMBOL, START, END = "005940", date(2026, 1, 2), date(2026, 11, 20)
CLOCK = "2026-11-20T18:00:00"

PYTHON_KIS = """
import json, sys
import pykis.kis
from pykis import PyKis
rest, symbol, folder = sys.argv[1:]
pykis.kis.REAL_DOMAIN = rest
kis = PyKis(id="id", account="12345678-01", appkey="P" * 36, secretkey="s" * 180, keep_token=folder)
stock = kis.stock(symbol)
quote = stock.quote()
from datetime import date
chart = stock.chart(start=date(2026, 1, 2), end=date(2026, 11, 20), period="day")
bars = [[f"{b.time:%Y%m%d}", *map(float, (b.open, b.high, b.low, b.close, b.volume, b.amount))] for b in chart.bars]
today = stock.day_chart().bars
minutes = [[f"{b.time:%H%M%S}", *map(float, (b.open, b.high, b.low, b.close, b.volume))] for b in today]
name = stock.info.name
print(json.dumps({"token": kis.token.token, "close": float(quote.close), "upper": float(quote.high_limit),
                  "daily": bars, "minutes": minutes, "name": name}))
"""
PYTHON_KIS_ABROAD = """
import json, sys
import pykis.kis
from datetime import date
from pykis import PyKis
from pykis.api.stock.daily_chart import foreign_daily_chart
from pykis.api.stock.day_chart import foreign_day_chart
from pykis.api.stock.quote import foreign_quote
from pykis.responses.exceptions import KisNotFoundError
rest, symbol, folder = sys.argv[1:]
pykis.kis.REAL_DOMAIN = rest
kis = PyKis(id="id", account="12345678-01", appkey="P" * 36, secretkey="s" * 180, keep_token=folder)
quote = foreign_quote(kis, symbol, "NASDAQ")
chart = foreign_daily_chart(kis, symbol, "NASDAQ", start=date(2026, 1, 2), end=date(2026, 11, 19))
today = foreign_day_chart(kis, symbol, "NASDAQ", once=True)
missing = []
for ask in (foreign_quote, foreign_daily_chart):
    try:
        ask(kis, "NONE", "NASDAQ")
    except KisNotFoundError:
        missing.append(ask.__name__)
bars = [[f"{b.time:%Y%m%d}", *map(float, (b.open, b.high, b.low, b.close, b.volume, b.amount))] for b in chart.bars]
minutes = [[f"{b.time:%Y%m%d%H%M%S}", f"{b.time_kst:%Y%m%d%H%M%S}", float(b.close), b.volume] for b in today.bars]
print(json.dumps({"close": float(quote.price), "high": float(quote.indicator.week52_high), "daily": bars,
                  "minutes": minutes, "missing": missing}))
"""
MOJITO = """
import json, sys
from mojito import KoreaInvestment
rest, symbol, folder = sys.argv[1:]
KoreaInvestment.set_base_url = lambda self, mock=True: setattr(self, "base_url", rest)
broker = KoreaInvestment(api_key="m" * 36, api_secret="s" * 180, acc_no="12345678-01")
price = broker.fetch_price(symbol)["output"]
bars, end = [], "20261120"
while end > "20260102":
    page = broker.fetch_ohlcv(symbol, "D", "20260102", end, adj_price=False)["output2"]
    page = [row for row in page if row and (not bars or row["stck_bsop_date"] < bars[-1]["stck_bsop_date"])]
    if not page:
        break
    bars += page
    end = page[-1]["stck_bsop_date"]
names = ("stck_oprc", "stck_hgpr", "stck_lwpr", "stck_clpr", "acml_vol", "acml_tr_pbmn")
minute = ("stck_oprc", "stck_hgpr", "stck_lwpr", "stck_prpr", "cntg_vol")
today = broker.fetch_today_1m_ohlcv(symbol, to="153000")["output2"]
print(json.dumps({"token": broker.access_token.removeprefix("Bearer "), "close": float(price["stck_prpr"]),
    "upper": float(price["stck_mxpr"]),
    "daily": [[row["stck_bsop_date"], *(float(row[n]) for n in names)] for row in bars],
    "minutes": [[row["stck_cntg_hour"], *(float(row[n]) for n in minute)] for row in today
                if row["stck_bsop_date"] == "20261120"], "name": None}))
"""
PYKIS = """
import json, sys
from pykis import Api, DomainInfo
rest, symbol, folder = sys.argv[1:]
api = Api(key_info={"appkey": "k" * 36, "appsecret": "s" * 180}, domain_info=DomainInfo(url=rest))
frame = api.get_kr_ohlcv(symbol, "D")
bars = [[f"{day:%Y%m%d}", *map(float, row)] for day, row in zip(frame.index, frame.to_numpy())]
print(json.dumps({"token": api.token.value.removeprefix("Bearer "), "close": float(api.get_kr_current_price(symbol)),
    "upper": float(api.get_kr_max_price(symbol)), "daily": bars, "minutes": None, "name": None}))
"""
# What they import without saying so; pkg_resources went with setuptools 81.
UNSAID = {
    "python-kis==2.1.6": ("typing_extensions",),
    "mojito2==0.1.6": ("pandas", "setuptools<81"),
    "pykis==0.7.0": (),
}
CLIENTS = {"python-kis==2.1.6": PYTHON_KIS, "mojito2==0.1.6": MOJITO, "pykis==0.7.0": PYKIS}


@pytest.fixture(scope="module")
def clients(pytestconfig: pytest.Config) -> Path:
    given = os.environ.get("KRX_TEST_CLIENTS")
    return Path(given) if given else pytestconfig.cache.mkdir("clients")  # type: ignore[union-attr]


def environment(folder: Path, package: str) -> Path:
    """Return the Python of an environment with the package, made now unless it is there."""
    place = folder / package.replace("==", "-")
    python = place / "bin" / "python"
    if (place / "done").exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True, timeout=120)
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries", "1", package]
    made = subprocess.run([*command, *UNSAID[package]], capture_output=True, text=True, timeout=300, check=False)
    if made.returncode != 0:
        pytest.skip(f"{package} cannot be installed from the package index: {made.stderr.strip()[-200:]}")
    (place / "done").touch()
    return python


@contextmanager
def simulator(*more: str) -> Iterator[str]:
    words = ["--clock", CLOCK, "--symbols", "3", "--token-gap", "0", "--token-same", "0", *more]
    script = str(ROOT / "scripts" / "simulate_kis.py")
    command = [sys.executable, script, "--with-parent", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["rest"]
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture(scope="module")
def rest() -> Iterator[str]:
    with simulator() as address:
        yield address


def ours(rest: str, folder: Path) -> dict[str, Any]:
    """Ask with our own client."""

    async def ask() -> dict[str, Any]:
        section = KisSection.model_validate({"environment": "simulator", "rest_url": rest})
        async with KisClient(section, lambda *_, **__: None, folder=str(folder)) as kis:
            item = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": SYMBOL}
            quote = wire.parse_price((await kis.ask(layouts.PRICE, item)).body)
            span = {"FID_PERIOD_DIV_CODE": "D", "FID_ORG_ADJ_PRC": "1", "FID_INPUT_DATE_1": f"{START:%Y%m%d}"}
            days, end = [], END
            while end > START:
                page = wire.parse_daily(
                    (await kis.ask(layouts.DAILY, item | span | {"FID_INPUT_DATE_2": f"{end:%Y%m%d}"})).body
                )
                days.append(page)
                end = page["date"][-1].as_py() - timedelta(days=1)
            bars = pa.concat_tables(days).sort_by("date")
            pages = []
            for hour in ("153000", "135000", "115000", "095000"):
                more = item | {"FID_INPUT_HOUR_1": hour, "FID_INPUT_DATE_1": "20261120", "FID_PW_DATA_INCU_YN": "N"}
                pages.append(wire.parse_minutes((await kis.ask(layouts.MINUTES_PAST, more)).body))
            info = wire.parse_stock_info(
                (await kis.ask(layouts.STOCK_INFO, {"PRDT_TYPE_CD": "300", "PDNO": SYMBOL})).body
            )
        return {"quote": quote, "daily": bars, "minutes": wire.minute_bars(pa.concat_tables(pages)), "info": info}

    return asyncio.run(ask())


def check_daily(found: list[list[Any]], bars: pa.Table, names: tuple[str, ...]) -> None:
    found = sorted(found)
    expected = bars.slice(len(bars) - len(found))
    assert [row[0] for row in found] == [f"{day:%Y%m%d}" for day in expected["date"].to_pylist()]
    for column, name in enumerate(names, 1):
        np.testing.assert_array_equal([row[column] for row in found], expected[name].to_numpy())


@pytest.mark.slow
@pytest.mark.parametrize("package", CLIENTS)
def test_an_unmodified_client_sees_what_we_see(package: str, clients: Path, rest: str, tmp_path: Path) -> None:
    python = environment(clients, package)
    arguments = [str(python), "-c", CLIENTS[package], rest, SYMBOL, str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen, known = json.loads(done.stdout.splitlines()[-1]), ours(rest, tmp_path / "ours")
    assert seen["token"].startswith("SIM.")
    assert (seen["close"], seen["upper"]) == (known["quote"]["close"], known["quote"]["upper"])
    prices = ("open", "high", "low", "close", "volume")
    whole = package != "pykis==0.7.0"  # that one has no turnover, and the latest 30 rows only
    assert len(seen["daily"]) == (len(known["daily"]) if whole else 30) and len(known["daily"]) > 200
    check_daily(seen["daily"], known["daily"], (*prices, "turnover") if whole else prices)
    if seen["minutes"] is not None:
        labels = {row[0]: row[1:] for row in seen["minutes"]}
        bars = known["minutes"]
        assert len(bars) == len(labels) == 381
        for column, name in enumerate(prices):
            np.testing.assert_array_equal([labels[label][column] for label in sorted(labels)], bars[name].to_numpy())
    assert seen["name"] in (None, known["info"]["name"])


@pytest.mark.slow
def test_an_unmodified_client_sees_issues_abroad(clients: Path, rest: str, tmp_path: Path) -> None:
    python = environment(clients, "python-kis==2.1.6")
    command = [str(python), "-c", PYTHON_KIS_ABROAD, rest, "AAPL", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    sample, issue = Sample(rest), {"AUTH": "", "EXCD": "NAS", "SYMB": "AAPL"}
    detail = sample.ask(quotations.OVERSEAS_DETAIL, **issue).body.output
    assert (seen["close"], seen["high"]) == (float(detail["last"]), float(detail["h52p"]))
    rows, end = [], date(2026, 11, 19)
    while end > date(2026, 1, 2):
        days = {"GUBN": "0", "BYMD": f"{end:%Y%m%d}", "MODP": "0"}
        rows += sample.ask(quotations.OVERSEAS_DAILY, **issue, **days).body.output2
        end = datetime.strptime(rows[-1]["xymd"], "%Y%m%d").date() - timedelta(days=1)
    names = ("open", "high", "low", "clos", "tvol", "tamt")
    known = [[row["xymd"], *(float(row[name]) for name in names)] for row in rows if row["xymd"] >= "20260102"]
    assert sorted(seen["daily"]) == sorted(known) and len(known) > 200
    asked = {"NMIN": "1", "PINC": "1", "NEXT": "", "NREC": "120", "FILL": "", "KEYB": ""}
    minutes = sample.ask(quotations.OVERSEAS_MINUTES, **issue, **asked).body.output2
    assert sorted(seen["minutes"]) == sorted(
        [row["xymd"] + row["xhms"], row["kymd"] + row["khms"], float(row["last"]), int(row["evol"])] for row in minutes
    )
    assert seen["missing"] == ["foreign_quote", "foreign_daily_chart"]


class Answer:
    """An answer of HTTP 200 as the official sample reads it: a field for each header whose name is all lower case, and
    for each name of the JSON object. A name that is no identifier is a ValueError."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        small = [name for name in response.headers if name.islower()]
        self.header = namedtuple("header", small)(*(response.headers[name] for name in small))
        self.body = named(response.read())

    @property
    def succeeded(self) -> bool:
        return bool(self.body.rt_cd == "0")


def named(text: bytes) -> Any:
    content = json.loads(text)
    return namedtuple("body", content)(**content)


class Failed(Exception):
    """What the official sample prints of any other answer, unread: status and text."""


class Sample:
    """Calls in the way of the official sample."""

    def __init__(self, rest: str) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(rest).netloc, timeout=20)
        keys = {"appkey": "o" * 36, "appsecret": "s" * 180}
        self.connection.request("POST", "/oauth2/tokenP", json.dumps({"grant_type": "client_credentials", **keys}))
        self.token = named(self.connection.getresponse().read())
        self.headers = {**keys, "authorization": f"Bearer {self.token.access_token}", "custtype": "P"}

    def ask(self, tr: Tr, cont: str = "", **query: str) -> Answer:
        """Ask once; with `cont` "N" for the next page. Raises Failed."""
        headers = self.headers | {"tr_id": tr.tr_id, "tr_cont": cont}
        self.connection.request("GET", f"{tr.path}?{urlencode(query)}", headers=headers)
        response = self.connection.getresponse()
        if response.status != 200:
            raise Failed(response.status, response.read())
        return Answer(response)

    def holidays(self, start: str) -> Iterator[Answer]:
        """Follow the calendar for as long as the header says that there is more."""
        query, cont = {"BASS_DT": start, "CTX_AREA_FK": "", "CTX_AREA_NK": ""}, ""
        while True:
            answer = self.ask(layouts.HOLIDAYS, cont, **query)
            yield answer
            if answer.header.tr_cont not in ("M", "F"):
                return
            query |= {"CTX_AREA_FK": answer.body.ctx_area_fk, "CTX_AREA_NK": answer.body.ctx_area_nk}
            cont = "N"


PRICE = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": SYMBOL}


def test_the_official_sample_reads_headers_and_bodies(rest: str) -> None:
    sample = Sample(rest)
    ends = datetime.strptime(sample.token.access_token_token_expired, "%Y-%m-%d %H:%M:%S").replace(tzinfo=krx.KST)
    assert timedelta(hours=23) < ends - datetime.now(krx.KST) <= timedelta(days=1)
    span = {"FID_INPUT_DATE_1": "20261102", "FID_INPUT_DATE_2": "20261120", "FID_PERIOD_DIV_CODE": "D"}
    many = {"FID_COND_MRKT_DIV_CODE_1": "J", "FID_INPUT_ISCD_1": SYMBOL}
    for tr, query, outputs in (
        (layouts.PRICE, PRICE, ("output",)),
        (layouts.DAILY, {**PRICE, **span, "FID_ORG_ADJ_PRC": "1"}, ("output1", "output2")),
        (layouts.INVESTORS, PRICE, ("output",)),
        (layouts.STOCK_INFO, {"PRDT_TYPE_CD": "300", "PDNO": SYMBOL}, ("output",)),
        (quotations.QUOTES_OF_MANY, many, ("output",)),
        (quotations.OVERSEAS_PRICE, {"AUTH": "", "EXCD": "NAS", "SYMB": "AAPL"}, ("output",)),
    ):
        answer = sample.ask(tr, **query)
        assert sorted(answer.header._fields) == ["gt_uid", "tr_cont", "tr_id"]
        assert (answer.header.tr_id, answer.header.tr_cont) == (tr.tr_id, "") and answer.header.gt_uid
        assert set(answer.body._fields) == {"rt_cd", "msg_cd", "msg1", *outputs} and answer.succeeded
        assert all(getattr(answer.body, name) for name in outputs)


def test_the_official_sample_follows_the_calendar_to_its_end(rest: str) -> None:
    answers = list(Sample(rest).holidays("20270901"))
    assert [answer.header.tr_cont for answer in answers] == ["M"] * (len(answers) - 1) + ["D"] and len(answers) > 3
    days = [row["bass_dt"] for answer in answers for row in answer.body.output]
    expected = [f"{day:%Y%m%d}" for day in np.arange(np.datetime64("2027-09-01"), krx.LAST + 1).tolist()]
    assert sorted(set(days)) == expected
    assert {answer.body.msg_cd for answer in answers} == {"KIOK0500", "MCA00000"}


def test_the_official_sample_shows_what_was_refused(rest: str) -> None:
    sample = Sample(rest)
    answer = sample.ask(layouts.PRICE, FID_COND_MRKT_DIV_CODE="J")
    assert not answer.succeeded and (answer.body.rt_cd, answer.body.msg_cd) == ("2", "OPSQ2001")
    assert answer.body.msg1 == "ERROR INPUT FIELD NOT FOUND [FID_INPUT_ISCD]"
    assert answer.header.tr_id == layouts.PRICE.tr_id


@pytest.mark.parametrize(("words", "code"), [("--quota 2", "EGW00201"), ("--fault expired=1", "EGW00123")])
def test_the_official_sample_shows_status_and_text_of_a_failure(words: str, code: str) -> None:
    with simulator(*words.split()) as rest, pytest.raises(Failed) as failed:
        sample = Sample(rest)
        for _ in range(65):  # more than any token serves where it is to expire
            sample.ask(layouts.PRICE, **PRICE)
    status, text = failed.value.args
    body = named(text)
    assert (status, body.rt_cd, body.msg_cd, body.msg1) == (500, "1", code, layouts.MESSAGES[code][2])
