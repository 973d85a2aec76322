"""The calendar against the days on which shares really traded, and where no such series reaches, against a list
of closed days from law and notices: no missing day, no extra day, each exception with its reason."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline import krx, venues

SAMPLE = Path(__file__).parents[1] / "data" / "krx_session_dates.txt"
EXPLAINED: dict[str, str] = {}  # day: why calendar and series differ there; none is known from 1985 to 2021
# Weekdays on which the exchange was shut, from the law on public holidays and press reports of the exchange's notices.
NOTICES = {
    2022: "0131 0201 0202 Seollal, 0301, 0309 president, 0505, 0601 local elections, 0606, 0815, 0909 Chuseok, 0912 "
    "substitute, 1003, 1010 substitute, 1230 year end",
    2023: "0123 0124 Seollal, 0301, 0501, 0505, 0529 substitute, 0606, 0815, 0928 0929 Chuseok, 1002 declared, 1003, "
    "1009, 1225, 1229 year end",
    2024: "0101, 0209 Seollal, 0212 substitute, 0301, 0410 general election, 0501, 0506 substitute, 0515, 0606, 0815, "
    "0916 0917 0918 Chuseok, 1001 declared, 1003, 1009, 1225, 1231 year end",
    2025: "0101, 0127 declared, 0128 0129 0130 Seollal, 0303 substitute, 0501, 0505, 0506 substitute, 0603 president, "
    "0606, 0815, 1003, 1006 1007 Chuseok, 1008 substitute, 1009, 1225, 1231 year end",
    2026: "0101, 0216 0217 0218 Seollal, 0302 substitute, 0501, 0505, 0525 substitute, 0603 local elections, 0717 "
    "Constitution Day again, 0817 substitute, 0924 0925 Chuseok, 1005 substitute, 1009, 1225, 1231 year end",
}
SHUT = {
    "elections": "1995-06-27 1996-04-11 1997-12-18 2000-04-13 2002-06-13 2002-12-19 2004-04-15 2007-12-19 2008-04-09 "
    "2010-06-02 2012-04-11 2012-12-19 2014-06-04 2016-04-13 2017-05-09 2018-06-13 2020-04-15 2022-03-09 2022-06-01 "
    "2024-04-10 2025-06-03 2026-06-03",
    "declared": "2002-07-01 2015-08-14 2016-05-06 2017-10-02 2020-08-17 2023-10-02 2024-10-01 2025-01-27",
    "substitutes": "2014-09-10 2015-09-29 2018-05-07 2019-05-06 2021-08-16 2021-10-04 2021-10-11 2024-05-06 2025-03-03",
    "year end": "2001-12-31 2005-12-30 2010-12-31 2016-12-30 2019-12-31 2020-12-31 2021-12-31 2022-12-30 2025-12-31",
}
EXAMINATIONS = (
    "2005-11-23 2010-11-18 2016-11-17 2017-11-23 2018-11-15 2019-11-14 2020-12-03 2021-11-18 2022-11-17 2023-11-16 "
    "2024-11-14 2025-11-13 2026-11-19"
)


def traded() -> krx.Days:
    rows = [line.split() for line in SAMPLE.read_text().splitlines() if not line.startswith("#")]
    return np.array([f"{year}-{day[:2]}-{day[2:]}" for year, *days in rows for day in days], "datetime64[D]")


def days(text: str) -> krx.Days:
    return np.array(text.split(), "datetime64[D]")


def test_sessions_are_the_days_of_the_sample() -> None:
    sample = traded()
    assert str(sample[0]) == "1985-01-04" and str(sample[-1]) == "2021-12-30" and (np.diff(sample) > 0).all()
    assert ((sample >= np.datetime64("1995-01-01")) & (sample < np.datetime64("2022-01-01"))).sum() == 6_851
    known = krx.sessions(sample[0], sample[-1])
    unexplained = {str(day) for day in np.setxor1d(sample, known)} ^ EXPLAINED.keys()
    assert not unexplained


def test_the_sample_is_what_the_real_files_hold(market_data: Path) -> None:
    folder = SAMPLE.parents[2] / "scripts"
    code = "import sys, pathlib, build_calendar; sys.stdout.write(build_calendar.dates(pathlib.Path(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(market_data)]
    made = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout
    assert made == SAMPLE.read_text()


@pytest.mark.parametrize("year", NOTICES)
def test_after_the_sample_closed_days_are_those_of_the_notices(year: int) -> None:
    every = np.arange(np.datetime64(f"{year}-01-01"), np.datetime64(f"{year + 1}-01-01"))
    words = NOTICES[year].replace(",", " ").split()
    noted = days(" ".join(f"{year}-{word[:2]}-{word[2:]}" for word in words if word.isdigit()))
    assert np.is_busday(noted).all() and len(np.unique(noted)) == len(noted)
    assert [str(day) for day in every[np.is_busday(every) & ~krx.is_session(every)]] == [str(day) for day in noted]


def test_the_notices_reach_from_the_sample_to_today() -> None:
    assert list(NOTICES) == list(range(traded()[-1].item().year + 1, max(NOTICES) + 1))
    if datetime.now(UTC).astimezone(krx.KST).year > max(NOTICES):
        pytest.skip(f"the notices end with {max(NOTICES)}; add the next year's closing days")


@pytest.mark.parametrize("reason", SHUT)
def test_the_exchange_was_shut(reason: str) -> None:
    shut = days(SHUT[reason])
    assert not krx.is_session(shut).any() and not np.isin(shut, traded()).any()
    assert not any(venues.is_session(venue, day) for venue in ("NXT", "UN") for day in shut)


def test_examination_days_are_sessions_an_hour_late() -> None:
    late, sample = days(EXAMINATIONS), traded()
    assert krx.is_session(late).all() and np.isin(late[late <= sample[-1]], sample).all()
    hour = np.timedelta64(1, "h")
    assert (krx.session_opens(late) - krx.session_opens(late + 1) == hour - np.timedelta64(1, "D")).all()
    assert (krx.session_closes(late) - krx.session_closes(late + 1) == hour - np.timedelta64(1, "D")).all()
    others = krx.sessions("2019-01-01", "2026-12-31")
    moved = others[krx.session_closes(others) != others.astype("datetime64[us]") + np.timedelta64(390, "m")]
    assert moved.tolist() == late[late >= np.datetime64("2019-01-01")].tolist()


def test_nextrade_has_the_exchanges_days_from_its_first_one() -> None:
    assert venues.sessions("NXT", "1995-01-01", "2025-03-03").size == 0
    mine = venues.sessions("NXT", "2025-01-01", "2026-12-31")
    assert mine[0] == np.datetime64("2025-03-04")
    assert mine.tolist() == krx.sessions("2025-03-04", "2026-12-31").tolist()
    assert (
        venues.sessions("UN", "2024-01-01", "2026-12-31").tolist()
        == krx.sessions(date(2024, 1, 1), date(2026, 12, 31)).tolist()
    )
