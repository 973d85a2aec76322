"""Runs that share a pool: each ends with the content that it has alone, whatever others forget meanwhile."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.features.group import Maker, Order
from pipeline.features.pool import Block
from pipeline.features.section import FeatureSection
from pipeline.features.state import State, StateError
from pipeline.indicators import Spec, plan_of, resolve
from pipeline.receipt import Receipt
from tests.feature_stage import NAMES, Alone, order_of, stage
from tests.market import bars, ingested

SECTION = FeatureSection(level="numba", set="close")
TABLE = bars(NAMES, 100, start="2020-09-01")
DAYS = [str(day) for day in np.unique(TABLE["ts"].to_numpy().astype("datetime64[D]"))][-14:]  # in 2020 and 2021


def received(folder: Path, day: str) -> Path:
    """Leave a receipt of all bars up to a day in a folder of that name."""
    ingested(folder, TABLE.filter(pc.less_equal(pc.strftime(TABLE["ts"], "%Y-%m-%d"), day)))
    return (folder / "ingest").rename(folder / day)


def alone(folder: Path, day: str) -> str:
    """Return the content of a run that shares nothing."""
    received(folder, day).rename(folder / "ingest")
    return str(stage(folder, Alone(), SECTION)["content"])


RUN = """
import sys
from pathlib import Path
from pipeline.features.stage import features
from tests.feature_stage import LABELS, UNIVERSE, Alone
from tests.unit.test_feature_pool import SECTION

print("ready", flush=True)
for line in sys.stdin:
    folder, day = Path(sys.argv[1]), line.strip()
    (folder / f"of {day}").mkdir()
    job = Alone().job(folder / f"of {day}", {"ingest": folder / day})
    print(features(job, SECTION, LABELS, UNIVERSE)["content"], flush=True)
"""


@pytest.mark.slow
def test_two_runs_at_once_forget_under_each_other(tmp_path: Path, root: Path) -> None:
    """Two processes begin together, one with an older receipt than the other; both go on from the same blocks and
    forget them.
    """
    for day in DAYS:
        received(tmp_path, day)
    env, found = {**os.environ, "PYTHONPATH": str(root)}, {}
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-c", RUN, str(tmp_path)]
        both = [
            stack.enter_context(
                subprocess.Popen(command, env=env, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(2)
        ]
        talk = [(process.stdin, process.stdout) for process in both]
        assert all(said is not None and said.readline() == "ready\n" for _, said in talk)
        for days in zip(DAYS[::2], DAYS[1::2]):
            for (told, _), day in zip(talk, days):
                assert told is not None
                print(day, file=told, flush=True)
            for (_, said), day in zip(talk, days):
                assert said is not None
                found[day] = said.readline().strip()
                assert found[day], f"the run of {day} ended"
    assert found[DAYS[-2]] == alone(tmp_path / "a", DAYS[-2])
    assert found[DAYS[-1]] == alone(tmp_path / "b", DAYS[-1])


class Interrupted(Maker):
    """Let another run make its blocks just after this one has loaded a state to go on from."""

    then: Maker | None = None

    def _loaded(self, block: Block) -> State | None:
        state, then, self.then = super()._loaded(block), self.then, None
        if then is not None:
            then.make(0)
        return state


def test_a_block_is_forgotten_that_another_run_goes_on_from(tmp_path: Path) -> None:
    def made_in(folder: Path, day: str) -> tuple[Order, Receipt, list[str]]:
        folder.mkdir(exist_ok=True)
        order = order_of(folder, SECTION, out=f"of {day}")
        return replace(order, receipt=tmp_path / day), Receipt.load(tmp_path / day), NAMES

    for day in DAYS[-3:]:
        received(tmp_path, day)
    Maker(*made_in(tmp_path, DAYS[-3])).make(0)
    one = Interrupted(*made_in(tmp_path, DAYS[-2]))
    one.then = Maker(*made_in(tmp_path, DAYS[-1]))
    made = one.make(0)
    whole = Maker(*made_in(tmp_path / "b", DAYS[-2])).make(0)
    assert made["blocks"] == whole["blocks"] and (made["computed"], whole["computed"]) == (1, 2)


def test_a_block_of_another_name_is_none(tmp_path: Path) -> None:
    """Neither facts nor files of one block are taken for those of another, even all of them together."""
    table, one, other = pa.table({"x": [1.0, 2.0]}), Block(tmp_path / "a", "1"), Block(tmp_path / "a", "2")
    facts = one.write(table, {"rows": 2}, tmp_path / "out.parquet")
    assert one.facts() == one.link(tmp_path / "b.parquet") == facts and one.read(facts) == table
    for mine, theirs in ((one.about, other.about), (one.file, other.file)):
        theirs.write_bytes(mine.read_bytes())
    assert other.told() == {} and other.facts() is None and other.link(tmp_path / "c.parquet") is None
    one.forget()
    assert one.facts() is None and one.read(facts) is None and one.link(tmp_path / "c.parquet") is None
    assert (tmp_path / "b.parquet").stat().st_nlink == 2, "what was linked stays"


def test_a_state_is_that_of_its_block_or_none(tmp_path: Path) -> None:
    plans, path = {"": plan_of(resolve([Spec(indicator="sma")]))}, tmp_path / "x.npz"
    state = State.fresh(["A", "B"], plans, np.float32)
    state.carries[""].state_KN[...] = 3.0

    def load(key: str = "chain/rows") -> State:
        return State.load(path, key, ["B", "C"], plans, np.float32)

    state.save(path, "chain/rows")
    np.testing.assert_array_equal(load().carries[""].state_KN, [[3.0, 0.0]] * plans[""].state)
    with pytest.raises(StateError, match=r"after the block chain/other in .* after chain/rows"):
        load("chain/other")
    with np.load(path) as found:
        good = dict(found)
    for name, wrong in (
        ("symbols", np.array("A")),
        ("symbols", np.array(["B"])),
        ("state_KN ", np.zeros(2)),
        ("state_KN ", good["state_KN "][:, :1]),
        ("state_KN ", good["state_KN "].astype(np.int64)),
        ("past_CHN ", np.zeros(())),
    ):
        np.savez(path, **{**good, name: wrong})
        with pytest.raises(StateError):
            load()
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(StateError):
        load()
