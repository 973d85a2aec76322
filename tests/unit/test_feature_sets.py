"""Which columns are asked for: shipped sets, a file of one's own, and what is said about mistakes in them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.config import ConfigError, load
from pipeline.features.section import SETS, FeatureError, FeatureSection, feature_set
from pipeline.indicators import compute, reads, resolve
from pipeline.receipt import Receipt
from pipeline.universe import UniverseSection
from storage.lake import Lake
from tests.feature_stage import NAMES, Alone, rows, stage
from tests.market import bars, ingested


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    ingested(folder, bars(NAMES, 150))
    return folder


SIZES = {"basic": (20, 28), "close": (15, 28), "bench30": (30, 30), "alpha158": (158, 158), "intraday": (25, 32)}


def test_feature_sets_are_what_they_say(root: Path) -> None:
    shipped = {path.stem for path in (root / "pipeline" / "feature_sets").glob("*.yaml")}
    assert shipped == SIZES.keys()
    for name, (low, high) in SIZES.items():
        columns = resolve(feature_set(name))
        assert low <= len(columns) <= high
        if name != "bench30":
            assert {c.scales_with for c in columns} == {"none"}, "one model eats all symbols"
    assert {"relative_volume_5", "relative_volume_20"} <= {c.name for c in resolve(feature_set("basic"))}
    assert reads(resolve(feature_set("close"))) == ("close",)


def test_a_set_of_ones_own_is_read_from_a_file(market: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("features:\n  - {indicator: sma, params: {n: [4, 9]}, over: close}\n  - {indicator: obv}\n")
    section = FeatureSection(set=str(path), level="numba")
    assert stage(market, Alone(), section, out="mine")["columns"] == 3
    found, raw = rows(market, "mine"), Receipt.load(market / "ingest").bars("1d").to_pandas()
    expected = compute(raw, feature_set(str(path)))
    np.testing.assert_array_equal(found[expected.columns], expected)
    before = section.keyed()
    shutil.copy(path, tmp_path / "same.yaml")
    assert FeatureSection(set=str(tmp_path / "same.yaml"), level="dask").keyed() == before, "the specs, not the name"
    path.write_text(path.read_text().replace("9", "10"))
    assert section.keyed() != before


def test_the_key_of_auto_holds_the_sets_it_stands_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = FeatureSection().keyed()
    shutil.copytree(SETS, tmp_path / "sets")
    monkeypatch.setattr("pipeline.features.section.SETS", tmp_path / "sets")
    assert FeatureSection().keyed() == before
    for name in ("basic", "close"):
        path = tmp_path / "sets" / f"{name}.yaml"
        path.write_text(path.read_text() + "  - {indicator: obv}\n")
        assert FeatureSection().keyed() != before
        before = FeatureSection().keyed()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("features: [", "a feature set in .*mine.yaml, got: while parsing"),
        ("\x00", "a feature set in .*mine.yaml, got"),
        ("features: {indicator: sma}", "a list of specs under 'features' in .*mine.yaml, got .*indicator"),
        ("features: []", "a list of specs under 'features'"),
        ("- {indicator: sma}", "a list of specs under 'features'"),
        ("", "a list of specs under 'features' in .*mine.yaml, got 'None'"),
        ("features: [{indicator: sma}, sma]", "mine.yaml, feature 2"),
        ("features: [{indicator: sma, windows: 3}]", "mine.yaml, feature 1: .*windows"),
        ("features: [{indicator: sma, parameters: {n: 3}}]", "feature 1: expected keys .*; did you mean 'params'"),
        ("features: [null]", "feature 1: expected a spec such as .*, got None"),
        ("features: [sma]", "feature 1: expected a spec .*got 'sma'; write {indicator: sma}"),
        ("features: [{indicator: sma}, {indicator: RSI}]", "mine.yaml, feature 2: .*'RSI'; did you mean 'rsi'"),
        ("features: [{indicator: rsi, params: {n: fourteen}}]", "a number, .*'n' of indicator 'rsi', got 'fourteen'"),
        ("features: [{indicator: rsi, params: {n: [5, x]}}]", r"'n' of indicator 'rsi', got \[5, 'x'\]"),
        ("features: [{indicator: rsi, params: {period: 5}}]", "got 'period'; did you mean 'n'"),
        ("features: [{indicator: sma, cross: rank}]", r"a list of operators such as \[winsorise, zscore\], got 'rank'"),
        ("features: [{indicator: sma, cross: [{winsorise: 0.7}]}]", "feature 1: expected a limit .*got 0.7"),
        ("features: [{indicator: sma, names: {sma: member}}]", "target or universe, got 'member'"),
        ("features: [{indicator: sma}]\nuniverse: {}", "about and features at the top of .*mine.yaml, got 'universe'"),
        ("feature: [{indicator: sma}]", "got 'feature'; did you mean 'features'"),
        ("features: [{indicator: sma, at: 1x}]", "feature 1: expected an interval for 'at' .*got '1x'; did you mean"),
        ("features: [{indicator: smaa}]", "did you mean 'sma'"),
        ("features: [{indicator: sma, params: {m: 3}}]", r"expected parameters \['n'\] for indicator 'sma', got 'm'"),
        ("features: [{indicator: sma, params: {n: 0}}]", "a whole number from 2 to .* for parameter 'n'"),
        ("features: [{indicator: bollinger, outputs: [zscor]}]", "did you mean 'zscore'"),
        ("features: [{indicator: rsi, over: close}]", "an output in units of price"),
        ("features: [{indicator: roc, cross: [ranc]}]", "mine.yaml, feature 1: .*did you mean 'rank'"),
        ("features: [{indicator: roc, names: {roc: close}}]", "no column of bars, target or universe, got 'close'"),
        (
            "features: [{indicator: roc, names: {roc: a}}, {indicator: sma, names: {sma: a}}]",
            "yaml: expected one column of",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValidationError, match=f"(?s){message}"):
        FeatureSection(set=str(path))
    with pytest.raises(ConfigError) as error:
        load(["--features.set", str(path)], "test", "")
    said = str(error.value)
    assert said.startswith(("features.set: expected ", "features.set: mine.yaml")) and said.endswith("(command line)")
    assert said.count("mine.yaml") == 1
    assert "alue error" not in said and "pydantic" not in said and "\n" not in said


def test_a_set_without_columns_and_names_taken_twice_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"expected columns, got features.set none and no features.extra"):
        FeatureSection(set="none")
    with pytest.raises(ConfigError, match=r"^features: expected columns, got features.set none and .*; name some$"):
        load(["--features.set", "none"], "test", "")
    path = tmp_path / "mine.yaml"
    path.write_text("features: [{indicator: roc, names: {roc: a}}]")
    with pytest.raises(ValidationError, match="one column of a name, got 'a'"):
        FeatureSection(set=str(path), extra=({"indicator": "sma", "names": {"sma": "a"}},))
    with pytest.raises(ValidationError, match=r"extra, feature 2: expected keys .*'parms'; did you mean 'params'"):
        FeatureSection(extra=({"indicator": "sma"}, {"indicator": "sma", "parms": {}}))


FEW = UniverseSection(largest=5)


def test_no_feature_may_have_the_name_of_a_column_beside_it(market: Path) -> None:
    extra = tuple({"indicator": "roc", "cross": [{"neutralise": [by]}]} for by in ("sector", "size"))
    stage(market, Alone(), FeatureSection(set="close", level="numba", extra=extra), out="beside", universe=FEW)
    beside = pq.read_schema(next((market / "beside" / "targets").iterdir())).names
    assert {"member", "turnover", "sector", "size", "y_1", "y_1_end"} <= set(beside)
    for name in beside:
        with pytest.raises(ValidationError, match=f"target or universe, got '{name}'"):
            FeatureSection(extra=({"indicator": "roc", "names": {"roc": name}},))


def test_what_a_reader_does_to_a_set_stays_with_it() -> None:
    before = feature_set("basic")
    before[0].params["n"] = 3
    assert feature_set("basic") != before and feature_set("basic") == feature_set("basic")


def test_files_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"a YAML file of one, got '.*none.yaml'"):
        FeatureSection(set=str(tmp_path / "none.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ValidationError, match=r"a feature set in .*folder.yaml, got"):
        FeatureSection(set=str(tmp_path / "folder.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"features: [\xff\xfe]")
    with pytest.raises(ValidationError, match=r"a feature set in .*latin.yaml, got"):
        FeatureSection(set=str(tmp_path / "latin.yaml"))


def test_a_window_longer_than_every_history_is_told(market: Path) -> None:
    extra = ({"indicator": "sma", "params": {"n": 151}},)
    with pytest.raises(FeatureError, match=r"at least 151 complete bars of 1d .* got at most 150 among 12 symbols"):
        stage(market, Alone(), FeatureSection(set="close", level="numba", extra=extra), out="long")


def test_other_sources_and_venues_of_the_lake_change_nothing(market: Path, tmp_path: Path) -> None:
    """A lake may hold the same symbols from elsewhere; the stage reads what its receipt names."""
    table = bars(NAMES, 150)
    other = bars(NAMES, 170, seed=9, source="other")
    lake = Lake(tmp_path / "lake")
    lake.write("bars", other)
    venue = other.column_names.index("venue")
    lake.write("bars", table.set_column(venue, "venue", pa.array(["NXT"] * table.num_rows)))
    ingested(tmp_path, table)
    one, two = (stage(folder, Alone(), FeatureSection(level="numba"), out="only") for folder in (market, tmp_path))
    assert one["content"] == two["content"]


def test_a_gpu_that_is_not_there_is_told(market: Path) -> None:
    with pytest.raises(FeatureError, match=r"a GPU for features.level cuda, got none; use --features.level auto"):
        stage(market, Alone(), FeatureSection(level="cuda"), out="cuda")
