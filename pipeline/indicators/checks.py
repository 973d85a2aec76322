"""What `compute` expects of its frames and words, said before any work.

Nothing here imports pandas or cuDF: the type of the data answers which of the two it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .columns import Column
from .frame import array_of, on_host, unit_of
from .libraries import LIBRARIES
from .spec import IndicatorError, nearest
from .timeframes import length_of

LEVELS = ("numba", *LIBRARIES)
_ADVICE = {
    "polars": "give frame.to_pandas(), of a lazy one frame.collect().to_pandas()",
    "dask": "give frame.compute(), or its partitions one by one with each symbol whole",
    "dask_cudf": "give frame.compute(), or its partitions one by one with each symbol whole",
    "pyarrow": "give table.to_pandas()",
}

_TO = "pandas.to_numeric(..., errors='coerce'), which makes NaN of what is none"


def check_words(dtype: Any, threads: Any, level: Any) -> None:
    """Raise IndicatorError for a type, a number of threads or a level that there is not."""
    try:
        known = np.dtype(dtype) in (np.dtype("float32"), np.dtype("float64"))
    except TypeError:
        known = False
    if not known:
        raise IndicatorError(f"expected dtype float32 or float64, got {dtype!r}; cast the result to any other type")
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or threads < 1:
        raise IndicatorError(f"expected threads, a whole number from 1 on, got {threads!r}")
    if level not in LEVELS:
        hint = nearest(str(level), list(LEVELS))
        if level in ("auto", "dask", "cuda"):
            hint = f"; {level} is for the features stage: leave it out, a cuDF frame is computed on its GPU anyway"
        raise IndicatorError(f"expected level numba, pandas or polars, got {level!r}{hint}")


def check_columns(columns: Sequence[Column]) -> None:
    """Raise IndicatorError for operators that need what no frame of bars says."""
    if beyond := [c.name for c in columns if any(operator.by for operator in c.cross)]:
        raise IndicatorError(
            f"expected operators rank, zscore or winsorise in 'cross', got neutralise for {beyond}; only the features "
            "stage knows sectors and sizes: name these columns in a feature set or in features.extra"
        )


def check_frames(frames: Mapping[str, Any], needed: Mapping[str, Sequence[str]]) -> None:
    """Raise IndicatorError for frames that cannot be computed on as they are.

    frames : bars by interval, '' = those that get the columns. needed : by the same keys, the columns that are read.
    """
    for at, bars in frames.items():
        _check_kind(bars, _where(at), like=frames[""])
        _check_frame(bars, needed[at], _where(at))
    own = _interval(frames[""])
    zones = {at: "," in str(bars["ts"].dtype) for at, bars in frames.items() if len(bars)}
    for at, bars in frames.items():
        if not at:
            continue
        if _interval(bars) not in ("", at):
            raise IndicatorError(
                f"expected bars of {at} in {_where(at)}, got those of {_interval(bars)} by its column 'interval'; give "
                "the frame under its own interval"
            )
        if length_of(at) and length_of(own) and length_of(at) <= length_of(own):
            raise IndicatorError(
                f"expected an interval coarser than the bars, which are of {own}, got at: {at}; leave 'at' out or "
                "name a longer one"
            )
        if at in zones and "" in zones and zones[at] != zones[""]:
            kinds = {True: "with a time zone", False: "without a time zone"}
            raise IndicatorError(
                f"expected ts with a time zone in all frames or in none, got the bars {kinds[zones['']]} and "
                f"{_where(at)} {kinds[zones[at]]}; give all a zone, such as frame['ts'].dt.tz_localize('Asia/Seoul')"
            )


def check_level(bars: Any, level: str) -> None:
    """Raise IndicatorError where a library cannot read the frame."""
    if level in LIBRARIES and _kind(bars) == "cudf":
        raise IndicatorError(f"expected a pandas frame for level {level}, got a cuDF frame; give bars.to_pandas()")


def _where(at: str) -> str:
    return f"coarser['{at}']" if at else "the bars"


def _kind(frame: Any) -> str:
    """Return pandas or cudf, empty where the object is no frame of theirs."""
    roots = [one.__module__.partition(".")[0] for one in type(frame).__mro__ if one.__name__ == "DataFrame"]
    return next((root for root in roots if root in ("pandas", "cudf")), "")


def _check_kind(frame: Any, where: str, *, like: Any) -> None:
    if not _kind(frame):
        of = type(frame)
        advice = _ADVICE.get(of.__module__.partition(".")[0], "make one with pandas.DataFrame(...)")
        raise IndicatorError(
            f"expected a pandas or cuDF frame as {where}, got {of.__module__}.{of.__qualname__}; {advice}"
        )
    if _kind(frame) != _kind(like):
        raise IndicatorError(
            f"expected frames of one library, got {_kind(like)} for the bars and {_kind(frame)} as {where}; convert one"
        )


def _check_frame(bars: Any, needed: Sequence[str], where: str) -> None:
    names = list(bars.columns)
    if missing := [name for name in needed if name not in names]:
        kept = [name for name in missing if name in bars.index.names]
        hint = f"; {kept} are in the index: give bars.reset_index()" if kept else ""
        raise IndicatorError(f"expected columns {tuple(needed)} in {where}, got none named {missing}{hint}")
    if doubled := [name for name in (*needed, "interval", "source") if names.count(name) > 1]:
        raise IndicatorError(
            f"expected each column once in {where}, got several named {doubled}; drop all but one, such as with "
            "bars.loc[:, ~bars.columns.duplicated()]"
        )
    for name in ("interval", "source"):
        if name in names and bars[name].nunique() > 1:
            found = sorted(str(v) for v in on_host(bars[name].drop_duplicates()))
            raise IndicatorError(f"expected bars of one {name}, got {found} in {where}; compute each apart")
    if not len(bars):
        return
    if not unit_of(bars):
        raise IndicatorError(
            f"expected datetimes in 'ts' of {where}, got {_told(bars['ts'])}; convert them: "
            "bars['ts'] = pandas.to_datetime(bars['ts'], utc=True), or with a unit= where they are numbers"
        )
    for name in ("symbol", "ts"):
        if count := int(bars[name].isna().sum()):
            row = int(np.flatnonzero(on_host(bars[name].isna()))[0])
            raise IndicatorError(
                f"expected a {name} in every row of {where}, got {count} without, the first in row {row}; drop them: "
                f"bars.dropna(subset=['{name}'])"
            )
    for name in needed:
        if name not in ("symbol", "ts") and (wrong := _no_number(bars[name])):
            raise IndicatorError(f"expected real numbers in '{name}' of {where}, got {wrong}; convert them with {_TO}")


def _no_number(column: Any) -> str:
    """Return what keeps a column from being real numbers, empty where nothing does; objects may be any that become
    some, such as Decimal, but no text.
    """
    kind = getattr(column.dtype, "kind", "O")
    if kind in "iufb":
        return ""
    if kind != "O":
        return _told(column)
    for value in on_host(column):
        if isinstance(value, (str, bytes, complex)):
            return f"{column.dtype}, such as {value!r}"
    try:
        array_of(column)
    except (TypeError, ValueError):
        return _told(column)
    return ""


def _told(column: Any) -> str:
    return f"{column.dtype}, such as {on_host(column.iloc[:1])[0]!r}"


def _interval(bars: Any) -> str:
    """Return the interval that a frame names, empty where it names none."""
    found = on_host(bars["interval"].iloc[:1]) if "interval" in bars.columns and len(bars) else []
    return str(found[0]) if len(found) else ""
