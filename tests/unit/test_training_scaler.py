"""A scaler measures what it says and leaves what is not known alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.store import StoreError, write_json
from training.scaler import Scaler

WHOLE = {"features": ["a", "b"], "center": [0.0, 1.0], "scale": [1.0, 2.0], "clip": 5.0}


@pytest.mark.parametrize(
    "value",
    [{}, [], None, {**WHOLE, "clip": None}, {**WHOLE, "scale": [1.0]}, {**WHOLE, "center": ["x", "y"]}],
)
def test_a_file_that_holds_no_scaler_is_named(tmp_path: Path, value: Any) -> None:
    write_json(tmp_path / "scaler.json", WHOLE)
    assert Scaler.read(tmp_path / "scaler.json").to_json() == WHOLE
    write_json(tmp_path / "scaler.json", value)
    with pytest.raises(StoreError, match=rf"a scaler with .* at {tmp_path}/scaler\.json, .* train again"):
        Scaler.read(tmp_path / "scaler.json")


def test_the_scaler_measures_what_it_says(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(3.0, 2.0, (4000, 4)).astype(np.float32)
    x[:, 1] = 5.0
    x[::5, 2] = np.nan
    x[:3, 3] = 1e6
    names = ("a", "constant", "holes", "outliers")
    rows = np.ones(4000, np.bool_)
    robust, standard = (Scaler.fit(x, rows, names, kind, 5.0) for kind in ("robust", "standard"))
    np.testing.assert_allclose(standard.center_F[:3], np.nanmean(x.astype(np.float64), axis=0)[:3], rtol=1e-6)
    np.testing.assert_allclose(standard.scale_F[[0, 2]], np.nanstd(x.astype(np.float64), axis=0)[[0, 2]], rtol=1e-6)
    assert standard.scale_F[1] == robust.scale_F[1] == 1.0
    np.testing.assert_allclose(robust.scale_F[[0, 2, 3]], 2.0, rtol=0.1)
    assert standard.scale_F[3] > 1000
    scaled = x.copy()
    robust.apply(scaled)
    assert np.isnan(scaled[::5, 2]).all()
    assert np.nanmax(np.abs(scaled)) == 5.0
    assert (scaled[:, 1] == 0).all()
    write_json(tmp_path / "scaler.json", robust.to_json())
    again = Scaler.read(tmp_path / "scaler.json")
    assert np.array_equal(again.center_F, robust.center_F)
    assert np.array_equal(again.scale_F, robust.scale_F)
