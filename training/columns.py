"""Which columns a feature stage offers, and those of them that are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.store import read_json

_MINUTES = {"m": 1, "h": 60, "d": 1440, "w": 7 * 1440, "mo": 31 * 1440}


class DataError(Exception):
    """Input from which no model can be trained or scored."""


@dataclass(frozen=True)
class Label:
    """Name a label's column, the column of the time at which it is known, and its horizon in bars."""

    name: str
    end: str
    horizon: int


@dataclass(frozen=True)
class Columns:
    """Name what a feature stage offers and the labels to learn, the most important one first.

    look_back : bars before a row that its features need (0 = its own alone; what exponential averages and sums from the
    beginning keep of older bars does not count); largest_horizon : over all labels of the stage, in bars; folders :
    which one holds each column: files of one name have the same rows in all of them.
    """

    interval: str
    features: tuple[str, ...]
    labels: tuple[Label, ...]
    look_back: int
    largest_horizon: int
    folders: Mapping[str, str]

    @property
    def horizon(self) -> int:
        """Return the horizon of the first label, bars."""
        return self.labels[0].horizon


def read_columns(directory: Path, labels: Sequence[str] = ()) -> Columns:
    """Read `columns.json` of a feature stage; none named = its first label. DataError when a label is not there or
    there is no feature.
    """
    where = Path(directory) / "columns.json"
    found = read_json(where)
    offered = {str(t["name"]): Label(str(t["name"]), str(t["end"]), int(t["horizon"])) for t in found["targets"]}
    features = found["features"]
    if not features:
        raise DataError(f"expected at least one feature in {where}, got none; add features to the feature set")
    if not offered:
        raise DataError(f"expected at least one label in {where}, got none; add a horizon to the labels")
    names = tuple(labels) or tuple(offered)[:1]
    for name in names:
        if name not in offered:
            raise DataError(f"expected train.targets among {', '.join(offered)} ({where}), got '{name}'")
    chosen = tuple(offered[name] for name in names)
    return Columns(
        interval=str(found["interval"]),
        features=tuple(str(f["name"]) for f in features),
        labels=chosen,
        look_back=max(_look_back(f, str(found["interval"])) for f in features),
        largest_horizon=max(label.horizon for label in offered.values()),
        folders={
            "ts": "blocks",
            **{str(f["name"]): str(f["in"]) for f in features},
            **{column: "targets" for label in chosen for column in (label.name, label.end)},
            "member": str(found["member"]),
        },
    )


def _look_back(feature: Mapping[str, Any], interval: str) -> int:
    """Return how many bars before its own a feature needs. Of coarser bars it sees those that have closed, each of as
    many bars as fit into its span of time.
    """
    at = str(feature.get("at", ""))
    if not at:
        return int(feature.get("ready", 1)) - 1
    return (int(feature.get("ready", 1)) + 1) * -(-_minutes(at) // _minutes(interval)) - 1


def _minutes(interval: str) -> int:
    number = interval.rstrip("mohdw")
    return int(number) * _MINUTES[interval[len(number) :]]


def check_made(model: str, needs: Mapping[str, Any], interval: str, labels: Sequence[str]) -> None:
    """Refuse a model of other bars or labels than those that are made. needs : what its training recorded about columns
    (interval, targets). DataError names the model and the settings.
    """
    if missing := [name for name in needs["targets"] if name not in labels]:
        raise DataError(
            f"expected the labels {', '.join(needs['targets'])}, which the model {model} has learned, got "
            f"{', '.join(labels)} without {', '.join(missing)}; set labels.horizons and labels.kinds as in its "
            "training, or use another model (python scripts/models.py list)"
        )
    if _minutes(needs["interval"]) != _minutes(interval):
        raise DataError(
            f"expected bars of {needs['interval']}, which the model {model} has learned, got {interval}; set "
            f"features.interval to {needs['interval']}, or use another model (python scripts/models.py list)"
        )


def check_columns(expected: Sequence[str], got: Sequence[str], where: Path) -> None:
    """Refuse features that are not, in this order, those of a model; DataError names the first difference."""
    if list(expected) == list(got):
        return
    missing = [name for name in expected if name not in got]
    extra = [name for name in got if name not in expected]
    if missing:
        detail = f"missing: {', '.join(missing)}"
    elif extra:
        detail = f"unknown to the checkpoint: {', '.join(extra)}"
    else:
        at = next(i for i, pair in enumerate(zip(expected, got)) if pair[0] != pair[1])
        detail = f"another order: column {at} is '{got[at]}', the checkpoint has '{expected[at]}' there"
    raise DataError(
        f"expected the {len(expected)} feature columns of the checkpoint, got {len(got)} from {where} ({detail}); "
        "predict with the feature set of the training run, or train again"
    )
