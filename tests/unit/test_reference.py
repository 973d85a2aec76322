"""docs/indicators.md says what the specs say, and its pictures come out the same again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pipeline.features.section import SETS
from pipeline.indicators import ALL, Spec, resolve
from pipeline.reference.page import EXAMPLE, PICTURES, families, page
from pipeline.reference.pictures import draw

AGAIN = "run: python scripts/indicators.py"
LIMIT = 3_000_000  # bytes of all pictures


def test_the_page_is_up_to_date(root: Path) -> None:
    assert (root / "docs" / "indicators.md").read_text(encoding="utf-8") == page(), AGAIN


def test_every_indicator_has_its_picture_and_no_other_is_left(root: Path) -> None:
    pictures = {path.stem: path.stat().st_size for path in (root / "docs" / PICTURES).iterdir()}
    assert pictures.keys() == {one.name for one in ALL}, AGAIN
    assert sum(pictures.values()) < LIMIT
    shown = set(re.findall(rf"\({PICTURES}/(\w+)\.svg\)", page()))
    assert shown == pictures.keys()


def test_the_page_tells_all_of_each() -> None:
    text = page()
    assert [one for family in families() for one in family.ALL] == list(ALL)
    for one in ALL:
        assert f"[`{one.name}`](#{one.name})" in text
        part = text.split(f"\n### `{one.name}`\n")[1].split("\n### ")[0]
        assert len(part.strip().splitlines()[0]) > 15, f"{one.name} has no formula: say it in the kernel's docstring"
        assert all(f"| `{o.name}` |" in part for o in one.outputs) and all(
            f"| `{p.name}` |" in part for p in one.params
        )
        assert f"Reads {', '.join(one.inputs)}." in part and one.source.rstrip(".") in part
    assert all(f"[`{path.stem}`]" in text for path in SETS.glob("*.yaml"))
    for column in resolve(Spec.model_validate(spec) for spec in yaml.safe_load(EXAMPLE)["features"]):
        assert f"`{column.name}`" in text


@pytest.mark.parametrize("name", ["bollinger", "session"])
def test_a_picture_is_the_same_again(name: str, tmp_path: Path) -> None:
    (one,) = [one for one in ALL if one.name == name]
    draw(one, tmp_path / "a.svg")
    draw(one, tmp_path / "b.svg")
    first = (tmp_path / "a.svg").read_bytes()
    assert first == (tmp_path / "b.svg").read_bytes()
    assert all(output.name.encode() in first for output in one.outputs) and b"<dc:date>" not in first
