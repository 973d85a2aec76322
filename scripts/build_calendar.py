"""Write pipeline/krx_holidays.json from exchange_calendars' XKRX and the dated overlay below.

Needs the extra [calendar]. Run it when a year is added or a holiday is declared: `python scripts/build_calendar.py`;
`--check` only says whether the file is up to date. `--dates FOLDER` writes the days on which real shares traded, with
which the tests compare the calendar.
"""

import argparse
import json
import sys
from pathlib import Path

FIRST, LAST = "1985-01-01", "2027-12-31"
ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "pipeline" / "krx_holidays.json"
DATES = ROOT / "tests" / "data" / "krx_session_dates.txt"
SERIES = ("krx_daily.parquet", "krx_close_2019.parquet", "krx_close_2021.parquet")

# Days that exchange_calendars 4.13.2 has as sessions and on which the exchange was or is shut. Those before 1999: no
# trade in any daily series of the big stocks of the time (elections, the Olympic opening, last days of the year).
SHUT = {
    "1985-12-28": "last days of the year",
    "1986-12-27": "last days of the year",
    "1988-09-17": "opening of the Olympic Games in Seoul",
    "1990-12-29": "last days of the year",
    "1991-12-28": "last days of the year",
    "1995-06-27": "local elections",
    "1995-12-28": "last days of the year",
    "1996-04-11": "general election",
    "1996-11-23": "no trade in any series",
    "1996-12-28": "last days of the year",
    "1998-06-04": "local elections",
    "2026-06-03": "local elections (KRX list of closing days 2026; exchange_calendars PR 574)",
    "2026-07-17": "Constitution Day, a public holiday again by the Public Holidays Act as amended in 2026 (PR 583)",
    "2027-05-03": "substitute for Labour Day, a public holiday with substitute days since 2026 (PR 574)",
    "2027-07-19": "substitute for Constitution Day (Saturday)",
}
# Days that it has as holidays and on which all big stocks traded.
OPEN = ("1989-10-12", "1992-12-28", "1993-07-07", "1994-01-03", "1994-02-14", "1994-05-20")
# University entrance examination (CSAT): opening and closing one hour later. exchange_calendars has none after 2020.
# Press notices of the exchange for 2021-2025; dates of 2026 and 2027 by the Ministry of Education. 2017-11-16 stayed
# late although the examination was moved to the 23rd after an earthquake.
# fmt: off
LATE = [
    "1998-11-18", "1999-11-17", "2000-11-15", "2001-11-07", "2002-11-06", "2003-11-05", "2004-11-17", "2005-11-23",
    "2006-11-16", "2007-11-15", "2008-11-13", "2009-11-12", "2010-11-18", "2011-11-10", "2012-11-08", "2013-11-07",
    "2014-11-13", "2015-11-12", "2016-11-17", "2017-11-16", "2017-11-23", "2018-11-15", "2019-11-14", "2020-12-03",
    "2021-11-18", "2022-11-17", "2023-11-16", "2024-11-14", "2025-11-13", "2026-11-19", "2027-11-18",
]
# fmt: on


def build() -> str:
    """Return the text of the file: closed days by year (Saturdays only while they were sessions) and late days."""
    import exchange_calendars
    import pandas as pd

    calendar = exchange_calendars.get_calendar("XKRX", start=FIRST, end=LAST)
    days = pd.date_range(FIRST, LAST)
    regular = days[(days.dayofweek < 5) | ((days.dayofweek == 5) & (days <= pd.Timestamp("1998-12-05")))]
    wrong = calendar.sessions.difference(regular)
    if len(wrong):
        raise SystemExit(
            f"expected sessions on weekdays and on Saturdays to 1998-12-05, got {list(wrong)}; widen the rule in krx.py"
        )
    closed = regular.difference(calendar.sessions).union(pd.DatetimeIndex(list(SHUT)))
    closed = closed.difference(pd.DatetimeIndex(list(OPEN)))
    years = {str(year): closed[closed.year == year].strftime("%m%d").tolist() for year in range(1985, 2028)}
    lines = [f'    "{year}": {json.dumps(dates)}' for year, dates in years.items()]
    late = ",\n".join(f'    "{day}"' for day in LATE)
    return (
        f'{{\n  "first": "{FIRST}",\n  "last": "{LAST}",\n  "closed": {{\n'
        + ",\n".join(lines)
        + f'\n  }},\n  "late": [\n{late}\n  ]\n}}\n'
    )


def dates(folder: Path) -> str:
    """Return the days of which a folder of real series has rows, of any symbol: a line a year, month and day."""
    import numpy as np
    import pyarrow.parquet as pq

    parts = [pq.read_table(folder / name, columns=["date"])["date"].to_numpy() for name in SERIES]
    days = np.unique(np.concatenate([part.astype("datetime64[D]") for part in parts])).astype(str).tolist()
    years: dict[str, list[str]] = {}
    for day in days:
        years.setdefault(day[:4], []).append(day[5:7] + day[8:])
    head = f"# Days with rows in {', '.join(SERIES)}, {days[0]}..{days[-1]}: scripts/build_calendar.py --dates FOLDER\n"
    return head + "".join(f"{year} {' '.join(found)}\n" for year, found in years.items())


def main() -> int:
    """Write or check the file, or write the sample of dates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit code 1 when the file is out of date")
    parser.add_argument(
        "--dates", type=Path, metavar="FOLDER", help=f"write {DATES.relative_to(ROOT)} from this folder"
    )
    arguments = parser.parse_args()
    if arguments.dates:
        DATES.write_text(dates(arguments.dates))
        print(f"{DATES}: written, {DATES.stat().st_size} bytes")
        return 0
    text = build()
    same = FILE.exists() and FILE.read_text() == text
    if arguments.check:
        print(f"{FILE} is {'up to date' if same else 'out of date: run scripts/build_calendar.py'}")
        return 0 if same else 1
    FILE.write_text(text)
    print(f"{FILE}: {'unchanged' if same else 'written'}, {len(text)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
