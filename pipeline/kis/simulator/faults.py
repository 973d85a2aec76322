"""What goes wrong on purpose: faults by name with their rates, from a YAML file or the command line; a seed makes their
order repeatable.

No fault with a rate below 1 keeps the answer away for ever: whoever asks again, and takes a new token when told to,
gets it. Minutes that are `withheld` nobody gets.
"""

import random
import re
from collections import Counter, OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime, time
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import ValidationError, field_validator

from pipeline import krx
from pipeline.kis.layouts import MINUTES_PAST, MINUTES_TODAY, Tr
from pipeline.kis.simulator.charts import Rewriting
from pipeline.kis.simulator.gate import Window
from storage.section import Section, setting

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_WITHHELD = re.compile(r"(\w+)@(\d{8})@(\d{4})-(\d{4})")
_REMEMBERED = 512  # pages that may come once more
_SERVED = 64  # calls that a token serves before a fault takes it: more than a client has in flight
_NOTHING = b"{}"
_CURSORS = (
    *("FID_INPUT_DATE_1", "FID_INPUT_DATE_2", "FID_INPUT_HOUR_1", "CTX_AREA_NK", "CTX_AREA_FK"),
    *("BYMD", "NEXT", "KEYB"),
)


class FaultError(ValueError):
    """Faults that cannot be used."""


def _rate(description: str) -> Any:
    return setting(0.0, description, ge=0.0, le=1.0)


class Faults(Section):
    """Rates from 0 to 1 of what happens to a quotation call unless it is said otherwise."""

    seed: int = setting(0, "seed of the faults")
    quota: int | None = setting(None, "calls a second for each app key, in place of --quota", unit="1/s", ge=0)
    window: Window | None = setting(None, "how that second is measured, in place of --window")
    reset: float = _rate("connection closed without an answer")
    html_500: float = _rate("HTTP 500 with an HTML page")
    rejected: float = _rate("EGW00201 although inside the quota")
    slow: float = _rate("answer held back")
    slow_seconds: float = setting(1.0, "how long", unit="s", ge=0.0, le=120.0)
    cut: float = _rate("half of the body, then the connection is closed: Content-Length is not met")
    truncated: float = _rate("half of the JSON text as if it were whole")
    expired: float = _rate("EGW00123: the token, after 64 calls with it, is over")
    revoked: float = _rate("EGW00121: the token, after 64 calls with it, is no longer known")
    token_refused: float = _rate("EGW00133 to a request for a token")
    repeated: float = _rate("the previous page of the same symbol and call in place of the one that was asked for")
    reordered: float = _rate("page with its rows in another order")
    duplicated: float = _rate("page with a row repeated")
    empty: float = _rate("page with empty {} rows among the others")
    missing: float = _rate("page without some of the rows between its first and last")
    extra: float = _rate("page whose rows have a field more")
    withheld: str = setting("", "minutes (KST labels) of a symbol and day that no page has: 005930@20261030@1000-1010")
    maintenance: str = setting(
        "", "KST hours such as 05:30-06:00 of the market's clock in which all is HTTP 503 in HTML"
    )
    skew_seconds: float = setting(0.0, "how far the server's own time (Date, token expiry) is ahead", unit="s")
    rewritten: float = _rate("share of the symbols whose daily history is shown multiplied")
    rewritten_sessions: int = setting(20, "closed sessions up to now that stay as they were", ge=0)
    rewritten_factor: float = setting(0.9, "what the prices before them are multiplied with", gt=0.0)

    @field_validator("maintenance")
    @classmethod
    def _hours(cls, value: str) -> str:
        if value and _HOURS.fullmatch(value) is None:
            raise ValueError(f"expected KST hours such as 05:30-06:00, got {value!r}")
        return value

    @field_validator("withheld")
    @classmethod
    def _minutes(cls, value: str) -> str:
        if value and _WITHHELD.fullmatch(value) is None:
            raise ValueError(f"expected a symbol, day and minutes such as 005930@20261030@1000-1010, got {value!r}")
        return value

    @property
    def rewriting(self) -> Rewriting | None:
        """Return how history is rewritten, if it is."""
        if not self.rewritten:
            return None
        return Rewriting(self.seed, self.rewritten, self.rewritten_sessions, self.rewritten_factor)

    def closed_at(self, now: datetime) -> bool:
        """Say whether the server is under maintenance at a time (aware)."""
        found = _HOURS.fullmatch(self.maintenance)
        if found is None:
            return False
        hour, minute, end_hour, end_minute = map(int, found.groups())
        start, end, at = time(hour, minute), time(end_hour, end_minute), now.astimezone(krx.KST).time()
        return start <= at < end if start <= end else at >= start or at < end


def load(path: Path | None, given: Sequence[str] = ()) -> Faults:
    """Read a YAML file of faults, then settings "name=value" in its place. Raises FaultError with the key and what it
    should be."""
    where = f"--faults {path}" if path is not None else "--fault"
    content: dict[str, Any] = {}
    try:
        content |= {} if path is None else dict(**(yaml.safe_load(path.read_text(encoding="utf-8")) or {}))
        for text in given:
            name, equals, value = text.partition("=")
            if not equals:
                raise FaultError(f"--fault {text}: expected name=value such as reset=0.01")
            content[name.strip()] = value if name.strip() == "maintenance" else yaml.safe_load(value)
        return Faults(**content)
    except OSError as error:
        raise FaultError(f"{where}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        raise FaultError(f"{where}: expected YAML with names and rates, got {type(error).__name__}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(Faults.model_fields)
        raise FaultError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}; known names: {known}") from None


class Mischief:
    """The dice behind the faults of one server. Each kind of fault has dice of its own, so that one kind does not move
    the others."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._dice = {name: random.Random(f"{faults.seed}/{name}") for name in Faults.model_fields}
        self.idle = not any(getattr(faults, name) for name in Faults.model_fields if name not in _PASSIVE)
        self._pages: OrderedDict[Hashable, list[bytes]] = OrderedDict()
        self._served: Counter[str] = Counter()

    def happens(self, name: str) -> bool:
        """Roll for a fault by its name."""
        rate: float = getattr(self.faults, name)
        return rate > 0.0 and self._dice[name].random() < rate

    def takes(self, token: str) -> str | None:
        """Count a call with a token and say what becomes of it: "expired", "revoked" or nothing."""
        self._served[token] += 1
        if self._served[token] <= _SERVED:
            return None
        found = next((name for name in ("expired", "revoked") if self.happens(name)), None)
        if found is not None:
            del self._served[token]
        return found

    def spoil(self, tr: Tr, query: Mapping[str, str], rows: Sequence[bytes]) -> list[bytes]:
        """Change a page of rendered rows as the dice say.

        Minutes that are withheld are taken out first. Its rows may come once more in place of those of the next page of
        the same call. Where the answer itself says how to go on (the calendar) no rows are kept back, since nobody
        could tell that they are not there.
        """
        rows = self._left(tr, query, rows)
        known = (tr.tr_id, *sorted((name, value) for name, value in query.items() if name not in _CURSORS))
        before = self._pages.pop(known, None)
        self._pages[known] = out = list(rows)
        if len(self._pages) > _REMEMBERED:
            self._pages.popitem(last=False)
        whole = tr.page_by == "context"
        if before is not None and not whole and self.happens("repeated"):
            out = before
        out = list(out)
        if len(out) > 2 and not whole and self.happens("missing"):
            dice = self._dice["missing"]
            first = dice.randrange(1, len(out) - 1)
            del out[first : dice.randrange(first + 1, len(out))]
        if out and self.happens("duplicated"):
            at = self._dice["duplicated"].randrange(len(out))
            out.insert(at, out[at])
        if self.happens("reordered"):
            self._dice["reordered"].shuffle(out)
        if self.happens("extra"):
            out = [row[:-1] + b',"new_field":"1"}' if row != _NOTHING else row for row in out]
        if self.happens("empty"):
            out.insert(self._dice["empty"].randrange(len(out) + 1), _NOTHING)
            out.append(_NOTHING)
        return out

    def _left(self, tr: Tr, query: Mapping[str, str], rows: Sequence[bytes]) -> Sequence[bytes]:
        found = _WITHHELD.fullmatch(self.faults.withheld)
        if found is None or tr not in (MINUTES_PAST, MINUTES_TODAY) or query["FID_INPUT_ISCD"] != found[1]:
            return rows
        day, first, last = found.groups()[1:]
        texts = [orjson.loads(row) for row in rows]
        gone = [text.get("stck_bsop_date") == day and first <= text["stck_cntg_hour"][:4] <= last for text in texts]
        return [row for row, out in zip(rows, gone) if not out]


_PASSIVE = frozenset(
    {"seed", "quota", "window", "slow_seconds", "rewritten", "rewritten_sessions", "rewritten_factor"}
    | {"maintenance", "skew_seconds", "token_refused"}
)
