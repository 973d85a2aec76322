"""Networks that score with fewer bits, and the gate that refuses them where that costs too much.

bf16 and fp16: weights and activations are rounded. int8: those of dense layers and LSTMs, row by row; convolutions stay
float32. int4: weights of dense layers of the transformer and the TCN's inlet alone, in groups of 32, with bf16
activations.
"""

from __future__ import annotations

import copy
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .int8 import to_int8
from .metrics import Sections, mean_rank_ic
from .score import Ensemble

_GROUP = 32  # weights that share a scale
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16, "int4": torch.bfloat16}


class PredictError(Exception):
    """Scores that are not good enough to be used."""


def quantised(ensemble: Ensemble, precision: str, device: torch.device) -> Ensemble:
    """Return a copy of the networks on `device` that computes in another precision; PredictError where no layer of it
    has an int4 form. What the device must be: precision.check_scoring.
    """
    out = copy.deepcopy(ensemble).to(device)
    if precision == "int8":
        to_int8(out)
        return out
    out.kind = _HALF[precision]
    out.to(out.kind)
    if precision == "int4":
        _to_int4(out)
    return out


def _to_int4(model: nn.Module) -> None:
    """Quantise the weights of dense layers in place, on a GPU."""
    from torchao.quantization import Int4WeightOnlyConfig, quantize_

    def fits(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and module.in_features % _GROUP == 0 and module.out_features >= 8

    if not any(fits(module, "") for module in model.modules()):
        raise PredictError(
            f"expected dense layers of a multiple of {_GROUP} inputs because predict.precision is 'int4', got none; an "
            "LSTM has no int4 form: use bf16, or leave it out"
        )
    form = {"int4_packing_format": "tile_packed_to_4d", "int4_choose_qparams_algorithm": "hqq"}
    quantize_(model, Int4WeightOnlyConfig(group_size=_GROUP, set_inductor_config=False, **form), fits)


def gate(
    name: str,
    precision: str,
    scores: tuple[NDArray[np.float32], ...],
    y_W: NDArray[np.float32],
    sections: Sections,
    allowed: float,
) -> dict[str, Any]:
    """Compare the rank IC of float32 scores and of the others (W,) of validation windows; PredictError when it drops by
    more than `allowed`, or where either has none.
    """
    exact, other = (mean_rank_ic(score_W, y_W, sections) for score_W in scores)
    if not (isfinite(exact) and isfinite(other) and exact - other <= allowed):
        raise PredictError(
            f"expected {name} in {precision} to lose at most {allowed:g} of its validation rank IC "
            f"(predict.max_ic_loss), got {other:.4f} against {exact:.4f} in float32, {exact - other:.2g} less, over "
            f"{len(y_W)} windows; use another predict.precision"
        )
    return {"float32": exact, precision: other, "windows": len(y_W)}
