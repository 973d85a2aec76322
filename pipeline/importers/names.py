"""What columns, files and symbols are called: the table of column names, codes and company names in file names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PRICES = ("open", "high", "low", "close")
NUMBERS = (*PRICES, "volume", "turnover")
READ = (*NUMBERS, "change")  # what is read as a number; the change only tells the base price
ROLES = ("date", "time", "code", *READ, "source", "name", "market", "section", "sector", "shares")

# Spelled as `normalised` leaves them: lower case, without blanks, underscores and units in brackets. The first that is
# present is taken, so an unadjusted close goes before an adjusted one.
ACCEPTED: dict[str, tuple[str, ...]] = {
    "date": (
        *(
            "date",
            "날짜",
            "일자",
            "거래일",
            "거래일자",
            "기준일",
            "기준일자",
            "영업일자",
            "tradedate",
            "basdt",
            "stckbsopdate",
        ),
        *("datetime", "timestamp", "일시", "ts", "dt", "indexlevel0", "unnamed:0", "index"),
    ),
    "time": ("time", "시간", "시각", "체결시간", "stckcntghour"),
    "code": (
        *(
            "code",
            "symbol",
            "ticker",
            "종목코드",
            "단축코드",
            "코드",
            "isusrtcd",
            "mkscshrniscd",
            "shcode",
            "stockcode",
        ),
    ),
    "open": ("open", "시가", "오픈", "openprice", "stckoprc", "mkp", "tddopnprc"),
    "high": ("high", "고가", "highprice", "stckhgpr", "hipr", "tddhgprc"),
    "low": ("low", "저가", "lowprice", "stcklwpr", "lopr", "tddlwprc"),
    "close": (
        *(
            "close",
            "종가",
            "현재가",
            "closeprice",
            "stckclpr",
            "stckprpr",
            "clpr",
            "tddclsprc",
            "price",
            "last",
            "adjclose",
            "adjustedclose",
            "수정종가",
        ),
    ),
    "volume": ("volume", "거래량", "vol", "vol.", "acmlvol", "cntgvol", "trqu", "acctrdvol", "tickvolume"),
    "turnover": ("turnover", "거래대금", "amount", "value", "acmltrpbmn", "trprc", "acctrdval"),
    # "change" alone is a ratio in the files of most libraries, so that it is not among these
    "change": ("changes", "대비", "전일대비", "cmpprevddprc", "prdyvrss", "vs"),
    "source": ("source", "출처"),
    "name": ("name", "종목명", "회사명", "한글종목명", "한글종목약명", "isuabbrv", "itmsnm"),
    "market": ("market", "시장구분", "시장", "시장명", "mktnm", "mrktctg"),
    "section": ("dept", "소속부", "sectpnm"),
    "sector": ("sector", "업종명", "업종", "sectnm", "industry"),
    "shares": ("shares", "상장주식수", "stocks", "listshrs", "lstgstcnt"),
}

INDICES = {  # what an index file is called -> (symbol, name)
    "kospi": ("KOSPI", "코스피"),
    "코스피": ("KOSPI", "코스피"),
    "ks11": ("KOSPI", "코스피"),
    "kosdaq": ("KOSDAQ", "코스닥"),
    "코스닥": ("KOSDAQ", "코스닥"),
    "kq11": ("KOSDAQ", "코스닥"),
    "kospi200": ("KOSPI200", "코스피 200"),
    "코스피200": ("KOSPI200", "코스피 200"),
    "ks200": ("KOSPI200", "코스피 200"),
    "kosdaq150": ("KOSDAQ150", "코스닥 150"),
    "코스닥150": ("KOSDAQ150", "코스닥 150"),
    "krx100": ("KRX100", "KRX 100"),
    "krx300": ("KRX300", "KRX 300"),
}
MARKETS = {
    "유가증권": "KOSPI",
    "유가증권시장": "KOSPI",
    "코스피": "KOSPI",
    "코스닥": "KOSDAQ",
    "코넥스": "KONEX",
    "STK": "KOSPI",
    "KSQ": "KOSDAQ",
    "KNX": "KONEX",
}

# A KRX short code: four digits and two digits or letters (00680K, 0126Z0); of an ETN Q and six digits.
_IN_TEXT = re.compile(r"(?<![0-9A-Za-z])A?(?P<code>\d{4}[0-9A-Z]{2}|Q\d{6})(?![0-9A-Za-z])")
# Files of candles are named by pair, length and, of futures, the coin that they are settled in:
# BTC_USDT-1h, BTC_USDT_USDT-1h-futures (https://www.freqtrade.io/en/stable/data-download/).
_PAIR = re.compile(
    r"^(?P<base>[A-Za-z0-9]+)_(?P<quote>[A-Za-z0-9]+)(?:_(?P<settled>[A-Za-z0-9]+))?"
    r"-(?P<length>[1-9]\d*[mhdwM])(?:-(?P<kind>\w+))?$"
)
TRADED = ("", "spot", "futures")  # mark, index and funding rates are no prices at which anything was traded
_KOREAN = re.compile(r"[\uac00-\ud7a3]")
_NOT_A_NAME = {
    *(
        "price",
        "prices",
        "rich",
        "daily",
        "day",
        "ohlcv",
        "ohlc",
        "close",
        "data",
        "raw",
        "adj",
        "adjusted",
        "ks",
        "kq",
        "kospi",
        "kosdaq",
    ),
    *(
        "krx",
        "stock",
        "chart",
        "minute",
        "min",
        "1d",
        "1m",
        "new",
        "final",
        "일봉",
        "분봉",
        "주가",
        "시세",
        "수정주가",
        "종가",
    ),
}


def normalised(name: str) -> str:
    """Return a column name without case, blanks, underscores and a unit in brackets."""
    text = unicodedata.normalize("NFKC", name).strip().strip("\ufeff\"'").lower()
    text = re.sub(r"[(\[].*?[)\]]", "", text)
    return re.sub(r"[\s_]+", "", text)


def roles(header: Sequence[str], given: Mapping[str, str]) -> dict[str, int]:
    """Return role -> position; `given` (role -> name in the file) goes before the table, an unnamed first column is the
    date unless codes have a column, when it numbers the rows.
    """
    names = [normalised(cell) for cell in header]
    out: dict[str, int] = {}
    for role, name in given.items():
        if normalised(name) in names:
            out[role] = names.index(normalised(name))
    for role, accepted in ACCEPTED.items():
        if role in out or role in given:
            continue
        for name in accepted:
            if name in names and names.index(name) not in out.values():
                out[role] = names.index(name)
                break
    if "date" not in out and "date" not in given:
        if "time" in out:
            out["date"] = out.pop("time")
        elif names and names[0] == "" and "code" not in out:
            out["date"] = 0
    return out


def code_in(text: str) -> str | None:
    """Return the KRX code in a text such as A005930, 005930.KS, 005930_삼성전자 or 삼성전자(005930), else None."""
    found = _IN_TEXT.search(unicodedata.normalize("NFC", text))
    return found["code"] if found else None


@dataclass(frozen=True)
class Pair:
    """Hold what the name of a file of candles tells; interval "" = a length that is not known here."""

    symbol: str
    interval: str
    traded: bool


def pair_in(stem: str) -> Pair | None:
    """Return what BTC_USDT-1h (BTC/USDT) or BTC_USDT_USDT-8h-funding_rate tells, None for other names."""
    found = _PAIR.match(stem)
    if not found:
        return None
    symbol = f"{found['base']}/{found['quote']}" + (f":{found['settled']}" if found["settled"] else "")
    length = found["length"].replace("M", "mo")
    known = length[-1] in "mh" or length in ("1d", "1w", "1mo")
    return Pair(symbol, length if known else "", (found["kind"] or "") in TRADED)


def company_in(text: str, code: str) -> str | None:
    """Return what a file name says beside the code, if it can be a company's name."""
    rest = unicodedata.normalize("NFC", text).replace(f"A{code}", " ").replace(code, " ")
    words = [w for w in re.split(r"[\s_()\[\].]+|(?<![A-Za-z가-힣])-|-(?![A-Za-z가-힣])", rest) if w]
    words = [w for w in words if w.lower() not in _NOT_A_NAME and not w.isdigit()]
    name = " ".join(words)
    return name if _KOREAN.search(name) or re.search(r"[A-Za-z]{2}", name) else None


def index_in(stem: str) -> tuple[str, str] | None:
    """Return (symbol, name) when a file is named like an index, else None."""
    return INDICES.get(re.sub(r"[\s_^-]+", "", unicodedata.normalize("NFC", stem)).lower())


def kind_of(symbol: str) -> str | None:
    """Return the kind that a KRX code tells: "index", "preferred" (the last character is not 0), "etn" or "stock"."""
    if any(symbol == known for known, _ in INDICES.values()):
        return "index"
    if not code_in(symbol):
        return None
    if symbol.startswith("Q"):
        return "etn"
    return "stock" if symbol.endswith("0") else "preferred"
