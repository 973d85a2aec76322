"""Faults and the further quotation calls of the simulator over real HTTP."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import numpy as np
import pytest

from pipeline import krx
from pipeline.kis import layouts, quotations, wire
from pipeline.kis.master import parse_master, unzip_master
from pipeline.kis.simulator.clock import Clock, moment
from pipeline.kis.simulator.market import Market

from .caller import Caller, J, simulator, talk

NOW = "2026-11-20T11:00:30"
SYMBOL = "005940"
PRICE: dict[str, Any] = {"FID_COND_MRKT_DIV_CODE": J, "FID_INPUT_ISCD": SYMBOL}


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, Any]]:
    with simulator("--clock", NOW, "--symbols", "20", "--quota", "0", "--token-gap", "0") as (addresses, _):
        yield addresses


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(7, 20, clock=Clock(moment(NOW), 0.0))


def test_trades_are_those_of_the_minutes(running: dict[str, Any], market: Market) -> None:
    minutes = market.minutes(SYMBOL, date(2026, 11, 20))

    async def work(client: Caller) -> None:
        _, body = await client.get(quotations.TRADES, **PRICE)
        rows = body["output"]
        assert len(rows) == 30 and tuple(rows[0]) == quotations.TRADES.fields
        assert [row["stck_cntg_hour"] for row in rows] == sorted((r["stck_cntg_hour"] for r in rows), reverse=True)
        assert rows[0]["stck_cntg_hour"] <= "110030"
        found, hour = [], "105959"
        while True:
            _, body = await client.get(quotations.TRADES_OF_DAY, FID_INPUT_HOUR_1=hour, **PRICE)
            page = [row for row in body["output2"] if row not in found]
            if not page or page[-1]["stck_cntg_hour"] < "105900":
                found += page
                break
            found += page
            hour = page[-1]["stck_cntg_hour"]
        minute = [row for row in found if row["stck_cntg_hour"][:4] == "1059"]
        assert sum(int(row["cnqn"]) for row in minute) == minutes["volume"][119]
        assert int(minute[0]["stck_pbpr"]) == minutes["close"][119]
        assert int(minute[-1]["stck_pbpr"]) == minutes["open"][119]
        assert int(minute[0]["acml_vol"]) == minutes["volume"][:120].sum()

    talk(running["rest"], work)


def test_the_book_stands_about_the_last_price(running: dict[str, Any], market: Market) -> None:
    async def work(client: Caller) -> None:
        _, body = await client.get(quotations.BOOK, **PRICE)
        book, expected = body["output1"], body["output2"]
        assert (tuple(book), tuple(expected)) == (quotations.BOOK.summary_fields, quotations.BOOK.fields)
        asks, bids = ([int(book[f"{side}{level}"]) for level in range(1, 11)] for side in ("askp", "bidp"))
        shown = [price for price in asks if price]
        assert shown == sorted(shown) and bids == sorted(bids, reverse=True) and shown[0] > bids[0]
        sizes = sum(int(book[f"askp_rsqn{level}"]) for level in range(1, 11))
        assert int(book["total_askp_rsqn"]) == sizes > 0
        last = int((await client.get(quotations.TRADES, **PRICE))[1]["output"][0]["stck_prpr"])
        assert bids[0] <= last <= shown[0]
        assert expected["stck_sdpr"] == str(int(market.daily(SYMBOL)["base"][-1]))

    talk(running["rest"], work)


def test_index_minutes_add_up(running: dict[str, Any]) -> None:
    async def work(client: Caller) -> None:
        query = {"FID_COND_MRKT_DIV_CODE": "U", "FID_INPUT_ISCD": "0001", "FID_ETC_CLS_CODE": "0"}
        _, body = await client.get(quotations.INDEX_MINUTES, FID_INPUT_HOUR_1="60", FID_PW_DATA_INCU_YN="N", **query)
        fine = body["output2"]
        assert len(fine) == 100 and fine[0]["stck_cntg_hour"] == "105900"
        _, body = await client.get(quotations.INDEX_MINUTES, FID_INPUT_HOUR_1="600", FID_PW_DATA_INCU_YN="N", **query)
        coarse = body["output2"]
        assert [row["stck_cntg_hour"] for row in coarse[:2]] == ["105000", "104000"] and len(coarse) == 12
        assert int(coarse[0]["cntg_vol"]) == sum(int(row["cntg_vol"]) for row in fine[:10])
        assert coarse[0]["bstp_nmix_prpr"] == fine[0]["bstp_nmix_prpr"]
        assert coarse[0]["bstp_nmix_oprc"] == fine[9]["bstp_nmix_oprc"]
        assert float(coarse[0]["bstp_nmix_hgpr"]) == max(float(row["bstp_nmix_hgpr"]) for row in fine[:10])
        _, body = await client.get(quotations.INDEX_MINUTES, FID_INPUT_HOUR_1="600", FID_PW_DATA_INCU_YN="Y", **query)
        assert len(body["output2"]) == 100 and body["output2"][12]["stck_bsop_date"] == "20261119"
        _, body = await client.get(quotations.INDEX_MINUTES, FID_INPUT_HOUR_1="7", FID_PW_DATA_INCU_YN="N", **query)
        assert body["msg_cd"] == "OPSQ2001"

    talk(running["rest"], work)


def test_flows_by_kind_of_investor(running: dict[str, Any], market: Market) -> None:
    async def work(client: Caller) -> None:
        query = PRICE | {"FID_ORG_ADJ_PRC": "", "FID_ETC_CLS_CODE": ""}
        _, early = await client.get(quotations.INVESTORS_DAILY, FID_INPUT_DATE_1="20261120", **query)
        assert (early["msg_cd"], early["msg1"]) == ("OPSQ2001", "TIME LIMIT 00:00 ~ 15:40")
        _, body = await client.get(quotations.INVESTORS_DAILY, FID_INPUT_DATE_1="20261030", **query)
        rows = body["output2"]
        assert tuple(rows[0]) == quotations.INVESTORS_DAILY.fields
        days = krx.sessions("2026-08-01", "2026-10-30").tolist()[-30:][::-1]
        assert [row["stck_bsop_date"] for row in rows] == [f"{day:%Y%m%d}" for day in days]
        _, usual = await client.get(layouts.INVESTORS, **PRICE)
        known = {row["stck_bsop_date"]: row for row in usual["output"]}
        both = [row for row in rows if row["stck_bsop_date"] in known]
        assert len(both) > 10
        for row in both:
            same = known[row["stck_bsop_date"]]
            assert all(row[name] == same[name] for name in layouts.FLOWS)
            parts = sum(int(row[f"{who}_shnu_vol"]) for who in quotations.INSTITUTIONS)
            assert parts == int(row["orgn_shnu_vol"])

    talk(running["rest"], work)


def test_product_info_and_quotes_of_many(running: dict[str, Any], market: Market) -> None:
    async def work(client: Caller) -> None:
        _, body = await client.get(quotations.PRODUCT_INFO, PDNO=SYMBOL, PRDT_TYPE_CD="300")
        info = body["output"]
        assert tuple(info) == quotations.PRODUCT_INFO.summary_fields and info["shtn_pdno"] == SYMBOL
        assert info["prdt_abrv_name"] == market.symbols().to_pylist()[0]["name"]
        for query in ({"PDNO": "999999", "PRDT_TYPE_CD": "300"}, {"PDNO": SYMBOL, "PRDT_TYPE_CD": "512"}):
            assert (await client.get(quotations.PRODUCT_INFO, **query))[1]["rt_cd"] == "7"
        symbols = [item.symbol for item in market.on_board("KOSPI")[:5]] + ["999999"]
        many = {f"FID_INPUT_ISCD_{at}": symbol for at, symbol in enumerate(symbols, 1)}
        many |= {f"FID_COND_MRKT_DIV_CODE_{at}": J for at in range(1, len(symbols) + 1)}
        _, body = await client.get(quotations.QUOTES_OF_MANY, **many)
        rows = body["output"]
        assert [row["inter_shrn_iscd"] for row in rows] == symbols and rows[-1]["inter2_prpr"] == "0"
        for symbol, row in zip(symbols[:-1], rows):
            last = market.daily(symbol)
            assert (int(row["inter2_prpr"]), int(row["inter2_sdpr"])) == (last["close"][-1], last["base"][-1])
            assert tuple(row) == quotations.QUOTES_OF_MANY.fields

    talk(running["rest"], work)


def test_names_are_those_of_the_day() -> None:
    item = Market(7, 20).listings[2]
    assert item.renamed is not None and item.later != item.name
    for day, name in ((item.renamed - timedelta(days=1), item.name), (item.renamed, item.later)):

        async def work(client: Caller, name: str = name) -> None:
            _, body = await client.get(layouts.STOCK_INFO, PRDT_TYPE_CD="300", PDNO=item.symbol)
            assert wire.parse_stock_info(body)["name"] == name
            response = await client.session.get(client.rest + "/common/master/kospi_code.mst.zip")
            rows = parse_master(unzip_master(await response.read()), "KOSPI").to_pylist()
            assert {row["symbol"]: row["name"] for row in rows}[item.symbol] == name

        with simulator("--clock", f"{day}", "--symbols", "20") as (addresses, _):
            talk(addresses["rest"], work)


def faulty(*faults: str) -> Any:
    words = [word for fault in faults for word in ("--fault", fault)]
    return simulator("--clock", NOW, "--symbols", "1", "--quota", "0", *words)


def test_half_answers() -> None:
    async def cut(client: Caller) -> None:
        query = {"FID_INPUT_DATE_1": "20260901", "FID_INPUT_DATE_2": "20261120", "FID_PERIOD_DIV_CODE": "D"}
        query |= {"FID_ORG_ADJ_PRC": "1", **PRICE}
        for _ in range(3):
            headers = client.headers | {"tr_id": layouts.DAILY.tr_id}
            response = await client.session.get(client.rest + layouts.DAILY.path, params=query, headers=headers)
            length = int(response.headers["Content-Length"])
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
            assert response.status == 200 and length > 10_000

    async def truncated(client: Caller) -> None:
        headers = client.headers | {"tr_id": layouts.PRICE.tr_id}
        response = await client.session.get(client.rest + layouts.PRICE.path, params=PRICE, headers=headers)
        text = await response.read()
        assert response.status == 200 and int(response.headers["Content-Length"]) == len(text) > 500
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)

    for fault, work in (("cut=1", cut), ("truncated=1", truncated)):
        with faulty(fault) as (addresses, _):
            talk(addresses["rest"], work)


@pytest.mark.parametrize("fault, code", [("expired=1", "EGW00123"), ("revoked=1", "EGW00121")])
def test_a_token_goes_and_another_comes_at_once(fault: str, code: str) -> None:
    async def work(client: Caller) -> None:
        for _ in range(64):
            assert (await client.get(layouts.PRICE, **PRICE))[1]["rt_cd"] == "0"
        response, body = await client.get(layouts.PRICE, **PRICE)
        assert (response.status, body["msg_cd"]) == (500, code)
        assert (await client.get(layouts.PRICE, **PRICE))[1]["msg_cd"] == code
        asked = {"grant_type": "client_credentials", "appkey": "key-1", "appsecret": "secret"}
        fresh = await (await client.session.post(f"{client.rest}/oauth2/tokenP", json=asked)).json()
        client.headers |= {"authorization": f"Bearer {fresh['access_token']}"}
        assert (await client.get(layouts.PRICE, **PRICE))[1]["rt_cd"] == "0"

    with faulty(fault) as (addresses, _):
        talk(addresses["rest"], work)


def test_requests_for_tokens_are_refused() -> None:
    async def work(rest: str) -> None:
        async with aiohttp.ClientSession() as session:
            statuses = []
            for number in range(40):
                asked = {"grant_type": "client_credentials", "appkey": f"key-{number}", "appsecret": "secret"}
                response = await session.post(f"{rest}/oauth2/tokenP", json=asked)
                body = await response.json()
                assert response.status == 200 or body["error_code"] == "EGW00133"
                statuses.append(response.status)
            assert 5 < statuses.count(403) < 35

    with faulty("token_refused=0.5") as (addresses, _):
        asyncio.run(work(addresses["rest"]))


def test_maintenance_comes_and_goes_with_the_market_clock() -> None:
    async def work(rest: str) -> None:
        statuses = []
        async with aiohttp.ClientSession() as session:
            for _ in range(200):
                response = await session.get(f"{rest}/common/master/kospi_code.mst.zip")
                if response.status == 503:
                    assert response.content_type == "text/html" and "503" in await response.text()
                statuses.append(response.status)
                if statuses[-1] == 200 and 503 in statuses:
                    break
                await asyncio.sleep(0.05)
        assert statuses[0] == 200 and statuses[-1] == 200 and 503 in statuses

    words = ("--clock", "2026-11-20T05:26:00", "--speed", "120", "--symbols", "1")
    with simulator(*words, "--fault", "maintenance=05:30-05:33") as (addresses, _):
        asyncio.run(work(addresses["rest"]))


def test_a_clock_that_is_wrong() -> None:
    async def work(client: Caller) -> None:
        response, _ = await client.get(layouts.PRICE, **PRICE)
        ahead = parsedate_to_datetime(response.headers["Date"]) - datetime.now(UTC)
        assert timedelta(minutes=59) < ahead < timedelta(minutes=61)

    with faulty("skew_seconds=3600") as (addresses, _):
        talk(addresses["rest"], work)


def test_quota_from_the_faults() -> None:
    async def work(client: Caller) -> None:
        answers = await asyncio.gather(*(client.get(layouts.PRICE, **PRICE) for _ in range(12)))
        assert [body["msg_cd"] for _, body in answers].count("EGW00201") >= 12 - 2 * 4

    with simulator("--clock", NOW, "--symbols", "1", "--fault", "quota=4", "--fault", "window=fixed") as (addresses, _):
        talk(addresses["rest"], work)


def test_a_large_master_file_keeps_nobody_waiting() -> None:
    async def work(client: Caller) -> None:
        url = client.rest + "/common/master/kosdaq_code.mst.zip"
        files = [asyncio.create_task(client.session.get(url)) for _ in range(2)]
        waits, loop = [], asyncio.get_running_loop()
        while not all(task.done() for task in files):
            began = loop.time()
            assert (await client.get(layouts.PRICE, **PRICE))[1]["rt_cd"] == "0"
            waits.append(loop.time() - began)
        contents = [await (await task).read() for task in files]
        assert contents[0] == contents[1] and len(parse_master(unzip_master(contents[0]), "KOSDAQ")) > 200
        assert len(waits) > 10 and float(np.median(waits)) < 0.25

    with simulator("--clock", NOW, "--symbols", "700", "--quota", "0") as (addresses, process):
        talk(addresses["rest"], work)
        process.terminate()
        assert process.wait(timeout=5) == 0
