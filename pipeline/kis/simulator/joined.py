"""The segments of a view put together: days of their bars, and the minutes of each on a session."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.kis.simulator import extended, intraday
from pipeline.kis.simulator.extended import Extended
from pipeline.kis.simulator.intraday import Minutes
from pipeline.kis.simulator.paths import DAYS, Path
from pipeline.kis.simulator.universe import Listing

BAR = ("open", "high", "low", "close", "volume", "turnover")
_IN_TIME = ("pre", "regular", "main", "evening", "after")


def join_days(
    columns: dict[str, npt.NDArray[Any]], other: Extended, begin: int, stop: int, parts: tuple[str, ...]
) -> None:
    """Put the bars of other segments to those of the regular session, or in their place. `columns` are the rows begin
    to stop of a path; volume is 0 where none of the segments has a trade."""
    at = max(begin, other.begin)
    here, there = slice(at - begin, stop - begin), slice(at - other.begin, max(stop - other.begin, 0))
    if "regular" not in parts:
        columns["volume"][: here.start] = 0.0
    bars = {name: {column: getattr(bar, column)[there] for column in BAR} for name, bar in other.segments.items()}
    bars["regular"] = {column: columns[column][here].copy() for column in BAR}
    ordered = [bars[name] for name in _IN_TIME if name in parts]
    traded = [bar["volume"] > 0.0 for bar in ordered]
    for name, best in (("high", np.fmax), ("low", np.fmin)):
        columns[name][here] = best.reduce([np.where(on, bar[name], np.nan) for on, bar in zip(traded, ordered)])
    for name, step in (("open", -1), ("close", 1)):  # what is written last stays
        for on, bar in list(zip(traded, ordered))[::step]:
            columns[name][here] = np.where(on, bar[name], columns[name][here])
    for name in ("volume", "turnover"):
        columns[name][here] = np.sum([np.where(on, bar[name], 0.0) for on, bar in zip(traded, ordered)], axis=0)


def session(
    seed: int, item: Listing, whole: Path, other: Extended | None, place: int, parts: tuple[str, ...]
) -> dict[str, Minutes]:
    """Return the whole minutes of the segments that trade on a session with trade, in the order of `parts`; without
    `other` the regular session alone."""
    row = place - whole.first
    traded = [name for name in parts if name != "regular" and other is not None and other.bar(name, row)["volume"]]
    if "regular" not in parts and not traded:
        return {}
    bar = {name: float(getattr(whole, name)[row]) for name in BAR}
    regular = intraday.split(seed, item, DAYS[place].item(), bar)
    found = {"regular": regular} if "regular" in parts else {}
    for name in traded:
        assert other is not None
        found[name] = extended.minutes(seed, item, place, name, other.bar(name, row), regular)
    return found
