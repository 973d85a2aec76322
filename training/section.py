"""What can be set about training, prediction and the search for settings.

Apart from the code that reads it, because that code imports torch (more than a second) and a run that reuses
everything, or `--help`, need only the settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm
from typing import Any, Literal, Self

from pydantic import ValidationError, field_validator, model_validator

from storage.section import Section, setting

NetworkName = Literal["lstm", "tcn", "transformer"]
ModelName = Literal["lstm", "tcn", "transformer", "ridge", "trees"]
BASELINES = ("ridge", "trees")  # see the last bar of a window alone
FIXED = ("seed", "seeds", "ranks", "threads", "models", "checkpoint_s")  # what no search may change
_LAYERS = {"lstm": 1, "tcn": 4, "transformer": 2}


class TrainSection(Section):
    """How models are fitted."""

    models: tuple[ModelName, ...] = setting(
        ("lstm",), "models to fit; the baseline ridge is always fitted beside them", min_length=1
    )
    targets: tuple[str, ...] = setting(
        (), "label columns to learn, such as y_5, the most important one first; none named = the first of the features"
    )
    target_kind: Literal["auto", "rank", "excess", "return", "label"] = setting(
        "auto",
        "what the model learns: the rank within a timestamp, the return above its mean, the return, or the label "
        "itself; auto = return when a timestamp has few symbols, else rank",
    )
    window: int = setting(20, "bars a model sees", unit="bars", ge=1, le=4096)
    max_gap_days: float = setting(
        15.0, "longest time between two bars of a window; 0 = any", unit="days", ge=0, le=3650
    )
    normalise: Literal["none", "window"] = setting(
        "none", "window = each feature of a network's window gets mean 0 and deviation 1 over the window"
    )
    windows_per_epoch: int = setting(20_000, "windows drawn for an epoch; 0 = all", unit="windows", ge=0)
    num_epochs: int = setting(12, "epochs at most", ge=1, le=10_000)
    patience: int = setting(4, "epochs without improvement before training stops; 0 = never stop early", ge=0)
    early_stopping: Literal["rank_ic", "loss"] = setting(
        "rank_ic", "validation figure that decides which epoch is the best"
    )
    batch_size: int = setting(256, "windows that go through a model at once", unit="windows", ge=1, le=1_048_576)
    gradient_accumulation_steps: int = setting(1, "batches added up before a step of the optimiser", ge=1, le=4096)
    loss: Literal["mse", "huber", "ic", "rank", "bce"] = setting(
        "mse",
        "what networks minimise: squared or Huber's error, 1 - correlation within a moment, pairs of a moment in the "
        "wrong order, or cross entropy of the target's sign",
    )
    learning_rate: float = setting(1e-3, "largest step size of AdamW", gt=0, le=1)
    warmup: float = setting(0.1, "share of all steps over which the learning rate rises", unit="ratio", ge=0, lt=1)
    least_rate: float = setting(
        0.05, "share of the learning rate that is left at the last epoch, after half a cosine; 1 = constant",
        unit="ratio", ge=0, le=1,
    )  # fmt: skip
    weight_decay: float = setting(1e-2, "weight decay of AdamW", ge=0, le=10)
    gradient_clip: float = setting(1.0, "largest norm of a gradient; 0 = no clipping", ge=0)
    mixed_precision: Literal["auto", "off", "partly", "bf16", "fp16"] = setting(
        "auto",
        "partly = bf16 for all networks but the transformer, which AVX-512 slows down; auto = what the hardware does "
        "well: bf16 on GPUs and CPUs with AMX, partly on CPUs with AVX-512 for it, fp16 on older GPUs, else off",
    )
    hidden_size: int = setting(64, "width of a network", ge=1, le=4096)
    layers: int = setting(0, "layers of a network; 0 = 1 of an LSTM, 4 of a TCN, 2 of a transformer", ge=0, le=64)
    heads: int = setting(4, "attention heads of a transformer; they share hidden_size", ge=1, le=64)
    kernel: int = setting(3, "bars that a layer of a TCN joins", unit="bars", ge=2, le=64)
    dropout: float = setting(0.1, "share of a network's states that is dropped in training", unit="ratio", ge=0, lt=1)
    recompute: bool = setting(
        False, "gradient checkpointing: compute activations again instead of keeping them; less memory, more time"
    )
    compile: bool = setting(
        False, "compile networks with torch.compile; it costs from seconds to a minute at the start"
    )
    ridge_penalty: float = setting(0.01, "ridge penalty a window, features having unit variance", ge=0)
    scaler: Literal["robust", "standard"] = setting(
        "robust", "median and interquartile range, or mean and deviation, of training rows"
    )
    clip: float = setting(5.0, "largest scaled feature; 0 = no clipping", unit="deviations", ge=0)
    min_names: int = setting(
        20, "rows an information coefficient needs; with fewer symbols timestamps are pooled", ge=3
    )
    seed: int = setting(0, "seed of weights, order and dropout", ge=0, le=2**32 - 1)
    seeds: int = setting(1, "networks of each kind, with seeds from `seed` on, whose scores are averaged", ge=1, le=100)
    shuffle_labels: bool = setting(False, "negative control: permute the labels, so that nothing can be learned")
    ranks: int = setting(
        1, "Dask workers that train one network together, each with its share of every step's windows", ge=1, le=1024
    )
    checkpoint_s: float = setting(
        300.0, "time between checkpoints within an epoch; there is one after each epoch", unit="s", gt=0, runtime=True
    )
    threads: int = setting(
        0,
        "torch threads; 0 = one for an LSTM with hidden_size below 128, else all cores",
        ge=0,
        le=1024,
        runtime=True,
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        if "transformer" in self.models:
            self.shape("transformer")
        if self.normalise == "window" and self.window == 1:
            raise ValueError("expected train.window of at least 2 to normalise windows, got 1: all values would be 0")
        if self.ranks > 1 and self.loss in ("ic", "rank"):
            raise ValueError(
                f"expected train.ranks of 1 for train.loss {self.loss}, which compares whole moments, got {self.ranks}"
            )
        if len(set(self.targets)) != len(self.targets):
            raise ValueError(f"expected distinct train.targets, got {self.targets}")
        return self

    def shape(self, name: NetworkName) -> dict[str, int]:
        """Return what the settings say about the size of a network."""
        size = {"hidden_size": self.hidden_size, "layers": self.layers or _LAYERS[name]}
        own = {"lstm": {}, "tcn": {"kernel": self.kernel}, "transformer": {"heads": self.heads, "window": self.window}}
        if name == "transformer" and self.hidden_size % self.heads:
            raise ValueError(
                f"expected train.hidden_size to be a multiple of train.heads, got {self.hidden_size} and {self.heads}"
            )
        return {**size, **own[name]}


class PredictSection(Section):
    """How trained models score windows."""

    batch_size: int = setting(256, "windows scored at once", unit="windows", ge=1, le=1_048_576)
    min_names: int = setting(
        20, "rows an information coefficient needs; with fewer symbols timestamps are pooled", ge=3
    )
    precision: Literal["float32", "bf16", "fp16", "int8", "int4"] = setting(
        "float32",
        "numbers that networks compute with, baselines stay float32: int8 (CPU) = whole numbers scaled row by row; "
        "int4 (GPU, extra quantise) = weights of dense layers alone; fp16 on a GPU alone",
    )
    max_ic_loss: float = setting(
        0.005, "largest loss of validation rank IC against float32 that another precision may cost", ge=0, le=1
    )
    export: bool = setting(
        False, "also leave <network>.pt2: raw windows of the last fold's features to scores, by torch.export, float32"
    )
    model: str = setting(
        "",
        "models to score with: those of this run's train stage where empty, registry = the one in use there, or the "
        "digest of one in the registry; see scripts/models.py",
        runtime=True,
    )
    threads: int = setting(1, "torch threads; 0 = all cores", ge=0, le=1024, runtime=True)


class Range(Section):
    """Values that a parameter may take: `choices`, or everything from `low` to `high`."""

    low: float | None = setting(None, "smallest value", allow_inf_nan=False)
    high: float | None = setting(None, "largest value", allow_inf_nan=False)
    log: bool = setting(False, "draw evenly on a logarithmic scale")
    step: float | None = setting(None, "distance between values", gt=0, allow_inf_nan=False)
    choices: tuple[bool | int | float | str, ...] = setting((), "the values themselves")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.choices) == (self.low is not None and self.high is not None):
            given = [name for name in ("choices", "low", "high") if getattr(self, name) not in (None, ())]
            raise ValueError(f"expected either choices, or low and high, got {' and '.join(given) or 'none of them'}")
        if not self.choices and self.low is not None and self.high is not None:
            if self.low > self.high:
                raise ValueError(f"expected low up to high, got low {self.low:g} and high {self.high:g}")
            if self.log and (self.low <= 0 or self.step is not None):
                raise ValueError(f"expected low > 0 and no step beside log, got low {self.low:g}, step {self.step}")
        return self

    def whole(self) -> Sequence[Any]:
        """Return the values of a whole number."""
        if self.low is None or self.high is None:
            return self.choices
        return range(int(self.low), int(self.high) + 1, int(self.step or 1))

    def fit(self, name: str) -> None:
        """Refuse values that train.`name` cannot take; ValueError says which."""
        if name not in TrainSection.model_fields or name in FIXED:
            raise ValueError(f"expected names of train.* other than {', '.join(FIXED)}, got '{name}'")
        ends: list[Any] = list(self.choices)
        if not ends:
            numbers = [n for n in (self.low, self.high, self.step) if n is not None]
            if TrainSection.model_fields[name].annotation not in (int, float):
                raise ValueError(f"expected choices for {name}, which is no number, got low and high")
            if is_whole(name) and not all(n.is_integer() for n in numbers):
                raise ValueError(f"expected whole numbers for {name}, got {', '.join(f'{n:g}' for n in numbers)}")
            ends = [int(n) if is_whole(name) else n for n in numbers[:2]]
        if name == "mixed_precision" and "auto" in ends:
            raise ValueError("expected off, partly, bf16 or fp16 for mixed_precision, got auto, which is one of them")
        for end in ends:
            try:
                TrainSection.model_validate({name: end})
            except ValidationError as error:
                detail = error.errors()[0]["msg"]
                raise ValueError(f"expected {name} within the bounds of train.{name}, got {end}: {detail}") from None


class SpaceError(ValueError):
    """A search space with values that no trial can take."""


_SPACE: dict[str, Any] = {
    "learning_rate": {"low": 3e-4, "high": 1e-2, "log": True},
    "weight_decay": {"low": 1e-4, "high": 1e-1, "log": True},
    "hidden_size": {"choices": [32, 64, 128]},
    "dropout": {"low": 0.0, "high": 0.4, "step": 0.1},
}


class SearchSection(Section):
    """How settings of training are searched for."""

    model: ModelName = setting("lstm", "model whose settings are searched")
    n_trials: int = setting(20, "trials that must finish", ge=1, le=1_000_000)
    study_name: str = setting("", "name under which a study is found again; empty = the key of the stage")
    sampler: Literal["tpe", "random"] = setting("tpe", "how the next trial is chosen")
    pruner: Literal["median", "asha", "none"] = setting("asha", "which trials are stopped early")
    seed: int = setting(0, "seed of the search", ge=0, le=2**32 - 1)
    space: dict[str, Range] = setting(
        lambda: {k: Range(**v) for k, v in _SPACE.items()}, "settings of train.* to search, by name"
    )
    storage_url_env: str = setting(
        "OPTUNA_STORAGE_URL",
        "environment variable with the storage's URL; unset = a journal file in the stage's folder",
        runtime=True,
    )
    retries: int = setting(5, "how often a trial whose worker died runs again", ge=0, le=100, runtime=True)
    trials_per_worker: int = setting(
        0,
        "trials at once on a worker, each with train.threads; 0 = one a thread of the worker",
        ge=0,
        le=256,
        runtime=True,
    )

    @field_validator("space")
    @classmethod
    def _of_training(cls, value: dict[str, Range]) -> dict[str, Range]:
        for name, values in value.items():
            values.fit(name)
        return value

    def check_widths(self, train: TrainSection) -> None:
        """Refuse a space with a width that the heads of a transformer do not divide, beside the settings that are not
        searched; SpaceError names those that can be.
        """
        names = ("hidden_size", "heads")
        sizes, heads = (self.space[n].whole() if n in self.space else (getattr(train, n),) for n in names)
        wrong = [size for size in sizes if any(size % count for count in heads)]
        if self.model == "transformer" and wrong:
            possible = [str(size) for size in sizes if size not in wrong]
            raise SpaceError(
                "expected each hidden_size to be a multiple of each of the heads of a transformer in search.space (or "
                f"train.*, where it is not searched), got {_few(wrong)} with {_few(heads)} heads; possible are "
                f"{_few(possible)}{' of them, ' if possible else ''}multiples of {lcm(*heads)}: give these as choices"
            )


def _few(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values[:8])) + ("…" if len(values) > 8 else "")


def is_whole(name: str) -> bool:
    """Say whether a setting of training is a whole number."""
    return TrainSection.model_fields[name].annotation is int
