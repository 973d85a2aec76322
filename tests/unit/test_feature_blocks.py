"""Blocks that were made before: an append computes its new bars alone and ends with the content of a whole run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import krx
from pipeline.features.pool import FOLDER
from pipeline.features.section import FeatureSection
from pipeline.features.stage import features
from pipeline.job import Job
from pipeline.labels import LabelSection
from pipeline.universe import UniverseSection
from storage.emit import silent
from storage.lake import group_of
from storage.schema import ACTIONS, BARS
from tests.clients import killed_client
from tests.feature_stage import LABELS, NAMES, UNIVERSE, Alone, Threads, counted, rows, stage
from tests.market import STAMP, bars, ingested

HERE = FeatureSection(level="numba")
N = 100
TABLE = bars(NAMES, N, start="2020-09-01")  # until 2021-01-18


def upto(table: pa.Table, day: str) -> pa.Table:
    """Return the bars that end on or before a day."""
    end = datetime.combine(date.fromisoformat(day), time(), krx.KST) + timedelta(days=1)
    return table.filter(pc.less_equal(table["ts"], pa.scalar(end, table["ts"].type)))


def fresh_run(folder: Path, table: pa.Table, section: FeatureSection = HERE, actions: pa.Table | None = None) -> Any:
    """Return the content and the rows of a run over these bars without anything that was made before."""
    ingested(folder, table, actions)
    return stage(folder, Alone(), section)["content"], rows(folder)


def inodes(folder: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_ino for path in (folder / "features" / "blocks").glob("*.parquet")}


def same(folder: Path, fresh: tuple[str, Any], section: FeatureSection = HERE) -> bool:
    """Finish a stage of which all blocks were counted; say whether it is what a whole run makes, to the bit."""
    again = stage(folder, Alone(), section)
    return again["computed"] == 0 and again["content"] == fresh[0] and bool(rows(folder).equals(fresh[1]))


def split(symbol: str, day: str) -> pa.Table:
    row = {"symbol": symbol, "ex_date": date.fromisoformat(day), "kind": "split", "factor": 2.0, "source": "test"}
    return pa.Table.from_pylist([{**row, "ingested_at": STAMP.as_py()}], ACTIONS)


def changed(table: pa.Table, symbol: str, day: str, **values: float) -> pa.Table:
    """Return the bars with other values on one day of a symbol."""
    frame = table.to_pandas()
    at = (frame["symbol"] == symbol) & (frame["ts"].dt.date == date.fromisoformat(day))
    assert at.sum() == 1
    for name, value in values.items():
        frame.loc[at, name] = value
    return pa.Table.from_pandas(frame, schema=BARS, preserve_index=False)


def without(table: pa.Table, symbol: str, after: str = "", before: str = "9999-12-31") -> pa.Table:
    """Take out the bars of a symbol that end after one day and before another."""
    ts = pc.strftime(table["ts"], "%Y-%m-%d")
    inside = pc.and_(pc.greater(ts, after), pc.less(ts, before))
    return table.filter(pc.invert(pc.and_(pc.equal(table["symbol"], symbol), inside)))


def mates(symbol: str, table: pa.Table = TABLE) -> pa.Table:
    """Return the bars of all symbols of one group."""
    names = [name for name in NAMES if group_of(name, "1d") == group_of(symbol, "1d")]
    return table.filter(pc.is_in(table["symbol"], pa.array(names)))


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("2020-12-01", "2020-12-02"),
        ("2020-12-01", "2020-12-09"),
        ("2020-12-30", "2021-01-06"),
        ("2020-12-31", "2021-01-01"),
        ("2021-01-05", "2021-01-06"),
        ("2020-12-03", "2021-01-18"),
    ],
)
def test_an_append_computes_its_new_bars_alone(tmp_path: Path, first: str, last: str) -> None:
    old, new = upto(TABLE, first), upto(TABLE, last)
    fresh_run(tmp_path / "a", old)
    before = inodes(tmp_path / "a")
    ingested(tmp_path / "a", new)
    assert counted(tmp_path / "a") == new.num_rows - old.num_rows
    assert same(tmp_path / "a", fresh_run(tmp_path / "b", new))
    after = inodes(tmp_path / "a")
    for name, inode in before.items():
        open_then = name.endswith(first[:4]) and first[:4] == "2020" and first < "2020-12-31"
        if not open_then and not name.endswith("2021"):
            assert after[name] == inode, "a closed block is the same file"


def test_day_after_day_for_a_month(tmp_path: Path) -> None:
    """Appends in turn, over the turn of the year, each of a day."""
    mine = TABLE.filter(pc.is_in(TABLE["symbol"], pa.array(NAMES[:2])))
    days = [str(day) for day in np.unique(TABLE["ts"].to_numpy().astype("datetime64[D]"))][84:92]
    ingested(tmp_path / "a", upto(mine, days[0]))
    counted(tmp_path / "a")
    for day in days[1:]:
        ingested(tmp_path / "a", upto(mine, day))
        assert counted(tmp_path / "a") == 2
    assert same(tmp_path / "a", fresh_run(tmp_path / "b", upto(mine, days[-1])))


def test_a_manifest_counts_the_blocks_that_were_computed(tmp_path: Path) -> None:
    ingested(tmp_path, upto(TABLE, "2020-12-30"))
    assert stage(tmp_path, Alone(), HERE)["computed"] == 8
    ingested(tmp_path, upto(TABLE, "2021-01-06"))
    made = stage(tmp_path, Alone(), HERE)
    assert (made["blocks"], made["computed"]) == (16, 16), "2020 got its last day, 2021 is new"
    assert stage(tmp_path, Alone(), HERE)["computed"] == 0


@pytest.mark.parametrize("day", ["2020-10-15", "2021-01-06"])
def test_a_repaired_bar_costs_its_group_and_what_follows(tmp_path: Path, day: str) -> None:
    symbol, wrong = NAMES[4], changed(TABLE, NAMES[4], day, close=40_000.0)
    before = fresh_run(tmp_path / "a", wrong)
    closed = inodes(tmp_path / "a")
    ingested(tmp_path / "a", TABLE)
    late = mates(symbol).num_rows - (0 if day < "2021" else upto(mates(symbol), "2020-12-31").num_rows)
    assert counted(tmp_path / "a") == late
    right = fresh_run(tmp_path / "b", TABLE)
    assert right[0] != before[0] and same(tmp_path / "a", right)
    group = f"{group_of(symbol, '1d'):03d}"
    kept = {name for name in closed if not name.startswith(group) or (day > "2021" and name.endswith("2020"))}
    assert {name for name, inode in inodes(tmp_path / "a").items() if closed[name] == inode} == kept
    ingested(tmp_path / "a", wrong)
    assert counted(tmp_path / "a") == 0 and same(tmp_path / "a", before), "what was made before is still there"


def test_a_listing_that_joins_costs_its_own_bars(tmp_path: Path) -> None:
    old = upto(without(TABLE, NAMES[6]), "2020-12-10")
    fresh_run(tmp_path / "a", old)
    new = upto(without(TABLE, NAMES[6], before="2020-12-14"), "2020-12-20")
    ingested(tmp_path / "a", new)
    assert counted(tmp_path / "a") == new.num_rows - old.num_rows
    assert same(tmp_path / "a", fresh_run(tmp_path / "b", new))


def test_a_symbol_with_its_history_costs_its_group(tmp_path: Path) -> None:
    old = without(TABLE, NAMES[6])
    fresh_run(tmp_path / "a", old)
    ingested(tmp_path / "a", TABLE)
    assert counted(tmp_path / "a") == mates(NAMES[6]).num_rows
    assert same(tmp_path / "a", fresh_run(tmp_path / "b", TABLE))


def test_a_symbol_that_ended_stays_as_it_was(tmp_path: Path) -> None:
    table = without(TABLE, NAMES[6], after="2020-12-01")
    old, new = upto(table, "2020-12-15"), upto(table, "2021-01-08")
    fresh_run(tmp_path / "a", old)
    ingested(tmp_path / "a", new)
    assert counted(tmp_path / "a") == new.num_rows - old.num_rows
    assert same(tmp_path / "a", fresh_run(tmp_path / "b", new))


def test_bars_that_come_late_are_put_in(tmp_path: Path) -> None:
    """A symbol misses three days, other symbols go on; the days come with the next append."""
    old = upto(without(TABLE, NAMES[2], after="2020-12-07", before="2020-12-11"), "2020-12-15")
    new = upto(TABLE, "2020-12-16")
    fresh_run(tmp_path / "a", old)
    ingested(tmp_path / "a", new)
    theirs = len(NAMES) - len(mates(NAMES[2])["symbol"].unique())
    assert counted(tmp_path / "a") == mates(NAMES[2], new).num_rows + theirs
    assert same(tmp_path / "a", fresh_run(tmp_path / "b", new))


@pytest.mark.parametrize(("day", "late"), [("2020-12-16", False), ("2020-11-16", True)])
def test_a_split_that_is_appended(tmp_path: Path, day: str, late: bool) -> None:
    """One on the new day changes nothing before it; one that is told late changes its group from the beginning on."""
    old, new, actions = upto(TABLE, "2020-12-15"), upto(TABLE, "2020-12-16"), split(NAMES[2], day)
    fresh_run(tmp_path / "a", old)
    ingested(tmp_path / "a", new, actions)
    mine, theirs = mates(NAMES[2], new).num_rows, mates(NAMES[2], old).num_rows
    assert counted(tmp_path / "a") == (new.num_rows - old.num_rows + theirs if late else new.num_rows - old.num_rows)
    assert mine > theirs
    assert same(tmp_path / "a", fresh_run(tmp_path / "b", new, actions=actions))


def test_halts_that_begin_with_the_first_volume(tmp_path: Path) -> None:
    """Zeros say nothing before the source's first volume: when that is found out, blocks with zeros are made again."""
    frame = upto(TABLE, "2020-12-16").to_pandas()
    frame.loc[frame["ts"] < "2020-12-16", "volume"] = 0.0
    frame.loc[frame["symbol"] == NAMES[1], "volume"] = 0.0
    new = pa.Table.from_pandas(frame, schema=BARS, preserve_index=False)
    close = HERE.model_copy(update={"set": "close"})
    fresh_run(tmp_path / "a", upto(new, "2020-12-15"), close)
    ingested(tmp_path / "a", new)
    assert counted(tmp_path / "a", close) == len(NAMES)
    assert same(tmp_path / "a", fresh_run(tmp_path / "b", new, close), close)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def swapped(path: Path) -> None:
    """Put the file of another group in its place."""
    others = sorted(path.parents[1].rglob(f"*{path.suffix}"))
    other = next(p for p in others if p.read_bytes() != path.read_bytes())
    shutil.copyfile(other, path)


def reworded(old: str, new: str) -> Callable[[Path], Any]:
    def act(path: Path) -> None:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return act


DAMAGE: list[tuple[str, Callable[[Path], Any]]] = [
    *(
        (suffix, act)
        for suffix in (".parquet", ".npz")
        for act in (torn, flipped, Path.unlink, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"PK\3\4 no zip"))
    ),
    *((suffix, swapped) for suffix in (".parquet", ".npz", ".json")),
    (".json", reworded('"digest": "', '"digest": "0')),
    (".json", reworded('"rows"', '"sows"')),
    *(
        (".json", lambda p, text=text: p.write_text(text))
        for text in ("", "{", "[]", "{}", '{"checksum": 1}', '{"checksum": "a"}')
    ),
]


FOUR = TABLE.filter(pc.is_in(TABLE["symbol"], pa.array(NAMES[:4])))


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, Any]]:
    """Return the folder of yesterday's stage and what a whole run of today makes."""
    folder = tmp_path_factory.mktemp("yesterday")
    fresh_run(folder / "old", upto(FOUR, "2021-01-05"))
    return folder / "old", fresh_run(folder / "new", upto(FOUR, "2021-01-06"))


@pytest.mark.parametrize(("suffix", "damage"), DAMAGE)
def test_what_is_damaged_is_made_again(
    yesterday: tuple[Path, tuple[str, Any]], tmp_path: Path, suffix: str, damage: Callable[[Path], Any]
) -> None:
    shutil.copytree(yesterday[0], tmp_path / "a")
    for path in sorted((tmp_path / "a" / FOLDER).rglob(f"*{suffix}")):
        damage(path)
    assert stage(tmp_path / "a", Alone(), HERE)["symbols"] == 4
    ingested(tmp_path / "a", upto(FOUR, "2021-01-06"))
    counted(tmp_path / "a")
    assert same(tmp_path / "a", yesterday[1])


def test_a_damaged_state_is_not_needed(tmp_path: Path) -> None:
    """Without yesterday's state the open block is computed once more, from the state before it."""
    old, new = upto(TABLE, "2021-01-05"), upto(TABLE, "2021-01-06")
    fresh_run(tmp_path / "a", old)
    states = sorted((tmp_path / "a" / FOLDER).rglob("*.npz"))
    assert len(states) == 16, "of the last two periods of 8 groups"
    for path in states:
        if path.with_suffix(".parquet").stat().st_ino in [i for n, i in inodes(tmp_path / "a").items() if "2021" in n]:
            torn(path)
    ingested(tmp_path / "a", new)
    assert counted(tmp_path / "a") == new.num_rows - upto(TABLE, "2020-12-31").num_rows
    assert same(tmp_path / "a", fresh_run(tmp_path / "b", new))


CROSSED = """
import sys
import time
from pathlib import Path
from pipeline.features.section import FeatureSection
from pipeline.universe import UniverseSection
from tests.feature_stage import Alone, stage

def emit(kind, /, **fields):
    if kind == "progress":
        print(fields["unit"], fields["done"], flush=True)
        if [fields["unit"], str(fields["done"])] == sys.argv[2:4]:  # wait to be killed
            time.sleep(60)

if __name__ == "__main__":
    section = FeatureSection.model_validate_json(sys.argv[4])
    stage(Path(sys.argv[1]), Alone(), section, emit=emit, universe=UniverseSection(largest=8))
"""


RANKED = HERE.model_copy(update={"extra": FeatureSection(extra=({"indicator": "roc", "cross": ["rank"]},)).extra})
RANKING = UniverseSection(largest=8)


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Any]:
    """Return the folder of a stage whose bars have been appended to since, and what a whole run makes of them."""
    folder, new = tmp_path_factory.mktemp("crossed"), upto(TABLE, "2021-01-06")
    ingested(folder / "old", upto(TABLE, "2020-12-30"))
    stage(folder / "old", Alone(), RANKED, universe=RANKING)
    for name in ("old", "new"):
        ingested(folder / name, new)
    (folder / "old" / "features" / "columns.json").unlink()
    expected = stage(folder / "new", Alone(), RANKED, universe=RANKING)
    return folder / "old", expected["content"], rows(folder / "new")


@pytest.mark.parametrize(
    ("unit", "done"), [("groups", 1), pytest.param("groups", 5, marks=pytest.mark.slow), ("groups", 8), ("periods", 1)]
)
def test_killed_anywhere_and_finished_it_is_the_same(
    crossed: tuple[Path, str, Any], tmp_path: Path, unit: str, done: int
) -> None:
    """An append is killed with SIGKILL: in the middle of the groups, between the steps, between periods."""
    old, content, whole = crossed
    shutil.copytree(old, tmp_path / "a")
    words = (tmp_path / "a", unit, done, RANKED.model_dump_json())
    killed_client(CROSSED, tmp_path, *words, last=f"{unit} {done}")
    assert not (tmp_path / "a" / "features" / "columns.json").exists()
    again = stage(tmp_path / "a", Alone(), RANKED, universe=RANKING)
    assert again["content"] == content and rows(tmp_path / "a").equals(whole)
    assert again["computed"] <= 16 - 2 * done if unit == "groups" else again["computed"] == 0


@pytest.fixture(scope="module")
def threads() -> Any:
    with Threads() as found:
        yield found


def test_levels_workers_and_groups_change_nothing(tmp_path: Path, threads: Threads, monkeypatch: Any) -> None:
    """C6: the same blocks here, on one worker and on two; the same rows when symbols lie in other groups."""
    content, expected = fresh_run(tmp_path / "a", TABLE)
    for name, cluster in (("dask", threads), ("numba", Alone(cores=1)), ("numba", Alone(cores=5))):
        shutil.rmtree(tmp_path / "a" / FOLDER)
        made = stage(tmp_path / "a", cluster, HERE.model_copy(update={"level": name}))
        assert (made["content"], made["level"], made["computed"]) == (content, name, 16)
    monkeypatch.setattr("storage.lake.group_of", lambda symbol, interval: int(symbol) % 3)
    monkeypatch.setattr("storage.partitions.group_of", lambda symbol, interval: int(symbol) % 3)
    ingested(tmp_path / "b", TABLE)
    assert stage(tmp_path / "b", Alone(), HERE)["blocks"] == 6
    assert rows(tmp_path / "b").equals(expected)


def test_links_are_copies_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("no links here")

    expected = fresh_run(tmp_path / "a", TABLE)
    monkeypatch.setattr("os.link", refused)
    found = fresh_run(tmp_path / "b", TABLE)
    assert found[0] == expected[0] and found[1].equals(expected[1])
    assert all(path.stat().st_nlink == 1 for path in (tmp_path / "b" / "features" / "blocks").iterdir())
    assert stage(tmp_path / "b", Alone(), HERE)["content"] == expected[0]


def test_other_settings_share_a_pool_without_harm(tmp_path: Path) -> None:
    """Columns, labels and members are not mixed up; labels alone compute no block."""
    ingested(tmp_path, TABLE)
    first = stage(tmp_path, Alone(), HERE)
    close = stage(tmp_path, Alone(), HERE.model_copy(update={"set": "close"}), out="close")
    job = Alone().job(tmp_path / "far", {"ingest": tmp_path / "ingest"})
    far = features(job, HERE, LabelSection(horizons=(20,)), UNIVERSE)
    assert (first["computed"], close["computed"], far["computed"]) == (16, 16, 0)
    assert len({first["content"], close["content"], far["content"]}) == 3
    names = set(pq.read_schema(next((tmp_path / "far" / "targets").iterdir())).names)
    assert names == {"y_20", "y_20_end", "member"} and LABELS.horizons == (1, 5)
    assert stage(tmp_path, Alone(), HERE)["content"] == first["content"]


def test_anew_nothing_of_other_results_is_taken(tmp_path: Path) -> None:
    expected = fresh_run(tmp_path, TABLE)
    (tmp_path / "anew").mkdir()
    job = Job(tmp_path / "anew", {"ingest": tmp_path / "ingest"}, cast(Any, Alone()), silent, anew=True)
    made = features(job, HERE, LABELS, UNIVERSE)
    assert (made["computed"], made["content"]) == (16, expected[0])
