"""Models by name: one way to build, save and load them, so that prediction treats all alike.

A model is a torch module that maps windows x_BLF to scores (B,). Its file holds tensors and plain values only and is
loaded with `weights_only=True`: a checkpoint from somebody else cannot run code.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch

from storage.store import replacing

from ..section import ModelName
from .lstm import LSTM
from .ridge import Ridge

VERSION = 1


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged or of another kind."""


def build(name: ModelName, n_features: int, hidden_size: int, dropout: float, seed: int) -> LSTM | Ridge:
    """Build a model with weights drawn from `seed` alone, whatever the state of torch's own generator."""
    if name == "ridge":
        return Ridge(n_features)
    return LSTM(n_features, hidden_size, dropout, seed)


def save(path: Path, value: dict[str, Any]) -> None:
    """Write tensors and plain values; readers see the old file or the new one, never a part."""
    with replacing(path) as temporary:
        torch.save({"version": VERSION, **value}, temporary)


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, tensors on the CPU; CheckpointError names a file that is missing or damaged."""
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"expected a checkpoint of tensors at {path}, got: {error}; remove its folder and train again"
        ) from error
    if not isinstance(value, dict) or value.get("version") != VERSION:
        raise CheckpointError(
            f"expected a checkpoint of version {VERSION} at {path}, got another kind of file; train again"
        )
    return value


def save_model(path: Path, name: ModelName, model: LSTM | Ridge, window: int) -> None:
    """Write a model so that `load_model` needs nothing else."""
    state = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    save(path, {"model": name, "window": window, "shape": model.shape(), "state": state})


def load_model(path: Path) -> tuple[LSTM | Ridge, int]:
    """Return a model on the CPU, ready to score, and the window length it needs in bars."""
    value = load(path)
    shape = value["shape"]
    model = build(value["model"], shape["n_features"], shape.get("hidden_size", 1), 0.0, 0)
    model.load_state_dict(value["state"])
    model.eval()
    return model, int(value["window"])


def state_digest(model: LSTM | Ridge) -> str:
    """Name a model's weights, bit for bit."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name}{tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:32]
