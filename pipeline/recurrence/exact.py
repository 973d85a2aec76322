"""Compile for a GPU to the bits of the CPU: products are rounded before sums, and `min`, `max`, `floor` and `ceil` are
those of Python.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

from numba import config, cuda


# Three arguments take Numba's own lowering, comparison by comparison; two would become instructions that drop NaN.
def least(a: Any, *others: Any) -> Any:
    """Return `min` of the arguments: the first of them unless another is smaller."""
    return min(a, a, *others)


def most(a: Any, *others: Any) -> Any:
    """Return `max` of the arguments: the first of them unless another is greater."""
    return max(a, a, *others)


def below(a: float) -> int:
    """Return `math.floor`, which Numba leaves a float on a GPU."""
    return int(math.floor(a))  # noqa: RUF046


def above(a: float) -> int:
    """Return `math.ceil`, which Numba leaves a float on a GPU."""
    return int(math.ceil(a))  # noqa: RUF046


@functools.cache
def _ours() -> list[tuple[Any, Any]]:
    """Return functions of Python, and the module that holds some, each with what stands for it."""
    wrap = cuda.jit(device=True)
    ours = [(min, wrap(least)), (max, wrap(most)), (math.floor, wrap(below)), (math.ceil, wrap(above))]
    module = ModuleType("math")
    vars(module).update(vars(math))
    vars(module).update(floor=ours[2][1], ceil=ours[3][1])
    return [*ours, (math, module)]


def device(part: Callable[..., Any]) -> Any:
    """Wrap a part for the GPU, for `with_parts`."""
    known = {**vars(builtins), **part.__globals__}
    ours = {name: new for name in part.__code__.co_names for old, new in _ours() if known.get(name) is old}
    return cuda.jit(device=True)(FunctionType(part.__code__, {**part.__globals__, **ours}, part.__name__))


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Let what is compiled in here round each product before a sum.

    numba-cuda has no option for it: the one of the compiler below it is given here. Other kernels that are compiled at
    the same time lose a little speed.
    """
    if config.ENABLE_CUDASIM:
        yield
        return
    from numba.cuda.cudadrv import nvvm

    before = nvvm.compile_ir
    nvvm.compile_ir = functools.partial(before, fma=False)
    try:
        yield
    finally:
        nvvm.compile_ir = before
