"""Who is listed on the simulated market: codes, names, sectors, dates of listing and delisting, corporate actions to
come.

Every fact of a listing is a function of (seed, its number) alone, so that a market of 100 symbols is the beginning of
one of 2,700. Roles go round in blocks of 20: whatever a study has to survive (a delisting, a late listing, splits,
halts, preferred shares, funds, new names) is in every block.
"""

import hashlib
from dataclasses import dataclass
from datetime import date

import numpy as np

from pipeline import krx

ORIGIN = date(1995, 1, 3)  # first session of the simulated market
ANCHOR = date(2024, 1, 2)  # session whose close is the listing's reference price
BLOCK = 20
_RENAMED = (2, 12)  # roles: a KOSPI and a KOSDAQ issue of each block get another name

# Index sector codes as in the master files, with KRX's names.
SECTORS: dict[str, dict[str, str]] = {
    "KOSPI": {
        "0005": "음식료품",
        "0008": "화학",
        "0009": "의약품",
        "0011": "철강금속",
        "0012": "기계",
        "0013": "전기전자",
        "0015": "운수장비",
        "0016": "유통업",
        "0018": "건설업",
        "0021": "금융업",
    },
    "KOSDAQ": {
        "1006": "기타서비스",
        "1019": "음식료담배",
        "1024": "제약",
        "1027": "기계장비",
        "1028": "일반전기전자",
        "1029": "의료정밀기기",
        "1031": "통신장비",
        "1032": "정보기기",
        "1033": "반도체",
        "1037": "소프트웨어",
    },
}
_WORDS = {
    "0005": "식품",
    "0008": "화학",
    "0009": "약품",
    "0011": "제철",
    "0012": "기계",
    "0013": "전자",
    "0015": "모터스",
    "0016": "유통",
    "0018": "건설",
    "0021": "금융지주",
    "1006": "엔터",
    "1019": "에프앤비",
    "1024": "바이오",
    "1027": "정밀",
    "1028": "전기",
    "1029": "메디칼",
    "1031": "텔레콤",
    "1032": "디스플레이",
    "1033": "반도체",
    "1037": "소프트",
}
_STEMS = """
가온 가람 고운 나래 누리 다온 다솜 도담 두레 라온 마루 마음 모아 미르 바름 밝은 벼리 보람 빛솔 산들 새길 새롬 새별 서린
소담 솔빛 슬기 시내 아름 아라 여울 예솔 온누리 우람 윤슬 은빛 이든 자람 잔디 정다운 조은 참빛 초롬 큰솔 토담 푸른 하나로
하늘 한결 한길 한밝 한빛 한울 해담 해솔 해오름 헤아림 화온 흰솔 힘찬
"""
STEMS = tuple(_STEMS.split())


def stream(seed: int, *names: object) -> np.random.Generator:
    """Return the random numbers that belong to a name: a counter-based generator keyed by (seed, names), the same in
    any order."""
    digest = hashlib.blake2b("/".join(map(str, (seed, *names))).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


@dataclass(frozen=True)
class Event:
    """A corporate action: from `day` on, prices are `multiplier` times what they were; the days before it without
    trade."""

    day: date
    kind: str  # split, rights, capital_reduction, spin_off: the words of the table of actions
    multiplier: float
    halted: int  # sessions without trade before the day
    lock: str  # flng_cls_code
    reason: str  # revl_issu_reas


@dataclass(frozen=True)
class Listing:
    """One issue and what decides its path. Prices in KRW, shares as of the reference day; sigma a day; beta to the
    market."""

    number: int
    symbol: str
    name: str
    market: str
    sector: str
    kind: str
    listed: date
    delisted: date | None  # first day on which it is listed no more
    price: float
    shares: float
    turnover_rate: float  # share of the listed shares that changes hands on a usual day
    beta: float
    sigma: float
    events: tuple[Event, ...]
    renamed: date | None = None  # first day of the new name
    later: str = ""  # the new name

    def name_on(self, day: date) -> str:
        """Return the name that the issue has on a day."""
        return self.later if self.renamed is not None and day >= self.renamed else self.name

    @property
    def english(self) -> str:
        """Return a Latin name for fields that want one."""
        return f"SIM {self.market} {self.symbol}"


def _session_between(draw: float, first: str, last: str) -> date:
    days = krx.sessions(first, last)
    return days[int(draw * len(days))].item()  # type: ignore[no-any-return]


def _code(number: int, kind: str, listed: date) -> str:
    if listed.year >= 2024:
        # Letters have stood in the fifth place of new codes since 2024; 26 and 1000 give 13,000 of them without
        # repetition.
        return f"0{number * 37 % 1000:03d}{chr(65 + number % 26)}0"
    if kind == "preferred":
        return _code(number - 1, "stock", ORIGIN)[:5] + "5"
    return f"{1 + (number * 1777 + 593) % 39989:05d}0"  # 39989 is prime: no repetition


def listing(seed: int, number: int) -> Listing:
    """Return the listing with a number, 0 and up."""
    role, rng = number % BLOCK, stream(seed, "listing", number)
    normal, draw = rng.standard_normal(6), rng.random(8)
    market = "KOSDAQ" if role in (1, 4, 9, 12, 13, 14, 18) else "KOSPI"
    kind = "preferred" if role == 16 else "etf" if role == 17 else "stock"
    sectors = list(SECTORS[market])
    sector = "0021" if kind == "etf" else sectors[int(draw[0] * len(sectors))]
    price = float(np.exp(np.log(22_000.0) + 0.9 * normal[0]))
    delisted: date | None = None
    listed = _session_between(draw[1], "1995-01-03", "2018-12-28")
    events: list[Event] = []
    if role == 7:
        delisted = krx.next_session(_session_between(draw[2], "2022-07-01", "2026-06-30"))
        price = max(0.3 * price, 3_000.0)
    elif role == 11:
        listed = _session_between(draw[2], "2024-01-02", "2026-01-30")
    elif role == 19:
        listed = _session_between(draw[2], "2022-07-01", "2023-12-28")
    elif role == 3:
        ratio = (2, 5, 10)[int(draw[3] * 3)]
        events = [Event(_session_between(draw[2], "2022-04-01", "2026-09-30"), "split", 1.0 / ratio, 3, "00", "")]
        price *= 3.0
    elif role == 5:
        cut = 0.86 + 0.11 * float(draw[3])
        events = [Event(_session_between(draw[2], "2022-02-01", "2026-09-30"), "rights", cut, 0, "01", "")]
    elif role == 14:
        ratio = (5, 10)[int(draw[3] * 2)]
        day = _session_between(draw[2], "2022-04-01", "2026-06-30")
        events = [Event(day, "capital_reduction", float(ratio), 15, "00", "02")]
        price = max(0.3 * price, 2_000.0)
    elif role == 18:
        cut = 0.55 + 0.3 * float(draw[3])
        events = [Event(_session_between(draw[2], "2022-04-01", "2026-09-30"), "spin_off", cut, 18, "00", "01")]
    capital = np.exp(np.log(3.5e11) + 1.2 * normal[1]) * (0.25 if kind == "preferred" else 1.0)
    sigma = float(np.clip(np.exp(np.log(0.0225) + 0.28 * normal[2]), 0.011, 0.042))
    stem, turn = STEMS[number % len(STEMS)], number // len(STEMS)
    name = _name(stem, sector, kind, turn)
    renamed = _session_between(draw[5], "2022-04-01", "2026-09-30") if role in _RENAMED else None
    return Listing(
        number=number,
        symbol=_code(number, kind, listed),
        name=name,
        market=market,
        sector=sector,
        kind=kind,
        listed=listed,
        delisted=delisted,
        price=price,
        shares=float(np.round(max(capital / price, 1.5e6), -3)),
        turnover_rate=float(np.clip(np.exp(np.log(0.006) + 0.6 * normal[3]), 0.002, 0.03)),
        beta=1.0 if kind == "etf" else float(np.clip(1.0 + 0.25 * normal[4], 0.4, 1.7)),
        sigma=0.0035 if kind == "etf" else sigma,
        events=tuple(events),
        renamed=renamed,
        later=f"{name}홀딩스" if renamed else "",
    )


def _name(stem: str, sector: str, kind: str, turn: int) -> str:
    more = "" if turn == 0 else str(turn + 1)
    if kind == "etf":
        return f"{stem} 지수{more} ETF"
    return f"{stem}{_WORDS[sector]}{more}" + ("우" if kind == "preferred" else "")
