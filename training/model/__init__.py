"""Models by name: one way to build, save and load them, so that prediction treats all alike.

A model is a torch module that maps windows x_BLF to scores (B, H). Its file holds tensors and plain values only and is
loaded with `weights_only=True`: a checkpoint from somebody else cannot run code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..checkpoint import load, save
from ..section import ModelName, TrainSection
from .lstm import LSTM
from .ridge import Ridge
from .tcn import TCN
from .transformer import Transformer
from .trees import Trees

_NETWORKS: dict[str, Callable[..., Any]] = {"lstm": LSTM, "tcn": TCN, "transformer": Transformer}
_BASELINES: dict[str, Callable[..., Any]] = {"ridge": Ridge, "trees": Trees}


class Loaded(NamedTuple):
    """A model on the CPU, ready to score, and what its windows are: bars, normalised or not, and the gap between bars
    (days) at which they break.
    """

    model: nn.Module
    window: int
    normalise: bool
    max_gap_days: float


def build(name: ModelName, shape: Mapping[str, int], dropout: float, seed: int) -> Any:
    """Build a model with weights drawn from `seed` alone, whatever the state of torch's own generator."""
    if name in _BASELINES:
        return _BASELINES[name](**shape)
    return _NETWORKS[name](**shape, dropout=dropout, seed=seed)


def save_model(path: Path, name: ModelName, model: Any, train: TrainSection) -> None:
    """Write a model so that `load_model` needs nothing else."""
    state = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    normalise = name in _NETWORKS and train.normalise == "window"
    windows = {"window": train.window, "normalise": normalise, "max_gap_days": train.max_gap_days}
    save(path, {"model": name, "shape": model.shape(), **windows, "state": state})


def load_model(path: Path) -> Loaded:
    """Read a model that `save_model` wrote. CheckpointError."""
    value = load(path)
    model = build(value["model"], value["shape"], 0.0, 0)
    model.load_state_dict(value["state"])
    model.eval()
    return Loaded(model, int(value["window"]), bool(value["normalise"]), float(value["max_gap_days"]))


def state_digest(model: nn.Module) -> str:
    """Name a model's weights, bit for bit."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name}{tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:32]
