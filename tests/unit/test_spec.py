"""How columns are asked for: grids of parameters, what is divided by the close, own names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.indicators import IndicatorError, Spec, compute, plan_of, resolve
from tests.walks import frame, walk


def names(*specs: Any) -> list[str]:
    return [column.name for column in resolve(specs)]


def test_lists_of_parameters_are_a_grid_in_order() -> None:
    assert names({"indicator": "roc", "params": {"n": [20, 5]}}) == ["roc_20", "roc_5"]
    grid = {"indicator": "t3", "params": {"n": [5, 8], "v": [0.5, 0.7]}}
    assert names(grid) == ["t3_5_0.5", "t3_5_0.7", "t3_8_0.5", "t3_8_0.7"]
    found = resolve([{"indicator": "bollinger", "params": {"n": [5, 9], "k": 2}, "outputs": ["zscore"]}])
    assert [column.values for column in found] == [(5, 2), (9, 2)]
    assert len(plan_of(found).passes) == 2
    volatility = {"indicator": "volatility", "params": {"n": [5, 20]}}
    assert names(volatility) == ["log_return", "volatility_5", "volatility_20"]


def test_a_spec_with_lists_comes_back_from_json() -> None:
    spec = Spec(indicator="roc", params={"n": (5, 20)}, names={"roc": "R{n}"})
    assert Spec.model_validate(spec.model_dump(mode="json")) == spec


def test_close_ratio_is_over_close_without_the_less_one() -> None:
    bars = frame({"A": walk(200, 1), "B": walk(60, 2)})
    specs = [{"indicator": name, "over": "close_ratio"} for name in ("ema", "macd")]
    found, plain = (compute(bars, each, dtype=np.float64) for each in (specs, [{"indicator": "ema"}, specs[1]]))
    np.testing.assert_array_equal(found["ema_20_close_ratio"], plain["ema_20"] / bars["close"])
    changes = compute(bars, [{"indicator": "macd", "over": "close"}], dtype=np.float64)
    np.testing.assert_array_equal(found["macd_12_26_9_close_ratio"], changes["macd_12_26_9_over_close"])
    (column,) = resolve([{"indicator": "ema", "over": "close_ratio"}])
    assert (column.unit, column.scales_with) == ("ratio", "none")


def test_columns_may_have_own_names() -> None:
    spec = {"indicator": "bollinger", "params": {"n": [5, 20], "k": 1.5}, "outputs": ["bollinger_width", "zscore"]}
    assert names({**spec, "names": {"zscore": "Z{n}"}}) == [
        "bollinger_width_5_1.5", "Z5", "bollinger_width_20_1.5", "Z20",
    ]  # fmt: skip
    assert names({**spec, "names": {"bollinger_width": "B{n}.{k}"}})[0] == "B5.1.5"
    over = {"indicator": "sma", "params": {"n": 5}, "over": "close", "names": {"sma": "MA{n}"}}
    bars = frame({"A": walk(40)})
    found = compute(bars, [over, {"indicator": "sma", "params": {"n": 5}, "over": "close"}])
    np.testing.assert_array_equal(found["MA5"], found["sma_5_over_close"])


def test_a_column_can_be_asked_for_by_the_name_that_it_has() -> None:
    (column,) = resolve([{"indicator": "t3", "at": "1h", "over": "close"}])
    (again,) = resolve([{"indicator": "t3", "at": "1h", "over": "close", "names": {"t3": column.name}}])
    assert again == column and column.name == "t3_5_0.7_over_close@1h"


def test_one_name_is_one_column() -> None:
    roc = {"indicator": "roc", "params": {"n": 5}, "names": {"roc": "x"}}
    assert names(roc, roc) == ["x"]
    for other in (
        {"indicator": "roc", "params": {"n": [5, 6]}, "names": {"roc": "x"}},
        {"indicator": "rsi", "names": {"rsi": "x"}},
    ):
        with pytest.raises(
            IndicatorError, match=r"one column of a name, got 'x' for 'roc' n=5 and '(roc' n=6|rsi' n=14)"
        ):
            resolve([roc, other])
    with pytest.raises(IndicatorError, match="got 'x' for 'sma' n=20 and 'sma' n=20 over close;"):
        resolve([{"indicator": "sma", "names": {"sma": "x"}, "over": over} for over in (None, "close")])


WRONG = [
    ({"params": {"n": []}}, "a value of each parameter of indicator 'roc', got"),
    ({"params": {"n": [5, 2.5]}}, "a whole number .*got 2.5"),
    ({"names": {"rok": "x"}}, r"outputs among \['roc'\] .*'rok'; did you mean 'roc'"),
    ({"names": {"roc": "ROC{m}"}}, r"expected parameters \['n'\] in the name 'ROC{m}' of output 'roc', got 'm'"),
    ({"names": {"roc": "ROC{"}}, "a name of letters, .*got 'ROC{'"),
    ({"names": {"roc": ""}}, "a name of letters, .*got ''"),
    ({"names": {"roc": "close"}}, "no column of bars, target or universe, got 'close'"),
    ({"names": {"roc": "y_{n}"}}, "no column of bars, target or universe, got 'y_10'"),
    ({"names": {"roc": "member"}}, "no column of bars, target or universe, got 'member'"),
    ({"names": {"roc": "y_next"}}, "no column of bars, target or universe, got 'y_next'"),
    ({"parms": {"n": 3}}, "expected keys among indicator, params, .* got 'parms'; did you mean 'params'"),
    (
        {"params": {"n": "fourteen"}},
        "a number, or a list .* parameter 'n' of indicator 'roc', got 'fourteen'",
    ),
    ({"params": {"timeperiod": 3}}, r"expected parameters \['n'\] .* got 'timeperiod'; did you mean 'n'"),
    ({"params": 3}, "numbers, or lists of them, by name .* for 'params', got 3"),
    ({"outputs": "roc"}, "a list of outputs, .* for 'outputs', got 'roc'"),
    ({"over": "closes"}, "expected close or close_ratio for 'over', got 'closes'; did you mean 'close'"),
    ({"at": "1 h"}, "an interval, such as 1h, for 'at', got '1 h'"),
    ({"names": ["x"]}, r"names of columns by output, .* for 'names', got \['x'\]"),
    ({"indicator": None}, "the name of an indicator, .* got None"),
    ({"indicator": "ROC"}, "got 'ROC'; did you mean 'roc'"),
    ({"cross": "rank"}, "^expected a list of operators such as"),
    ({"cross": [{"winsorise": 0.7}]}, "^expected a limit above 0 and below 0.5 for 'winsorise', got 0.7$"),
    ({"over": "close_ratio"}, "units of price for over: close_ratio, got 'roc'"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_what_cannot_be_asked_for_is_said(given: dict[str, Any], message: str) -> None:
    with pytest.raises(IndicatorError, match=message) as error:
        resolve([{"indicator": "roc", **given}])
    assert "\n" not in str(error.value) and "pydantic" not in str(error.value)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ("rsi", r"a list of specs, such as .*, got 'rsi'"),
        ({"indicator": "rsi"}, "a list of specs, .* put it in one"),
        (Spec(indicator="rsi"), "a list of specs, .* put it in one"),
        (None, "a list of specs, .* got None"),
        (["rsi"], r"a spec such as .*, got 'rsi'; write \{indicator: rsi\}"),
        ([None], "a spec such as .*, got None"),
        ([{"params": {"n": 3}}], r"the key 'indicator' in a spec such as .*, got \{'params'"),
    ],
)
def test_what_is_no_list_of_specs_is_said(specs: Any, message: str) -> None:
    with pytest.raises(IndicatorError, match=message):
        resolve(specs)


def test_a_name_may_hold_only_what_the_output_depends_on() -> None:
    with pytest.raises(
        IndicatorError, match=r"expected parameters \['n'\] in the name 'Z{k}' of output 'zscore', got 'k'"
    ):
        resolve([{"indicator": "bollinger", "names": {"zscore": "Z{k}"}}])
    with pytest.raises(IndicatorError, match=r"outputs among \['natr'\] for indicator 'atr', got 'atr'"):
        resolve([{"indicator": "atr", "outputs": ["natr"], "names": {"atr": "x"}}])
