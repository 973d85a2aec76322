"""Several real processes on one lake: nothing lost, nothing doubled, no reader disturbed, also when writers are
killed.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from storage import upkeep
from storage.lake import Lake, group_of
from storage.lake_log import Log
from storage.schema import ACTIONS, BARS, KEYS, content_digest
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


NAMES = [f"{i:06d}" for i in range(24)]
SHARED = bars(NAMES[:6], 40)


def write_what_others_write(path: str, writer: int) -> None:
    """Write the same rows as the other writers in an order and pieces of its own; leave behind how many were new."""
    lake, rng = Lake(path), np.random.default_rng(writer)
    rows, total = SHARED.take(pa.array(rng.permutation(SHARED.num_rows))), 0
    for start in range(0, rows.num_rows, 60):
        total += lake.write("bars", rows.slice(start, 60))
    (Path(path) / f"new-{writer}").write_text(str(total))


def marked(mark: int) -> pa.Table:
    """Return bars of all symbols that carry a number, more of them the larger the number modulo 3."""
    rows = bars(NAMES, 20 + 10 * (mark % 3))
    return rows.set_column(8, BARS.field("volume"), pa.array(np.full(rows.num_rows, float(mark))))


def replace_for_ever(path: str, writer: int) -> None:
    lake, mark = Lake(path), writer * 1_000_000
    while True:
        mark += 1
        lake.replace("bars", marked(mark), symbols=NAMES, source="test", interval="1d")


def tidy_for_ever(path: str) -> None:
    upkeep.MINIMUM_AGE = 3.0  # s; far more than one write or read takes here
    lake = Lake(path)
    while True:
        lake.tidy({}, 0.0)
        time.sleep(0.2)


def start(task: object, *args: object) -> BaseProcess:
    process = spawn.Process(target=task, args=args)  # type: ignore[arg-type]
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_of_writers_with_the_same_rows_exactly_one_is_told_that_a_row_was_new(tmp_path: Path) -> None:
    """So every write saw the outcome of those before it: writes are as if one came after the other."""
    writers = [start(write_what_others_write, str(tmp_path), i) for i in range(3)]
    for w in writers:
        w.join()
    assert [w.exitcode for w in writers] == [0, 0, 0]
    assert sum(int(path.read_text()) for path in tmp_path.glob("new-*")) == SHARED.num_rows
    assert Lake(tmp_path).digest("bars") == content_digest(SHARED, KEYS["bars"])


def readers_find_whole_replacements(path: Path, seconds: float, kills: int) -> None:
    """Two writers replace all bars again and again and are killed in turn, old files are tidied away meanwhile, and
    damaged files of another partition are taken out: every read sees one replacement as a whole.
    """
    lake, rng = Lake(path), random.Random(7)
    lake.write("bars", marked(0))
    aside = bars([next(f"9{i:05d}" for i in range(99) if group_of(f"9{i:05d}", "1m") == 3)], 10, interval="1m")
    writers = [start(replace_for_ever, str(path), i) for i in (1, 2)]
    tidier, seen = start(tidy_for_ever, str(path)), set()

    def look() -> None:
        found = lake.read("bars", symbols=NAMES, interval="1d")
        marks = pc.unique(found["volume"]).to_pylist()
        assert len(marks) == 1, f"a reader saw several replacements at once: {marks}"
        assert found.num_rows == len(NAMES) * (20 + 10 * (int(marks[0]) % 3)), "a reader saw a part"
        seen.add(int(marks[0]) // 1_000_000)

    try:
        until = time.monotonic() + 60
        while not seen >= {1, 2}:
            look()
            assert time.monotonic() < until, "a writer never got its turn"
        for _ in range(kills):
            until = time.monotonic() + seconds / kills * rng.uniform(0.7, 1.3)
            lake.write("bars", aside)
            while time.monotonic() < until:
                look()
            spoiled = next(path / "bars" / f.path for f in Log(path, "bars").latest().files if f.partition[0] == "1m")
            spoiled.write_bytes(spoiled.read_bytes()[:-100])
            found_damage = [d for d in lake.damaged(["bars"]) if d.partition["interval"] == "1m"]
            assert [d.file for d in found_damage] == [spoiled.relative_to(path / "bars").as_posix()]
            lake.discard(found_damage[0])
            assert lake.counts("bars", interval="1m") == {}
            number = rng.randrange(2)
            kill(writers[number])
            writers[number] = start(replace_for_ever, str(path), number + 1)
    finally:
        for process in (*writers, tidier):
            kill(process)
    assert lake.damaged() == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "MINIMUM_AGE", 0.0)
        lake.tidy({}, 0.0)
    assert len(list((path / "bars").rglob("part-*.parquet"))) == len({group_of(n, "1d") for n in NAMES})
    mark = int(lake.read("bars")["volume"][0].as_py())
    assert lake.digest("bars") == content_digest(marked(mark), KEYS["bars"])


def test_readers_find_whole_replacements_while_writers_are_killed_and_files_tidied(tmp_path: Path) -> None:
    readers_find_whole_replacements(tmp_path, seconds=8.0, kills=3)


@pytest.mark.slow
def test_readers_find_whole_replacements_for_a_long_time(tmp_path: Path) -> None:
    readers_find_whole_replacements(tmp_path, seconds=90.0, kills=30)
