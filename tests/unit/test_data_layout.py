"""The page about the lake's layout says what is so: every column with its unit, and lines that open a lake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import deltalake
import pytest

from storage.lake import Lake
from storage.schema import KEYS, SCHEMAS, content_digest
from tests.market import bars

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data-layout.md").read_text()
LINES = [block.strip() for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)]


def test_every_column_of_every_table_is_on_the_page_with_its_type_and_unit() -> None:
    for name, schema in SCHEMAS.items():
        part = PAGE.split(f"### `{name}`")[1].split("\n#")[0]
        for field in schema:
            unit = (field.metadata or {}).get(b"unit", b"").decode()
            star = " *" if field.name in KEYS[name] else ""
            assert f"| `{field.name}`{star} | {field.type} | {unit} |" in part
        assert part.count("\n| `") == len(schema), f"the page has columns that '{name}' does not have"


@pytest.mark.parametrize("package", ["duckdb", "polars"])
def test_the_line_on_the_page_opens_the_newest_version(package: str, tmp_path: Path) -> None:
    module: Any = pytest.importorskip(package)
    lake, table = Lake(tmp_path / "lake"), bars(["000030", "0126Z0", "005930"], 300)
    lake.write("bars", bars(["000030", "0126Z0", "005930"], 300, seed=5))
    lake.write("bars", table)
    line = next(line for line in LINES if line.startswith(package))
    line = line.replace("lake/bars", str(tmp_path / "lake" / "bars"))
    found = eval(line, {package: module, "deltalake": deltalake})
    arrow = found.to_arrow_table() if package == "duckdb" else found.to_arrow()
    rows = arrow.select(table.column_names).cast(table.schema)
    assert content_digest(rows, KEYS["bars"]) == content_digest(table, KEYS["bars"])
    assert set(arrow["period"].to_pylist()) == {"2020", "2021"}
