"""The report's section behind the result: what it shows, in both languages, and what it says of what is missing."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import ReportSection, report
from pipeline.report.columns import Columns, column_chart
from pipeline.report.words import text
from storage.store import read_json
from tests.stage_directories import everything
from tests.unit.test_report import Page, job, traded


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return traded(everything(tmp_path_factory.mktemp("run"), sessions=400, count=24))


def section_of(page: str) -> str:
    found = re.search(r'<section id="analysis">(.*?)</section>', page, re.S)
    assert found
    return found[1]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_section_shows_what_the_backtest_found(inputs: dict[str, Path], tmp_path: Path, language: Any) -> None:
    report(job(tmp_path, inputs), ReportSection(language=language))
    numbers = json.loads((tmp_path / "performance_report.json").read_text())
    found = read_json(inputs["backtest"] / "analysis.json")
    assert numbers["analysis"] == found
    raw = section_of((tmp_path / "report.html").read_text(encoding="utf-8"))
    shown = Page(raw).text
    for key in ("a.curves", "a.decay", "a.exposure", "a.capacity", "a.missing", "a.part.sector"):
        assert text(language, key) in shown, key
    assert text(language, "a.quantiles", n=str(found["span"])) in shown
    assert raw.count('<rect class="fill c1"') == 10
    assert found["reasons"]["sector"] in shown
    assert f"{found['quantiles']['spread_t']:,.2f}".replace("-", "−") in shown


def test_too_few_symbols_say_so_and_break_nothing(tmp_path: Path) -> None:
    inputs = traded(everything(tmp_path / "few", sessions=300, count=12))
    report(job(tmp_path, inputs), ReportSection())
    raw = section_of((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "needs 20 symbols with a score" in raw
    assert text("en", "a.curves") not in raw and text("en", "a.capacity") in raw


def test_columns_stand_on_zero_and_everything_is_escaped() -> None:
    chart = column_chart(
        [Columns("a & b", [0.02, -0.01, None]), Columns("c", [0.0, 0.01, 0.02], "c4")], ["1", "<2>", "3"], title="t < u"
    )
    svg = ET.fromstring(re.search(r"<svg.*</svg>", chart)[0])  # type: ignore[index]
    bars = {bar[0].text: bar for bar in svg.iter("rect")}
    assert len(bars) == 5
    zero = next(float(line.get("y1", "")) for line in svg.iter("line") if line.get("class") == "zero")
    up, down = bars["1 · a & b 2.0 %"], bars["<2> · a & b −1.0 %"]
    assert float(up.get("y", "")) + float(up.get("height", "")) == pytest.approx(zero, abs=0.2)
    assert float(down.get("y", "")) == pytest.approx(zero, abs=0.2)
    assert float(up.get("height", "")) == pytest.approx(2 * float(down.get("height", "")), abs=0.2)
    assert "<2>" not in chart and "–" in column_chart([Columns("a", [None])], ["1"], title="none")
