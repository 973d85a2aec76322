"""NXT, both venues as one and KRX's after-market over real HTTP and WebSocket, and their bars in a lake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pyarrow as pa
import pytest

from pipeline import krx
from pipeline.kis import history, layouts, quotations, wire
from pipeline.kis.client import KisClient
from pipeline.kis.control import render_request
from pipeline.kis.frames import parse_frame, parse_trades
from pipeline.kis.layouts import Tr
from pipeline.kis.records import TRADE, TRADE_NXT, TRADE_UN
from pipeline.kis.section import KisSection
from pipeline.kis.simulator.clock import Clock, moment
from pipeline.kis.simulator.market import Market
from pipeline.request import RequestError
from pipeline.verify import verify
from storage.lake import Lake

from .caller import simulator
from .kis_server import Stage, server

NOW, DAY, FIRST = "2026-09-18T20:30", date(2026, 9, 18), date(2026, 9, 14)
VIEWS = {"KRX": "J", "NXT": "NX", "UN": "UN"}
BAR = ("open", "high", "low", "close", "volume", "turnover")
Work = Callable[[KisClient], Coroutine[Any, Any, None]]


def market_at(now: str) -> Market:
    return Market(7, 40, clock=Clock(moment(now), 0.0))


@pytest.fixture(scope="module")
def market() -> Market:
    return market_at(NOW)


@pytest.fixture(scope="module")
def names(market: Market) -> tuple[str, str]:
    """An issue that NXT trades, and one that it does not."""
    found: dict[bool, str] = {}
    for item in market.listings:
        if item.kind == "stock" and item.delisted is None and item.listed.year < 2020:
            found.setdefault(len(market.daily(item.symbol, view="NX")["date"]) > 300, item.symbol)
    return found[True], found[False]


@pytest.fixture(scope="module")
def rest() -> Iterator[str]:
    with server("--symbols", 40, "--quota", 0, "--token-gap", 0, clock=NOW) as address:
        yield address


def talk(rest: str, folder: Path, work: Work) -> None:
    async def run() -> None:
        section = KisSection.model_validate({"environment": "simulator", "rest_url": rest, "calls_per_second": 0})
        async with KisClient(section, lambda kind, /, **fields: None, rest=rest, folder=str(folder)) as kis:
            await asyncio.wait_for(work(kis), 60)

    asyncio.run(run())


async def ask(kis: KisClient, tr: Tr, view: str, symbol: str, **query: str) -> Any:
    return (await kis.ask(tr, {"FID_COND_MRKT_DIV_CODE": view, "FID_INPUT_ISCD": symbol, **query})).body


def test_days_and_minutes_of_each_venue_come_whole(
    rest: str, market: Market, names: tuple[str, str], tmp_path: Path
) -> None:
    days = krx.sessions("2025-02-24", DAY)

    async def work(kis: KisClient) -> None:
        for symbol in names:
            for venue, view in VIEWS.items():
                found = await history.daily(kis, symbol, days, venue=venue, moved=lambda rows: None)
                expected = market.daily(symbol, days[0], days[-1], view=view)
                assert found.rows["date"].to_pylist() == expected["date"].tolist() and not found.unread
                for name in ("base", *BAR):
                    np.testing.assert_array_equal(found.rows[name].to_numpy(), expected[name])
                found = await history.minutes(kis, symbol, days[-5:], venue=venue, moved=lambda rows: None)
                parts = [market.minutes(symbol, day.item(), view) for day in days[-5:]]
                ends = np.concatenate([part["end"] for part in parts])
                assert found.rows["ts"].cast(pa.timestamp("us")).to_numpy().tolist() == ends.tolist()
                for name in BAR:
                    np.testing.assert_array_equal(
                        found.rows[name].to_numpy(), np.concatenate([part[name] for part in parts])
                    )

    talk(rest, tmp_path, work)


def test_quotes_say_what_each_venue_trades(rest: str, market: Market, names: tuple[str, str], tmp_path: Path) -> None:
    async def work(kis: KisClient) -> None:
        for symbol, there in zip(names, (True, False)):
            for view in VIEWS.values():
                last = market.daily(symbol, view=view)
                quote = wire.parse_price(await ask(kis, layouts.PRICE, view, symbol))
                trades = (await ask(kis, quotations.TRADES, view, symbol))["output"]
                book = (await ask(kis, quotations.BOOK, view, symbol))["output1"]
                weeks = (await ask(kis, layouts.DAILY_PRICE, view, symbol, FID_PERIOD_DIV_CODE="W",
                                   FID_ORG_ADJ_PRC="0"))["output"]  # fmt: skip
                flows = (await ask(kis, layouts.INVESTORS, view, symbol))["output"]
                if view == "NX" and not there:
                    assert quote is None and trades == [] and weeks == flows == [{}] and book["askp1"] == "0"
                    continue
                assert quote is not None and quote["volume"] == last["volume"][-1]
                assert quote["close"] == last["close"][-1] == int(trades[0]["stck_prpr"])
                assert (quote["upper"], quote["base"]) == (last["upper"][-1], last["base"][-1])
                assert int(book["askp1"]) > int(book["bidp1"]) > 0 and len(trades) == 30
                here = last["date"] >= np.datetime64(FIRST)
                assert int(weeks[0]["acml_vol"]) == last["volume"][here].sum()
                assert sum(int(flows[0][f"{who}_seln_vol"]) for who in ("prsn", "frgn", "orgn")) == pytest.approx(
                    last["volume"][-1], abs=3
                )
                hour = trades[0]["stck_cntg_hour"]
                assert (hour == "153000") if view == "J" else ("195900" <= hour < "200000")
            facts = (await kis.ask(layouts.STOCK_INFO, {"PRDT_TYPE_CD": "300", "PDNO": symbol})).body["output"]
            assert (facts["cptt_trad_tr_psbl_yn"] == "Y") is there and facts["nxt_tr_stop_yn"] == "N"
        volumes = []
        for view in VIEWS.values():
            asked = {"FID_INPUT_ISCD_1": names[0], "FID_COND_MRKT_DIV_CODE_1": view}
            volumes.append(int((await kis.ask(quotations.QUOTES_OF_MANY, asked)).body["output"][0]["acml_vol"]))
        assert volumes == [market.daily(names[0], view=view)["volume"][-1] for view in VIEWS.values()]
        assert volumes[2] > volumes[0] + volumes[1]  # KRX's after-market is in neither

    talk(rest, tmp_path, work)


def test_today_grows_before_and_after_the_regular_session(names: tuple[str, str], tmp_path: Path) -> None:
    symbol = names[0]
    for now, known in (("08:30:20", {"NX", "UN"}), ("18:00:20", {"J", "NX", "UN"})):
        clock = f"{DAY}T{now}"
        market = market_at(clock)

        async def work(kis: KisClient, market: Market = market, known: set[str] = known, now: str = now) -> None:
            for view in VIEWS.values():
                query = {"FID_ETC_CLS_CODE": "", "FID_PW_DATA_INCU_YN": "N"}
                rows = market.daily(symbol, DAY, view=view)
                assert (len(rows["date"]) == 1) is (view in known)
                page = await ask(
                    kis, layouts.MINUTES_TODAY, view, symbol, FID_INPUT_HOUR_1=now.replace(":", ""), **query
                )
                assert bool(page["output2"]) is (view in known)
                if view not in known:
                    continue
                assert int(page["output1"]["acml_vol"]) == rows["volume"][0]
                newest = page["output2"][0]
                assert newest["stck_cntg_hour"] == ("153000" if view == "J" else now[:5].replace(":", "") + "00")
                assert int(newest["stck_prpr"]) == rows["close"][0]
                later = await ask(kis, layouts.MINUTES_TODAY, view, symbol, FID_INPUT_HOUR_1="090500", **query)
                labels = [row["stck_cntg_hour"] for row in later["output2"]]
                assert "090500" in labels and not {"085000", "085959"} & set(labels)
                trades = (await ask(kis, quotations.TRADES, view, symbol))["output"]
                assert trades[0]["stck_cntg_hour"] <= now.replace(":", "")

        with server("--symbols", 40, "--quota", 0, "--token-gap", 0, clock=clock) as rest:
            talk(rest, tmp_path / now[:2], work)


def test_bars_of_krx_may_hold_its_after_market(names: tuple[str, str], tmp_path: Path) -> None:
    market = Market(7, 40, clock=Clock(moment(NOW), 0.0), day_ends="evening")

    async def work(kis: KisClient) -> None:
        span = {"FID_INPUT_DATE_1": "20260914", "FID_INPUT_DATE_2": "20260918"}
        page = await ask(kis, layouts.DAILY, "J", names[1], FID_PERIOD_DIV_CODE="D", FID_ORG_ADJ_PRC="1", **span)
        volumes = [int(row["acml_vol"]) for row in page["output2"]][::-1]
        assert volumes == market.daily(names[1], FIRST)["volume"].tolist()
        assert volumes > market_at(NOW).daily(names[1], FIRST)["volume"].tolist()

    with server("--symbols", 40, "--quota", 0, "--token-gap", 0, "--day-ends", "evening", clock=NOW) as rest:
        talk(rest, tmp_path, work)


def test_trades_are_pushed_with_the_class_of_their_market(names: tuple[str, str]) -> None:
    async def heard(addresses: dict[str, Any]) -> dict[str, list[str]]:
        body = {"grant_type": "client_credentials", "appkey": "key", "secretkey": "secret"}
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{addresses['rest']}/oauth2/Approval", json=body) as response:
                key = (await response.json())["approval_key"]
            async with session.ws_connect(addresses["ws"]) as socket:
                for tr_id in (TRADE, TRADE_NXT, TRADE_UN):
                    await socket.send_str(render_request(key, tr_id, names[0], subscribe=True))
                found: dict[str, list[str]] = {TRADE: [], TRADE_NXT: [], TRADE_UN: []}
                while min(len(found[TRADE_NXT]), len(found[TRADE_UN])) < 10:
                    text = await socket.receive_str(timeout=10)
                    if text.startswith("{"):
                        assert json.loads(text)["body"]["msg_cd"] == "OPSP0000"
                        continue
                    frame = parse_frame(text)
                    assert frame.stride == 47
                    found[frame.tr_id] += parse_trades(frame)["market_class"].to_pylist()
                return found

    for now, named in (("08:10", "1"), ("10:00", "2"), ("17:00", "3")):
        with simulator("--clock", f"{DAY}T{now}", "--speed", "600", "--symbols", "40") as (addresses, _):
            found = asyncio.run(asyncio.wait_for(heard(addresses), 40))
        assert set(found[TRADE_NXT]) == set(found[TRADE_UN]) == {named}
        assert bool(found[TRADE]) is (named == "2") and set(found[TRADE]) <= {"2"}


@pytest.mark.parametrize("venue", ["NXT", "UN"])
def test_a_lake_of_the_venue_is_whole(venue: str, market: Market, tmp_path: Path) -> None:
    """The days from before NXT's first to after the first of KRX's after-market."""
    request = {"venue": venue, "start": "2025-02-24", "end": str(DAY), "count": 40, "weekly": True, "minute_days": 7}
    stage = Stage(tmp_path, kis={"simulator": {"symbols": 40, "quota": 0}}, ingest=request)
    told = stage.run()
    lake, view = Lake(stage.lake), VIEWS[venue]
    checked = {
        one.interval: one for one in verify(lake, source="simulated", venue=venue, start=date(2025, 2, 24), end=DAY)
    }
    assert set(checked) == {"1d", "1w", "1m"} and all(one.clean for one in checked.values()), checked
    assert told["quarantined"] == {} and checked["1d"].present > (2_000 if venue == "NXT" else 10_000)
    daily = lake.read("bars", source="simulated", venue=venue, interval="1d")
    minutes = lake.read("bars", source="simulated", venue=venue, interval="1m")
    held = {row["symbol"]: row for row in daily.group_by("symbol").aggregate([("volume", "sum")]).to_pylist()}
    for symbol, row in held.items():
        assert row["volume_sum"] == market.daily(symbol, "2025-02-24", DAY, view=view)["volume"].sum()
    assert len(held) >= 5 and not {name for name in held if not len(market.daily(name, view=view)["date"])}
    largest = minutes["symbol"].unique().to_pylist()
    assert len(largest) == 3
    for symbol in largest:
        days = krx.sessions("2026-01-01", DAY)[-7:]
        expected = sum(market.minutes(symbol, day.item(), view)["volume"].sum() for day in days)
        own = minutes.filter(pa.compute.equal(minutes["symbol"], symbol))
        assert own["volume"].to_numpy().sum() == expected
    actions = lake.read("actions", source="simulated").to_pylist()
    for action in actions:  # a price of the evening is no base price
        known = {row["ex_date"]: row["factor"] for row in market.actions(action["symbol"]).to_pylist()}
        assert action["factor"] == pytest.approx(known[action["ex_date"]], rel=1e-3)
    assert venue == "NXT" or actions


@pytest.mark.parametrize("venue", ["NXT", "UN"])
def test_a_day_that_still_trades_in_the_evening_is_not_asked_for(venue: str, tmp_path: Path) -> None:
    request = {"venue": venue, "start": "2026-09-01", "end": str(DAY)}
    stage = Stage(tmp_path, kis={"simulator": {"symbols": 20, "clock": f"{DAY}T18:00"}}, ingest=request)
    with pytest.raises(RequestError, match=r"expected ingest\.end not after 2026-09-17"):
        stage.run()
