"""Let kernels share recurrences: a kernel may call plain functions by name, its parts, and each driver wraps them for
its own compiler. Kernels and parts stay undecorated, so that a debugger, coverage and the interpreter see plain Python.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Callable
from types import FunctionType
from typing import Any

Function = Callable[..., Any]


def with_parts(function: Function, wrap: Callable[[Function], Any]) -> Function:
    """Return a copy of a plain function in which its parts, and theirs, are wrapped; without any, the function."""
    parts = _parts(function)
    if not parts:
        return function
    wrapped = {name: wrap(with_parts(part, wrap)) for name, part in parts.items()}
    return FunctionType(function.__code__, {**function.__globals__, **wrapped}, function.__name__)


def parts_digest(function: Function) -> str:
    """Name the code of all parts of a function; empty without any."""
    code = _code(function)
    return hashlib.sha256(code).hexdigest()[:16] if code else ""


def _code(function: Function) -> bytes:
    return b"".join(marshal.dumps(part.__code__) + _code(part) for part in _parts(function).values())


def _parts(function: Function) -> dict[str, FunctionType]:
    code, known = function.__code__, function.__globals__
    return {name: part for name in code.co_names if isinstance(part := known.get(name), FunctionType)}
