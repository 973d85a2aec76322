"""The simulated market's time: the real one, one that stands still, or one that runs from a chosen moment at a chosen
speed."""

import time
from datetime import UTC, datetime, timedelta

from pipeline import krx


class Clock:
    """A time to be called. `start` None is now; `speed` is simulated seconds in a real second, 0 stands still."""

    def __init__(self, start: datetime | None = None, speed: float = 1.0) -> None:
        if speed < 0:
            raise ValueError(f"expected a speed of 0 or more, got {speed}")
        self._start = start if start is not None else datetime.now(UTC)
        self._speed, self._began = speed, time.monotonic()

    def __call__(self) -> datetime:
        """Return the time, aware."""
        return self._start + timedelta(seconds=self._speed * (time.monotonic() - self._began))


def moment(text: str) -> datetime:
    """Read an ISO date or time; without a zone it is KST, a date alone is that day's 18:00, after the close. Raises
    ValueError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected an ISO time such as 2026-11-20T18:00:00, got {text!r}") from None
    if len(text) <= 10:
        found = found.replace(hour=18)
    found = found if found.tzinfo else found.replace(tzinfo=krx.KST)
    if not krx.FIRST < krx.day64(found.astimezone(krx.KST).date()) <= krx.LAST:
        raise ValueError(f"expected a time in {krx.FIRST}..{krx.LAST}, got {text!r}")
    return found
