"""The strategies that come with the project, and those that are put beside them: a file each, the strategy named like
its file. template.py is the one to copy.

Nothing names the files: what was found with one strategy stays when another one is added.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from pipeline.indicators.spec import nearest

from .declare import Parameter, Strategy, StrategyError, Use

if TYPE_CHECKING:
    from .donchian_breakout import donchian_breakout as donchian_breakout
    from .moving_average_cross import moving_average_cross as moving_average_cross
    from .rsi_reversion import rsi_reversion as rsi_reversion
    from .template import template as template
    from .wm_pattern import wm_pattern as wm_pattern

__all__ = ["ALL", "Parameter", "Strategy", "StrategyError", "Use", "strategy_of"]


def _found() -> tuple[Strategy, ...]:
    out = []
    for file in pkgutil.iter_modules(__path__):
        try:
            one = getattr(importlib.import_module(f"{__name__}.{file.name}"), file.name, None)
        except Exception as error:
            raise StrategyError(
                f"expected a strategy in pipeline/strategies/{file.name}.py, got {error!r}; correct the file or "
                "take it out of the folder"
            ) from error
        if isinstance(one, Strategy):
            if one.name != file.name:
                raise StrategyError(f"expected a strategy named '{file.name}' like its file, got name='{one.name}'")
            globals()[file.name] = one
            out.append(one)
    return tuple(out)


ALL = _found()


def strategy_of(name: str) -> Strategy:
    """Return a strategy of ALL by name. Raises StrategyError with the nearest one."""
    for one in ALL:
        if one.name == name:
            return one
    raise StrategyError(f"expected a known strategy, got '{name}'{nearest(name, {one.name for one in ALL})}")
