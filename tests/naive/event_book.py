"""What waits, what is held and what is left of a run, for the brute-force twin in events.py."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Order:
    """An entry that waits; distances in money."""

    side: int
    shares: int
    stop: float
    target: float
    trail_start: float
    trail: float
    bars: float


@dataclass
class Position:
    """What is held; stop and target None = none; basis, value, commission and tax are those of the shares left."""

    side: int
    shares: int
    opened: int
    entry: float
    best: float
    stop: float | None
    target: float | None
    trail_start: float
    trail: float
    bars: float
    basis: int
    value: int
    commission: int
    tax: int
    held: int = 0
    moved: bool = False

    def hits_stop(self, price: float) -> bool:
        return self.stop is not None and (price <= self.stop if self.side > 0 else price >= self.stop)

    def hits_target(self, price: float) -> bool:
        return self.target is not None and (price >= self.target if self.side > 0 else price <= self.target)


@dataclass
class Run:
    """What a run leaves. trades : rows as event.TRADE; prices : of entry and exit of each; session : (block, return) of
    each session; fills : (bar, shares) of each entry and exit but delistings; cash and equity : after each close;
    position : what is held at the end.
    """

    trades: list[tuple[int, ...]] = field(default_factory=list)
    prices: list[tuple[float, float]] = field(default_factory=list)
    sessions: list[tuple[int, float]] = field(default_factory=list)
    fills: list[tuple[int, int]] = field(default_factory=list)
    equity: list[int] = field(default_factory=list)
    cash: list[int] = field(default_factory=list)
    held_bars: int = 0
    commission: int = 0
    tax: int = 0
    borrow: int = 0
    position: Position | None = None
