"""Declarations of strategies: their parameters, columns and steps, those of the project and those that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.backtest.single.driver import bound, runner
from pipeline.backtest.single.event import BOOK, MOMENTS, TRADE
from pipeline.indicators import resolve
from pipeline.recurrence.parts import parts_digest
from pipeline.strategies import ALL, Parameter, Strategy, StrategyError, Use, strategy_of

ROW = np.arange(3.0)


def step(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    return 0


@pytest.mark.parametrize("which", ALL, ids=lambda s: s.name)
def test_a_declaration_is_whole(which: Strategy) -> None:
    assert strategy_of(which.name) is which
    assert len(which.doc) > 60
    for p in which.parameters:
        values = [p.value(n) for n in range(p.count)]
        assert p.default in values, "a search would never draw the default"
        assert [p.code(v) for v in values] == sorted({p.code(v) for v in values})
        assert p.choices or (values[0], values[-1]) == (p.low, p.high)
    for use in which.columns:
        if use.indicator != "close":
            assert len(resolve([use.spec(which.defaults, "15m")])) == 1


@pytest.mark.parametrize("which", ALL, ids=lambda s: s.name)
def test_every_parameter_is_read(which: Strategy) -> None:
    read: set[int] = set()

    class Noted(np.ndarray):  # type: ignore[type-arg]
        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, int):
                read.add(key)
            return super().__getitem__(key)

    rng = np.random.default_rng(2)
    values = np.array([p.code(p.default) for p in which.parameters]).view(Noted)
    for _ in range(3_000):
        x = rng.choice([-1.0, 0.0, 1.0, 20.0, 50.0, 80.0], (len(which.columns), 3)).astype(np.float32)
        state, order = np.zeros(16), np.zeros(6)
        state[0] = rng.choice([-1.0, 0.0, 1.0])
        want = which.step(2, x, np.arange(len(which.columns)), values, order, state, int(rng.integers(-1, 2)))
        assert want in (-1, 0, 1, 2)
    of_columns = {name for use in which.columns for name in use.names(which.parameters)}
    names = {which.parameters[k].name for k in read}
    assert names | of_columns == {p.name for p in which.parameters}


@pytest.mark.parametrize("which", ALL, ids=lambda s: s.name)
def test_a_step_gives_the_same_with_and_without_the_compiler(which: Strategy) -> None:
    rng, T, U = np.random.default_rng(4), 400, len(which.columns)
    close = np.round(100 * np.cumprod(1 + rng.normal(0, 0.02, T)), 2)
    price = np.stack([close, close + 1, close - 1, close], 1)
    x = rng.choice([-1.0, 0.0, 1.0, 2.0, 20.0, 45.0, 50.0, 60.0, 80.0, np.nan], (U, T)).astype(np.float32)
    rule = np.tile([np.inf, -np.inf, np.inf, -np.inf, 1.0, 1.0], (T, 1))
    fact = np.stack([np.zeros(T), np.full(T, 1e9), np.arange(T), np.zeros(T), np.arange(T)], 1).astype(np.int64)
    code = np.array([[p.code(p.default) for p in which.parameters]])
    account = np.array([1e6, 1_000, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    results = []
    for run in (runner(which.step), bound(which.step)):
        out = np.zeros(1), np.zeros((1, BOOK), np.int64), np.zeros((1, 1, MOMENTS))
        equity, trades, prices = np.zeros(T, np.int64), np.zeros((T, len(TRADE)), np.int64), np.zeros((T, 2))
        run(
            price, np.ones(T, np.uint8), rule, fact, np.zeros((1, 1, 2)), np.zeros(T, np.int32), x,
            np.arange(U, dtype=np.uint32)[None], -1 if which.trigger is None else which.trigger,
            np.zeros((1, 0), np.int32), np.zeros(1, np.int32), code, account, 1, T, 0, 1, *out, equity, trades, prices,
        )  # fmt: skip
        results.append((*out, equity, trades, prices))
    assert results[0][1][0, 5] > 0, "no trades"
    for compiled, plain in zip(*results):
        np.testing.assert_array_equal(compiled, plain)


def declared(**more: Any) -> Strategy:
    given: dict[str, Any] = {
        "parameters": (Parameter("n", 5, 2, 9),),
        "columns": (Use("rsi", {"n": "n"}),),
        "step": step,
    }
    return Strategy("own", **(given | more))


def far(i: int, x: Any, at: Any, p: Any, order: Any, state: Any) -> int:
    return 0


def array(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    return int(ROW[side])


def pandas(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    return int(pd.DataFrame(x).iloc[0, 0])


def through(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    return array(i, x, at, p, order, state, side)


def outer(level: float) -> Any:
    def inner(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
        return 1 if x[at[0], i] > level else 0

    return inner


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "twice": (
        {"parameters": (Parameter("n", 5, 2, 9), Parameter("n", 5, 2, 9))},
        "each parameter of strategy 'own' once",
    ),
    "column of nothing": (
        {"columns": (Use("rsi", {"n": "m"}),)},
        r"expected a parameter of strategy 'own' \(n\), got 'm'",
    ),
    "order of nothing": ({"rising": (("n", "m"),)}, "got 'm'"),
    "trigger": ({"trigger": 1}, "trigger of strategy 'own' among its 1 columns, got 1"),
    "no function": ({"step": 3}, "expected a plain function of .*, got 3"),
    "too few arguments": ({"step": far}, r"got 6 arguments in .*test_strategies.py:\d+"),
    "closure": ({"step": outer(60.0)}, r"no variables of an outer function, got level in .*test_strategies.py:\d+"),
    "array": ({"step": array}, r"got ROW \(ndarray\) in .*test_strategies.py:\d+"),
    "module": ({"step": pandas}, r"got pd \(module\)"),
    "array of a part": ({"step": through}, r"got ROW \(ndarray\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_declaration_that_cannot_be_run_is_refused(name: str) -> None:
    more, message = BAD[name]
    with pytest.raises(StrategyError, match=message):
        declared(**more)


def test_a_parameter_has_a_default_within_its_range() -> None:
    with pytest.raises(StrategyError, match=r"default of parameter 'n' within 2..9 by 1, got 10"):
        Parameter("n", 10, 2, 9)
    with pytest.raises(StrategyError, match=r"default of parameter 'at' within one of 1h, 4h, got '2h'"):
        Parameter("at", "2h", choices=("1h", "4h"))
    with pytest.raises(StrategyError, match="'n'"):
        Parameter("n", 5, 9, 2)
    with pytest.raises(StrategyError, match="'n'"):
        Parameter("n", 5, 2, 9, 0)
    with pytest.raises(StrategyError, match=r"default of parameter 'n' within 2..9 by 1, got 'five'"):
        Parameter("n", "five", 2, 9)
    with pytest.raises(StrategyError, match=r"'n' within 2..inf"):
        Parameter("n", 5, 2, float("inf"))


def test_a_default_lies_on_a_step_of_its_range() -> None:
    with pytest.raises(StrategyError, match=r"'x' on a step of 0..1 by 0.05, got 0.13; the nearest is 0.15"):
        Parameter("x", 0.13, 0, 1, 0.05)
    with pytest.raises(StrategyError, match=r"'x' on a step of 5..60 by 5, got 7; the nearest is 5"):
        Parameter("x", 7, 5, 60, 5)
    with pytest.raises(StrategyError, match=r"'x' on a step of 0..1 by 0.3, got 1; the nearest is 0.9"):
        Parameter("x", 1, 0, 1, 0.3)
    for low, step in ((0.0, 0.1), (0.05, 0.05), (-1.0, 0.001), (1e6, 0.1)):
        for number in range(200):
            own = Parameter("x", low + number * step, low, low + 199 * step, step)
            assert own.value(number) == pytest.approx(own.default, rel=1e-12)


@pytest.mark.parametrize("which", ALL, ids=lambda s: s.name)
def test_a_step_is_known_again_whoever_holds_its_constants(which: Strategy) -> None:
    function = bound(which.step)
    before = parts_digest(function)
    held = list(function.__globals__["trade"].__code__.co_consts)  # as a compiler does
    assert held and parts_digest(function) == before


LEVEL = 1.0


def nested(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    return 1 if sum([x[at[0], i - back] for back in range(2)] + [LEVEL for _ in range(2)]) > 0 else 2


def test_what_only_a_comprehension_reads_is_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    before = parts_digest(bound(nested))
    monkeypatch.setitem(globals(), "LEVEL", 2.0)
    assert parts_digest(bound(nested)) != before
    monkeypatch.setitem(globals(), "LEVEL", [2.0])
    with pytest.raises(StrategyError, match=r"got LEVEL \(list\)"):
        Strategy("own", (), (Use("close"),), nested)


def other(x: float, factor: float = 2.0) -> float:
    return x * factor


def calls(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    return 1 if other(x[at[0], i]) > 0 else 2


def test_a_default_of_a_function_is_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    before = parts_digest(bound(calls))
    monkeypatch.setattr(other, "__defaults__", (3.0,))
    assert parts_digest(bound(calls)) != before
    monkeypatch.setattr(other, "__defaults__", ([],))
    with pytest.raises(StrategyError, match="numbers as defaults"):
        Strategy("own", (), (Use("close"),), calls)
