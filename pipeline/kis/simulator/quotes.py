"""Single objects of the simulated KIS: the quote, the summary above a chart, the facts of an issue, the calendar and
master files."""

import threading
from collections.abc import Mapping
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import krx
from pipeline.kis import layouts, quotations
from pipeline.kis.master import MASTER_ROWS, MasterMarket, isin, render_master, zip_master
from pipeline.kis.simulator import paths, render
from pipeline.kis.simulator.charts import Charts
from pipeline.kis.simulator.indices import INDICES
from pipeline.kis.simulator.market import Columns, Market, UnknownSymbol
from pipeline.kis.simulator.universe import SECTORS, Listing
from pipeline.kis.simulator.views import View
from pipeline.kis.wire import compact

_GROUPS = {"stock": "ST", "preferred": "ST", "etf": "EF"}
_PAR = 500  # KRW, par value of every issue


def _whole(value: float) -> str:
    return render.whole([value])[0]


def _ratio(part: float, whole: float) -> str:
    return f"{100.0 * part / whole:.2f}" if whole else "0.00"


class Quotes:
    """Answers about one market that are objects, not rows; kept until what the market shows changes."""

    def __init__(self, market: Market, charts: Charts) -> None:
        self.market, self.charts = market, charts
        self.stopping = threading.Event()  # a master file that is being made is given up
        self._latest = lru_cache(maxsize=512)(self._latest_of)
        self._master = lru_cache(maxsize=2)(self._master_of)

    def _latest_of(self, symbol: str, view: View, stamp: int) -> dict[str, str]:
        """Return every number that quote and summaries share, by the names of the wire."""
        item = self.market.listing(symbol)
        rows = self.market.daily(symbol, self.market.today() - timedelta(days=400), view=view)
        if not len(rows["date"]):
            rows = self.market.daily(symbol, view=view)
        return _numbers(self.market, item, rows) if len(rows["date"]) else {}

    def latest(self, symbol: str, view: View = "J") -> dict[str, str]:
        """Return the numbers of a symbol's last row, by the names of the wire; none before its first trade. Raises
        UnknownSymbol."""
        return self._latest(symbol, view, self.charts.stamp(view))

    def summary(self, symbol: str, fields: tuple[str, ...], view: View = "J") -> dict[str, str]:
        """Return the object above a chart; of an unknown symbol all numbers are "0"."""
        try:
            known = self.latest(symbol, view)
        except UnknownSymbol:
            known = {}
        return {field: known.get(field, "0" if field != "hts_kor_isnm" else "") for field in fields}

    def price(self, symbol: str, view: View = "J") -> dict[str, str]:
        """Return the quote. An unknown or delisted symbol, and on NXT one that never traded there, has "0" as its
        price, as on KIS."""
        try:
            known = {} if self.market.gone(self.market.listing(symbol)) else self.latest(symbol, view)
        except UnknownSymbol:
            known = {}
        blank = {"rprs_mrkt_kor_name": "", "bstp_kor_isnm": "", "iscd_stat_cls_code": "00", "temp_stop_yn": "N"}
        return {field: known.get(field, blank.get(field, "0")) for field in layouts.PRICE.summary_fields}

    def index_summary(self, code: str, rows: Columns) -> dict[str, str]:
        """Return the object above an index chart."""
        last = {
            name: float(rows[name][-1]) if len(rows["date"]) else 0.0
            for name in ("open", "high", "low", "close", "base")
        }
        change = last["close"] - last["base"]
        volume = [float(value) for value in rows["volume"][-2:]]
        known = {
            "bstp_nmix_prdy_vrss": f"{change:.2f}",
            "prdy_vrss_sign": "2" if change > 0 else "5" if change < 0 else "3",
            "bstp_nmix_prdy_ctrt": _ratio(change, last["base"]),
            "prdy_nmix": f"{last['base']:.2f}",
            "acml_vol": _whole(volume[-1] if volume else 0.0),
            "acml_tr_pbmn": _whole(float(rows["turnover"][-1]) if volume else 0.0),
            "hts_kor_isnm": INDICES[code][0],
            "bstp_nmix_prpr": f"{last['close']:.2f}",
            "bstp_cls_code": code,
            "prdy_vol": _whole(volume[0] if volume else 0.0),
            "bstp_nmix_oprc": f"{last['open']:.2f}",
            "bstp_nmix_hgpr": f"{last['high']:.2f}",
            "bstp_nmix_lwpr": f"{last['low']:.2f}",
        }
        return {field: known.get(field, "0.00") for field in layouts.INDEX_DAILY.summary_fields}

    def stock_info(self, symbol: str) -> dict[str, str]:
        """Return the facts of an issue, delisted ones too. Raises UnknownSymbol."""
        item, known = self.market.listing(symbol), self.latest(symbol)
        ended, (on_nxt, stopped) = self.market.gone(item), self.market.on_nxt(item)
        listed, gone = f"{item.listed:%Y%m%d}", f"{ended:%Y%m%d}" if ended else ""
        kospi, sector = item.market == "KOSPI", SECTORS[item.market][item.sector]
        name = item.name_on(self.market.today())
        facts = {
            "pdno": f"{symbol:0>12}",
            "prdt_type_cd": "300",
            "mket_id_cd": "STK" if kospi else "KSQ",
            "scty_grp_id_cd": _GROUPS[item.kind],
            "excg_dvsn_cd": "02" if kospi else "03",
            "setl_mmdd": "1231",
            "lstg_stqt": known.get("lstn_stcn", "0"),
            "papr": str(_PAR),
            "kospi200_item_yn": "N",
            "scts_mket_lstg_dt" if kospi else "kosdaq_mket_lstg_dt": listed,
            "scts_mket_lstg_abol_dt" if kospi else "kosdaq_mket_lstg_abol_dt": gone,
            "lstg_abol_dt": gone,
            "idx_bztp_mcls_cd": item.sector,
            "idx_bztp_mcls_cd_name": sector,
            "stck_kind_cd": {"stock": "101", "preferred": "201"}.get(item.kind, "000"),
            "prdt_name": name,
            "prdt_name120": name,
            "prdt_abrv_name": name,
            "std_pdno": isin(symbol),
            "prdt_eng_name": item.english,
            "prdt_eng_name120": item.english,
            "prdt_eng_abrv_name": item.english,
            "tr_stop_yn": "Y" if known.get("iscd_stat_cls_code") == "58" or gone else "N",
            "admn_item_yn": "Y" if self.market.administrative(item) else "N",
            "thdt_clpr": known.get("stck_prpr", "0"),
            "bfdy_clpr": known.get("stck_prdy_clpr", "0"),
            "cptt_trad_tr_psbl_yn": "Y" if on_nxt else "N",
            "nxt_tr_stop_yn": "Y" if stopped else "N",
        }
        return {field: facts.get(field, "") for field in layouts.STOCK_INFO.summary_fields}

    def product_info(self, symbol: str) -> dict[str, str]:
        """Return what search-info says of an issue. Raises UnknownSymbol."""
        known = self.stock_info(symbol)
        facts = {
            "shtn_pdno": symbol,
            "prdt_clsf_cd": "101210" if self.market.listing(symbol).kind == "preferred" else "101110",
            "prdt_clsf_name": "주권",
            "prdt_risk_grad_cd": "02",
            "ivst_prdt_type_cd": "1012",
            "ivst_prdt_type_cd_name": "주식",
            "frst_erlm_dt": known["scts_mket_lstg_dt"] or known["kosdaq_mket_lstg_dt"],
        }
        return {field: facts.get(field, known.get(field, "")) for field in quotations.PRODUCT_INFO.summary_fields}

    def brief(self, symbol: str, book: Mapping[str, str], view: View = "J") -> dict[str, str]:
        """Return a row of intstock-multprice; what has no price has "0" everywhere."""
        known = self.price(symbol, view)
        if known["stck_prpr"] == "0":
            return dict.fromkeys(quotations.QUOTES_OF_MANY.fields, "0") | {"inter_shrn_iscd": symbol}
        latest = self.latest(symbol, view)
        own = {
            "kospi_kosdaq_cls_name": known["rprs_mrkt_kor_name"],
            "mrkt_trtm_cls_name": "거래정지" if known["temp_stop_yn"] == "Y" else "",
            "hour_cls_code": "0",
            "inter_shrn_iscd": symbol,
            "inter_kor_isnm": latest["hts_kor_isnm"],
            "inter2_prpr": known["stck_prpr"],
            "inter2_prdy_vrss": known["prdy_vrss"],
            "inter2_oprc": known["stck_oprc"],
            "inter2_hgpr": known["stck_hgpr"],
            "inter2_lwpr": known["stck_lwpr"],
            "inter2_llam": known["stck_llam"],
            "inter2_mxpr": known["stck_mxpr"],
            "inter2_askp": book.get("askp1", "0"),
            "inter2_bidp": book.get("bidp1", "0"),
            "seln_rsqn": book.get("askp_rsqn1", "0"),
            "shnu_rsqn": book.get("bidp_rsqn1", "0"),
            "inter2_prdy_clpr": latest["stck_prdy_clpr"],
            "oprc_vrss_hgpr_rate": _ratio(
                float(known["stck_hgpr"]) - float(known["stck_oprc"]), float(known["stck_oprc"])
            ),
            "inter2_sdpr": known["stck_sdpr"],
        }
        known = dict(book) | known | own
        return {field: known.get(field, "0") for field in quotations.QUOTES_OF_MANY.fields}

    def holidays(self, start: date) -> tuple[list[dict[str, str]], date | None]:
        """Return a page of the calendar from a day on, and the day on which the next page begins (its first row repeats
        this page's last, as users of KIS report), or None at the end of the calendar."""
        end = krx.LAST.item()
        days = np.arange(np.datetime64(start), min(np.datetime64(start) + layouts.HOLIDAYS.max_rows, krx.LAST + 1))
        weekday = (days.astype(np.int64) + 4) % 7 + 1  # 1970-01-01 was a Thursday; 1 is Sunday
        opened = krx.is_session(days)
        year_end = np.array([str(day)[5:] == "12-31" for day in days]) & (weekday > 1) & (weekday < 7)
        business = opened | year_end
        table = pa.table(
            [pa.array(days), weekday.astype(np.int8), business, business, opened, opened], schema=layouts.HOLIDAY_ROWS
        )
        last = days[-1].item() if len(days) else end
        return render.holidays(table), last if len(days) > 1 and last < end else None

    def master(self, market: MasterMarket) -> bytes:
        """Return the zip of a market's master file: what is listed today, with base prices of the coming or running
        session. Thousands of issues take seconds: call it off the event loop."""
        return self._master(market, self.market.today(), self.market.closed(), self.market.running())

    def _master_of(self, market: MasterMarket, today: date, closed: int, running: int | None) -> bytes:
        rows: list[dict[str, Any]] = []
        for item in self.market.on_board(market):
            if self.stopping.is_set():
                raise InterruptedError("the server ends")
            facts = self.market.facts(item)
            base, volume = self.market.standing(item)
            row = {name: facts[name] for name in MASTER_ROWS.names if name in facts}
            row |= {"isin": isin(item.symbol), "base": base, "previous_volume": volume}
            rows.append(row | {"market_cap": base * facts["shares"]})
        return zip_master(market, render_master(pa.Table.from_pylist(rows, MASTER_ROWS), market))


def _numbers(market: Market, item: Listing, rows: Columns) -> dict[str, str]:
    at = {
        name: float(np.nan_to_num(rows[name][-1]))
        for name in ("open", "high", "low", "close", "volume", "turnover", "base", "upper", "lower")
    }
    before = {
        name: float(np.nan_to_num(rows[name][-2])) if len(rows["date"]) > 1 else 0.0
        for name in ("open", "high", "low", "close", "volume")
    }
    change, place = at["close"] - at["base"], int(np.searchsorted(paths.DAYS, rows["date"][-1]))
    shares = float(paths.shares(item)[place])
    unit = float(krx.tick(at["close"], rows["date"][-1:], item.kind, item.market)[0])
    pivot = (before["high"] + before["low"] + before["close"]) / 3.0
    halted = bool(rows["halted"][-1])
    numbers = {
        "iscd_stat_cls_code": "58"
        if halted
        else "51"
        if market.administrative(item)
        else "57"
        if item.kind == "etf"
        else "55",
        "marg_rate": "40.00",
        "rprs_mrkt_kor_name": item.market,
        "bstp_kor_isnm": SECTORS[item.market][item.sector],
        "new_hgpr_lwpr_cls_code": "",
        "temp_stop_yn": "Y" if halted else "N",
        "oprc_rang_cont_yn": "N",
        "clpr_rang_cont_yn": "N",
        "crdt_able_yn": "Y",
        "grmn_rate_cls_code": "40",
        "elw_pblc_yn": "N",
        "stck_prpr": _whole(at["close"]),
        "prdy_vrss": _whole(change),
        "prdy_vrss_sign": str(int(rows["sign"][-1])),
        "prdy_ctrt": _ratio(change, at["base"]),
        "acml_tr_pbmn": _whole(at["turnover"]),
        "acml_vol": _whole(at["volume"]),
        "prdy_vrss_vol_rate": _ratio(at["volume"], before["volume"]),
        "prdy_vrss_vol": _whole(at["volume"] - before["volume"]),
        "prdy_vol": _whole(before["volume"]),
        "stck_prdy_clpr": _whole(at["base"]),
        "stck_prdy_oprc": _whole(before["open"]),
        "stck_prdy_hgpr": _whole(before["high"]),
        "stck_prdy_lwpr": _whole(before["low"]),
        "stck_oprc": _whole(at["open"]),
        "stck_hgpr": _whole(at["high"]),
        "stck_lwpr": _whole(at["low"]),
        "stck_mxpr": _whole(at["upper"]),
        "stck_llam": _whole(at["lower"]),
        "stck_sdpr": _whole(at["base"]),
        "askp": _whole(min(at["close"] + unit, at["upper"])),
        "bidp": _whole(max(at["close"] - unit, at["lower"])),
        "wghn_avrg_stck_prc": f"{at['turnover'] / at['volume'] if at['volume'] else 0.0:.2f}",
        "hts_frgn_ehrt": "20.00",
        "rstc_wdth_prc": _whole(at["upper"] - at["base"]),
        "stck_fcam": str(_PAR),
        "stck_sspr": _whole(0.7 * at["close"]),
        "aspr_unit": _whole(unit),
        "hts_deal_qty_unit_val": "1",
        "lstn_stcn": _whole(shares),
        "hts_avls": _whole(shares * at["close"] // 1e8),
        "cpfn": _whole(shares * _PAR // 1e8),
        "cpfn_cnnm": f"{int(shares * _PAR // 1e8):,} 억",
        "fcam_cnnm": str(_PAR),
        "per": "10.00",
        "pbr": "1.00",
        "eps": f"{at['close'] / 10.0:.2f}",
        "bps": f"{at['close']:.2f}",
        "stac_month": "12",
        "vol_tnrt": _ratio(at["volume"], shares),
        "pvt_pont_val": _whole(pivot),
        "pvt_frst_dmrs_prc": _whole(2 * pivot - before["low"]),
        "pvt_frst_dmsp_prc": _whole(2 * pivot - before["high"]),
        "pvt_scnd_dmrs_prc": _whole(pivot + before["high"] - before["low"]),
        "pvt_scnd_dmsp_prc": _whole(pivot - before["high"] + before["low"]),
        "dmrs_val": _whole(2 * pivot - before["low"]),
        "dmsp_val": _whole(2 * pivot - before["high"]),
        "whol_loan_rmnd_rate": "0.10",
        "itewhol_loan_rmnd_ratem": "0.10",
        "ssts_yn": "Y",
        "stck_shrn_iscd": item.symbol,
        "hts_kor_isnm": item.name_on(market.today()),
        "vi_cls_code": "N",
        "ovtm_vi_cls_code": "N",
        "invt_caful_yn": "N",
        "mrkt_warn_cls_code": "00",
        "short_over_yn": "N",
        "sltr_yn": "N",
        "mang_issu_cls_code": "Y" if market.administrative(item) else "N",
    }
    year = rows["date"].astype("datetime64[Y]") == rows["date"][-1].astype("datetime64[Y]")
    recent = rows["date"] > rows["date"][-1] - np.timedelta64(365, "D")
    last250 = np.arange(len(rows["date"])) >= len(rows["date"]) - 250
    for keep, high, low, rate in (
        (last250, "d250_hgpr", "d250_lwpr", "{}_vrss_prpr_rate"),
        (year, "stck_dryy_hgpr", "stck_dryy_lwpr", "{}_vrss_prpr_rate"),
        (recent, "w52_hgpr", "w52_lwpr", "{}_vrss_prpr_ctrt"),
    ):
        for name, pick, price in ((high, np.nanargmax, "high"), (low, np.nanargmin, "low")):
            values, stem = rows[price][keep], name.removeprefix("stck_")
            if np.isnan(values).all():
                continue
            found = int(pick(values))
            numbers[name] = _whole(float(values[found]))
            numbers[f"{stem}_date"] = compact(rows["date"][keep][found : found + 1])[0]
            numbers[rate.format(stem)] = _ratio(at["close"] - float(values[found]), float(values[found]))
    return numbers
