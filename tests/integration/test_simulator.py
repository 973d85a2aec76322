"""What the simulator answers, as a process of its own, over real HTTP."""

import os
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import krx
from pipeline.kis import layouts, wire
from pipeline.kis.layouts import Tr
from pipeline.kis.master import FILES, FOLDER, parse_master, unzip_master
from pipeline.kis.simulator.clock import Clock, moment
from pipeline.kis.simulator.market import Market

from .caller import NOW, Caller, J, simulator, talk


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, Any]]:
    with simulator("--clock", NOW, "--symbols", "40", "--quota", "0", "--token-gap", "0") as (addresses, _):
        yield addresses


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(7, 40, clock=Clock(moment(NOW), 0.0))


def test_first_line_names_the_addresses(served: dict[str, Any], market: Market) -> None:
    gone = market.symbols().to_pylist()
    assert served["delisted"] == [row["symbol"] for row in gone if row["delisted"] is not None]
    assert len(served["delisted"]) == 2 and served["master"] == served["rest"] + FOLDER
    os.kill(served["pid"], 0)


def test_paging_reaches_the_listing_and_gives_the_market(served: dict[str, Any], market: Market) -> None:
    symbols = [market.listings[11].symbol, served["delisted"][0], market.listings[3].symbol]

    async def work(client: Caller) -> None:
        for symbol in symbols:
            pages, end = [], "20261120"
            for _ in range(200):
                body = await client.daily(symbol, "00000101", end)
                page = wire.parse_daily(body)
                if not page.num_rows:
                    break
                assert page.num_rows <= 100 and body["rt_cd"] == "0" and body["msg_cd"] == "MCA00000"
                days = page["date"].to_pylist()
                assert days == sorted(days, reverse=True)
                pages.append(page)
                end = f"{days[-1] - timedelta(days=1):%Y%m%d}"
            rows = pa.concat_tables(pages).sort_by("date")
            expected = market.daily(symbol)
            assert rows["date"].to_numpy().tolist() == expected["date"].tolist()
            assert rows["date"][0].as_py() == max(market.listing(symbol).listed, date(1995, 1, 3))
            for name in ("open", "high", "low", "close", "volume", "turnover", "base"):
                np.testing.assert_array_equal(rows[name].to_numpy(), expected[name])

    talk(served["rest"], work)


def test_the_latest_rows_in_the_range_come_and_periods_too(served: dict[str, Any], market: Market) -> None:
    symbol = market.listings[0].symbol

    async def work(client: Caller) -> None:
        days = wire.parse_daily(await client.daily(symbol, "20260901", "20260930"))["date"].to_pylist()
        assert days == krx.sessions("2026-09-01", "2026-09-30").tolist()[::-1]
        year = wire.parse_daily(await client.daily(symbol, "20250101", "20261231"))
        assert year["date"].to_pylist() == krx.sessions("2025-01-01", NOW).tolist()[-100:][::-1]
        weeks = await client.daily(symbol, "20261101", "20261120", period="W")
        assert [row["stck_bsop_date"] for row in weeks["output2"]] == ["20261120", "20261113", "20261106"]
        nothing = await client.daily(symbol, "20261121", "20261231")
        assert nothing["output2"] == [{}] and nothing["output1"]["hts_kor_isnm"]
        split = market.listings[3]
        before = f"{split.events[0].day - timedelta(days=1):%Y%m%d}"
        raw = (await client.daily(split.symbol, before[:6] + "01", before))["output2"][0]
        adjusted = (await client.daily(split.symbol, before[:6] + "01", before, adjusted="0"))["output2"][0]
        assert float(raw["stck_clpr"]) * split.events[0].multiplier == pytest.approx(
            float(adjusted["stck_clpr"]), rel=0.01
        )

    talk(served["rest"], work)


def test_minutes_page_by_hour_and_add_up(served: dict[str, Any], market: Market) -> None:
    item = market.listings[1]

    async def work(client: Caller) -> None:
        pages, hour = [], "163000"
        for _ in range(10):
            page = wire.parse_minutes(await client.minutes(item.symbol, "20261119", hour))
            page = page.filter(pa.array([day == date(2026, 11, 19) for day in page["date"].to_pylist()]))
            if not page.num_rows:
                break
            assert page.num_rows <= 120
            pages.append(page)
            label = page["ts"][-1].as_py().astimezone(krx.KST) - timedelta(minutes=2)
            hour = f"{label:%H%M%S}"
        bars = wire.minute_bars(pa.concat_tables(pages))
        minutes = market.minutes(item.symbol, date(2026, 11, 19))
        assert bars["ts"].cast(pa.timestamp("us")).to_numpy().tolist() == minutes["end"].tolist() and len(pages) == 4
        for name in ("open", "high", "low", "close", "volume", "turnover"):
            np.testing.assert_array_equal(bars[name].to_numpy(), minutes[name])
        holiday = wire.parse_minutes(await client.minutes(item.symbol, "20261122", "153000"))
        assert set(holiday["date"].to_pylist()) == {date(2026, 11, 20)}  # as KIS does
        old = wire.parse_minutes(await client.minutes(item.symbol, "20251001", "153000"))
        assert old.num_rows == 0

    talk(served["rest"], work)


def test_today_grows_with_the_clock() -> None:
    today = Market(7, 4, clock=Clock(moment("2026-11-20T10:00:30"), 0.0))
    symbol = today.listings[0].symbol

    async def work(client: Caller) -> None:
        query: dict[str, Any] = {
            "FID_ETC_CLS_CODE": "",
            "FID_COND_MRKT_DIV_CODE": J,
            "FID_INPUT_ISCD": symbol,
            "FID_PW_DATA_INCU_YN": "N",
        }
        _, body = await client.get(layouts.MINUTES_TODAY, FID_INPUT_HOUR_1="100000", **query)
        labels = [row["stck_cntg_hour"] for row in body["output2"]]
        assert len(labels) == 30 and labels[:2] == ["100000", "095900"]
        running, last = body["output2"][:2]
        assert (
            running["cntg_vol"] == last["cntg_vol"]
            and running["stck_hgpr"] == running["stck_prpr"] == last["stck_prpr"]
        )
        _, latest = await client.get(layouts.MINUTES_TODAY, FID_INPUT_HOUR_1="000000", **query)
        assert latest["output2"] == body["output2"]
        _, future = await client.get(layouts.MINUTES_TODAY, FID_INPUT_HOUR_1="100500", **query)
        assert [row["stck_prpr"] for row in future["output2"][:6]] == [last["stck_prpr"]] * 6
        row = (await client.daily(symbol, "20261120", "20261120"))["output2"][0]
        expected = today.daily(symbol)
        assert int(row["acml_vol"]) == expected["volume"][-1] and int(row["stck_clpr"]) == expected["close"][-1]
        flows = wire.parse_investors(
            (await client.get(layouts.INVESTORS, FID_COND_MRKT_DIV_CODE=J, FID_INPUT_ISCD=symbol))[1]
        )
        assert flows["persons_net_volume"].to_pylist()[0] is None and flows["persons_net_volume"].null_count == 1

    with simulator("--clock", "2026-11-20T10:00:30", "--symbols", "4") as (addresses, _):
        talk(addresses["rest"], work)


def test_single_objects(served: dict[str, Any], market: Market) -> None:
    symbol, gone = market.listings[0].symbol, served["delisted"][0]

    async def work(client: Caller) -> None:
        _, body = await client.get(layouts.PRICE, FID_COND_MRKT_DIV_CODE=J, FID_INPUT_ISCD=symbol)
        assert tuple(body["output"]) == layouts.PRICE.summary_fields
        quote, last = wire.parse_price(body), market.daily(symbol)
        assert quote is not None and quote["close"] == last["close"][-1] and quote["upper"] == last["upper"][-1]
        for unknown in ("999999", gone):
            assert (
                wire.parse_price((await client.get(layouts.PRICE, FID_COND_MRKT_DIV_CODE=J, FID_INPUT_ISCD=unknown))[1])
                is None
            )
        for row in market.symbols().to_pylist():
            _, body = await client.get(layouts.STOCK_INFO, PRDT_TYPE_CD="300", PDNO=row["symbol"])
            info = wire.parse_stock_info(body)
            assert {name: info[name] for name in info if name != "halted"} == {
                name: row[name] for name in info if name != "halted"
            }
        _, body = await client.get(layouts.STOCK_INFO, PRDT_TYPE_CD="300", PDNO="999999")
        assert body["rt_cd"] == "7"
        query: dict[str, Any] = {
            "FID_INPUT_DATE_1": "20260101",
            "FID_INPUT_DATE_2": "20261120",
            "FID_PERIOD_DIV_CODE": "D",
        }
        _, body = await client.get(layouts.INDEX_DAILY, FID_COND_MRKT_DIV_CODE="U", FID_INPUT_ISCD="0001", **query)
        index = wire.parse_index(body)
        assert (
            index.num_rows == 100
            and index["date"][0].as_py() == date(2026, 11, 20)
            and min(index["low"].to_pylist()) > 0
        )
        _, body = await client.get(layouts.INVESTORS, FID_COND_MRKT_DIV_CODE=J, FID_INPUT_ISCD=symbol)
        flows = wire.parse_investors(body)
        nets = [flows[f"{who}_net_volume"].to_numpy() for who in ("persons", "foreign", "institutions")]
        assert flows.num_rows == 30 and (np.abs(sum(nets)) <= 4).all()
        prices: dict[str, Any] = {"FID_PERIOD_DIV_CODE": "D", "FID_ORG_ADJ_PRC": "0000000000"}  # clients pad flags
        _, body = await client.get(layouts.DAILY_PRICE, FID_COND_MRKT_DIV_CODE=J, FID_INPUT_ISCD=symbol, **prices)
        assert len(body["output"]) == 30 and tuple(body["output"][0]) == layouts.DAILY_PRICE.fields

    talk(served["rest"], work)


def test_master_files(served: dict[str, Any], market: Market) -> None:
    async def work(client: Caller) -> None:
        expected = {row["symbol"]: row for row in market.symbols().to_pylist() if row["delisted"] is None}
        found: dict[str, Any] = {}
        for listed_on, file in FILES.items():
            response = await client.session.get(f"{served['master']}{file}.mst.zip")
            rows = parse_master(unzip_master(await response.read()), listed_on)
            found |= {row["symbol"]: row for row in rows.to_pylist()}
        assert set(found) == set(expected)
        for symbol, row in expected.items():
            for name in ("name", "market", "kind", "sector", "listed", "halted", "administrative"):
                assert found[symbol][name] == row[name]
            assert found[symbol]["shares"] == row["shares"] // 1000 * 1000

    talk(served["rest"], work)


def test_calendar_goes_on_page_by_page(served: dict[str, Any]) -> None:
    async def work(client: Caller) -> None:
        opened: dict[date, bool] = {}
        query: dict[str, Any] = {"BASS_DT": "20260501", "CTX_AREA_NK": "", "CTX_AREA_FK": ""}
        sent = {"tr_cont": ""}
        for _ in range(20):
            response, body = await client.get(layouts.HOLIDAYS, headers=sent, **query)
            rows = wire.parse_holidays(body)
            assert 0 < rows.num_rows <= 24
            opened |= dict(zip(rows["date"].to_pylist(), rows["open"].to_pylist()))
            if max(opened) >= date(2026, 12, 31):
                break
            assert (
                response.headers["tr_cont"] == "M" and body["msg_cd"] == "KIOK0500" and len(body["ctx_area_nk"]) == 20
            )
            query |= {"CTX_AREA_NK": body["ctx_area_nk"], "CTX_AREA_FK": body["ctx_area_fk"]}
            sent = {"tr_cont": "N"}
        days = np.arange(np.datetime64("2026-05-01"), np.datetime64("2027-01-01"))
        assert [opened[day] for day in days.tolist()] == krx.is_session(days).tolist()
        response, body = await client.get(layouts.HOLIDAYS, BASS_DT="20271225", CTX_AREA_NK="", CTX_AREA_FK="")
        assert response.headers["tr_cont"] == "D" and body["msg_cd"] == "MCA00000"

    talk(served["rest"], work)


def test_headers_have_the_case_that_clients_depend_on(served: dict[str, Any], market: Market) -> None:
    async def work(client: Caller) -> None:
        response, _ = await client.get(
            layouts.PRICE, FID_COND_MRKT_DIV_CODE=J, FID_INPUT_ISCD=market.listings[0].symbol
        )
        names = [name.decode() for name, _ in response.raw_headers]
        assert {"tr_id", "tr_cont", "gt_uid", "Content-Type", "Content-Length", "Date", "Server"} <= set(names)
        assert {name for name in names if name.islower()} == {"tr_id", "tr_cont", "gt_uid"}
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"

    talk(served["rest"], work)


def test_tolerances_of_clients_in_the_wild(served: dict[str, Any], market: Market) -> None:
    symbol = market.listings[0].symbol

    async def work(client: Caller) -> None:
        renamed = {
            "appKey": client.headers["appkey"],
            "appSecret": "secret",
            "Authorization": client.headers["authorization"],
        }
        client.headers = renamed
        query: dict[str, Any] = {"fid_cond_mrkt_div_code": J, "fid_input_iscd": symbol, "unknown": "x"}
        _, body = await client.get(layouts.PRICE, path="/" + layouts.PRICE.path, **query)
        assert body["rt_cd"] == "0" and body["output"]["stck_shrn_iscd"] == symbol

    talk(served["rest"], work)


def test_refusals(served: dict[str, Any], market: Market) -> None:
    query: dict[str, Any] = {"FID_COND_MRKT_DIV_CODE": J, "FID_INPUT_ISCD": market.listings[0].symbol}

    async def work(client: Caller) -> None:
        async def refused(tr: Tr, headers: dict[str, str], **asked: Any) -> tuple[int, str, str]:
            response, body = await client.get(tr, headers=headers, **asked)
            return response.status, body["msg_cd"], body["msg1"]

        assert (await refused(layouts.PRICE, {"tr_id": "FHKST01010400"}, **query))[:2] == (200, "OPSQ0002")
        assert (await refused(layouts.PRICE, {"authorization": "Bearer stale"}, **query))[:2] == (500, "EGW00121")
        assert (await refused(layouts.PRICE, {"authorization": "Basic x"}, **query))[:2] == (500, "EGW00205")
        assert (await refused(layouts.PRICE, {"appkey": "other"}, **query))[1] == "EGW00103"
        past = query | {"FID_INPUT_DATE_1": "20261119", "FID_INPUT_HOUR_1": "153000", "FID_PW_DATA_INCU_YN": "N"}
        status, code, text = await refused(layouts.MINUTES_PAST, {}, **past)
        assert (status, code) == (200, "OPSQ2001") and "FID_FAKE_TICK_INCU_YN" in text
        assert (await refused(layouts.PRICE, {}, **(query | {"FID_COND_MRKT_DIV_CODE": "?"})))[1] == "OPSQ2001"
        chart = {
            "FID_INPUT_DATE_1": "20260101",
            "FID_INPUT_DATE_2": "20261399",
            "FID_PERIOD_DIV_CODE": "D",
            "FID_ORG_ADJ_PRC": "1",
        }
        assert (await refused(layouts.DAILY, {}, **(query | chart)))[1] == "OPSQ2001"
        unknown = await client.daily("999999", "20260101", "20261120")
        assert unknown["rt_cd"] == "0" and unknown["output2"] == [{}] and unknown["output1"]["stck_prpr"] == "0"
        response = await client.session.get(client.rest + "/uapi/none")
        assert response.status == 404

    talk(served["rest"], work)
