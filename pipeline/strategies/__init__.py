"""The strategies that come with the project, and those that are put beside them: a file each, the strategy named like
its file. template.py is the one to copy.

A file of one's own is loaded when it is asked for, so that what was found with other strategies stays, and a mistake in
it hinders nothing else.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from pipeline.indicators.spec import nearest

from .declare import Parameter, Strategy, StrategyError, Use
from .donchian_breakout import donchian_breakout
from .moving_average_cross import moving_average_cross
from .rsi_reversion import rsi_reversion
from .template import template
from .wm_pattern import wm_pattern

__all__ = ["ALL", "Parameter", "Strategy", "StrategyError", "Use", "names", "strategy_of"]

ALL = (template, wm_pattern, moving_average_cross, rsi_reversion, donchian_breakout)
_OTHERS = ("__init__", "declare", "step")


def names() -> list[str]:
    """Return the names of ALL, and of the files that were put beside them."""
    files = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _OTHERS)
    return list(dict.fromkeys([*(one.name for one in ALL), *files]))


def strategy_of(name: str) -> Strategy:
    """Return a strategy by name. Raises StrategyError with the nearest one, and for a file that does not hold it."""
    for one in ALL:
        if one.name == name:
            return one
    if name not in names():
        raise StrategyError(f"expected a known strategy, got '{name}'{nearest(name, set(names()))}")
    file = f"pipeline/strategies/{name}.py"
    try:
        found = getattr(importlib.import_module(f"{__name__}.{name}"), name, None)
    except Exception as error:
        raise StrategyError(f"expected a strategy in {file}, got {error!r}; correct the file") from error
    if not isinstance(found, Strategy) or found.name != name:
        raise StrategyError(
            f"expected {name} = Strategy(name='{name}', ...) in {file}, got {found!r:.60}; name both like the file"
        )
    return found
