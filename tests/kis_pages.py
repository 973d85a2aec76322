"""Rows of daily bars as the pages that the broker answers with."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa

from pipeline.kis.simulator.render import daily_lines


def render_daily(rows: pa.Table) -> list[dict[str, str]]:
    """Write DAILY_ROWS as the `output2` of FHKST03010100, in the simulator's way; parse_daily gives them back."""
    columns: dict[str, Any] = {name: rows[name].to_numpy() for name in rows.column_names}
    return [orjson.loads(line) for line in daily_lines(columns)]
