"""Threads are restored, and half precision stays near float32."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from storage.emit import silent
from tests.feature_blocks import Recorder, write_blocks
from tests.fits import NETWORKS, SHORT, TINY, validated
from training.dataset import Dataset, prepare
from training.fit import fit_model
from training.hardware import autocast_type, torch_threads
from training.precision import PrecisionError
from training.section import NetworkName, TrainSection
from training.splits import SplitSection


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    features = write_blocks(tmp_path_factory.mktemp("features"), signal=0.1, noise=0.2)
    return prepare(features, SplitSection(), TrainSection(**TINY), silent)


def test_threads_are_set_and_restored() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1) as count:
        assert torch.get_num_threads() == count == before + 1
    assert torch.get_num_threads() == before
    with torch_threads(0) as count:
        assert count == len(os.sched_getaffinity(0))
    with pytest.raises(KeyError), torch_threads(before + 2):
        raise KeyError
    assert torch.get_num_threads() == before


def test_precision_is_chosen_by_hardware_and_said(dataset: Dataset) -> None:
    auto = TrainSection()
    off, bf16, fp16 = (auto.model_copy(update={"mixed_precision": name}) for name in ("off", "bf16", "fp16"))
    assert autocast_type(off, "cpu", "lstm")[0] is None
    assert autocast_type(bf16, "cpu", "transformer")[0] is torch.bfloat16
    partly = auto.model_copy(update={"mixed_precision": "partly"})
    assert [autocast_type(partly, "cpu", name)[0] for name in NETWORKS] == [torch.bfloat16, torch.bfloat16, None]
    with pytest.raises(PrecisionError, match=r"GPU because train\.mixed_precision is 'fp16'"):
        autocast_type(fp16, "cpu", "lstm")
    native = any(torch.cpu.get_capabilities().get(n) for n in ("avx512_bf16", "amx_bf16"))
    chosen, name = autocast_type(auto, "cpu", "lstm")
    assert (chosen is torch.bfloat16) == native
    emit = Recorder()
    fit_model("lstm", dataset, TrainSection(**{**SHORT, "mixed_precision": "auto"}), "cpu", emit)
    assert emit.said(f"lstm on cpu, 1 threads, {name}")


@pytest.mark.parametrize("name", NETWORKS)
def test_fp16_on_a_cpu_is_refused(dataset: Dataset, tmp_path: Path, name: NetworkName) -> None:
    with pytest.raises(PrecisionError):
        fit_model(name, dataset, TrainSection(**{**SHORT, "mixed_precision": "fp16"}), "cpu", out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_stays_near_float32(dataset: Dataset, name: NetworkName) -> None:
    """bf16 keeps 8 bits: scores of unit variance agree to a few hundredths, what they are worth to 0.02."""
    full, half = (
        fit_model(name, dataset, TrainSection(**{**TINY, "mixed_precision": kind}, dropout=0.1, patience=0), "cpu")
        for kind in ("off", "bf16")
    )
    assert half.best["valid_rank_ic"] == pytest.approx(full.best["valid_rank_ic"], abs=0.02)
    losses = [[row["train_loss"] for row in fit.history] for fit in (full, half)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    one, two = (validated(fit, dataset)[:, 0] for fit in (full, half))
    assert np.corrcoef(one, two)[0, 1] > 0.98
    assert float(np.abs(one - two).max()) > 0
