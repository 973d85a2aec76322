"""Columns of indicators in tests: of one series by output, on either device, and how far two are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pipeline.indicators import Indicator, Spec, compute
from tests.walks import Array, Bars, frame


def columns(bars: pd.DataFrame, specs: list[Any], on: str = "cpu", dtype: Any = np.float64) -> pd.DataFrame:
    """Compute on a device and bring the columns back."""
    if on == "cpu":
        return compute(bars, specs, dtype=dtype)
    import cudf

    return compute(cudf.DataFrame.from_pandas(bars), specs, dtype=dtype).to_pandas()


def of_one(one: Indicator, bars: Bars, params: dict[str, float], on: str = "cpu") -> dict[str, Array]:
    found = columns(frame({"A": bars}), [Spec(indicator=one.name, params=params)], on)
    return {output.name: found[name].to_numpy() for output, name in zip(one.outputs, found.columns)}


def difference(expected: Array, got: Array) -> float:
    """Return the largest difference relative to max(|expected|, its median); infinite where only one is known."""
    known = np.isfinite(expected)
    if not known.any():
        return 0.0
    size = np.abs(expected[known])
    gap = np.nan_to_num(np.abs(expected[known] - got[known]), nan=np.inf)
    return float(np.max(np.divide(gap, np.maximum(size, np.median(size)), out=np.zeros_like(gap), where=gap > 0)))
