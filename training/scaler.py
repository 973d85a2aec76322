"""Scaling of features, fitted on training rows and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from storage.store import StoreError, read_json

_CHUNK = 1 << 18
_NORMAL_IQR = 1.3489795  # interquartile range of a standard normal


@dataclass(frozen=True)
class Scaler:
    """Map a feature to (x - center) / scale, clipped at +-clip (0 = not clipped); NaN stays NaN."""

    features: tuple[str, ...]
    center_F: NDArray[np.float32]
    scale_F: NDArray[np.float32]
    clip: float

    @classmethod
    def fit(
        cls,
        x_NF: NDArray[np.float32],
        rows_N: NDArray[np.bool_],
        features: tuple[str, ...],
        kind: Literal["robust", "standard"],
        clip: float,
    ) -> Self:
        """Measure each feature (N, F) on the rows (N,) given, ignoring NaN.

        standard: mean and deviation. robust: median and interquartile range / 1.349 (the deviation of a normal
        variable); the deviation where more than half of the values are equal. A constant feature gets scale 1. A
        feature must be finite somewhere in the rows.
        """
        center, scale = np.empty(len(features)), np.empty(len(features))
        for f in range(len(features)):
            column = x_NF[rows_N, f]
            column = column[np.isfinite(column)]
            deviation = float(np.std(column, dtype=np.float64))
            if kind == "standard":
                center[f], spread = float(np.mean(column, dtype=np.float64)), deviation
            else:
                low, center[f], high = np.percentile(column, [25, 50, 75])
                spread = (high - low) / _NORMAL_IQR or deviation
            scale[f] = spread if spread > 1e-6 * abs(center[f]) and spread > 1e-30 else 1.0
        return cls(features, center.astype(np.float32), scale.astype(np.float32), clip)

    def apply(self, x_NF: NDArray[np.float32]) -> None:
        """Scale a matrix (N, F) in place."""
        for a in range(0, len(x_NF), _CHUNK):
            part = x_NF[a : a + _CHUNK]
            part -= self.center_F
            part /= self.scale_F
            if self.clip:
                np.clip(part, -self.clip, self.clip, out=part)

    def to_json(self) -> dict[str, Any]:
        return {
            "features": list(self.features),
            "center": [float(v) for v in self.center_F],
            "scale": [float(v) for v in self.scale_F],
            "clip": self.clip,
        }

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of `to_json`; StoreError names it where it holds something else."""
        value = read_json(path)
        try:
            found = cls(
                tuple(map(str, value["features"])),
                np.asarray(value["center"], np.float32),
                np.asarray(value["scale"], np.float32),
                float(value["clip"]),
            )
            whole = found.center_F.shape == found.scale_F.shape == (len(found.features),)
        except (LookupError, TypeError, ValueError):
            whole = False
        if not whole:
            raise StoreError(
                f"expected a scaler with features, center, scale and clip at {path}, got something else; remove the "
                "folder of its stage or model and train again"
            )
        return found
