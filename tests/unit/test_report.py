"""The report: numbers that are all there, words that follow from them, a page that opens offline and trusts no text."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.backtest import BacktestSection
from pipeline.backtest.portfolio.engine import run
from pipeline.cluster import Cluster, ClusterSection
from pipeline.job import Job
from pipeline.report import ReportError, ReportSection, report, svg, tables
from pipeline.report.charts import rolling_mean
from pipeline.report.numbers import collect
from pipeline.report.sources import read
from pipeline.report.words import texts
from storage.emit import silent
from storage.store import StoreError, read_json, write_json
from tests.stage_directories import World, everything, write_ic, write_manifest, write_predictions

FILES_WRITTEN = ("performance_report.json", "performance_analysis.png", "report.html")
VOID = {"meta", "link", "br", "hr", "img", "input"}


def traded(directories: dict[str, Path], section: BacktestSection | None = None) -> dict[str, Path]:
    """Add the backtest's directory."""
    out = directories["ingest"].parent / "backtest"
    out.mkdir()
    section = section or BacktestSection()
    summary = run(directories, out, section)
    made_of = {"sections": {"backtest": section.keyed()}, "code": "c" * 32}
    rest = {k: v for k, v in summary.items() if k != "content"}
    write_manifest(out, **rest, seconds=0.8, peak_memory_mb=300.5, made_of=made_of)
    return {**directories, "backtest": out}


def job(out: Path, inputs: dict[str, Path]) -> Job:
    return Job(out, inputs, Cluster(ClusterSection(device="cpu")), silent)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return traded(everything(tmp_path_factory.mktemp("run"), sessions=400, count=24))


@pytest.fixture(scope="module")
def made(inputs: dict[str, Path]) -> Path:
    out = inputs["ingest"].parent / "report"
    report(job(out, inputs), ReportSection())
    return out


class Page(html.parser.HTMLParser):
    """Check that tags nest, and keep what could load or run something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts = 0
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def test_three_files_and_a_summary(inputs: dict[str, Path], made: Path, tmp_path: Path) -> None:
    found = report(job(tmp_path, inputs), ReportSection())
    assert set(found) == {"content", "rows", "verdict"}
    assert all((tmp_path / name).stat().st_size > 1000 for name in FILES_WRITTEN)
    assert (tmp_path / "performance_analysis.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    again = tmp_path / "again"
    assert report(job(again, inputs), ReportSection())["content"] == found["content"]


def test_the_json_is_strict_and_holds_what_the_stages_said(inputs: dict[str, Path], made: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    numbers = json.loads((made / "performance_report.json").read_text(), parse_constant=refuse)
    assert numbers["backtest"] == read_json(inputs["backtest"] / "metrics.json")
    predict = read_json(inputs["predict"] / "metrics.json")
    assert numbers["forecast"]["lstm"]["test"] == predict["lstm"]["test"]
    assert [s["stage"] for s in numbers["stages"]] == ["ingest", "features", "train", "predict", "backtest"]
    ingest = numbers["stages"][0]
    assert ingest["rows_per_s"] == pytest.approx(ingest["rows"] / ingest["seconds"])
    assert numbers["throughput"]["samples_per_s"]["lstm"] == pytest.approx(5200, rel=0.05)
    assert numbers["throughput"]["peak_memory_mb"] == 1430
    assert numbers["data"]["quarantined"] == {"high_below_low": 21, "duplicate": 7}
    assert numbers["data"]["quality"]["1d"]["gaps"]["rows"] == 4
    assert numbers["provenance"]["settings"]["backtest"]["k"] == 10
    assert numbers["provenance"]["device"] == "cpu"
    assert numbers["provenance"]["packages"]["numpy"] == np.__version__
    assert numbers["generated"].endswith("KST")
    assert ingest["made"] == "2024-01-02 12:00:00"
    ic = pq.read_table(inputs["predict"] / "ic.parquet").to_pandas().query("split == 'test'")
    wide = ic.pivot(index="ts", columns="model", values="rank_ic")
    difference = (wide["lstm"] - wide["ridge"]).dropna()
    assert numbers["against_ridge"]["mean"] == pytest.approx(difference.mean())
    assert numbers["against_ridge"]["n"] == len(difference)
    equity = pq.read_table(inputs["backtest"] / "equity.parquet")["equity"].to_pylist()
    product = np.prod([1 + value for _, _, value in numbers["monthly"]])
    assert product == pytest.approx(equity[-1] / equity[0])
    profits = [p["profit"] for p in numbers["positions"]["best"]]
    assert profits == sorted(profits, reverse=True)
    assert len(profits) == 5


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_page_nests_and_loads_nothing(inputs: dict[str, Path], tmp_path: Path, language: Any) -> None:
    report(job(tmp_path, inputs), ReportSection(language=language, title='A "title" & <more>'))
    raw = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(raw)
    assert page.open == []
    loads = [(t, v) for t, name, v in page.attributes if name in ("src", "href", "action", "srcset", "data")]
    assert all(v.startswith(("#", "data:")) for _, v in loads), loads
    assert not re.search(r"https?://|@import|url\(", raw)
    assert "default-src 'none'" in raw
    assert ("html", "lang", language) in page.attributes
    assert 'A "title" & <more>' in page.text
    assert page.text.count("None") == 0
    assert "nan" not in page.text.lower().split()


def test_text_from_data_runs_nothing(made: Path) -> None:
    """A symbol's name in the synthetic market is a script."""
    raw = (made / "report.html").read_text(encoding="utf-8")
    page = Page(raw)
    assert page.scripts == 1
    assert "alert(" not in raw.replace("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;", "")


def test_charts_are_well_formed_svg(made: Path) -> None:
    raw = (made / "report.html").read_text(encoding="utf-8")
    charts = re.findall(r"<svg.*?</svg>", raw, re.S)
    assert len(charts) >= 10
    for chart in charts:
        root = ET.fromstring(chart)
        _, _, width, height = (float(v) for v in root.attrib["viewBox"].split())
        for path in root.iter("path"):
            points = [tuple(map(float, p.split(","))) for p in re.findall(r"[\d.-]+,[\d.-]+", path.attrib["d"])]
            assert points
            assert all(0 <= x <= width and -1 <= y <= height for x, y in points if (x, y) != (0.1, 0))
    for values in re.findall(r'data-values="(.*?)"', raw):
        data = json.loads(html.unescape(values))
        assert all(len(series[2]) == len(data["x"]) for series in data["s"])


def test_the_page_shows_the_numbers(made: Path) -> None:
    numbers = read_json(made / "performance_report.json")
    words = Page((made / "report.html").read_text(encoding="utf-8")).text
    metrics = numbers["backtest"]["metrics"]
    for shown in (
        f"{metrics['total_return'] * 100:+,.1f} %".replace("-", "−"),
        f"₩{metrics['costs']['tax']:,}",
        f"{numbers['forecast']['ridge']['test']['mean_rank_ic']:.4f}".replace("-", "−"),
        numbers["positions"]["best"][0]["symbol"],
        "high_below_low",
        numbers["provenance"]["settings_digest"],
        "not investment advice",
    ):
        assert shown in words
    assert all(finding["text"].split(" (")[0] in words for finding in numbers["findings"])


def test_a_missing_file_is_named_with_its_stage(inputs: dict[str, Path], tmp_path: Path) -> None:
    few = {k: v for k, v in inputs.items() if k != "train"}
    with pytest.raises(ReportError, match="got none of train"):
        report(job(tmp_path, few), ReportSection())
    for stage, name in (("predict", "ic.parquet"), ("train", "history.parquet"), ("backtest", "manifest.json")):
        copy = tmp_path / f"{stage}-{name}"
        shutil.copytree(inputs[stage], copy)
        (copy / name).unlink()
        with pytest.raises(ReportError, match=rf"expected {name} of the {stage} stage"):
            report(job(tmp_path / "out", {**inputs, stage: copy}), ReportSection())
    broken = tmp_path / "broken"
    shutil.copytree(inputs["predict"], broken)
    (broken / "metrics.json").write_text("{")
    with pytest.raises(StoreError, match="JSON"):
        report(job(tmp_path / "out", {**inputs, "predict": broken}), ReportSection())


def test_three_sessions_and_no_trade_still_make_a_report(tmp_path: Path) -> None:
    """Nothing absurd: what a short sample cannot say is "n/a" with a reason, and the verdict is "too short"."""
    world = World(["A", "B"], [[1000, 1000]] * 3)
    ingest = world.write(tmp_path)
    write_manifest(ingest)
    score = {"lstm": np.full((3, 2), -1.0), "ridge": np.zeros((3, 2))}
    predict = write_predictions(tmp_path / "predict", world, score, ["test"] * 3)
    write_ic(predict, world, score, np.full((3, 2), np.nan), ["test"] * 3)
    write_manifest(predict)
    rest = everything(tmp_path / "other", sessions=130, count=8)
    inputs = traded({"ingest": ingest, "features": rest["features"], "train": rest["train"], "predict": predict})
    report(job(tmp_path / "report", inputs), ReportSection())
    numbers = read_json(tmp_path / "report" / "performance_report.json")
    assert numbers["verdict"]["key"] == "short"
    keys = {f["key"] for f in numbers["findings"]}
    assert {"d.no_trades", "d.short"} <= keys
    assert "f.sharpe.clear" not in keys
    page = Page((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
    assert "needs at least 20 returns, got 2" in page.text
    assert page.open == []


@pytest.mark.parametrize("language", ["en", "ko"])
def test_symbols_left_out_are_named_with_their_reason(inputs: dict[str, Path], tmp_path: Path, language: Any) -> None:
    features = tmp_path / "features"
    shutil.copytree(inputs["features"], features)
    told = {"empty": {"000010": ["high", "low"], "000020": ["volume"]}, "broken": {"<b>": "x"}, "short": {"000030": 12}}
    write_json(features / "manifest.json", {**read_json(features / "manifest.json"), **told})
    report(job(tmp_path / "report", {**inputs, "features": features}), ReportSection(language=language))
    numbers = read_json(tmp_path / "report" / "performance_report.json")
    assert [(one["symbol"], one["why"]) for one in numbers["data"]["left_out"]] == [
        ("<b>", "broken"),
        ("000010", "empty"),
        ("000020", "empty"),
        ("000030", "short"),
    ]
    (said,) = [f["text"] for f in numbers["findings"] if f["key"] == "d.left_out"]
    assert "high, low" in said and "000020" in said and "000030" not in said, "a short history is nothing unusual"
    words = Page((tmp_path / "report" / "report.html").read_text(encoding="utf-8")).text
    assert said in words
    for one in numbers["data"]["left_out"]:
        assert f"{one['symbol']} {one['text']}" in words
    many = numbers | {"data": numbers["data"] | {"left_out": numbers["data"]["left_out"] * 10}}
    assert texts(language)["left_out.more"].format(n=20) in tables.data(many, language)


def test_round_steps_cover_the_range() -> None:
    assert svg.steps(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert svg.steps(-0.03, 0.31) == pytest.approx([-0.05, 0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35])
    assert svg.steps(5, 5) == [5]
    for low, high in ((-1e-9, 3e-9), (1e8, 1.3e8), (-7, -3)):
        grid = svg.steps(low, high)
        assert grid[0] <= low + 1e-12
        assert grid[-1] >= high - 1e-12
        assert 4 <= len(grid) <= 10


def test_long_series_keep_their_extremes() -> None:
    values = np.sin(np.arange(9000) / 50)
    values[4321] = -9.0
    days = np.datetime64("1990-01-01") + np.arange(9000)
    chart = svg.line_chart([svg.Line("x", values)], svg.date_axis(days), title="t", form=svg.plain)
    data = json.loads(html.unescape(re.findall(r'data-values="(.*?)"', chart)[0]))
    assert len(data["x"]) <= svg.MOST_POINTS + 2
    assert "−9.0" in data["s"][0][2]


def test_gaps_break_the_line_and_nothing_to_draw_says_so() -> None:
    axis = svg.number_axis(5)
    chart = svg.line_chart([svg.Line("x", np.array([1, 2, np.nan, 3, np.nan]))], axis, title="t")
    assert re.findall(r'class="line c1" d="(.*?)"', chart)[0].count("M") == 2
    assert "–" in svg.line_chart([svg.Line("x", np.full(5, np.nan))], axis, title="t")


def test_rolling_mean_looks_back_only() -> None:
    values = np.array([1.0, np.nan, 3, 5, 7])
    assert rolling_mean(values, 2) == pytest.approx([np.nan, np.nan, 2, 4, 6], nan_ok=True)
    assert np.isnan(rolling_mean(values, 9)).all()


def test_the_page_opens_in_a_browser_without_an_error(made: Path, tmp_path: Path) -> None:
    """Open it, move the pointer over a chart, press the theme button; nothing may be said on the console."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    probe = """<script>
const chart = document.querySelector("figure[data-values] svg"), box = chart.getBoundingClientRect();
chart.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width / 2, clientY: box.top + 9}));
document.querySelector("#theme").click();
const tip = document.querySelector("figure[data-values] .tip");
document.title = [tip.hidden, tip.children.length, document.documentElement.dataset.theme].join("|");
</script></body>"""
    page = tmp_path / "page.html"
    page.write_text((made / "report.html").read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    switches += ["--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--dump-dom"]
    command = [browser, *switches, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "<title>false|3|dark</title>" in done.stdout
    assert "CONSOLE" not in done.stderr


def test_quality_of_several_forms_is_understood(inputs: dict[str, Path], tmp_path: Path) -> None:
    """One description without an interval, or none at all, is no reason to fail."""
    for name, found in (("one", {"rows": 10, "gaps": {"rows": 987_654, "symbols": 2}}), ("none", None)):
        ingest = tmp_path / name
        shutil.copytree(inputs["ingest"], ingest)
        (ingest / "quality.json").unlink()
        if found:
            write_json(ingest / "quality.json", found)
        numbers = collect(read({**inputs, "ingest": ingest}), ReportSection(), "cpu", datetime.now(UTC))
        assert ("987,654" in tables.data(numbers, "en")) == (name == "one")
