"""What `auto` means is known without torch, and a precision that is not there is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.provenance import _closure
from training import precision
from training.precision import PrecisionError, check_precision, resolved_precision, settled
from training.section import Range, TrainSection

AUTO, FP16 = TrainSection(), TrainSection(mixed_precision="fp16")


@pytest.mark.parametrize(
    ("flags", "expected"), [("fma avx512_bf16 x", "partly"), ("avx512_bf16 amx_bf16", "bf16"), ("avx2", "off")]
)
def test_auto_on_a_cpu_goes_by_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: x avx512_bf16\nflags\t\t: fpu {flags}\n\nflags\t\t: later\n")
    monkeypatch.setattr(precision, "_CPUINFO", tmp_path / "cpuinfo")
    precision._cpu_flags.cache_clear()
    try:
        assert resolved_precision(AUTO, "cpu") == expected
        assert settled(AUTO, "cpu").keyed() == TrainSection.model_validate({"mixed_precision": expected}).keyed()
        assert resolved_precision(TrainSection(mixed_precision="bf16"), "cpu") == "bf16"
    finally:
        precision._cpu_flags.cache_clear()


@pytest.mark.parametrize(("major", "expected"), [(9, "bf16"), (8, "bf16"), (7, "fp16"), (6, "off")])
def test_auto_on_a_gpu_goes_by_its_capability(monkeypatch: pytest.MonkeyPatch, major: int, expected: str) -> None:
    monkeypatch.setattr(precision, "_least_capability", lambda: major)
    assert resolved_precision(AUTO, "gpu") == expected
    assert resolved_precision(FP16, "gpu") == "fp16"


def test_fp16_on_a_cpu_is_refused_also_in_a_search() -> None:
    with pytest.raises(PrecisionError, match=r"expected a GPU .* got a CPU"):
        resolved_precision(FP16, "cpu")
    drawn = {"mixed_precision": Range(choices=("off", "fp16"))}
    with pytest.raises(PrecisionError):
        check_precision(AUTO, "cpu", drawn)
    check_precision(AUTO, "cpu", {"dropout": Range(low=0, high=0.1)})
    check_precision(FP16, "gpu", {"mixed_precision": Range(choices=("off", "fp16"))})


def test_torch_is_not_needed(root: Path) -> None:
    code = "import sys, training.precision as p, training.section as s; p.resolved_precision(s.TrainSection(), 'cpu'); "
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], cwd=root, check=True)


def test_each_learning_stage_has_only_its_own_code_behind_it(root: Path) -> None:
    tune, train, predict = (
        {str(path.relative_to(root)) for path in _closure([f"pipeline.learn.{name}"])}
        for name in ("tune", "train", "predict")
    )
    search = {
        "training/search/study.py",
        "training/search/objective.py",
        "storage/studies.py",
        "pipeline/learn/tune.py",
    }
    assert search <= tune and not search & (train | predict)
    assert "training/task.py" in train and "training/task.py" not in tune | predict
    assert "training/predict.py" in predict and "training/predict.py" not in tune | train
    assert "training/trainer.py" in tune & train and "training/precision.py" in tune & train
    assert "pipeline/learn/worker.py" in train & predict and "pipeline/learn/worker.py" not in tune
