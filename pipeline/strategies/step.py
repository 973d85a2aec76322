"""What a step may be made of, so that the compiled copy on disk is always that of the code as it is now."""

from __future__ import annotations

import builtins
import dis
import math
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from pipeline.recurrence.parts import codes_of

ARGUMENTS = "(i, x, at, p, order, state, side)"
_MODULES = (math, np)
_NUMBERS = (bool, int, float, str, tuple)


def fault(step: Any) -> str:
    """Say what keeps a function from being a step, empty = nothing.

    A step and the functions that it calls see their arguments, numbers, words and tuples of their module, `math` and
    `numpy`: whatever else could change without the compiler noticing it.
    """
    if not isinstance(step, FunctionType):
        return f"expected a plain function of {ARGUMENTS}, got {step!r}"
    code = step.__code__
    if code.co_argcount != ARGUMENTS.count(",") + 1 or code.co_kwonlyargcount or code.co_flags & 0x0C:
        return f"expected a function of {ARGUMENTS}, got {code.co_argcount} arguments in {written_at(step)}"
    return _seen(step, set())


def written_at(function: Any) -> str:
    """Return where a function is written."""
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"


def _seen(function: FunctionType, known: set[FunctionType]) -> str:
    if function in known:
        return ""
    known.add(function)
    if function.__closure__:
        names = ", ".join(function.__code__.co_freevars)
        return f"expected no variables of an outer function, got {names} in {written_at(function)}; make it a parameter"
    if not all(isinstance(value, _NUMBERS) for value in function.__defaults__ or ()):
        return f"expected numbers as defaults of a function, got others in {written_at(function)}; hand them over"
    read = (one for code in codes_of(function.__code__) for one in dis.get_instructions(code))
    for name in dict.fromkeys(one.argval for one in read if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")):
        value = function.__globals__.get(name, getattr(builtins, name, None))
        if isinstance(value, FunctionType):
            if found := _seen(value, known):
                return found
        elif (
            name in function.__globals__
            and not isinstance(value, _NUMBERS)
            and not any(value is one for one in _MODULES)
        ):
            what = "module" if isinstance(value, ModuleType) else type(value).__name__
            return (
                f"expected numbers, plain functions and math only, got {name} ({what}) in {written_at(function)}; "
                "make it a parameter, a column or a constant of the module"
            )
    return ""
