"""From scores to won: what would have been bought and sold, at which prices and costs, and what was left of it."""

from .section import BacktestError, BacktestSection

__all__ = ["BacktestError", "BacktestSection"]
