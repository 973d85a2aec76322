"""Columns of tables as arrays, which numbers and charts are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]
Days = npt.NDArray[np.datetime64]


def column(table: pa.Table, name: str) -> Floats:
    """Return a column as float64, null as NaN."""
    return np.asarray(table[name].to_numpy(), np.float64)


def days(table: pa.Table) -> Days:
    """Return the KST calendar day of each row's `ts`."""
    stamp = table["ts"].to_numpy().astype("datetime64[us]")
    return np.asarray((stamp + np.timedelta64(9, "h")).astype("datetime64[D]"))
