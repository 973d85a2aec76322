"""Daily trades by kind of investor in every column of FHPTJ04160001.

The market knows persons, foreigners and institutions. Institutions are divided by fixed shares, all foreigners are
registered ones, and the kinds beside the three trade nothing.
"""

from datetime import date

import numpy as np

from pipeline.kis.quotations import FLOWS_DAILY, INSTITUTIONS, INVESTORS_DAILY
from pipeline.kis.simulator import render
from pipeline.kis.simulator.charts import Rows, as_bytes
from pipeline.kis.simulator.market import Columns, Market
from pipeline.kis.simulator.paths import Floats
from pipeline.kis.simulator.views import View
from pipeline.kis.wire import compact

_SHARES = dict(zip(INSTITUTIONS[:-1], (0.30, 0.20, 0.12, 0.05, 0.10, 0.03)))  # pension funds take the rest


def _sides(flows: Columns, side: str) -> dict[str, Floats]:
    whole = flows[f"institutions_{side}"]
    parts = {who: np.floor(share * whole) for who, share in _SHARES.items()}
    parts[INSTITUTIONS[-1]] = whole - np.sum(list(parts.values()), axis=0)
    none = np.zeros(len(whole))
    foreign = flows[f"foreign_{side}"]
    known = {"prsn": flows[f"persons_{side}"], "frgn": foreign, "frgn_reg": foreign, "frgn_nreg": none, "orgn": whole}
    return known | parts | dict.fromkeys(("etc", "etc_corp", "etc_orgt"), none)


def investors_daily(market: Market, symbol: str, end: date, most: int, view: View = "J") -> Rows:
    """Return the rows of FHPTJ04160001 up to `end`, newest first; turnovers in million KRW. Raises UnknownSymbol."""
    flows = market.flows(symbol, most, end, view)
    buy, sell = _sides(flows, "buy"), _sides(flows, "sell")
    million = flows["price"] / 1e6
    with np.errstate(divide="ignore", invalid="ignore"):
        change = 100.0 * (flows["close"] / flows["base"] - 1.0)
    columns = {
        "stck_bsop_date": compact(flows["date"]),
        "stck_clpr": render.whole(flows["close"]),
        "prdy_vrss": render.whole(flows["close"] - flows["base"]),
        "prdy_vrss_sign": [str(sign) for sign in flows["sign"].tolist()],
        "prdy_ctrt": render.decimal(change),
        "acml_vol": render.whole(flows["volume"]),
        "acml_tr_pbmn": render.whole(np.round(flows["turnover"] / 1e6)),
        "stck_oprc": render.whole(flows["open"]),
        "stck_hgpr": render.whole(flows["high"]),
        "stck_lwpr": render.whole(flows["low"]),
        "bold_yn": ["N"] * len(change),
    }
    for field, (who, what, unit) in FLOWS_DAILY.items():
        volume = {"net": buy[who] - sell[who], "buy": buy[who], "sell": sell[who]}[what]
        columns[field] = render.whole(volume if unit == "volume" else np.round(volume * million))
    fields = INVESTORS_DAILY.fields
    return as_bytes([dict(zip(fields, row)) for row in zip(*(columns[field] for field in fields))])[::-1]
