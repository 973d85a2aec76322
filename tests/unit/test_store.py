"""A stage directory is complete when its manifest is there, and not before."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.section import Section, digest_of, setting
from storage.store import Store, StoreError, read_json, replacing, write_json, write_parquet


def test_unfinished_directories_are_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writing("train", "k") as out:
        (out / "model.bin").write_bytes(b"x" * 10)
        assert store.done("train", "k") is None
        store.finish("train", "k", {"content": "c"})
    found = store.done("train", "k")
    assert found is not None
    assert found["files"] == {"model.bin": 10}


def test_a_file_cut_short_or_gone_makes_the_directory_unfinished(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for damage in ("cut", "gone"):
        with store.writing("s", damage) as out:
            (out / "a.bin").write_bytes(b"x" * 10)
            store.finish("s", damage, {})
        if damage == "cut":
            (store.path("s", damage) / "a.bin").write_bytes(b"x")
        else:
            (store.path("s", damage) / "a.bin").unlink()
        assert store.done("s", damage) is None


def test_a_broken_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(StoreError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_replacing_leaves_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"v": 1})
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert read_json(tmp_path / "a.json") == {"v": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match=r"expected a writable folder.*run\.data"),
        Store(tmp_path / "file").writing("s", "k"),
    ):
        pass


def test_parquet_is_sorted_when_asked(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", pa.table({"x": [3, 1, 2], "y": [1.0, 2.0, 3.0]}), sort=("x",))
    assert pq.read_table(tmp_path / "a.parquet")["x"].to_pylist() == [1, 2, 3]


def test_runtime_fields_stay_out_of_keys_and_units_are_told() -> None:
    class Example(Section):
        rate: float = setting(0.1, "learning rate", unit="1/step", gt=0)
        workers: int = setting(2, "workers", runtime=True)

    assert Example().keyed() == {"rate": 0.1}
    assert Example.model_fields["rate"].description == "learning rate [1/step; > 0]"
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
