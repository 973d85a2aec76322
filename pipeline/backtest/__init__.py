"""From scores and strategies to won: what would have been bought and sold, at which prices and costs, what was left.

`sweep`, `run`, `optimize`, `forecast` and `instruments` are the single-instrument engine's; they are loaded when they
are first asked for, so that reading a configuration compiles nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .section import BacktestError, BacktestSection
from .single.section import AccountSection, MetaSection

if TYPE_CHECKING:
    from .single.forecast import forecast
    from .single.instrument import instruments
    from .single.meta import optimize
    from .single.run import run
    from .single.sweep import sweep

__all__ = [
    "AccountSection", "BacktestError", "BacktestSection", "MetaSection", "forecast", "instruments", "optimize", "run",
    "sweep",
]  # fmt: skip
_HOMES = {"forecast": "forecast", "instruments": "instrument", "optimize": "meta", "run": "run", "sweep": "sweep"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.single.{_HOMES[name]}"), name)
