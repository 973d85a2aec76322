"""One symbol's bars of one interval from two sources: which rows differ, and what explains it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .disagreement import Alone, Basis, Disagreement, Shift, Volume, first_of

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PRICES = ("close", "open", "high", "low")
COLUMNS = (*PRICES, "volume", "turnover")
RUN = 5  # rows that a ratio has to hold for to be called a basis
SHIFTED = 10  # rows that have to agree at another stamp, and
SHARE = 0.9  # their share of those that can be compared, to be called a shift


class Series:
    """The comparison of one symbol's bars of one interval."""

    def __init__(
        self,
        name: tuple[str, str],
        left: Mapping[str, Any],
        right: Mapping[str, Any],
        tolerance: float,
        total: Disagreement,
    ) -> None:
        self.symbol, self.interval = name
        self.left, self.right, self.tolerance, self.total = left, right, tolerance, total
        _, self.at_left, self.at_right = np.intersect1d(
            left["ts"], right["ts"], assume_unique=True, return_indices=True
        )
        self.ts: Numbers = left["ts"][self.at_left]
        self.units = {column: (_unit(left[column]), _unit(right[column])) for column in COLUMNS}

    def run(self) -> None:
        """Add what is found to the total."""
        total = self.total
        total.common += self.ts.size
        total.symbols += self.ts.size > 0
        shifted = self._shift()
        self._alone(self.left, self.right, self.at_left, total.left)
        self._alone(self.right, self.left, self.at_right, total.right)
        if not self.ts.size:
            return
        ratio, inverse = (np.ones(self.ts.size), np.zeros(self.ts.size, bool)) if shifted else self._bases()
        any_differs = np.zeros(self.ts.size, bool)
        examples: list[dict[str, Any]] = []
        for column in COLUMNS:
            one, other = self.left[column][self.at_left], self.right[column][self.at_right]
            known = ~np.isnan(one) & ~np.isnan(other)
            if by_one := int((np.isnan(one) != np.isnan(other)).sum()):
                total.known_by_one[column] += by_one
            differs = known & (np.abs(one - other) > self.tolerance * np.maximum(np.abs(one), np.abs(other)))
            if not differs.any():
                continue
            any_differs |= differs
            for reason, rows in self._reasons(column, one, other, differs, ratio, inverse, shifted):
                if rows.any():
                    total.differing.setdefault(column, Counter())[reason] += int(rows.sum())
                    at = np.flatnonzero(rows)[: total.limit]
                    examples += [self._example(int(i), column, one[i], other[i], reason) for i in at]
        if any_differs.any():
            total.by_symbol[self.symbol] += int(any_differs.sum())
            total.examples = first_of(total.examples + examples, total.limit)

    def _example(self, at: int, column: str, one: float, other: float, reason: str) -> dict[str, Any]:
        key = {"symbol": self.symbol, "interval": self.interval, "ts": _iso(self.ts[at]), "column": column}
        return {**key, "left": float(one), "right": float(other), "reason": reason}

    def _alone(self, mine: Mapping[str, Any], theirs: Mapping[str, Any], common: Numbers, alone: Alone) -> None:
        only = np.ones(mine["ts"].size, bool)
        only[common] = False
        inside = only & (mine["ts"] >= theirs["ts"][0]) & (mine["ts"] <= theirs["ts"][-1])
        alone.outside += int((only & ~inside).sum())
        if rows := int(inside.sum()):
            alone.rows += rows
            alone.halted += int((inside & (mine["volume"] == 0.0)).sum())
            alone.symbols[self.symbol] += rows

    def _reasons(
        self, column: str, one: Floats, other: Floats, differs: Mask, ratio: Floats, inverse: Mask, shifted: bool
    ) -> Iterator[tuple[str, Mask]]:
        """Yield each reason with the rows that it explains, every differing row once."""
        if shifted:
            yield "shifted", differs
            return
        mine, theirs = self.units[column]
        based = ratio != 1.0
        factor = ratio if column in PRICES else np.where(inverse, 1.0 / ratio, 1.0)
        near = np.abs(one - factor * other) <= mine + factor * theirs + self.tolerance * np.abs(one)
        basis = differs & based & near & (factor != 1.0)
        rounded = differs & ~basis & (np.abs(one - other) <= max(mine, theirs) * (1 + 1e-9))
        yield "basis", basis
        yield "rounded", rounded
        yield "unexplained", differs & ~basis & ~rounded

    def _bases(self) -> tuple[Floats, Mask]:
        """Find the runs of a constant ratio of closes; return each row's ratio (1 = none) and whether volumes go with
        it."""
        one, other = self.left["close"][self.at_left], self.right["close"][self.at_right]
        ratio, inverse = np.ones(one.size), np.zeros(one.size, bool)
        usable = np.flatnonzero((one > 0) & (other > 0))
        differs = np.abs(one - other)[usable] > self.tolerance * one[usable]
        if not differs.any():
            return ratio, inverse
        mine, theirs = self.units["close"]
        slack = max(self.tolerance, 1e-12)
        low = (one[usable] - mine) / (other[usable] + theirs) * (1 - slack)
        high = (one[usable] + mine) / np.maximum(other[usable] - theirs, 1e-300) * (1 + slack)
        for begin, end in _runs(low, high):
            if end - begin < RUN or low[begin:end].max() <= 1.0 <= high[begin:end].min():
                continue
            at = usable[begin:end]
            # A ratio that every row of the run allows; a whole one, as of a split, where that is allowed.
            least, most = float(low[begin:end].max()), float(high[begin:end].min())
            middle = (least + most) / 2
            whole = float(round(middle)) if middle >= 1 else 1 / round(1 / middle)
            found = whole if least <= whole <= most else middle
            volume = self._volume(at, found)
            ratio[at], inverse[at] = found, volume == "inverse"
            basis = Basis(
                self.symbol, self.interval, found, _iso(self.ts[at[0]]), _iso(self.ts[at[-1]]), at.size, volume
            )
            self.total.bases.append(basis)
        return ratio, inverse

    def _volume(self, at: Numbers, ratio: float) -> Volume:
        one, other = self.left["volume"][self.at_left][at], self.right["volume"][self.at_right][at]
        usable = (one > 0) & (other > 0)
        if not usable.any():
            return "unknown"
        median = float(np.median(one[usable] / other[usable]))
        near = 0.02 * min(1.0, abs(ratio - 1))
        if abs(median - 1) <= near:
            return "same"
        return "inverse" if abs(median * ratio - 1) <= near else "other"

    def _shift(self) -> bool:
        """Look for the left closes at other stamps of the right when those at the same stamps do not agree."""
        mine, theirs = self.left, self.right
        here = _agreeing(mine["close"][self.at_left], theirs["close"][self.at_right], self.tolerance)
        if self.ts.size >= SHIFTED and here[1] and here[0] / here[1] >= 0.5:
            return False
        best: Shift | None = None
        for seconds in self._steps():
            places = np.searchsorted(theirs["ts"], mine["ts"] + seconds)
            places = np.minimum(places, theirs["ts"].size - 1)
            hit = theirs["ts"][places] == mine["ts"] + seconds
            best = self._better(best, seconds / 1e6, 0, mine["close"][hit], theirs["close"][places[hit]])
        if self.ts.size:  # the same sessions, a bar apart: weekends make it several spans
            for bars in (1, -1):
                places = self.at_right + bars
                hit = (places >= 0) & (places < theirs["ts"].size)
                one, other = mine["close"][self.at_left[hit]], theirs["close"][places[hit]]
                best = self._better(best, 0.0, bars, one, other)
        if best is None or (here[1] and best.share < here[0] / here[1] + 0.3):
            return False
        self.total.shifts.append(best)
        return True

    def _better(self, best: Shift | None, seconds: float, bars: int, one: Floats, other: Floats) -> Shift | None:
        same, known = _agreeing(one, other, self.tolerance)
        if known < SHIFTED or same < SHIFTED or same / known < SHARE or np.unique(one).size < SHIFTED / 2:
            return best
        if best is not None and (best.rows, best.share) >= (known, same / known):
            return best
        return Shift(self.symbol, self.interval, seconds, bars, known, same / known)

    def _steps(self) -> list[int]:
        """Return distances to try, in microseconds: those at which left stamps without a partner find one most often,
        and a bar's length."""
        mine, theirs = self.left["ts"], self.right["ts"]
        only = np.setdiff1d(mine, theirs, assume_unique=True)
        steps: Counter[int] = Counter()
        for offset in (-1, 0):
            places = np.clip(np.searchsorted(theirs, only) + offset, 0, theirs.size - 1)
            steps.update((theirs[places] - only).tolist())
        found = [step for step, _ in steps.most_common(4) if step]
        if mine.size > 1:
            length = int(np.median(np.diff(mine)))
            found += [length, -length]
        return list(dict.fromkeys(found))


def _agreeing(one: Floats, other: Floats, tolerance: float) -> tuple[int, int]:
    """Count the values that agree and those that both sides know."""
    known = ~np.isnan(one) & ~np.isnan(other)
    return int((np.abs(one - other)[known] <= tolerance * np.abs(one[known])).sum()), int(known.sum())


def _unit(values: Floats) -> float:
    """Return the step in which values are written: 1 or 0.01; 0 for finer ones."""
    known = values[np.isfinite(values)]
    for unit in (1.0, 0.01):
        if bool((np.abs(known / unit - np.round(known / unit)) < 1e-6).all()):
            return unit
    return 0.0


def _runs(low: Floats, high: Floats) -> Iterator[tuple[int, int]]:
    """Yield the longest stretches, from the left, whose ranges low..high all hold one common number."""
    begin, size = 0, low.size
    while begin < size:
        end, span, floor, ceiling = begin, 64, -np.inf, np.inf
        while end < size:
            lows = np.maximum(np.maximum.accumulate(low[end : end + span]), floor)
            highs = np.minimum(np.minimum.accumulate(high[end : end + span]), ceiling)
            apart = lows > highs
            if apart.any():
                end += int(apart.argmax())
                break
            end, floor, ceiling, span = end + lows.size, lows[-1], highs[-1], span * 2
        yield begin, end
        begin = end


def _iso(stamp: np.int64) -> str:
    return f"{np.datetime64(int(stamp), 'us').astype('datetime64[s]')}Z"
