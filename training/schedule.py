"""The learning rate at each step, a function of the step alone: nothing to keep in a checkpoint."""

from __future__ import annotations

from math import cos, pi


def factor(step: int, steps: int, warmup: int, least: float) -> float:
    """Return by what the learning rate is multiplied at a step from 0: rising in a line over the first `warmup` steps,
    then half a cosine down to `least` at the last of `steps` (Loshchilov and Hutter 2017).
    """
    if step < warmup:
        return (step + 1) / warmup
    share = min((step - warmup) / max(steps - 1 - warmup, 1), 1.0)
    return least + (1.0 - least) * 0.5 * (1.0 + cos(pi * share))
