"""The records of KIS's WebSocket as tables: field names in order in both layouts, and the Arrow rows that they become.

Source of the layouts: the official sample repository koreainvestment/open-trading-api (46 and 59 fields), and frames on
the wire since 2026-09-14, when the after-market came (47 and 63). `frames.py` parses and renders by these tables.
"""

from typing import Literal

import pyarrow as pa

from pipeline.kis.layouts import STAMP

Layout = Literal["legacy", "current"]
TRADE, ORDER_BOOK = "H0STCNT0", "H0STASP0"
TRADE_NXT, TRADE_UN = "H0NXCNT0", "H0UNCNT0"
LEVELS = 10
MOST = 999  # records of a frame: the count has three digits


def _levels(stem: str) -> str:
    return " ".join(f"{stem}{level}" for level in range(1, LEVELS + 1))


_TRADES = (
    "MKSC_SHRN_ISCD STCK_CNTG_HOUR STCK_PRPR PRDY_VRSS_SIGN PRDY_VRSS PRDY_CTRT WGHN_AVRG_STCK_PRC STCK_OPRC STCK_HGPR "
    "STCK_LWPR ASKP1 BIDP1 CNTG_VOL ACML_VOL ACML_TR_PBMN SELN_CNTG_CSNU SHNU_CNTG_CSNU NTBY_CNTG_CSNU CTTR "
    "SELN_CNTG_SMTN SHNU_CNTG_SMTN CCLD_DVSN SHNU_RATE PRDY_VOL_VRSS_ACML_VOL_RATE OPRC_HOUR OPRC_VRSS_PRPR_SIGN "
    "OPRC_VRSS_PRPR HGPR_HOUR HGPR_VRSS_PRPR_SIGN HGPR_VRSS_PRPR LWPR_HOUR LWPR_VRSS_PRPR_SIGN LWPR_VRSS_PRPR "
    "BSOP_DATE NEW_MKOP_CLS_CODE TRHT_YN ASKP_RSQN1 BIDP_RSQN1 TOTAL_ASKP_RSQN TOTAL_BIDP_RSQN VOL_TNRT "
    "PRDY_SMNS_HOUR_ACML_VOL PRDY_SMNS_HOUR_ACML_VOL_RATE HOUR_CLS_CODE MRKT_TRTM_CLS_CODE VI_STND_PRC"
)
_BOOK = (
    f"MKSC_SHRN_ISCD BSOP_HOUR HOUR_CLS_CODE {_levels('ASKP')} {_levels('BIDP')} {_levels('ASKP_RSQN')} "
    f"{_levels('BIDP_RSQN')} TOTAL_ASKP_RSQN TOTAL_BIDP_RSQN OVTM_TOTAL_ASKP_RSQN OVTM_TOTAL_BIDP_RSQN ANTC_CNPR "
    "ANTC_CNQN ANTC_VOL ANTC_CNTG_VRSS ANTC_CNTG_VRSS_SIGN ANTC_CNTG_PRDY_CTRT ACML_VOL TOTAL_ASKP_RSQN_ICDC "
    "TOTAL_BIDP_RSQN_ICDC OVTM_TOTAL_ASKP_ICDC OVTM_TOTAL_BIDP_ICDC STCK_DEAL_CLS_CODE"
)
TRADES: dict[Layout, tuple[str, ...]] = {
    "legacy": tuple(_TRADES.split()),
    "current": (*_TRADES.split(), "MARKET_CLS_CODE"),
}
BOOK: dict[Layout, tuple[str, ...]] = {
    "legacy": tuple(_BOOK.split()),
    "current": (*_BOOK.split(), "KMID_PRC", "KMID_TOTAL_RSQN", "KMID_CLS_CODE", "MARKET_CLS_CODE"),
}
KNOWN = dict.fromkeys((TRADE, TRADE_NXT, TRADE_UN), TRADES) | {ORDER_BOOK: BOOK}

# Prices KRW, sizes and volumes shares, times UTC (to the second, as on the wire); NaN where KIS sends a blank.
TRADE_ROWS = pa.schema(
    [("symbol", pa.string()), ("ts", STAMP), ("price", pa.float64())]
    + [("sign", pa.int8())]  # 1 upper limit, 2 up, 3 flat, 4 lower limit, 5 down
    + [("base", pa.float64())]  # price that the day's change is measured from
    + [(name, pa.float64()) for name in ("open", "high", "low", "ask", "bid", "volume")]  # of the day; of the trade
    + [(name, pa.float64()) for name in ("cumulative_volume", "cumulative_turnover")]
    + [(name, pa.float64()) for name in ("sells", "buys", "sell_volume", "buy_volume")]  # since the opening
    + [("side", pa.int8())]  # 1 the buyer came to the seller, -1 the other way round, 0 neither (an auction)
    + [("volume_ratio", pa.float64())]  # volume so far / the previous day's, %
    + [(name, STAMP) for name in ("open_ts", "high_ts", "low_ts")]
    + [("phase", pa.string())]  # two digits: pre-open, open, after ...; normal, closing auction, ...
    + [("halted", pa.bool_())]
    + [(name, pa.float64()) for name in ("ask_size", "bid_size", "total_ask_size", "total_bid_size")]
    + [("turnover_rate", pa.float64())]  # volume so far / listed shares, %
    + [("same_time_volume", pa.float64())]  # of the previous day up to this time
    + [("hour_class", pa.string())]  # 0 regular, A and B expected after and before, C volatility interruption
    + [("vi_price", pa.float64())]  # reference of the volatility interruption
    + [("market_class", pa.string())]  # 1 pre, 2 regular, 3 after, 5 close; blank in the legacy layout
)
_SIDE = pa.list_(pa.float64(), LEVELS)
BOOK_ROWS = pa.schema(
    [("symbol", pa.string()), ("ts", STAMP), ("hour_class", pa.string())]
    + [(name, _SIDE) for name in ("asks", "bids", "ask_sizes", "bid_sizes")]  # best first; 0 where there is no order
    + [(name, pa.float64()) for name in ("total_ask_size", "total_bid_size")]
    + [(name, pa.float64()) for name in ("expected_price", "expected_size", "expected_volume")]  # of an auction
    + [("base", pa.float64()), ("sign", pa.int8())]  # of the expected price, which is 0 outside auctions
    + [(name, pa.float64()) for name in ("cumulative_volume", "ask_size_change", "bid_size_change")]
    + [("deal_class", pa.string()), ("mid_price", pa.float64()), ("mid_size", pa.float64())]  # NaN in the legacy layout
    + [("mid_class", pa.string()), ("market_class", pa.string())]  # blank there
)

# Fields that are columns as they come; the others are made of several, or follow from them.
TRADE_NUMBERS = {
    "STCK_OPRC": "open",
    "STCK_HGPR": "high",
    "STCK_LWPR": "low",
    "ASKP1": "ask",
    "BIDP1": "bid",
    "CNTG_VOL": "volume",
    "ACML_VOL": "cumulative_volume",
    "ACML_TR_PBMN": "cumulative_turnover",
    "SELN_CNTG_CSNU": "sells",
    "SHNU_CNTG_CSNU": "buys",
    "SELN_CNTG_SMTN": "sell_volume",
    "SHNU_CNTG_SMTN": "buy_volume",
    "PRDY_VOL_VRSS_ACML_VOL_RATE": "volume_ratio",
    "ASKP_RSQN1": "ask_size",
    "BIDP_RSQN1": "bid_size",
    "TOTAL_ASKP_RSQN": "total_ask_size",
    "TOTAL_BIDP_RSQN": "total_bid_size",
    "VOL_TNRT": "turnover_rate",
    "PRDY_SMNS_HOUR_ACML_VOL": "same_time_volume",
    "VI_STND_PRC": "vi_price",
}
TRADE_CODES = {"NEW_MKOP_CLS_CODE": "phase", "HOUR_CLS_CODE": "hour_class", "MARKET_CLS_CODE": "market_class"}
BOOK_SIDES = {"ASKP": "asks", "BIDP": "bids", "ASKP_RSQN": "ask_sizes", "BIDP_RSQN": "bid_sizes"}
BOOK_NUMBERS = {
    "TOTAL_ASKP_RSQN": "total_ask_size",
    "TOTAL_BIDP_RSQN": "total_bid_size",
    "ANTC_CNPR": "expected_price",
    "ANTC_CNQN": "expected_size",
    "ANTC_VOL": "expected_volume",
    "ACML_VOL": "cumulative_volume",
    "TOTAL_ASKP_RSQN_ICDC": "ask_size_change",
    "TOTAL_BIDP_RSQN_ICDC": "bid_size_change",
    "KMID_PRC": "mid_price",
    "KMID_TOTAL_RSQN": "mid_size",
}
BOOK_CODES = {
    "HOUR_CLS_CODE": "hour_class",
    "STCK_DEAL_CLS_CODE": "deal_class",
    "KMID_CLS_CODE": "mid_class",
    "MARKET_CLS_CODE": "market_class",
}
