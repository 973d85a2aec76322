"""Where the meta-optimiser looks: a range of steps for each parameter, drawn from evenly and narrowed round the best.

Shapes: C combinations, P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc

from pipeline.strategies.declare import Parameter, Strategy, StrategyError, Value

from .instrument import coarsens
from .samples import Floats, in_order

Longs = npt.NDArray[np.int64]
ROUNDS = 16  # draws after which a space counts as used up


class Ranges(NamedTuple):
    """Hold, for each parameter, the numbers of the values that are still drawn, in order."""

    strategy: Strategy
    numbers: tuple[tuple[int, ...], ...]

    @classmethod
    def whole(cls, strategy: Strategy, narrower: Mapping[str, Any] | None = None, interval: str = "") -> Ranges:
        """Return the declared ranges; narrower : (low, high) or a list of values for some parameters, one value fixes
        it. interval : of the bars; timeframes that cannot be made of them are left out of ranges that are not given.
        Raises StrategyError for an empty, a reversed or an outlying range.
        """
        given = dict(narrower or {})
        timeframes = {use.at for use in strategy.columns}
        out = []
        for p in strategy.parameters:
            if p.name in given:
                out.append(_numbers(p, given.pop(p.name)))
            elif interval and p.choices and p.name in timeframes:
                out.append(tuple(n for n, at in enumerate(p.choices) if at == interval or coarsens(interval, at)))
                if not out[-1]:
                    raise StrategyError(
                        f"expected bars that one of the timeframes of parameter '{p.name}' ({p.told}) can be made "
                        f"of, got "
                        f"{interval}"
                    )
            else:
                out.append(tuple(range(p.count)))
        for name in given:
            strategy.parameter(name)
        return cls(strategy, tuple(out))

    @property
    def size(self) -> float:
        """How many combinations there are, those out of order among them."""
        return float(np.prod([float(len(numbers)) for numbers in self.numbers]))

    def told(self) -> dict[str, list[Value]]:
        """Return the lowest and highest value of each parameter, or the words that are left."""
        out = {}
        for p, numbers in zip(self.strategy.parameters, self.numbers):
            kept = numbers if p.choices else sorted({numbers[0], numbers[-1]})
            out[p.name] = [p.value(number) for number in kept]
        return out

    def draw(self, count: int, seed: int, known: set[bytes]) -> Longs:
        """Return up to `count` new combinations as numbers of values (C, P), in the order drawn; adds them to `known`.

        The points are a scrambled Sobol sequence (Sobol 1967; Owen 1998), rounded to steps; combinations that are known
        or break the order of the strategy's parameters give way to later points of it.
        """
        lengths = np.array([len(numbers) for numbers in self.numbers])
        free = np.flatnonzero(lengths > 1)
        table = [np.array(numbers, np.int64) for numbers in self.numbers]
        sobol = qmc.Sobol(max(len(free), 1), scramble=True, rng=np.random.default_rng(seed))
        out: list[npt.NDArray[np.int64]] = []
        for again in range(ROUNDS):
            unit = sobol.random(count) if again else sobol.random_base2(max(int(np.ceil(np.log2(count))), 1))
            place = np.zeros((len(unit), len(lengths)), np.int64)
            place[:, free] = np.minimum((unit[:, : len(free)] * lengths[free]).astype(np.int64), lengths[free] - 1)
            number = np.stack([values[column] for values, column in zip(table, place.T)], 1)
            for row in number[in_order(self.strategy, codes(self.strategy, number))]:
                key = row.tobytes()
                if key not in known:
                    known.add(key)
                    out.append(row)
                    if len(out) == count:
                        return np.array(out)
        return np.array(out, np.int64).reshape(-1, len(lengths))

    def narrowed(self, best_CP: Longs, whole: Ranges) -> Ranges:
        """Return ranges round the best combinations: from the 10th to the 90th percentile of their values, a step more
        on both sides; of words those that at least half as many of the best have as chance would give them.
        """
        out = []
        for p, numbers, all_, column in zip(self.strategy.parameters, self.numbers, whole.numbers, best_CP.T):
            if p.choices:
                kept = tuple(n for n in numbers if np.mean(column == n) * len(numbers) >= 0.5)
                out.append(kept or numbers)
            else:
                low, high = np.percentile(column, [10, 90], method="nearest")
                a, b = max(all_.index(int(low)) - 1, 0), min(all_.index(int(high)) + 1, len(all_) - 1)
                inside = [n for n in all_[a : b + 1] if numbers[0] <= n <= numbers[-1]]
                out.append(tuple(inside))
        return Ranges(self.strategy, tuple(out))


def codes(strategy: Strategy, number_CP: Longs) -> Floats:
    """Return combinations as the step sees them, from the numbers of their values."""
    out = np.empty(number_CP.shape)
    for column, p in enumerate(strategy.parameters):
        table = np.array([p.code(p.value(number)) for number in range(p.count)])
        out[:, column] = table[number_CP[:, column]]
    return out


def _numbers(p: Parameter, given: Any) -> tuple[int, ...]:
    """Return the numbers of the values that are asked for."""
    if isinstance(given, (str, int, float)):
        given = [given]
    if not len(given):
        raise StrategyError(f"expected values for parameter '{p.name}', got none; leave it out for {p.told}")
    wanted = [p.code(value) for value in given]
    if not p.choices and len(wanted) == 2 and wanted[0] > wanted[1]:
        raise StrategyError(
            f"expected a range of parameter '{p.name}' from low to high, got {given[0]}..{given[1]}; swap them"
        )
    values = np.array([p.code(p.value(number)) for number in range(p.count)])
    if p.choices:
        return tuple(int(code) for code in dict.fromkeys(wanted))
    if len(wanted) == 2:
        inside = np.flatnonzero((values >= wanted[0] - 1e-9) & (values <= wanted[1] + 1e-9))
    else:
        inside = np.unique([int(np.argmin(np.abs(values - code))) for code in wanted])
        off = [value for value, code in zip(given, wanted) if np.abs(values - code).min() > 1e-9]
        if off:
            raise StrategyError(f"expected values of parameter '{p.name}' on its steps ({p.told}), got {off[0]}")
    if not inside.size:
        raise StrategyError(
            f"expected a range of parameter '{p.name}' that holds one of its steps ({p.told}), got {list(given)}"
        )
    return tuple(inside.tolist())
