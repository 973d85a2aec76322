"""What is said when a part of a fold has nothing left to use: what took its timestamps, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .splits import SplitSection

_LABELS, _WINDOW = "shorten the labels (labels.horizons)", "shorten train.window"
_TAKERS = {  # of timestamps: what they are called, and what to do about them
    "embargo": ("the embargo", (_LABELS, "lower split.embargo")),
    "look_back": ("the look-back", (_WINDOW, "choose features that look back less (features.set)")),
    "not_member": ("the universe", ("widen universe.*",)),
    "warm_up": ("the warm-up", (_WINDOW, "choose features that are known sooner (features.set)")),
    "unlabelled": ("unknown labels", (_LABELS,)),
    "purged": ("the purge", (_LABELS,)),
    "one_symbol": (
        "moments with one symbol, which has no rank,",
        ("set train.target_kind to return", "ingest more symbols"),
    ),
}


def nothing_left(
    fold: int, part: str, planned: int, took: Mapping[str, int], split: SplitSection, detail: str = ""
) -> str:
    """Return the message about a part without a timestamp to use. planned : those between its boundaries; took : how
    many of them went for each reason; what is to be done about the one with the most stands before the others.
    """
    takers = [(*_TAKERS[name], count) for name, count in took.items() if count]
    told = " and ".join(f"{name} took {count}" for name, _, count in takers)
    most = sorted(takers, key=lambda taker: -taker[2])
    ways = dict.fromkeys([_room(split, part), *(remedy for _, remedies, _ in most for remedy in remedies)])
    return (
        f"expected timestamps to use in each part of every fold, got none in {part} of fold {fold}: of "
        f"{planned} between its boundaries{told and f' {told}'}{detail and f' ({detail})'}; "
        f"{', '.join(ways)}, or ingest a longer history"
    )


def _room(split: SplitSection, part: str) -> str:
    """Say which boundaries to move to give a part more timestamps."""
    if split.kind == "kfold":
        return "take fewer split.folds"
    if part == "test" and split.kind == "walk_forward":
        return "raise split.refit_every" if split.refit_every else "take fewer split.folds"
    if part == "train" and split.train_window:
        return "raise split.train_window"
    if split.valid_start is not None:
        return {
            "train": "set a later split.valid_start",
            "valid": "set split.valid_start and split.test_start further apart, within the history",
            "test": "set an earlier split.test_start",
        }[part]
    return {
        "train": "raise split.train_fraction",
        "valid": "raise split.valid_fraction",
        "test": "lower split.train_fraction or split.valid_fraction",
    }[part]
