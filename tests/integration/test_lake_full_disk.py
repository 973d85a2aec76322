"""No space left in the middle of a write, on a small real file system: an error that says so, the lake as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.lake import Lake, LakeError
from storage.schema import KEYS, content_digest
from tests.market import bars


def fill(disk: Path, leave: int) -> Path:
    """Take all space but `leave` bytes."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            pass
        file.truncate(max(ballast.stat().st_size - leave, 0))
    return ballast


@pytest.mark.parametrize("leave", [0, 4096, 16384, 65536, 262144])
def test_a_full_disk_loses_nothing_and_the_same_write_succeeds_later(disk: Path, leave: int) -> None:
    lake, old = Lake(disk / "lake"), bars([f"{i:06d}" for i in range(20)], 200)
    lake.write("bars", old)
    before, version = lake.digest("bars"), lake.version("bars")
    there = set((disk / "lake" / "bars").rglob("*.parquet"))
    ballast = fill(disk, leave)
    new = bars([f"{i:06d}" for i in range(20)], 1500, seed=1)
    with pytest.raises(LakeError, match=r"No space left.* MB are free"):
        lake.write("bars", new)
    assert (lake.digest("bars"), lake.version("bars")) == (before, version)
    assert set((disk / "lake" / "bars").rglob("*.parquet")) == there, "a failed write leaves files behind"
    assert lake.damaged() == []
    ballast.unlink()
    assert lake.write("bars", new) > 0
    assert lake.digest("bars", source="test") == content_digest(new, KEYS["bars"])
    assert lake.damaged() == []


def test_a_full_disk_at_the_first_write_leaves_a_lake_that_can_be_written_later(disk: Path) -> None:
    ballast = fill(disk, 0)
    lake, rows = Lake(disk / "lake"), bars(["005930"], 200)
    with pytest.raises(LakeError, match="No space left"):
        lake.write("bars", rows)
    assert lake.read("bars").num_rows == 0
    ballast.unlink()
    assert lake.write("bars", rows) == 200
    assert lake.read("bars").equals(rows)


def test_a_commit_without_space_is_not_there(disk: Path) -> None:
    """The files fit, the entry of the log does not."""
    lake, rows = Lake(disk / "lake"), bars(["005930"], 2)
    lake.write("bars", rows)
    for leave in range(0, 16 * 4096, 4096):
        ballast, seed = fill(disk, leave), leave + 1
        before, wanted = lake.digest("bars"), bars(["005930"], 2, seed=seed)
        try:
            lake.write("bars", wanted)
        except LakeError as error:
            assert "No space left" in str(error)
            assert lake.digest("bars") == before
        else:
            assert lake.read("bars").equals(wanted)
        ballast.unlink()
    assert lake.damaged() == []
