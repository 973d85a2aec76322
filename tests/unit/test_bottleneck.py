"""Time by number of samples: known times give known lines, a stage is measured on parts of the lake, the command leaves
nothing behind and is no package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import bottleneck, config
from pipeline.bottleneck import Target, measure, report, table
from storage.schema import ACTIONS
from storage.store import Store
from tests.integration import job
from tests.market import bars, ingested


def test_known_times_give_the_line_and_its_forecast() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        runs = [(n, 0.5 + 0.02 * n + float(rng.normal(0, 0.05)), 1.0) for n in (10, 50, 100) for _ in range(3)]
        ahead = report("x", "symbols", runs, 200)["forecast"]
        inside += ahead["low"] <= 0.5 + 0.02 * 200 + float(rng.normal(0, 0.05)) <= ahead["high"]
    assert inside == pytest.approx(190, abs=9), "95 % of further runs"
    found = report("x", "symbols", [(n, 0.5 + 0.02 * n, 1.0) for n in (10, 50, 100)], 1000)
    assert (found["fixed_s"], found["each_s"]) == (pytest.approx(0.5), pytest.approx(0.02))
    assert found["forecast"]["seconds"] == pytest.approx(20.5) == found["forecast"]["low"]
    assert found["r2"] == pytest.approx(1)


def test_growth_that_drowns_in_noise_is_said_and_none_is_below_zero() -> None:
    found = report("x", "symbols", [(10, 0.3, 1.0), (10, 0.2, 1.0), (50, 0.1, 1.0), (50, 0.2, 1.0)], 1000)
    assert found["each_s"] == 0 and found["fixed_s"] == pytest.approx(0.2) == found["forecast"]["seconds"]
    assert found["forecast"]["low"] == 0 and found["forecast"]["high"] > 0.2
    assert "cannot be told from zero" in table(found)
    assert "cannot be told" not in table(report("x", "symbols", [(n, n / 10, 1.0) for n in (10, 50, 100)], 1000))


@pytest.mark.parametrize(
    ("power", "said"), [(1.0, "^1.00: linear"), (2.0, "^2.00: MORE than linear"), (0.5, "^0.50: less than linear")]
)
def test_growth_is_named(power: float, said: str) -> None:
    found = report("x", "combinations", [(n, n**power / 100, 1.0) for n in (10, 50, 100)], 1000)
    assert said in table(found) and "x by combinations" in table(found)


def test_only_the_work_itself_is_timed_and_a_busy_core_shows() -> None:
    prepared: list[int] = []

    def prepare(given: Any, cluster: Any, n: int, folder: Path) -> Callable[[], None]:
        prepared.append(n)
        time.sleep(0.05)

        def act() -> None:
            end = time.process_time() + n / 1000
            while time.process_time() < end:
                pass

        return act

    runs = list(measure(Target("spins", prepare), config.load([], "test", "")[0], [50, 100], 2))
    assert prepared == [50, 50, 50, 100, 100] and [n for n, _, _ in runs] == [50, 50, 100, 100]
    assert all(cpu == pytest.approx(n / 1000, abs=0.03) for n, _, cpu in runs)


SYMBOLS = tuple(f"{n:06d}" for n in range(1, 9))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose last finished ingest left eight symbols."""
    folder = tmp_path_factory.mktemp("home")
    receipt = ingested(folder / "data", bars(SYMBOLS, 200), ACTIONS.empty_table())
    store = Store(folder / "data" / "stages")
    with store.writing("ingest", "key") as out:
        receipt.save(out)
    store.finish("ingest", "key", {"content": "x"})
    return folder


def ran(home: Path, *words: str) -> tuple[int, str, str]:
    (home / "tmp").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "scripts/bottleneck.py", *words, "--run.data", str(home / "data"), "--features.set", "close"],
        cwd=Path(__file__).parents[2],
        env={**job.environment(), "TMPDIR": str(home / "tmp")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_stage_is_measured_on_parts_of_the_lake_and_leaves_nothing(home: Path) -> None:
    before = sorted(path for path in (home / "data").rglob("*"))
    status, said, errors = ran(home, "features", "--samples", "2,4,8", "--repeats", "1", "--forecast", "80", "--json")
    assert status == 0, errors
    found = json.loads(said)
    assert [row["samples"] for row in found["rows"]] == [2, 4, 8]
    assert all(row["seconds"] > 0 and 0 < row["cpu_use"] <= 1.5 for row in found["rows"])
    assert found["what"] == "features" and found["forecast"]["samples"] == 80
    assert sorted(path for path in (home / "data").rglob("*")) == before
    assert not [path for path in (home / "tmp").iterdir() if path.name.startswith("bottleneck-")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["features", "--samples", "2,100"],
            "expected 100 symbols in .*, got 8; ingest more or give smaller --samples",
        ),
        (["feature"], "expected one of ingest, features, .*, got 'feature'"),
        ([], "expected one of ingest, features, .*, got 'nothing'"),
        (
            ["features", "--samples", "10,x"],
            "expected two or more different numbers of samples, such as .*, got '10,x'",
        ),
        (["features", "--samples", "1,2", "--repeats", "1"], "expected at least three runs"),
        (["features", "--forecast", "many"], "--forecast: invalid int value"),
    ],
)
def test_bad_input_is_one_sentence(home: Path, words: list[str], said: str, capsys: Any) -> None:
    assert bottleneck.main([*words, "--run.data", str(home / "data")]) == 2
    out, errors = capsys.readouterr()
    assert not out and errors.count("\n") == 1 and re.search(said, errors), errors


def test_pandas_finds_no_package_of_the_command_s_name(tmp_path: Path) -> None:
    """The folder of the command that runs comes first on the path, for optional packages too."""
    scripts = Path(bottleneck.__file__).parents[1] / "scripts"
    code = "import pandas, sys; print('bottleneck' in sys.modules, pandas.Series([1.0, 3.0]).mean())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(scripts)}, capture_output=True, text=True,
        check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.split() == ["False", "2.0"]
