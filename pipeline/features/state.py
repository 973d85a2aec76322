"""What the kernels remember after a block, so that the next one, and tomorrow's bars, go on from there.

Shapes: N symbols; the rest as in recurrence/plan.py; Q columns of a coarser interval.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from storage.store import replacing

from ..indicators.frame import on_host
from ..recurrence import Carry, Plan

_PARTS = ("past_CHN", "own_QHN", "state_KN")
# what NumPy, zip and zlib say of files that they did not write, or that were damaged since
_DAMAGE = (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, BadZipFile, zlib.error)


class StateError(Exception):
    """A file that holds no state for what is to be computed."""


@dataclass
class State:
    """Hold for each symbol what each plan needs, by interval ('' = the bars themselves), and the latest values of
    coarser columns, (Q, N).
    """

    symbols: list[str]
    carries: dict[str, Carry]
    last: dict[str, Any]

    @classmethod
    def fresh(cls, symbols: Sequence[str], plans: Mapping[str, Plan], dtype: Any, xp: Any = np) -> State:
        """Return the state of symbols that have no bar yet; `xp` is numpy or cupy."""
        carries = {at: Carry.fresh(plan, len(symbols), xp) for at, plan in plans.items()}
        last = {at: np.full((plan.columns, len(symbols)), np.nan, dtype) for at, plan in plans.items() if at}
        return cls(list(symbols), carries, last)

    def save(self, path: Path, key: str) -> None:
        """Write the state after the block `key`, atomically; arrays only, so that reading it runs nothing."""
        arrays = {f"last {at}": values for at, values in self.last.items()}
        for at, carry in self.carries.items():
            arrays |= {f"{part} {at}": on_host(getattr(carry, part)) for part in _PARTS}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, key=np.array(key), symbols=np.array(self.symbols, dtype=np.str_), **arrays)

    @classmethod
    def load(
        cls, path: Path, key: str, symbols: Sequence[str], plans: Mapping[str, Plan], dtype: Any, xp: Any = np
    ) -> State:
        """Read a state for these symbols; those that it does not hold have no bar yet. Raises StateError where the file
        is not what `save` wrote for this key and these plans.
        """
        state = cls.fresh(symbols, plans, dtype)
        try:
            state._fill(path, key)
        except _DAMAGE as error:
            what = f"the state of {len(plans)} plans after the block {key}"
            raise StateError(f"expected {what} in {path}, got: {error!r}; have its stage computed again") from error
        if xp is not np:
            moved = {at: Carry(*(xp.asarray(getattr(c, part)) for part in _PARTS)) for at, c in state.carries.items()}
            state.carries = moved
        return state

    def _fill(self, path: Path, key: str) -> None:
        with np.load(path, allow_pickle=False) as found:
            if str(found["key"]) != key:
                raise ValueError(f"the state after {found['key']}")
            place = {str(name): i for i, name in enumerate(found["symbols"])}
            mine = [i for i, name in enumerate(self.symbols) if name in place]
            theirs = [place[self.symbols[i]] for i in mine]
            wanted = {f"{part} {at}": getattr(carry, part) for at, carry in self.carries.items() for part in _PARTS}
            for name, values in {**wanted, **{f"last {at}": values for at, values in self.last.items()}}.items():
                expected, read = (*values.shape[:-1], len(place)), found[name]
                if (read.shape, read.dtype) != (expected, values.dtype):
                    raise ValueError(f"{name} of shape {read.shape} and {read.dtype}")
                values[..., mine] = read[..., theirs]
