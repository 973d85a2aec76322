"""Iterations of a search that are kept: taken by the same search, run again by any other, with the same bits."""

from __future__ import annotations

import re
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.backtest.single.halves import halves_of
from pipeline.backtest.single.instrument import instruments
from pipeline.backtest.single.kept import asked_for
from pipeline.strategies import StrategyError, moving_average_cross

from .test_meta import ACCOUNT, SMALL, bars, same, searched

FRAME = pd.concat([bars(400), bars(400, "B", 9, skip=120)], ignore_index=True)


class Heard:
    """Keep what a search tells: its sentences, and how many combinations were done at once."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.done: list[int] = []

    def emit(self, kind: str, /, **fields: object) -> None:
        assert kind == "log"
        self.said.append(f"{fields['level']}: {fields['text']}")

    def search(self, kept: Path, section: Any = SMALL, frame: pd.DataFrame = FRAME, **more: Any) -> Any:
        return searched(frame, section, kept=kept, emit=self.emit, progress=self.done.append, **more)


class Stop(BaseException):
    """Ends a search as Ctrl-C does."""


def stop(step: object) -> None:
    raise Stop


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder that a search left which was stopped after its first iteration."""
    with pytest.raises(Stop):
        searched(FRAME, kept=tmp_path / "kept", told=stop)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["iteration-1.npz"]
    return tmp_path / "kept"


def test_an_interrupted_search_takes_what_it_had_and_ends_the_same(kept: Path) -> None:
    heard = Heard()
    whole = searched(FRAME)
    assert same(whole, heard.search(kept, workers=1))
    assert heard.said == [f"info: iteration 1: 64 combinations taken from {kept / 'iteration-1.npz'}"]
    assert heard.done[0] == 2 * 64 * 2 and sum(heard.done) == 2 * 2 * len(whole.samples)
    again = Heard()
    assert same(whole, again.search(kept)) and len(again.said) == len(again.done) == 3, "nothing was run"
    longer, section = Heard(), SMALL.model_copy(update={"iterations": 4})
    assert same(searched(FRAME, section), longer.search(kept, section)) and len(longer.said) == 3


def test_what_is_kept_is_what_is_taken(kept: Path) -> None:
    path = kept / "iteration-1.npz"
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "score_C": arrays["score_C"] + 100.0})
    assert searched(FRAME, kept=kept).score_C.max() > 90


@pytest.mark.parametrize("how", ["truncated", "a flipped bit", "empty", "objects"])
def test_a_damaged_file_is_told_of_and_run_again(kept: Path, how: str) -> None:
    path = kept / "iteration-1.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "objects":
        np.savez(path, asked=np.array([{}], object))
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b""}.get(how, bytes(content)))
    heard = Heard()
    assert same(searched(FRAME), heard.search(kept))
    (said,) = heard.said
    assert said.startswith(f"warning: iteration 1 is run again: expected what it counted in {path}, got: ")
    assert heard.search(kept) and "taken from" in heard.said[1], "it was written anew"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"section": SMALL.model_copy(update={"seed": 1})}, "other combinations"),
        ({"section": SMALL.model_copy(update={"least_trades": 3})}, "other bars, settings or code"),
        ({"frame": FRAME.assign(volume=FRAME["volume"] * 2)}, "other bars, settings or code"),
        ({"frame": FRAME.assign(symbol=FRAME["symbol"] + "1")}, "other bars, settings or code"),
        ({"first": "2018-03-01"}, "other bars, settings or code"),
    ],
)
def test_what_another_search_kept_is_not_taken(kept: Path, change: dict[str, Any], why: str) -> None:
    heard = Heard()
    found = heard.search(kept, **change)
    (said,) = heard.said
    assert why in said and "run again" in said
    rest = {name: value for name, value in change.items() if name not in ("frame", "section")}
    assert same(found, searched(change.get("frame", FRAME), change.get("section", SMALL), **rest))


def idle(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    """Want nothing."""
    return 0


def test_another_step_account_or_tax_is_another_search() -> None:
    other = replace(moving_average_cross, step=idle)
    found = instruments(FRAME, ACCOUNT, venue="24h", interval="1d")
    spans = halves_of(found, moving_average_cross, SMALL, None, None).spans
    taxed = [replace(each, fact_TC=each.fact_TC + 1) for each in found]
    costly = ACCOUNT.model_copy(update={"slippage_bp": 6.0})
    asked = {
        asked_for(found, spans, moving_average_cross, ACCOUNT, SMALL),
        asked_for(found, spans, other, ACCOUNT, SMALL),
        asked_for(found, spans, moving_average_cross, costly, SMALL),
        asked_for(taxed, spans, moving_average_cross, ACCOUNT, SMALL),
        asked_for(found[::-1], spans[::-1], moving_average_cross, ACCOUNT, SMALL),
    }
    assert len(asked) == 5
    again = instruments(
        FRAME.assign(source=[f"file {n}" for n in range(len(FRAME))]), ACCOUNT, venue="24h", interval="1d"
    )
    assert asked_for(again, spans, moving_average_cross, ACCOUNT, SMALL) in asked


def test_a_folder_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StrategyError, match="expected a folder for the iterations of a search as kept, got"):
        searched(FRAME, kept=tmp_path / "file")


def test_a_full_disk_is_said_and_the_search_goes_on(tmp_path: Path) -> None:
    heard = Heard()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        found = heard.search(tmp_path / "kept")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(found, searched(FRAME)) and not list((tmp_path / "kept").iterdir())
    assert heard.said and all(re.match(r"warning: iteration \d+ is not kept: ", said) for said in heard.said)
    assert "File too large" in heard.said[0]


@pytest.mark.parametrize("more", [{"earlier": -1}, {"earlier": 0.5}, {"workers": -1}, {"memory": 0}])
def test_counts_below_their_least_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(StrategyError, match=r"expected a whole number from [01] on as"):
        searched(FRAME, **more)
