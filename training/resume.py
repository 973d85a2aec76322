"""The state of a network in training: kept so that a killed run goes on and ends with the same bits on a CPU."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from . import checkpoint
from .model import save_model

if TYPE_CHECKING:
    from .trainer import Loop

_PLACE = ("epoch", "cursor", "total", "spent", "micro", "best_epoch", "stale", "history")


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of all weights, on the CPU."""
    return {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}


def keep(loop: Loop) -> None:
    """Write out/last.pt, and out/best.pt after the best epoch so far. All ranks call it, the first one writes."""
    loop.kept = time.monotonic()
    if loop.out is None:
        return
    random = loop.ranks.each(loop.model.random.get_state(), loop.device)
    if not loop.ranks.first:
        return
    value = {
        "fingerprint": loop.fingerprint,
        **{name: getattr(loop, name) for name in _PLACE},
        "weights": weights_of(loop.model),
        "best_weights": loop.best_state,
        "optimizer": loop.optimizer.state_dict(),
        "grad_scaler": loop.grad_scaler.state_dict(),
        "random": random,
    }
    checkpoint.keep(loop.out / "last.pt", value)
    if loop.stale == 0 and loop.cursor == 0:
        save_model(loop.out / "best.pt", loop.name, loop.model, loop.train)


def resume(loop: Loop) -> None:
    """Go on from out/last.pt when it is of the same data and settings; say so when it is not."""
    if loop.out is None:
        return
    value, troubles = checkpoint.newest(loop.out / "last.pt")
    for trouble in troubles:
        loop.emit("log", level="warning", text=f"{loop.name}: {trouble}")
    if value is None:
        if troubles:
            loop.emit("log", level="warning", text=f"{loop.name} starts again: no checkpoint is left")
        return
    if value["fingerprint"] != loop.fingerprint:
        text = f"{loop.name} starts again: {loop.out / 'last.pt'} is of other data or settings"
        loop.emit("log", level="warning", text=text)
        return
    loop.model.load_state_dict(value["best_weights"])  # best.pt may be behind last.pt, which is written first
    if value["history"] and loop.ranks.first:
        save_model(loop.out / "best.pt", loop.name, loop.model, loop.train)
    loop.model.load_state_dict(value["weights"])
    loop.optimizer.load_state_dict(value["optimizer"])
    loop.grad_scaler.load_state_dict(value["grad_scaler"])
    loop.model.random.set_state(value["random"][loop.ranks.rank])
    for name in _PLACE:
        setattr(loop, name, value[name])
    loop.best_state = value["best_weights"]
    loop.emit("log", level="info", text=f"{loop.name} goes on in epoch {loop.epoch} after {loop.cursor:,} windows")
