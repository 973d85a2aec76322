"""`features.py --explain`: what it says is what the stage then does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import config as configuration
from pipeline import venues
from pipeline.cluster import Cluster
from pipeline.features.explain import explained, main
from pipeline.stages import Runner, wanted
from storage.emit import silent
from storage.store import Store
from tests.integration import job
from tests.market import bars, ingested

NAMES = [f"{i:06d}" for i in range(6)]
SET = """
features:
  - {indicator: macd, outputs: [macd, macd_histogram], over: close}
  - {indicator: roc, params: {n: 60}}
  - {indicator: roc, at: 1w}
  - {indicator: roc, cross: [rank]}
"""


class Never(Cluster):
    """A cluster that must not be started."""

    def client(self) -> Any:
        raise AssertionError("a cluster was started for nothing")


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("quick.yaml").write_text(SET)
    for name in os.environ.keys() - job.environment().keys():
        monkeypatch.delenv(name)
    yield


def config_of(folder: Path, *words: str) -> configuration.Config:
    options = ["--run.data", str(folder), "--run.runs", str(folder / "runs"), "--cluster.device", "cpu"]
    return configuration.load([*options, "--features.set", "quick.yaml", *words], "test", "")[0]


def finish_ingest(folder: Path, days: int) -> None:
    """Leave bars of so many weekdays in the lake, as the ingest that `config_of` asks for."""
    table = bars(NAMES, 300)
    ends = table["ts"].to_numpy()
    held = venues.is_session("KRX", ends.astype("datetime64[D]")) & (ends <= np.unique(ends)[days - 1])
    receipt = ingested(folder, table.filter(pa.array(held)))
    with Cluster(config_of(folder).cluster) as cluster:
        runner = Runner(config_of(folder), cluster, silent)
        key = str(next(runner.plan(wanted(["ingest"], config_of(folder)))).key)
    store = Store(folder / "stages")
    with store.writing("ingest", key) as out:
        store.begin("ingest", key)
        receipt.save(out)
        store.finish("ingest", key, {"content": f"{days} days", "made": "today", "made_of": {}, "seconds": 0.0})


def said(folder: Path, *words: str) -> str:
    config = config_of(folder, *words)
    with Never(config.cluster) as cluster:
        return "\n".join(explained(config, cluster))


def made(folder: Path) -> dict[str, Any]:
    config = config_of(folder)
    with Never(config.cluster) as cluster:
        return Runner(config, cluster, silent).run(wanted(["features"], config))["features"]


def line(text: str, start: str) -> list[str]:
    """Return the words of the first line that begins so."""
    return next(one.split() for one in text.splitlines() if one.split()[:1] == [start])


def test_it_says_what_would_be_computed_and_then_what_would_be_reused(tmp_path: Path) -> None:
    finish_ingest(tmp_path, 280)
    before = said(tmp_path)
    groups = int(line(before, "blocks")[1])
    assert not (tmp_path / "stages" / "features").exists() and "stage run: never made" in before
    assert line(before, "total") == ["total", "1,596", "0", "0", str(2 * groups), "1,596"]  # 6 symbols x 266 sessions
    manifest = made(tmp_path)
    assert manifest["computed"] == manifest["blocks"] == 2 * groups
    after = said(tmp_path)
    assert "stage reused" in after and line(after, "total")[2:] == [str(2 * groups), "0", "0", "0"]
    assert "measured over" not in after  # nothing to compute, no time to tell
    other = said(tmp_path, "--features.dtype", "float64")
    assert "stage run: changed: features.dtype" in other and "measured over 1,596 bars" in other
    assert line(other, "total")[2:5] == ["0", "0", str(2 * groups)]

    finish_ingest(tmp_path, 283)  # three more days
    joined = said(tmp_path)
    assert line(joined, "2020")[2:5] == [str(groups), "0", "0"]
    assert line(joined, "2021")[2:] == ["0", str(groups), "0", str(6 * 3)]
    assert made(tmp_path)["computed"] == groups


def test_columns_passes_and_intervals(tmp_path: Path) -> None:
    finish_ingest(tmp_path, 100)
    text = said(tmp_path)
    one, two = line(text, "macd_12_26_9_over_close"), line(text, "macd_histogram_12_26_9_over_close")
    assert one[1] == two[1] and one[2] == "ratio"  # one kernel, one pass
    assert line(text, "roc_60")[3:6] == ["61", "61", "2020-03-30"]  # the 61st session from 2020-01-02
    assert line(text, "roc_10@1w")[4:6] == ["11", "2020-03-20"]  # the 11th whole week
    assert line(text, "roc_10_rank")[-1] == "cross" and line(text, "1w")[3:6] == ["derived", "from", "1d,"]
    assert "1 tasks, one a period" in text and "roc_10_rank" in text.split("among symbols")[1].splitlines()[0]
    assert "features.level auto: numba in this process" in text
    assert line(text, "state")[2] == "B" and line(text, "block")[2] in ("kB", "MB")
    assert "too few bars" in said(tmp_path, "--features.extra", '[{"indicator": "sma", "params": {"n": 200}}]')


def test_without_an_ingest_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", "--run.data", str(tmp_path)]) == 2
    assert "expected a finished ingest" in (told := capsys.readouterr().err) and "run scripts/ingest.py" in told


def test_intervals_that_are_not_there_are_refused(tmp_path: Path) -> None:
    finish_ingest(tmp_path, 40)
    with pytest.raises(ValueError, match=r"got --features\.interval 5m"):
        said(tmp_path, "--features.interval", "5m")


def test_help_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--explain: say what it would read" in " ".join(capsys.readouterr().out.split())
