"""What a model learns, made from forward returns within one timestamp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .columns import DataError
from .metrics import average_ranks

Kind = Literal["rank", "excess", "return", "label"]
FEW_SYMBOLS = 10
_CLIP = 5.0


def choose_kind(asked: Literal["auto", "rank", "excess", "return", "label"], ts_N: NDArray[np.int64]) -> Kind:
    """Resolve auto: the return where a timestamp has on median fewer than 10 rows, else the rank."""
    if asked != "auto":
        return asked
    counts = np.unique(ts_N, return_counts=True)[1]
    return "return" if len(counts) == 0 or float(np.median(counts)) < FEW_SYMBOLS else "rank"


def transform(
    kind: Kind, y_N: NDArray[np.float32], ts_N: NDArray[np.int64], fit_N: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Turn labels (N,) into targets (N,), of about unit variance but for `label`; NaN stays NaN.

    rank: the average rank within the timestamp, from -sqrt(3) to sqrt(3); NaN where a timestamp has one row. excess:
    return minus the timestamp's mean; return: minus the mean of the rows `fit_N` (training). Both are divided by the
    deviation of the rows `fit_N` and clipped at 5, so that one limit-up run does not rule the loss. label: as it
    is, for sides of barriers.
    """
    if kind == "label":
        return y_N.astype(np.float32)
    out_N = np.full(len(y_N), np.nan, np.float32)
    rows = np.flatnonzero(np.isfinite(y_N))
    stamps, code = np.unique(ts_N[rows], return_inverse=True)
    n = np.bincount(code, minlength=len(stamps))[code]
    y = y_N[rows].astype(np.float64)
    if kind == "rank":
        share = (average_ranks(y, code) - 0.5) / n - 0.5
        out_N[rows] = np.where(n > 1, share * np.sqrt(12.0), np.nan)
        return out_N
    fit = fit_N[rows]
    if kind == "excess":
        y -= (np.bincount(code, y, len(stamps)) / np.maximum(np.bincount(code, minlength=len(stamps)), 1))[code]
    else:
        y -= y[fit].mean()
    deviation = float(y[fit].std())
    out_N[rows] = np.clip(y / deviation, -_CLIP, _CLIP) if deviation > 0 else y
    return out_N


def check_targets(target_NH: NDArray[np.float32], names: Sequence[str], kind: Kind) -> None:
    """Refuse targets (N, H) of training rows that are all the same; DataError names the label."""
    for h, name in enumerate(names):
        known = target_NH[np.isfinite(target_NH[:, h]), h]
        if known.size and known.min() == known.max():
            raise DataError(
                f"expected targets that differ among training rows, got {known[0]:g} in all {known.size} of {name} "
                f"({kind}); choose another label or train.target_kind (return where moments have one symbol)"
            )


def shuffle(target_N: NDArray[np.float32], parts: list[NDArray[np.bool_]], seed: int) -> None:
    """Permute the known targets inside each part in place: the same values, none of the information."""
    random = np.random.default_rng([seed, 7])
    for part_N in parts:
        rows = np.flatnonzero(part_N & np.isfinite(target_N))
        target_N[rows] = target_N[random.permutation(rows)]
