"""Damage in a lake is found, named and taken out; tidying removes what nobody needs and nothing else; a replacement
shows no gap.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import upkeep
from storage.lake import Damage, Lake, LakeError, group_of
from storage.schema import COVERAGE, KEYS, PAGES, content_digest
from tests.market import bars

NAMES = [f"{i:06d}" for i in range(12)]


def lake_of(path: Path, *, n: int = 60) -> Lake:
    lake = Lake(path)
    lake.write("bars", bars(NAMES, n))
    return lake


def files(lake: Lake, table: str = "bars", version: int | None = None) -> list[Path]:
    uris = deltalake.DeltaTable(str(lake.path / table), version=version).file_uris()
    return sorted(Path(uri.removeprefix("file://")) for uri in uris)


def pages(stamps: list[datetime], body: bytes = b"{}") -> pa.Table:
    rows = [
        {
            "symbol": "005930",
            "interval": "1d",
            "venue": "KRX",
            "source": "kis",
            "call": "daily",
            "query": "{}",
            "number": number,
            "body": body,
            "ingested_at": stamp,
        }
        for number, stamp in enumerate(stamps)
    ]
    return pa.Table.from_pylist(rows, PAGES)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign(path: Path) -> None:
    """Put another table's file of the same number of bytes in the place of this one."""
    size = path.stat().st_size
    pq.write_table(pa.table({"x": [1]}), path)
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))


def flip(place: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(place * (len(content) - 1))] ^= 1
        path.write_bytes(content)

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (Path.unlink, "cannot be opened"),
        (cut, "bytes instead of"),
        (foreign, "bytes have changed"),
        (flip(0.5), "bytes have changed"),
        (flip(1.0), "bytes have changed"),
    ],
    ids=["missing", "cut", "foreign", "flipped", "flipped footer"],
)
def test_a_damaged_file_is_named_taken_out_and_fetched_again(
    tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    lake = lake_of(tmp_path)
    before, path = lake.digest("bars"), files(lake)[2]
    held = set(pq.read_table(path, columns=["symbol"], partitioning=None)["symbol"].to_pylist())
    damage(path)
    found = lake.damaged()
    assert [d.file for d in found] == [path.relative_to(tmp_path / "bars").as_posix()]
    assert found[0].table == "bars"
    assert found[0].partition == dict(part.split("=") for part in path.relative_to(tmp_path / "bars").parts[:-1])
    assert reason in found[0].reason
    with pytest.raises(LakeError, match=rf"{path.name}.*ingest.py repair"):
        lake.read("bars")
    others = [name for name in NAMES if group_of(name, "1d") != int(found[0].partition["group"])]
    assert lake.read("bars", symbols=others, interval="1d").num_rows == 60 * len(others), "other files are readable"

    lake.discard(found[0])
    assert lake.damaged() == []
    assert set(lake.counts("bars")) == set(NAMES) - held
    assert not path.exists()
    assert (tmp_path / "damaged" / "bars" / found[0].file).exists() == (damage is not Path.unlink)
    lake.write("bars", bars(NAMES, 60))
    assert lake.digest("bars") == before


def test_every_single_flipped_bit_is_found_and_never_read_as_data(tmp_path: Path) -> None:
    """256 places all over the file: a read either fails with the file's name or returns what was written."""
    lake = lake_of(tmp_path, n=40)
    whole, path = lake.read("bars"), files(lake)[1]
    content = path.read_bytes()
    rng = np.random.default_rng(3)
    for place in np.linspace(0, len(content) - 1, 256).astype(int):
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)
        assert [d.file for d in lake.damaged(["bars"])] == [path.relative_to(tmp_path / "bars").as_posix()], place
        try:
            assert lake.read("bars").equals(whole), f"byte {place} was read as data"
        except LakeError as error:
            assert path.name in str(error)
    path.write_bytes(content)
    assert lake.damaged() == []


def test_a_damage_that_is_gone_already_is_left_alone(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    version = lake.version("bars")
    lake.discard(Damage("bars", "interval=1d/group=0/period=2020/part-none.parquet", {}, "missing"))
    assert lake.version("bars") == version


def test_a_write_into_a_damaged_partition_fails_and_says_so(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    cut(files(lake)[0])
    version = lake.version("bars")
    with pytest.raises(LakeError, match=r"ingest.py repair"):
        lake.write("bars", bars(NAMES, 60, seed=1))
    assert lake.version("bars") == version
    assert len(list((tmp_path / "bars").rglob("part-*"))) == len(files(lake)), "files of a failed write stay behind"


def test_an_unreadable_log_is_named(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    for entry in (tmp_path / "bars" / "_delta_log").glob("*.json"):
        entry.write_text("{")
    with pytest.raises(LakeError, match=r"log of the table 'bars' in .*_delta_log, got: .*; restore the log") as error:
        lake.read("bars")
    assert "\n" not in str(error.value), "the stack of the log's library"


def test_replacing_removes_what_is_not_there_any_more_in_one_commit(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    lake.write("bars", bars(NAMES, 5, source="other"))
    version, fresh = lake.version("bars"), bars([NAMES[0]], 20, seed=4)
    assert lake.replace("bars", fresh, symbols=[NAMES[0]], source="test", interval="1d") == 60
    assert lake.version("bars") == version + 1
    assert lake.read("bars", symbols=[NAMES[0]], source="test").equals(fresh)
    assert lake.counts("bars", source="other") == dict.fromkeys(NAMES, 5), "another source's rows stay"
    assert lake.counts("bars", source="test") == {**dict.fromkeys(NAMES, 60), NAMES[0]: 20}
    assert lake.replace("bars", fresh, symbols=[NAMES[0]], source="test", interval="1d") == 0
    assert lake.version("bars") == version + 1, "a replacement by the same rows is no change"


def test_removing_takes_the_rows_that_match_and_no_others(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    lake.write("bars", bars(NAMES, 5, source="other"))
    assert lake.remove("bars", symbols=NAMES[:2], source="test") == 120
    assert lake.remove("bars", symbols=NAMES[:2], source="test") == 0
    expected = pa.concat_tables([bars(NAMES, 60).slice(120), bars(NAMES, 5, source="other")])
    assert lake.digest("bars") == content_digest(expected, KEYS["bars"])
    assert lake.remove("bars", symbols=None, source="other") == 60
    assert lake.remove("actions", symbols=["x"]) == 0
    assert lake.version("actions") == -1


def test_rows_without_a_symbol_survive_a_removal(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    row = {"symbol": "a", "interval": "1d", "venue": "KRX", "source": "kis", "first": date(2020, 1, 1), "rows": 1}
    lake.write("coverage", pa.Table.from_pylist([row, {**row, "symbol": None}], COVERAGE))
    assert lake.remove("coverage", symbols=["a"], venue="KRX") == 1
    assert lake.read("coverage")["symbol"].to_pylist() == [None]


def test_pages_are_appended_by_month_and_have_a_digest(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    stamps = [datetime(2026, month, 5, tzinfo=UTC) for month in (9, 10, 10)]
    lake.append("pages", pages(stamps))
    lake.append("pages", pages([datetime(2026, 10, 9, tzinfo=UTC)], b"\x00\xff"))
    folders = {path.parent.name for path in files(lake, "pages")}
    assert folders == {"period=2026-09", "period=2026-10"}
    assert lake.counts("pages", source="kis") == {"005930": 4}
    assert lake.read("pages")["body"].to_pylist() == [b"{}", b"{}", b"{}", b"\x00\xff"]
    assert lake.digest("pages") == content_digest(lake.read("pages"))
    with pytest.raises(LakeError, match="use write"):
        lake.append("bars", bars(["a"], 1))


def test_tidying_keeps_what_the_newest_and_the_kept_versions_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path)
    for seed in range(4):
        lake.write("bars", bars(["005930"], 30, seed=seed))
    kept = files(lake, version=2)
    assert lake.tidy({}, 0.0)["bars"] == 0, "younger than an hour: a reader may be at them"
    monkeypatch.setattr(upkeep, "MINIMUM_AGE", 0.0)
    assert lake.tidy({}, 1.0)["bars"] == 0
    orphan = files(lake)[0].with_name("part-of-a-killed-writer.parquet")
    shutil.copy(files(lake)[0], orphan)
    assert lake.tidy({"bars": {2}}, 0.0)["bars"] == 3
    assert set((tmp_path / "bars").rglob("part-*")) == {*kept, *files(lake)}
    assert lake.read("bars").equals(bars(["005930"], 30, seed=3))
    assert pq.read_table(kept[0], columns=["close"], partitioning=None)["close"].equals(
        bars(["005930"], 30, seed=1)["close"]
    )
    assert lake.tidy({}, 0.0)["bars"] == 1


def test_tidying_leaves_a_table_alone_whose_log_does_not_reach_back_to_a_kept_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "MINIMUM_AGE", 0.0)
    lake = Lake(tmp_path)
    for seed in range(4):
        lake.write("bars", bars(["005930"], 30, seed=seed))
    deltalake.DeltaTable(str(tmp_path / "bars")).create_checkpoint()
    for number in (0, 1, 2):
        (tmp_path / "bars" / "_delta_log" / f"{number:020d}.json").unlink()
    assert lake.tidy({"bars": {1}}, 0.0)["bars"] == 0
    assert lake.tidy({"bars": {4}}, 0.0)["bars"] == 3
    assert lake.read("bars").equals(bars(["005930"], 30, seed=3))
