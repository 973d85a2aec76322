"""Which windows an epoch takes, in what order, in which steps of the optimiser and at which learning rate.

All of it follows from the settings and the place in the training alone, so that a killed run goes on with the same.
"""

from __future__ import annotations

from math import cos, pi
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .parallel import Ranks
from .section import TrainSection
from .windows import cut, whole_moments


def factor(step: int, steps: int, warmup: int, least: float) -> float:
    """Return by what the learning rate is multiplied at a step from 0: rising in a line over the first `warmup` steps,
    then half a cosine down to `least` at the last of `steps` (Loshchilov and Hutter 2017).
    """
    if step < warmup:
        return (step + 1) / warmup
    share = min((step - warmup) / max(steps - 1 - warmup, 1), 1.0)
    return least + (1.0 - least) * 0.5 * (1.0 + cos(pi * share))


class Step(NamedTuple):
    """Say what one step of the optimiser takes: windows of all ranks, this rank's parts of them (rows), and their
    weight, 0 = they are another rank's.
    """

    windows: int
    parts: list[NDArray[np.int64]]
    weight: float


class Plan:
    """Plan the training on windows that end at rows ends_W; moment_N is the time of each row.

    compares : the loss compares the windows of a moment, which then stays whole.
    """

    def __init__(
        self, ends_W: NDArray[np.int64], moment_N: NDArray[np.int64], train: TrainSection, compares: bool, ranks: Ranks
    ) -> None:
        self.ends_W, self.moment_N, self.train, self.compares, self.ranks = ends_W, moment_N, train, compares, ranks
        self.drawn = min(train.windows_per_epoch or len(ends_W), len(ends_W))
        self.step_size = train.batch_size * train.gradient_accumulation_steps

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return an epoch's windows, whose order depends on seed and epoch alone; moment by moment where the loss
        compares.
        """
        random = np.random.default_rng([self.train.seed, epoch])
        if not self.compares:
            return random.permutation(self.ends_W)[: self.drawn]
        moments, code_W = np.unique(self.moment_N[self.ends_W], return_inverse=True)
        place_W = random.permutation(len(moments))[code_W]
        order_W = self.ends_W[np.argsort(place_W, kind="stable")]
        return np.concatenate(whole_moments(order_W, self.moment_N, self.drawn)[:1])

    def steps(self, order_W: NDArray[np.int64], micro: int) -> list[Step]:
        """Cut windows into steps, and these into parts of `micro` windows that go through the network at once. A loss
        that compares gets whole moments in a part, as many as it takes to fill a batch.
        """
        if not self.compares:
            groups = cut(order_W, self.step_size)
            shares = [self.ranks.share(group) for group in groups]
            return [Step(len(group), cut(mine, micro), weight) for group, (mine, weight) in zip(groups, shares)]
        parts = whole_moments(order_W, self.moment_N, self.train.batch_size)
        size = self.train.gradient_accumulation_steps
        together = [parts[a : a + size] for a in range(0, len(parts), size)]
        return [Step(sum(map(len, one)), one, 1.0) for one in together]

    def rate(self, epoch: int, cursor: int) -> float:
        """Return the learning rate of the step after `cursor` windows of an epoch."""
        per_epoch = -(-self.drawn // self.step_size)
        steps = per_epoch * self.train.num_epochs
        step = epoch * per_epoch + cursor // self.step_size
        warmup = int(steps * self.train.warmup)
        return self.train.learning_rate * factor(min(step, steps - 1), steps, warmup, self.train.least_rate)
