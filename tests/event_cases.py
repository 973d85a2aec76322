"""Small markets for the event loop: built by hand or drawn at random, and run with and without the compiler.

Shapes: T bars, C combinations, others as in pipeline/backtest/single/event.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.backtest.single import event
from pipeline.backtest.single.driver import bound, runner

Array = npt.NDArray[Any]
COLUMNS = ("want", "stop", "target", "trail_start", "trail", "bars", "weight", "trigger")
TRIGGER = COLUMNS.index("trigger")
OPPOSITE, LATER = 3, 4  # wants of the scripted step beyond those of event.py
UNWRITTEN = -(10**15)
BOOK = ("trades", "wins", "gained", "lost", "commission", "tax", "borrow", "held", "equity")


def scripted(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    """Want what the columns say; OPPOSITE: the other side than the one held; LATER: go long p[0] calls later."""
    for k in range(6):
        if x[at[1 + k], i] != 0.0:  # else what it was
            order[k] = x[at[1 + k], i]
    if state[0] > 0.0:
        state[0] -= 1.0
        return 1 if state[0] == 0.0 else 0
    want = int(x[at[0], i])
    if want == 3:
        return -side if side != 0 else -1
    if want == 4:
        state[0] = p[0]
        return 0
    return want


@dataclass(frozen=True)
class Case:
    """Arguments of `event.trade`, see there; x_UT has the COLUMNS in the order of `at`."""

    price_TC: Array
    flag_T: Array
    rule_TC: Array
    fact_TC: Array
    tick_RBC: Array
    block_T: Array
    x_UT: Array
    at: Array
    trigger: int
    p: Array
    account: Array
    start: int
    stop: int

    @property
    def blocks(self) -> int:
        return int(self.block_T.max()) + 1


class Outcome(NamedTuple):
    """What the event loop left: rows as event.TRADE, prices of entry and exit, counts as BOOK, (M, 4) moments, largest
    drawdown, equity after each close (UNWRITTEN where the loop did not come).
    """

    trades: list[tuple[int, ...]]
    prices: list[tuple[float, ...]]
    book: dict[str, int]
    moment_MC: Array
    worst: float
    equity_T: Array


def wake(case: Case) -> Array:
    """Return the first bar from each on at which the trigger is not zero, (1, T + 1) int32."""
    T = len(case.flag_T)
    out = np.full((1, T + 1), T, np.int32)
    column = np.nan_to_num(case.x_UT[case.at[case.trigger]])
    for t in reversed(range(T)):
        out[0, t] = t if column[t] != 0 else out[0, t + 1]
    return out


def outcomes(cases: list[Case], step: Any = scripted, plain: bool = False, skip: bool = False) -> list[Outcome]:
    """Run combinations of one market in one call; they may differ in `at` and `p` only.

    plain : without the compiler; skip : leave out bars at which nothing can happen (then no equity after each close).
    """
    case, C = cases[0], len(cases)
    T, N = len(case.flag_T), 3 * len(case.flag_T) + 8
    worst_C, book_CB = np.zeros(C), np.zeros((C, event.BOOK), np.int64)
    moment_CMK = np.zeros((C, case.blocks, event.MOMENTS))
    wake_VT = wake(case) if skip else np.empty((1, 0), np.int32)
    equity_T = np.full(0 if skip or C > 1 else T, UNWRITTEN, np.int64)
    trade_NC, price_NC = np.zeros((N, len(event.TRADE)), np.int64), np.zeros((N, 2))
    (bound(step) if plain else runner(step))(
        case.price_TC, case.flag_T, case.rule_TC, case.fact_TC, case.tick_RBC, case.block_T, case.x_UT,
        np.stack([c.at for c in cases]), case.trigger, wake_VT, np.zeros(C, np.int32), np.stack([c.p for c in cases]),
        case.account, case.start, case.stop, 0, C, worst_C, book_CB, moment_CMK, equity_T, trade_NC, price_NC,
    )  # fmt: skip
    out = []
    for c in range(C):
        n = int(book_CB[c, event.TRADED]) if C == 1 else 0
        rows = [tuple(map(int, row)) for row in trade_NC[:n]]
        prices = [tuple(map(float, row)) for row in price_NC[:n]]
        book = dict(zip(BOOK, map(int, book_CB[c, event.TRADED :])))
        out.append(Outcome(rows, prices, book, moment_CMK[c], float(worst_C[c]), equity_T))
    return out


def outcome(case: Case, step: Any = scripted, plain: bool = False, skip: bool = False) -> Outcome:
    """Run one combination."""
    return outcomes([case], step, plain, skip)[0]


KRX = ((0.0, 1.0), (1_000.0, 5.0), (5_000.0, 10.0), (10_000.0, 50.0), (50_000.0, 100.0))
COARSE = ((0.0, 5.0), (2_000.0, 25.0), (np.inf, 0.0), (np.inf, 0.0), (np.inf, 0.0))
NONE = ((0.0, 0.0), (np.inf, 0.0), (np.inf, 0.0), (np.inf, 0.0), (np.inf, 0.0))
TICKS = np.array([NONE, KRX, COARSE])
FACTORS = (2.0, 1.5, 1.02, 10 / 3, 0.7, 0.1, 0.001)
RATES = {
    "halt": (0.0, 0.05, 0.3),
    "locked": (0.0, 0.1, 0.4),
    "tight": (0.0, 0.2, 0.8),
    "no_short": (0.0, 0.3),
    "flat": (0.0, 0.3),
    "bad": (0.0, 0.05),
    "asleep": (0.0, 0.5, 0.9),
}
CHOICES = {
    "step": (0.01, 0.05, 1.0),
    "stay": (0.2, 0.85),
    "stops": (0.0, 0.6, 0.9),
    "actions": (0, 0, 1, 2),
    "reach": (0.01, 0.1),
    "level": (80.0, 990.0, 5_100.0, 60_000.0),
    "off_ticks": (0.0, 0.25, 0.37),
    "units": ((1.0,), (0.5, 2.0), (0.3,)),
    "tables": ((0,), (1,), (1, 2), (0, 1, 2)),
    "capital": (5_000, 1_000_000, 10_000_000),
    "commission": (0, 1_500, 100_000),
    "tax": ((0,), (15_000, 18_000, 30_000)),
    "slippage": (0.0, 0.001, 0.02),
    "size": (1.0, 1.0, 0.3),
    "risk": (0.0, 0.0, 0.05, 1.0),
    "sides": ((1, 1), (1, 0), (0, 1)),
    "borrow": (0, 250_000, 5_000_000),
    "triggered": (False, True),
    "gone": (False, True),
    "sessions": (1, 4, 10),
}
OPTIONS: dict[str, tuple[Any, ...]] = {**RATES, **CHOICES}


def _prices(rng: np.random.Generator, o: dict[str, Any], factor_T: Array) -> Array:
    T = len(factor_T)
    step, reach = o["step"], o["reach"]
    drift = rng.uniform(-step / 2, step / 2)
    level_T = o["level"] * np.cumprod(np.exp(rng.uniform(-step, step, T) + drift)) / np.cumprod(factor_T)
    opening_T = level_T * np.exp(rng.uniform(-reach, reach, T))
    width_T = np.abs(rng.normal(0.0, reach / 2, (2, T)))
    high_T, low_T = np.maximum(opening_T, level_T) * (1 + width_T[0]), np.minimum(opening_T, level_T) * (1 - width_T[1])
    price_TC = np.stack([opening_T, high_T, low_T, level_T], axis=1)
    price_TC = np.rint(price_TC.clip(20.0, 1e6))
    flat_T = rng.random(T) < o["flat"]
    price_TC[flat_T] = price_TC[flat_T][:, 3:]
    return price_TC + o["off_ticks"]  # few enough shares for floats to count them within the grace of 1e-9


def _columns(rng: np.random.Generator, o: dict[str, Any], price_TC: Array, unit_T: Array) -> Array:
    T = len(price_TC)
    wants = np.where(rng.random(T) < o["stay"], 0, rng.choice([1, 1, -1, -1, 2, OPPOSITE, LATER], T))
    column_UT = np.empty((len(COLUMNS), T))
    for k in (1, 2, 3, 4):
        share_T = rng.uniform(0.0, o["reach"] * 2, T) * (rng.random(T) < o["stops"])
        column_UT[k] = np.rint(share_T * price_TC[:, 3] * 4) / 4 / unit_T
    column_UT[5] = rng.choice([0, 0, 1, 2, 5], T) * (rng.random(T) < o["stops"])
    column_UT[6] = rng.choice([0.0, 1.0, 0.5, 0.01, 2.0], T)
    bad_UT = rng.random((6, T)) < o["bad"]
    column_UT[1:7][bad_UT] = rng.choice([np.nan, -1.0], bad_UT.sum())
    column_UT[0] = wants
    column_UT[TRIGGER] = np.where(rng.random(T) < o["asleep"], rng.choice([0.0, np.nan], T), 1.0)
    return column_UT.astype(np.float32)


def random_case(rng: np.random.Generator, T: int, o: dict[str, Any]) -> Case:
    """Draw a market of T bars, an account and a script of wants; o : one of OPTIONS for each name."""
    factor_T = np.ones(T)
    factor_T[rng.integers(0, T, o["actions"])] = rng.choice(FACTORS, o["actions"])
    price_TC = _prices(rng, o, factor_T)
    unit_T = rng.choice(o["units"], T)
    x_UT = _columns(rng, o, price_TC, unit_T)
    order = rng.permutation(len(COLUMNS))
    session_T = np.repeat(np.arange(T), rng.integers(1, o["sessions"] + 1, T))[:T]
    last_T = np.append(session_T[1:] != session_T[:-1], True)
    until_T = np.array([t + int(np.argmax(last_T[t:])) for t in range(T)])
    halt_T = rng.random(T) < o["halt"]
    flag_T = last_T * event.END + (factor_T != 1.0) * event.ACTION + halt_T * event.HALT
    flag_T += (rng.random(T) < o["no_short"]) * event.NO_SHORT
    flag_T[-1] += event.LAST * o["gone"]
    for t in np.flatnonzero(halt_T):  # the last close is carried; what else a halted bar says is not looked at
        price_TC[t, 3] = price_TC[t - 1, 3] / factor_T[t] if t else price_TC[t, 3]
        price_TC[t, :3] = rng.choice([np.nan, 1.0, 1e6])
    opening_T, high_T, low_T = price_TC[:, 0], price_TC[:, 1], price_TC[:, 2]
    locked_T = rng.random((2, T)) < o["locked"]
    middle_T = (high_T + low_T) / 2
    above_T = np.where(locked_T[0], rng.choice(np.stack([opening_T, high_T, middle_T])), np.inf)
    below_T = np.where(locked_T[1], rng.choice(np.stack([opening_T, low_T, middle_T])), -np.inf)
    edge_T = rng.random((2, T)) < 0.5
    rule_TC = np.stack(
        [
            above_T,
            below_T,
            np.where(edge_T[0], np.nan_to_num(high_T + 1.0), np.inf),
            np.where(edge_T[1], np.nan_to_num(low_T - 1.0), -np.inf),
            factor_T,
            unit_T,
        ],
        axis=1,
    )
    fact_TC = np.stack(
        [
            rng.choice(o["tax"], T),
            np.where(rng.random(T) < o["tight"], rng.choice([0, 1, 7, 40, 1_000], T), 10**9),
            np.cumsum(rng.choice([1, 1, 3, 90], T))[session_T],
            rng.choice(o["tables"], T),
            until_T,
        ],
        axis=1,
    )
    account = (o["capital"], o["commission"], o["slippage"], o["size"], o["risk"], *o["sides"], o["borrow"])
    return Case(
        price_TC=price_TC,
        flag_T=flag_T.astype(np.uint8),
        rule_TC=rule_TC,
        fact_TC=fact_TC.astype(np.int64),
        tick_RBC=TICKS,
        block_T=(session_T * 3 // T).astype(np.int32),
        x_UT=np.ascontiguousarray(x_UT[np.argsort(order)]),
        at=order.astype(np.uint32),
        trigger=TRIGGER if o["triggered"] else -1,
        p=np.array([float(rng.integers(1, 4))]),
        account=np.array(account, np.float64),
        start=0,
        stop=T,
    )
