"""KIS clients of others, unmodified, against the simulator: what they make of its answers is what our parser makes.

Each lives in an environment of its own, made once for each version in the folder named by KRX_TEST_CLIENTS, or in
pytest's cache, from the package index. They are pointed at the simulator by their own constants and settings.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.kis import layouts, wire
from pipeline.kis.client import KisClient
from pipeline.kis.section import KisSection

pytestmark = pytest.mark.slow
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
def simulator() -> Iterator[str]:
    words = ["--clock", CLOCK, "--symbols", "3", "--token-gap", "0", "--token-same", "0"]
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
