"""A scaler measures what it says and leaves what is not known alone."""

from __future__ import annotations

import numpy as np

from training.scaler import Scaler


def test_the_scaler_measures_what_it_says() -> None:
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
    again = Scaler.from_json(robust.to_json())
    assert np.array_equal(again.center_F, robust.center_F)
    assert np.array_equal(again.scale_F, robust.scale_F)
