"""Profiles of stages and tasks, the meter of training's steps, TensorBoard files."""

from __future__ import annotations

import json
import pickle
import pstats
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import config
from pipeline.job import unmeasured
from pipeline.profile import Measured, Memory, profiled
from pipeline.report.numbers import STEPS
from pipeline.report.stage import CLOCK
from storage.emit import silent
from tests.feature_blocks import Recorder
from training import steps, tensorboard
from training.profile import step, traced
from training.steps import Meter


def slowly(seconds: float) -> int:
    end, turns = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        turns += 1
    return turns


def holding(megabytes: int, seconds: float) -> int:
    held = np.ones(megabytes << 17)
    slowly(seconds)
    return held.nbytes


def test_a_stage_leaves_times_and_memory_and_says_where(tmp_path: Path) -> None:
    emit = Recorder()
    with Memory() as memory, profiled("ingest", tmp_path, emit, memory):
        slowly(0.3)
    assert {p.name for p in tmp_path.iterdir()} == {"ingest.prof", "ingest.txt", "ingest-memory.txt"}
    stats: Any = pstats.Stats(str(tmp_path / "ingest.prof"))
    took = {name: found[3] for (_, _, name), found in stats.stats.items()}
    assert took["slowly"] == pytest.approx(0.3, abs=0.1)
    text = (tmp_path / "ingest.txt").read_text()
    assert text.index("Ordered by: cumulative time") < text.index("Ordered by: internal time")
    said = (tmp_path / "ingest-memory.txt").read_text()
    peak = float(re.findall(r"peak ([\d,.]+) MB", said)[0].replace(",", ""))
    assert peak == pytest.approx(memory.peak, abs=0.1) and peak > 50
    assert "not traced here" in said
    assert emit.said(f"snakeviz {tmp_path}/ingest.prof or gprof2dot -f pstats {tmp_path}/ingest.prof | dot -Tpng")


def test_without_a_folder_nothing_is_measured(tmp_path: Path) -> None:
    with Memory() as memory, profiled("ingest", None, silent, memory) as measured:
        assert measured is unmeasured and measured(slowly) is slowly


def test_tasks_on_threads_are_added_up_and_lines_that_hold_memory_named(tmp_path: Path) -> None:
    found: list[int] = []
    with Memory() as memory, profiled("features", tmp_path, silent, memory) as measured:
        work = pickle.loads(pickle.dumps(measured(holding)))  # as a worker gets it
        threads = [threading.Thread(target=lambda: found.append(work(40, 0.6))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [40 << 20] * 2
    stats: Any = pstats.Stats(str(tmp_path / "features.prof"))
    assert {name: calls[1] for (_, _, name), calls in stats.stats.items()}["holding"] == 2
    lines = (tmp_path / "features-memory.txt").read_text().split("blocks  line\n")[1].splitlines()
    assert len(lines) <= 30
    size, _, where = lines[0].split()
    assert float(size) > 41, "two arrays were held at once"
    assert "numeric.py" in where or "test_profile.py" in where


def test_an_error_leaves_its_profile_and_passes(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Memory() as memory, profiled("report", tmp_path, silent, memory):
        slowly(0.05)
        _ = 1 / 0
    assert "slowly" in (tmp_path / "report.txt").read_text()
    assert not list(tmp_path.glob(".*"))


def test_a_worker_that_does_not_see_the_folder_runs_the_task_as_it_is(tmp_path: Path) -> None:
    assert Measured(slowly, "features", tmp_path / "elsewhere")(0.01) > 0
    assert not list(tmp_path.iterdir())


def train(count: int) -> None:
    model = torch.nn.Linear(4, 4)
    for _ in range(count):
        model(torch.ones(8, 4)).sum().backward()
        step()


def test_a_trace_holds_a_few_steps_after_the_first_ones(tmp_path: Path) -> None:
    with traced(tmp_path / "train"):
        train(30)
    events = json.loads((tmp_path / "train-trace.json").read_text())["traceEvents"]
    assert {e["name"] for e in events if e.get("name", "").startswith("ProfilerStep#")} == {
        f"ProfilerStep#{n}" for n in (4, 5, 6, 7)
    }
    assert "aten::addmm" in (tmp_path / "train-ops.txt").read_text()
    train(30)  # outside of the block nothing is kept
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.filterwarnings("ignore:.*Profiler won't be using warmup")
def test_too_few_steps_leave_no_trace_and_the_log_says_so(tmp_path: Path) -> None:
    emit = Recorder()
    with Memory() as memory, profiled("train", tmp_path, emit, memory) as measured:
        measured(train)(3)
    assert not list(tmp_path.glob("*trace*"))
    assert emit.said("no trace because no network took enough steps")


def test_the_meter_tells_steps_from_waits() -> None:
    def batches() -> Any:
        for number in range(20):
            time.sleep(0.004)
            yield number

    with Meter(torch.device("cpu")) as meter:
        meter.start()
        coming = meter.waits(batches())
        for number in range(20):
            meter.begin()
            assert next(coming) == number
            time.sleep(0.030 if number == 19 else 0.004)
            meter.end()
            meter.read()
        assert next(coming, None) is None
        found = meter.figures()
    assert found.keys() == {"step_p50_ms", "step_p95_ms", "wait_share", "peak_memory_mb"}
    assert 8 <= found["step_p50_ms"] < 20
    assert found["step_p50_ms"] < found["step_p95_ms"] < 60
    assert 0.2 < found["wait_share"] < 0.7
    assert found["peak_memory_mb"] > 50


def test_an_epoch_without_steps_has_memory_alone() -> None:
    meter = Meter(torch.device("cpu"))
    meter.start()
    assert meter.figures().keys() == {"peak_memory_mb"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_meter_reads_the_gpu_s_own_clock() -> None:
    device = torch.device("cuda")
    x = torch.randn(4096, 4096, device=device)
    with Meter(device) as meter:
        meter.start()
        for number in range(64):
            meter.begin()
            if number == 3:
                meter.begin()  # the one before was broken off
            x = (x @ x).tanh()
            meter.end()
            if number % 32 == 31:
                float(x.sum())
                meter.read()
        found = meter.figures()
    assert 0.1 < found["step_p50_ms"] < 100
    assert found["peak_device_mb"] > 100
    assert 0 <= found["gpu_use"] <= 1


def test_the_clock_s_figures_are_no_content_of_the_report() -> None:
    assert set(steps.FIGURES) == STEPS.keys()
    assert set(CLOCK) >= STEPS.keys()


def test_profile_is_short_and_changes_no_key() -> None:
    short, long = config.load(["--profile"], "test", "")[0], config.load(["--run.profile", "true"], "test", "")[0]
    assert short == long and short.run.profile and not config.load([], "test", "")[0].run.profile
    assert not {"profile", "tensorboard"} & short.run.keyed().keys()


def test_tensorboard_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(tensorboard.TensorBoardError, match=r"found none; install it with pip install -c .*\[tensorb"):
        tensorboard.check()


def test_epochs_are_found_again_in_tensorboard_s_files(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    emit = Recorder()
    with tensorboard.Board(tmp_path / "tensorboard", emit) as board:
        board.emit("log", level="info", text="begin")
        for fold, seed in ((0, 7), (1, 7)):
            for epoch in range(3):
                figures = {"train_loss": 1.0 - epoch / 4, "valid_rank_ic": 0.5, "samples_per_s": 100.0 * (fold + 1)}
                board.emit("epoch", model="lstm", seed=seed, fold=fold, epoch=epoch, **figures)
    assert [kind for kind, _ in emit.events] == ["log"] + ["epoch"] * 6
    assert {p.name for p in (tmp_path / "tensorboard").iterdir()} == {"lstm-7-fold-0", "lstm-7-fold-1"}
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "lstm-7-fold-1"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"loss/train", "rank_ic/valid", "speed/samples_per_s"}
    assert [(e.step, e.value) for e in found.Scalars("loss/train")] == [(0, 1.0), (1, 0.75), (2, 0.5)]
    assert found.Scalars("speed/samples_per_s")[0].value == 200
