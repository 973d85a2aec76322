"""Several real processes on one lake: nothing lost, nothing doubled, no reader disturbed, also when writers are
killed.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import signal
import time
from pathlib import Path

import pyarrow as pa

from storage.lake import Lake
from storage.schema import ACTIONS, content_digest
from tests.market import bars

spawn = mp.get_context("spawn")


def write_single_rows(path: str, writer: int, count: int) -> None:
    lake = Lake(path)
    table = bars([f"{writer:02d}0000"], count, seed=writer)
    for i in range(count):
        lake.write("bars", table.slice(i, 1))
        row = {
            "symbol": [f"{writer}-{i}"],
            "ex_date": [0],
            "kind": ["split"],
            "factor": [2.0],
            "source": ["s"],
            "ingested_at": [0],
        }
        lake.write("actions", pa.table({k: pa.array(v, ACTIONS.field(k).type) for k, v in row.items()}))


def rewrite_for_ever(path: str) -> None:
    lake = Lake(path)
    for seed in range(10_000):
        lake.write("bars", bars(["005930", "000660", "035420"], 400, seed=seed))


def test_three_writers_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    writers = [spawn.Process(target=write_single_rows, args=(str(tmp_path), i, 8)) for i in range(3)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert [w.exitcode for w in writers] == [0, 0, 0]
    lake = Lake(tmp_path)
    expected = pa.concat_tables([bars([f"{i:02d}0000"], 8, seed=i) for i in range(3)])
    assert lake.digest("bars") == content_digest(expected, ("symbol", "ts"))
    assert lake.read("actions").num_rows == 24


def test_a_reader_sees_whole_versions_while_a_writer_is_killed_again_and_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write("bars", bars(["005930", "000660", "035420"], 400, seed=0))
    rng = random.Random(5)
    for _ in range(4):
        writer = spawn.Process(target=rewrite_for_ever, args=(str(tmp_path),))
        writer.start()
        until = time.monotonic() + 1.2 + rng.random()
        while time.monotonic() < until:
            found = lake.read("bars")
            assert found.num_rows == 1200, "a reader saw a part of a write"
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    assert lake.version("bars") > 3, "the writers did not get to write"
    digests = {content_digest(bars(["005930", "000660", "035420"], 400, seed=s), ("symbol", "ts")) for s in range(120)}
    assert lake.digest("bars") in digests, "the lake holds a mixture of two writes"
