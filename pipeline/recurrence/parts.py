"""Let kernels share recurrences: a kernel may call plain functions by name, its parts, and each driver wraps them for
its own compiler. Kernels and parts stay undecorated, so that a debugger, coverage and the interpreter see plain Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

Function = Callable[..., Any]
_CONSTANT = (bool, int, float, str, tuple)  # what a compiler freezes


def with_parts(function: Function, wrap: Callable[[Function], Any]) -> Function:
    """Return a copy of a plain function in which its parts, and theirs, are wrapped; without any, the function."""
    return _copy(function, wrap) if _parts(function) else function


def _copy(function: Function, wrap: Callable[[Function], Any]) -> Function:
    """Return a copy with wrapped parts, named by its code and theirs.

    Compiled code of several processes that meets in one is told apart by names and a count alone: two functions of one
    name with other parts would run the parts of the first. What comes from disk imports the module of its function,
    which must be one that is always there and runs nothing.
    """
    wrapped = {name: wrap(_copy(part, wrap)) for name, part in _parts(function).items()}
    names = {**function.__globals__, **wrapped}
    out = FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    out.__module__ = __name__
    code = _written(function.__code__) + _constants(function) + _code(function)
    out.__qualname__ = f"{function.__qualname__}_{hashlib.sha256(code).hexdigest()[:16]}"
    return out


def parts_digest(function: Function) -> str:
    """Name the code of all parts of a function and the constants of their modules that they read; empty without any."""
    code = _code(function)
    return hashlib.sha256(code).hexdigest()[:16] if code else ""


def _code(function: Function) -> bytes:
    return b"".join(_written(part.__code__) + _constants(part) + _code(part) for part in _parts(function).values())


def _written(code: CodeType) -> bytes:
    """Return what a function does as bytes. Those of marshal also tell which constants somebody else holds: they are
    others once a compiler has looked at the code, and it would be compiled again.
    """
    constants = [_written(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return repr((code.co_code, code.co_exceptiontable, code.co_argcount, code.co_flags, names, constants)).encode()


def _constant(value: Any) -> str:
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


def _constants(function: Function) -> bytes:
    known = function.__globals__
    read = [(name, known[name]) for name in names_of(function.__code__) if isinstance(known.get(name), _CONSTANT)]
    return repr((read, function.__defaults__)).encode()


def _parts(function: Function) -> dict[str, FunctionType]:
    known = function.__globals__
    return {name: part for name in names_of(function.__code__) if isinstance(part := known.get(name), FunctionType)}


def names_of(code: CodeType) -> list[str]:
    """Return the names that code reads, also those that only a comprehension or a function within it reads."""
    return list(dict.fromkeys(name for one in codes_of(code) for name in one.co_names))


def codes_of(code: CodeType) -> Iterator[CodeType]:
    """Yield code and the comprehensions and functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_of(constant)
