"""The report's settings."""

from __future__ import annotations

from typing import Literal

from storage.section import Section, setting


class ReportError(Exception):
    """A stage directory without what the report needs: the message says expected, got, where, what to do."""


class ReportSection(Section):
    """What the report looks like."""

    language: Literal["en", "ko"] = setting("en", "language of report.html and performance_analysis.png")
    title: str = setting("", "heading of the report; empty = a general one", max_length=120)
    ic_window: int = setting(
        20, "length of the rolling mean of information coefficients", unit="sections", ge=2, le=500
    )
    top_positions: int = setting(5, "best and worst closed positions listed", unit="positions", ge=0, le=100)
