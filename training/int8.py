"""Dense layers and LSTMs whose products are of whole numbers, on a CPU.

Each row of activations is scaled by its own largest value, so that a score depends on its own window alone: one scale
for a batch, as torch.ao takes it, lets later windows of the batch move earlier scores.

Shapes: R rows, I inputs, O outputs; B windows, L bars, D states.
"""

from __future__ import annotations

import torch
from torch import nn

_MOST = 127
_LEAST = 1e-30  # of a scale: a row of zeros stays zeros


def rounded(x_RI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return whole numbers (R, I) in int8 and the scale of each row (R, 1)."""
    scale_R1 = x_RI.abs().amax(dim=-1, keepdim=True).div_(_MOST).clamp_min_(_LEAST)
    return (x_RI / scale_R1).round_().to(torch.int8), scale_R1


class Dense(nn.Module):
    """Take the place of a dense layer of these weights (O, I) and bias (O,)."""

    whole_IO: torch.Tensor
    scale_O: torch.Tensor
    bias_O: torch.Tensor

    def __init__(self, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> None:
        super().__init__()
        whole_OI, scale_O1 = rounded(weight_OI)
        self.register_buffer("whole_IO", whole_OI.t().contiguous())
        self.register_buffer("scale_O", scale_O1[:, 0])
        self.register_buffer("bias_O", torch.zeros(len(weight_OI)) if bias_O is None else bias_O.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole_RI, scale_R1 = rounded(x.reshape(-1, x.shape[-1]))
        y_RO = torch._int_mm(whole_RI, self.whole_IO).float().mul_(scale_R1)
        return torch.addcmul(self.bias_O, y_RO, self.scale_O).view(*x.shape[:-1], -1)


class LSTM(nn.Module):
    """Take the place of an nn.LSTM of one layer with batch_first; the cell is float32."""

    def __init__(self, layer: nn.LSTM) -> None:
        super().__init__()
        kept = layer.state_dict()
        self.inlet = Dense(kept["weight_ih_l0"], kept["bias_ih_l0"] + kept["bias_hh_l0"])
        self.recurrent = Dense(kept["weight_hh_l0"], None)

    def forward(self, x_BLI: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the states (B, L, D), and None for what nobody reads."""
        gates_LBG = self.inlet(x_BLI).transpose(0, 1).contiguous()
        state_BD = cell_BD = x_BLI.new_zeros(len(x_BLI), gates_LBG.shape[2] // 4)
        states = []
        for gates_BG in gates_LBG:
            let_in, keep, new, let_out = (gates_BG + self.recurrent(state_BD)).chunk(4, dim=1)
            cell_BD = torch.sigmoid(keep) * cell_BD + torch.sigmoid(let_in) * torch.tanh(new)
            state_BD = torch.sigmoid(let_out) * torch.tanh(cell_BD)
            states.append(state_BD)
        return torch.stack(states, dim=1), None


def to_int8(model: nn.Module) -> None:
    """Replace the dense layers and LSTMs of a model in place."""
    for name, part in model.named_children():
        if isinstance(part, nn.LSTM):
            setattr(model, name, LSTM(part))
        elif isinstance(part, nn.Linear):
            setattr(model, name, Dense(part.weight.detach(), None if part.bias is None else part.bias.detach()))
        else:
            to_int8(part)
