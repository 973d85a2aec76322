"""What can be set about a search for training settings; the space of the search is data."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ValidationError, model_validator

from storage.section import Section, setting

from ..section import ModelName, TrainSection


class Range(Section):
    """Values that a parameter may take: `choices`, or everything from `low` to `high`."""

    low: float | None = setting(None, "smallest value")
    high: float | None = setting(None, "largest value")
    log: bool = setting(False, "draw evenly on a logarithmic scale")
    step: float | None = setting(None, "distance between values", gt=0)
    choices: tuple[bool | int | float | str, ...] = setting((), "the values themselves")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.choices) == (self.low is not None and self.high is not None):
            raise ValueError("give either choices, or low and high")
        if not self.choices and self.low is not None and self.high is not None:
            if self.low > self.high:
                raise ValueError(f"low ({self.low:g}) must not be above high ({self.high:g})")
            if self.log and (self.low <= 0 or self.step is not None):
                raise ValueError("log needs low > 0 and no step")
        return self

    def ends(self) -> list[Any]:
        return list(self.choices) or [self.low, self.high]


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
        1, "trials at once on a worker, which share its torch threads", ge=1, le=256, runtime=True
    )

    def check(self, train: TrainSection) -> None:
        """Refuse a space that does not fit the settings of training; ValueError names the parameter."""
        for name, values in self.space.items():
            if name not in TrainSection.model_fields or name in ("seed", "threads", "models"):
                raise ValueError(
                    f"expected names of train.* other than seed, threads and models in search.space, got '{name}'"
                )
            for end in values.ends():
                end = int(end) if is_whole(name) and isinstance(end, float) else end
                try:
                    TrainSection(**{**train.model_dump(), name: end})
                except ValidationError as error:
                    detail = error.errors()[0]["msg"]
                    raise ValueError(
                        f"expected search.space.{name} within the bounds of train.{name}, got {end}: {detail}"
                    ) from None


def is_whole(name: str) -> bool:
    """Say whether a setting of training is a whole number."""
    return TrainSection.model_fields[name].annotation is int
