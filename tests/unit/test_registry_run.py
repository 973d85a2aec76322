"""A run that asks for the registry hears before anything runs that its model has learned something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cluster import Cluster
from pipeline.config import Config, load
from pipeline.stages import Runner, wanted
from storage.emit import silent
from tests.feature_blocks import Recorder
from tests.trained_stage import two_stages
from training.columns import DataError

STAGES = wanted(["predict"], Config())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), r"labels y_2, which the model lstm {digest} has learned, got y_5 without y_2; set labels\.horizons and"),
        (("--labels.horizons", "2", "--labels.kinds", "vol"), r"got y_2_vol without y_2; .*labels\.kinds"),
        (
            ("--labels.horizons", "2", "--features.interval", "1h"),
            r"bars of 1d, which the model lstm {digest} has learned, got 1h; set features\.interval to 1d",
        ),
    ],
)
def test_other_labels_or_bars_are_refused_before_anything_runs(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    registry, first, _ = two_stages(tmp_path)
    digest, emit = registry.promote(first, "lstm")["digest"], Recorder()
    config = load(
        ["--run.data", str(tmp_path), "--cluster.device", "cpu", "--predict.model", "registry", *words], "t", ""
    )
    with Cluster(config[0].cluster) as cluster:
        runner = Runner(config[0], cluster, emit)
        for act in (lambda: list(runner.plan(STAGES)), lambda: runner.run(STAGES)):
            with pytest.raises(DataError, match=told.format(digest=digest)):
                act()
    assert not emit.events and not (tmp_path / "stages" / "ingest").exists()


def test_the_model_s_labels_among_others_are_enough(tmp_path: Path) -> None:
    registry, first, _ = two_stages(tmp_path)
    digest = registry.promote(first, "lstm")["digest"]
    words = ["--run.data", str(tmp_path), "--cluster.device", "cpu", "--predict.model", "registry"]
    config, _ = load([*words, "--labels.horizons", "5,2"], "t", "")
    with Cluster(config.cluster) as cluster:
        planned = {one.stage.name: one.key for one in Runner(config, cluster, silent).plan(STAGES)}
    assert planned["train"] == digest
