"""The strategies that come with the project; template.py is the one to copy."""

from __future__ import annotations

from pipeline.indicators.spec import nearest

from .declare import Parameter, Strategy, StrategyError, Use
from .donchian_breakout import donchian_breakout
from .moving_average_cross import moving_average_cross
from .rsi_reversion import rsi_reversion
from .template import template
from .wm_pattern import wm_pattern

__all__ = ["ALL", "Parameter", "Strategy", "StrategyError", "Use", "strategy_of"]

ALL = (template, wm_pattern, moving_average_cross, rsi_reversion, donchian_breakout)


def strategy_of(name: str) -> Strategy:
    """Return a strategy of ALL by name. Raises StrategyError with the nearest one."""
    for one in ALL:
        if one.name == name:
            return one
    raise StrategyError(f"expected a known strategy, got '{name}'{nearest(name, {one.name for one in ALL})}")
