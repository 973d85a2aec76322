"""What is said when a part of a fold has nothing left to use: what took its timestamps, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .splits import SplitSection

_LABELS = "shorten the labels (labels.horizons)"
_TAKERS = {  # of timestamps: what they are called, and what to do about them
    "embargo": ("the embargo", f"{_LABELS} or lower split.embargo"),
    "look_back": ("the look-back", "shorten train.window or choose features that look back less (features.set)"),
    "not_member": ("the universe", "widen universe.*"),
    "warm_up": ("the warm-up", "shorten train.window or choose features that are known sooner (features.set)"),
    "unlabelled": ("unknown labels", f"{_LABELS} or choose another train.target_kind"),
    "purged": ("the purge", _LABELS),
}


def nothing_left(
    fold: int, part: str, planned: int, took: Mapping[str, int], split: SplitSection, detail: str = ""
) -> str:
    """Return the message about a part without a timestamp to use. planned : those between its boundaries; took : how
    many of them went for each reason.
    """
    takers = [(*_TAKERS[name], count) for name, count in took.items() if count]
    told = " and ".join(f"{name} took {count}" for name, _, count in takers)
    ways = dict.fromkeys([_room(split, part), *(remedy for _, remedy, _ in takers)])
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
