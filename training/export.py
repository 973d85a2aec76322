"""Networks as programs of torch.export: raw features in, scores out, any number of windows, no code of ours needed."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from storage.store import replacing

from .quantise import PredictError
from .scaler import Scaler
from .score import Ensemble, Learned, Scorer, last_fold

_FLAT = 1e-6  # as in gather.py
_NEAR = 1e-5  # of 1 + |score|: sums are taken in another order


class Raw(nn.Module):
    """Map windows of raw features (B, L, F) to scores (B, H): scaling, normalisation and networks. NaN gives NaN."""

    center: torch.Tensor
    scale: torch.Tensor

    def __init__(self, ensemble: Ensemble, scaler: Scaler) -> None:
        super().__init__()
        self.ensemble, self.clip = ensemble, scaler.clip
        self.register_buffer("center", torch.from_numpy(scaler.center_F))
        self.register_buffer("scale", torch.from_numpy(scaler.scale_F))
        self.eval()

    def forward(self, x_BLF: torch.Tensor) -> torch.Tensor:
        x_BLF = (x_BLF - self.center) / self.scale
        if self.clip:
            x_BLF = x_BLF.clamp(-self.clip, self.clip)
        if self.ensemble.normalise:
            x_BLF = x_BLF - x_BLF.mean(dim=1, keepdim=True)
            deviation = x_BLF.square().mean(dim=1, keepdim=True).sqrt()
            x_BLF = torch.where(deviation > _FLAT, x_BLF / deviation, torch.zeros_like(x_BLF))
        score_BH: torch.Tensor = self.ensemble(x_BLF)
        return score_BH


def export_all(trained: Path, out: Path) -> dict[str, float]:
    """Write out/<name>.pt2 for each network of the last fold, seeds averaged, and return by name how far its scores lie
    from the Scorer's at most. PredictError where that is more than rounding.
    """
    learned = Learned.read(last_fold(trained))
    far = {}
    for name in learned.files:
        if learned.ensemble(name).network:
            scorer = Scorer(trained, name)
            far[name] = _exported(out / f"{name}.pt2", scorer)
    return far


def _exported(path: Path, scorer: Scorer) -> float:
    center, scale = scorer.scaler.center_F, scorer.scaler.scale_F
    random = np.random.default_rng(0)
    windows = random.standard_normal((16, scorer.window, len(scorer.features)), np.float32) * scale + center
    x_BLF = torch.from_numpy(windows.astype(np.float32))
    expected = scorer.score(x_BLF.numpy()).reshape(len(x_BLF), -1)
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch tells of its own LSTM's attributes
        any_number = ({0: torch.export.Dim("batch", min=1)},)
        program = torch.export.export(Raw(scorer.ensemble, scorer.scaler), (x_BLF[:2],), dynamic_shapes=any_number)
        torch.export.save(program, file)
        file.seek(0)
        module = torch.export.load(file).module()
        got = np.concatenate([module(x_BLF[:1]).numpy(), module(x_BLF[1:]).numpy()])
        far = float(np.abs(got - expected).max())
        if not far <= _NEAR * (1 + float(np.abs(expected).max())):
            raise PredictError(
                f"expected {path} to give the scores of the model it was made of, got a difference of {far:g}; leave "
                "out predict.export"
            )
    with replacing(path) as temporary:
        temporary.write_bytes(file.getvalue())
    return far
