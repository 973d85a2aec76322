"""The models of one fold as prediction and the live stage use them: the same scaling, windows and mean over seeds.

Shapes: S windows, L bars a window, F features, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from storage.store import StoreError, read_json

from .columns import DataError
from .gather import gather
from .hardware import torch_threads
from .model import load_model
from .model.network import Network
from .scaler import Scaler

_PART = 256  # windows that go through a model at once: their activations stay in the cache, however many there are


class Ensemble(nn.Module):
    """Average the scores (B, H) of models that differ in their seed alone, float32 outside whatever `kind` inside.

    window : bars;  normalise : each feature of a window has mean 0 and deviation 1;  max_gap_days : between two bars
    """

    def __init__(self, models: Sequence[nn.Module], window: int, normalise: bool, max_gap_days: float) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.window, self.normalise, self.max_gap_days = window, normalise, max_gap_days
        self.kind = torch.float32
        self.eval().requires_grad_(False)

    @property
    def network(self) -> bool:
        return all(isinstance(model, Network) for model in self.models)

    def forward(self, x_BLF: torch.Tensor) -> torch.Tensor:
        x_BLF = x_BLF.to(self.kind)
        return torch.stack([model(x_BLF).float() for model in self.models]).mean(dim=0)


@dataclass(frozen=True)
class Learned:
    """Hold what training left of a fold: what it recorded about columns, the scaler, each model's files by seed."""

    columns: dict[str, Any]
    scaler: Scaler
    files: dict[str, list[Path]]

    @classmethod
    def read(cls, place: Path) -> Self:
        """Read a folder fold-<k>; DataError without a model, StoreError where its files are not of one training."""
        columns = read_json(place / "columns.json")
        scaler = Scaler.read(place / "scaler.json")
        if list(scaler.features) != columns.get("features"):
            raise StoreError(
                f"expected one set of features in {place}, got different ones in scaler.json and columns.json; train "
                "again"
            )
        files: dict[str, list[Path]] = {}
        for path in sorted(place.glob("*/best.pt")):
            files.setdefault(path.parent.name.rpartition("-")[0], []).append(path)
        if not files:
            raise DataError(f"expected a model in {place}/*/best.pt, got none; run the train stage")
        return cls(columns, scaler, files)

    def ensemble(self, name: str) -> Ensemble:
        """Load all seeds of a model, on the CPU; DataError where there is no such model. CheckpointError."""
        if name not in self.files:
            raise DataError(f"expected a model among {', '.join(self.files)}, got '{name}'")
        loaded = [load_model(path) for path in self.files[name]]
        return Ensemble([one.model for one in loaded], *loaded[0][1:])


def last_fold(trained: Path) -> Path:
    """Return the folder of the last fold of a train stage, whose models know the most history."""
    return Path(trained) / f"fold-{int(read_json(Path(trained) / 'folds.json')[-1]['fold'])}"


class Scorer:
    """Score raw windows with one model of a train stage's last fold, or of the registry: everything is loaded once.

    features : columns of a window, in this order;  window : its bars;  targets : labels, one a head
    """

    def __init__(self, trained: Path, model: str, *, threads: int = 1) -> None:
        learned = Learned.read(last_fold(trained))
        self.ensemble, self.scaler, self.threads = learned.ensemble(model), learned.scaler, threads
        self.features, self.window = learned.scaler.features, self.ensemble.window
        self.targets = tuple(learned.columns["targets"])

    def score(self, x_SLF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores (S,), of several heads (S, H), of windows of raw features; `x_SLF` is left as it is.

        A window with a feature that is not finite scores NaN. The score of a window is that of prediction within 1e-6:
        the size of a batch decides in which order sums are taken.
        """
        expected = (self.window, len(self.features))
        if x_SLF.ndim != 3 or x_SLF.shape[1:] != expected:
            raise DataError(
                f"expected windows (S, {expected[0]}, {expected[1]}) of {', '.join(self.features)}, got {x_SLF.shape}"
            )
        out_SH = np.full((len(x_SLF), len(self.targets)), np.nan, np.float32)
        with torch_threads(self.threads), torch.inference_mode():
            for a in range(0, len(x_SLF), _PART):
                part = x_SLF[a : a + _PART]
                known = np.flatnonzero(np.isfinite(part).all(axis=(1, 2)))
                if known.size:
                    out_SH[a + known] = self.ensemble(torch.from_numpy(self._ready(part[known]))).numpy()
        return out_SH[:, 0] if out_SH.shape[1] == 1 else out_SH

    def _ready(self, x_SLF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale windows that are ours to change, and normalise them where the model wants it."""
        count, length, width = x_SLF.shape
        rows_NF = np.ascontiguousarray(x_SLF, np.float32).reshape(-1, width)
        self.scaler.apply(rows_NF)
        scaled = rows_NF.reshape(x_SLF.shape)
        if not self.ensemble.normalise:
            return scaled
        out = np.empty_like(scaled)
        gather(rows_NF, length * np.arange(1, count + 1) - 1, out, normalise=True, threads=self.threads or 1)
        return out
