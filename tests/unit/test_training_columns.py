"""The columns of a feature stage, and what a model says that was trained on others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from storage.store import read_json, write_json
from tests.feature_blocks import write_blocks
from training.columns import DataError, Label, check_columns, read_columns

SMALL = {"symbols": 3, "days": 20, "features": 3, "groups": 1}


def rewrite(directory: Path, **change: Any) -> None:
    write_json(directory / "columns.json", {**read_json(directory / "columns.json"), **change})


def labels(*horizons: int) -> list[dict[str, Any]]:
    return [{"name": f"y_{h}", "horizon": h, "end": f"y_{h}_end"} for h in horizons]


def test_the_first_label_is_learned_unless_others_are_named(tmp_path: Path) -> None:
    rewrite(write_blocks(tmp_path, **SMALL), targets=labels(2, 9, 5))
    found = read_columns(tmp_path)
    assert found.labels == (Label("y_2", "y_2_end", 2),) and found.horizon == 2
    assert found.largest_horizon == 9, "labels that are not learned count for the embargo as well"
    found = read_columns(tmp_path, ("y_5", "y_2"))
    assert [label.name for label in found.labels] == ["y_5", "y_2"] and found.horizon == 5
    places = {name: place for name, place in found.folders.items() if place == "targets"}
    assert places.keys() == {"y_5", "y_5_end", "y_2", "y_2_end", "member"}
    assert found.features == ("feature_0", "feature_1", "feature_2")


def test_a_label_that_is_not_there_is_named(tmp_path: Path) -> None:
    rewrite(write_blocks(tmp_path, **SMALL), targets=labels(2, 5))
    with pytest.raises(DataError, match=r"train\.targets among y_2, y_5 .*columns\.json.* got 'y_9'"):
        read_columns(tmp_path, ("y_2", "y_9"))


@pytest.mark.parametrize(("what", "message"), [("features", "at least one feature"), ("targets", "at least one label")])
def test_a_stage_without_features_or_labels_is_refused(tmp_path: Path, what: str, message: str) -> None:
    rewrite(write_blocks(tmp_path, **SMALL), **{what: []})
    with pytest.raises(DataError, match=message):
        read_columns(tmp_path)


@pytest.mark.parametrize(
    ("interval", "ready", "look_back"),
    [
        ("1d", [("", 1)], 0),
        ("1d", [("", 20), ("", 5)], 19),
        (
            "1d",
            [("", 20), ("1w", 4)],
            5 * 7 - 1,
        ),  # the running week and four whole ones before it
        ("15m", [("1h", 10)], 11 * 4 - 1),
        ("15m", [("1d", 1)], 2 * 96 - 1),  # a venue that never closes
        ("1d", [("1mo", 2)], 3 * 31 - 1),
    ],
)
def test_the_look_back_is_that_of_the_widest_feature_in_bars(
    tmp_path: Path, interval: str, ready: list[tuple[str, int]], look_back: int
) -> None:
    features = [{"name": f"f{i}", "in": "blocks", "at": at, "ready": n} for i, (at, n) in enumerate(ready)]
    rewrite(write_blocks(tmp_path, **SMALL), interval=interval, features=features)
    assert read_columns(tmp_path).look_back == look_back


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (["a", "c"], "missing: b"),
        (["a", "b", "c", "d"], "unknown to the checkpoint: d"),
        (["b", "a", "c"], "column 0 is 'b', the checkpoint has 'a' there"),
    ],
)
def test_columns_other_than_the_checkpoint_s_are_refused(got: list[str], message: str) -> None:
    check_columns(["a", "b", "c"], ["a", "b", "c"], Path("x"))
    with pytest.raises(DataError, match=message):
        check_columns(["a", "b", "c"], got, Path("x"))
