"""The feature set alpha158 against Qlib's expressions, written down plainly in tests/naive/alpha158.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from pipeline.indicators import Spec, compute, resolve
from tests.naive.alpha158 import alpha158
from tests.walks import Array, Bars, frame, walk

Mask = npt.NDArray[np.bool_]
Where = Callable[[Bars, int], Mask]


def equal(values: Array, n: int) -> Mask:
    """Return where the last n values are equal."""
    row = np.arange(values.size)
    begun: Array = np.maximum.accumulate(np.where(np.append(True, values[1:] != values[:-1]), row, 0))
    return np.asarray(row - begun >= n - 1)


def any_of(where: Mask, n: int) -> Mask:
    """Return where one of the last n bars is marked, all of them after the first."""
    found: Mask = np.convolve(where, np.ones(n))[: where.size] > 0
    found[:n] = False
    return found


def idle(bars: Bars, n: int) -> Mask:
    return np.asarray(bars["volume"] == 0)


def flat(bars: Bars, n: int) -> Mask:
    return equal(bars["close"], n)


def flat_or_even(bars: Bars, n: int) -> Mask:
    return equal(bars["close"], n) | equal(bars["volume"], n)


def after_idle(bars: Bars, n: int) -> Mask:
    return any_of(np.append(False, idle(bars, n)[:-1]), n)


def steady(bars: Bars, n: int) -> Mask:
    with np.errstate(invalid="ignore", divide="ignore"):
        close, volume = (np.append(math.nan, bars[name][1:] / bars[name][:-1]) for name in ("close", "volume"))
    return equal(close, n) | equal(volume, n)


DIFFERS: dict[str, list[tuple[Where, float | None, str]]] = {
    "VWAP": [(idle, 1.0, "no trade, no price: Qlib has none, we take the close")],
    "RSQR": [(flat, 0.0, "0 / 0: NaN in Qlib")],
    "CORR": [(flat_or_even, 0.0, "0 / 0: NaN in Qlib")],
    "CORD": [
        (steady, 0.0, "0 / 0: NaN in Qlib"),
        (after_idle, None, "the ratio to a volume of 0: infinite in Qlib and NaN with it, unchanged here"),
    ],
    "VMA": [(idle, 0.0, "over a volume of 0: Qlib adds 1e-12 to it, and the value is that of the window times 1e12")],
    "VSTD": [(idle, 0.0, "over a volume of 0: as VMA")],
}
"""Where columns differ from Qlib's: on which bars, what we say there (None = some number), and why. Besides, they are
NaN until the window is full, as the twins are too, and differ by the 1e-12 that Qlib adds to what it divides by.
"""


def ticks(seed: int) -> Bars:
    """Return bars on whole ticks: many equal closes, and highs and lows that are reached again and again."""
    bars = walk(260, seed, step=0.004)
    for name in ("open", "high", "low", "close"):
        bars[name] = np.round(bars[name] / 250) * 250
    return bars


def halted(seed: int) -> Bars:
    """Return bars whose price stands still, later without trades, longer than the longest window."""
    bars = walk(420, seed)
    for name in ("open", "high", "low", "close"):
        bars[name][100:250] = walk(420, seed)["close"][99]
    for name in ("volume", "turnover"):
        bars[name][180:300] = 0.0
    bars["volume"][320:390] = 5_000.0
    return bars


MARKETS = {"walk": walk(300, 1), "dear": walk(300, 2, start=900_000.0), "ticks": ticks(3), "halted": halted(4)}


@pytest.fixture(scope="module")
def specs(root: Path) -> list[Spec]:
    found = yaml.safe_load((root / "pipeline" / "feature_sets" / "alpha158.yaml").read_text(encoding="utf-8"))
    return [Spec.model_validate(one) for one in found["features"]]


def test_names_and_order_are_those_of_qlib(specs: list[Spec]) -> None:
    names = [column.name for column in resolve(specs)]
    assert names == list(alpha158(walk(70)))
    assert len(names) == 158


@pytest.mark.parametrize("kind", MARKETS)
def test_columns_equal_qlib_but_where_it_is_told(specs: list[Spec], kind: str) -> None:
    bars = MARKETS[kind]
    expected, got = alpha158(bars), compute(frame({"A": bars}), specs, dtype=np.float64)
    for name, theirs in expected.items():
        feature = name.rstrip("0123456789")
        ours, n, same = got[name].to_numpy(), int(name.removeprefix(feature) or 0), np.ones(len(theirs), bool)
        for where, value, _ in DIFFERS.get(feature, []):
            told = where(bars, n) & same & (np.arange(len(theirs)) >= n - 1)
            assert np.isfinite(ours[told]).all() if value is None else (ours[told] == value).all(), name
            same &= ~told
        np.testing.assert_array_equal(np.isnan(ours[same]), np.isnan(theirs[same]), err_msg=name)
        size = np.abs(theirs[same])
        allowed = 1e-9 * np.maximum(size, np.nanmedian(size))
        assert not (np.abs(ours[same] - theirs[same]) > allowed).any(), name


def test_every_difference_that_is_told_is_one(specs: list[Spec]) -> None:
    bars = MARKETS["halted"]
    expected, got = alpha158(bars), compute(frame({"A": bars}), specs, dtype=np.float64)
    for feature, told in DIFFERS.items():
        n = 0 if feature == "VWAP" else 20
        for where, _, why in told:
            rows = where(bars, n) & (np.arange(420) > n)
            ours, theirs = got[f"{feature}{n}"].to_numpy()[rows], expected[f"{feature}{n}"][rows]
            assert rows.any() and (ours != theirs).any(), (feature, why)
