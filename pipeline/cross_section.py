"""Operators within one moment: a column seen against those of the other members of the universe at the same time.

Columns are long (one row a symbol and moment, in any order), and no value at a moment depends on rows of another one.
Only members take part; a member whose value is not finite takes no part either, and both get NaN. Sums run in the order
of symbols, so that neither the order of rows nor what other moments hold changes a bit.

A column asks for a chain of them, applied from left to right: [winsorise, zscore], [{winsorise: 0.02},
{neutralise: [sector, size]}, rank].

Shapes: N rows, M rows that take part, sorted by (moment, symbol).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, PlainSerializer

from .runs import Runs, changed

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]

NAMES = ("rank", "zscore", "winsorise", "neutralise")
BY = ("sector", "size")
LIMIT = 0.01


class CrossSectionError(ValueError):
    """A chain or a cross-section that cannot be used; the message says expected, got and what to do."""


@dataclass(frozen=True)
class Operator:
    """Name one operator with its parameters.

    rank : (rank - 1/2) / n, ranks from 1, equal values get their mean rank: inside 0..1, mean 1/2 whatever n is.
    zscore : (x - mean) / population standard deviation; 0 where all are equal.
    winsorise : values beyond the quantiles `limit` and 1 - `limit` (linear between values) are set to them.
    neutralise : `by` sector, the difference from the sector's mean; by size, the residual of the least-squares line on
    log(size); by both, that of one line with an intercept for each sector. Unknown sectors (-1) are one sector; a size
    that is not positive is not known and its row takes no part.
    """

    name: str
    limit: float = LIMIT
    by: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Return its part of a column's name."""
        return "_".join([self.name, *([] if self.limit == LIMIT else [f"{self.limit:g}"]), *self.by])

    @property
    def written(self) -> str | dict[str, Any]:
        """Return it as `parse` reads it."""
        if self.name == "neutralise":
            return {self.name: list(self.by)}
        return self.name if self.limit == LIMIT else {self.name: self.limit}


def parse(chain: Any) -> tuple[Operator, ...]:
    """Read a chain such as ["rank"] or [{"winsorise": 0.02}, "zscore"]. Raises CrossSectionError."""
    if not isinstance(chain, (list, tuple)):
        raise CrossSectionError(f"expected a list of operators such as [winsorise, zscore], got {chain!r}")
    return tuple(_one(found) for found in chain)


def label(operators: Sequence[Operator]) -> str:
    """Return the end of the name of a column that a chain is applied to: roc_20 + _ + winsorise_zscore."""
    return "_".join(operator.label for operator in operators)


Chain = Annotated[
    tuple[Operator, ...],
    BeforeValidator(parse),
    PlainSerializer(lambda chain: [operator.written for operator in chain], list[Any]),
]
"""The type of a section's field that holds a chain; it is written as it is read."""


class CrossSection:
    """Hold who takes part in which moment; made once for all columns of the same rows.

    ts_N : moments; symbol_N : numbers in the order of symbols; member_N : who belongs; sector_N : codes, -1 = unknown,
    and size_N : positive, such as the market value in KRW, where a chain neutralises by them. Raises CrossSectionError
    where a member is there twice at a moment.
    """

    def __init__(
        self,
        ts_N: Longs,
        symbol_N: Longs,
        member_N: Bools,
        *,
        sector_N: Longs | None = None,
        size_N: Floats | None = None,
    ) -> None:
        rows = np.flatnonzero(member_N)
        self.rows_M = rows[np.lexsort((symbol_N[rows], ts_N[rows]))]
        self.size = len(ts_N)
        moment, symbol = ts_N[self.rows_M], symbol_N[self.rows_M]
        self.moment_M = np.cumsum(changed(moment), dtype=np.int64)
        doubled = np.flatnonzero(~changed(moment) & ~changed(symbol))
        if doubled.size:
            at = self.rows_M[doubled[0]]
            raise CrossSectionError(
                f"expected a symbol once at each moment, got symbol {symbol_N[at]} twice at {ts_N[at]} (row {at}, "
                f"{doubled.size} rows too many); drop the duplicates"
            )
        self._sector_N, self._size_N = sector_N, size_N

    @cached_property
    def group_M(self) -> Longs:
        """Return the sector within its moment of each row, numbered over all."""
        if self._sector_N is None:
            raise CrossSectionError("expected sectors for 'neutralise: [sector]', got none; give sector_N")
        sector = self._sector_N[self.rows_M].astype(np.int64)
        low = sector.min(initial=0)
        group: Longs = self.moment_M * (sector.max(initial=0) - low + 1) + sector - low
        return group

    @cached_property
    def log_size_M(self) -> Floats:
        """Return the logarithm of sizes, NaN where they are not positive."""
        if self._size_N is None:
            raise CrossSectionError("expected sizes for 'neutralise: [size]', got none; give size_N")
        size = self._size_N[self.rows_M].astype(np.float64)
        return np.log(np.where((size > 0) & np.isfinite(size), size, np.nan))


def apply(operators: Sequence[Operator], x_N: npt.NDArray[Any], section: CrossSection) -> Floats:
    """Return a column after a chain of operators, (N,); NaN where a row takes no part. Raises CrossSectionError."""
    if len(x_N) != section.size:
        raise CrossSectionError(f"expected {section.size} rows, got {len(x_N)}; give those that the section is made of")
    x_M = x_N[section.rows_M].astype(np.float64)
    for operator in operators:
        x_M = _applied(operator, x_M, section)
    out = np.full(section.size, np.nan)
    out[section.rows_M] = np.where(np.isfinite(x_M), x_M, np.nan)
    return out


def _applied(operator: Operator, x_M: Floats, section: CrossSection) -> Floats:
    finite = np.isfinite(x_M)
    if "size" in operator.by:
        finite &= np.isfinite(section.log_size_M)
    kept = np.flatnonzero(finite)
    out = np.full(x_M.size, np.nan)
    if not kept.size:
        return out
    x, moments = x_M[kept], Runs(section.moment_M[kept])
    if operator.name == "rank":
        out[kept] = _rank(x, moments)
    elif operator.name == "zscore":
        out[kept] = _zscore(x, moments)
    elif operator.name == "winsorise":
        out[kept] = _winsorised(x, moments, operator.limit)
    else:
        out[kept] = _neutral(x, moments, kept, section, operator.by)
    return out


def _rank(x: Floats, moments: Runs) -> Floats:
    order = moments.sorted(x)
    value = x[order]
    new = changed(value)
    new[moments.starts] = True
    tie = np.flatnonzero(new)
    length = np.diff(np.append(tie, x.size))
    begin, n = (np.repeat(of, length) for of in (tie, length))
    out = np.empty(x.size)
    out[order] = (begin - moments.spread(moments.starts) + n / 2) / moments.spread(moments.sizes)
    return out


def _zscore(x: Floats, moments: Runs) -> Floats:
    centred = moments.centred(x)
    largest = moments.spread(np.maximum.reduceat(np.abs(centred), moments.starts))
    scaled = centred / np.where(largest > 0, largest, 1.0)  # squares of tiny values would vanish
    deviation = moments.spread(np.sqrt(moments.sums(scaled * scaled) / moments.sizes))
    out: Floats = scaled / np.where(deviation > 0, deviation, 1.0)
    return out


def _winsorised(x: Floats, moments: Runs, limit: float) -> Floats:
    value = x[moments.sorted(x)]

    def quantile(q: float) -> Floats:
        place = q * (moments.sizes - 1)
        low = np.floor(place).astype(np.int64)
        below, above = value[moments.starts + low], value[moments.starts + np.minimum(low + 1, moments.sizes - 1)]
        between: Floats = below + (above - below) * (place - low)
        return between

    return np.clip(x, moments.spread(quantile(limit)), moments.spread(quantile(1 - limit)))


def _neutral(x: Floats, moments: Runs, kept: Longs, section: CrossSection, by: Sequence[str]) -> Floats:
    """Return the residual; with both, x and log size are centred within sectors first (Frisch-Waugh-Lovell)."""
    order = np.argsort(section.group_M[kept], kind="stable") if "sector" in by else np.arange(kept.size)
    groups = Runs(section.group_M[kept[order]]) if "sector" in by else moments

    def centred(values: Floats) -> Floats:
        out = np.empty(values.size)
        out[order] = groups.centred(values[order])
        return out

    x = centred(x)
    if "size" not in by:
        return x
    size = centred(section.log_size_M[kept])
    squares = moments.sums(size * size)
    slope = moments.sums(x * size) / np.where(squares > 0, squares, 1.0)
    residual: Floats = x - moments.spread(slope) * size
    return residual


def _one(found: Any) -> Operator:
    """Read one operator: a name, or a name with its parameter."""
    if isinstance(found, Operator):
        return found
    if isinstance(found, dict) and len(found) == 1:
        name, given = next(iter(found.items()))
    else:
        name, given = found, None
    if not isinstance(name, str):
        raise CrossSectionError(f"expected an operator such as rank or {{winsorise: 0.02}}, got {found!r}")
    if name not in NAMES:
        raise CrossSectionError(f"expected an operator of {', '.join(NAMES)}, got '{name}'{_nearest(name, NAMES)}")
    if name == "neutralise":
        return Operator(name, by=_by(given))
    if name == "winsorise" and given is not None:
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < 0.5:
            raise CrossSectionError(f"expected a limit above 0 and below 0.5 for 'winsorise', got {given!r}")
        return Operator(name, float(given))
    if given is not None:
        raise CrossSectionError(f"expected no parameter for '{name}', got {given!r}; write {name}")
    return Operator(name)


def _by(given: Any) -> tuple[str, ...]:
    wanted = [given] if isinstance(given, str) else given
    if not isinstance(wanted, (list, tuple)) or not wanted:
        raise CrossSectionError(
            f"expected what to neutralise by, such as {{neutralise: [sector, size]}}, got {given!r}; name some"
        )
    for name in wanted:
        if name not in BY:
            raise CrossSectionError(f"expected {' or '.join(BY)} to neutralise by, got '{name}'{_nearest(name, BY)}")
    return tuple(name for name in BY if name in wanted)


def _nearest(name: object, known: Sequence[str]) -> str:
    from .indicators.spec import nearest  # not above: a column holds a chain of this file

    return nearest(str(name), list(known))
