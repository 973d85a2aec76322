"""Which columns are made of the bars, and how a feature set names them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import field_validator, model_validator

from storage.section import Section, setting

from ..indicators import Column, Spec, reads, resolve
from ..indicators.columns import spec_of
from ..indicators.libraries import LIBRARIES
from ..indicators.spec import IndicatorError, nearest
from ..indicators.timeframes import length_of
from ..receipt import Receipt
from ..resample import MINUTES, PERIODS

SETS = Path(__file__).parent.parent / "feature_sets"
NONE = "none"
KEYS = ("about", "features")  # of a file
AUTO = ("basic", "close")  # the second for panels of closes


class FeatureError(ValueError):
    """Features that cannot be made as asked; the message says expected, got, where and what to do."""


class FeatureSection(Section):
    """Which columns are computed from the bars."""

    set: str = setting(
        "auto",
        "a shipped set, a YAML file of one's own, none = extra alone; auto: close for panels of closes, else basic",
    )
    extra: tuple[Spec, ...] = setting((), "columns besides those of the set")
    interval: str = setting("1d", "bars that are read: minutes or hours of any number (15m, 1h), 1d, 1w or 1mo")
    market: str = setting(
        "auto", "index that indicators such as beta compare with, 0001 for KOSPI; auto: the first of the ingest"
    )
    dtype: Literal["float32", "float64"] = setting("float32", "type in which columns are stored")
    level: Literal["auto", "pandas", "polars", "numba", "dask", "cuda"] = setting(
        "auto", "what computes the columns; auto: by device, cores and size, said in the log"
    )
    chunk: int = setting(
        512, "bars of a tile, a multiple of 8", unit="bars", ge=8, le=65536, multiple_of=8, runtime=True
    )
    threads: int = setting(
        1, "threads inside one task; Dask runs several tasks at once anyway", ge=1, le=256, runtime=True
    )

    @field_validator("set")
    @classmethod
    def _known(cls, name: str) -> str:
        if name != "auto":
            feature_set(name)
        return name

    @field_validator("extra", mode="before")
    @classmethod
    def _computable(cls, extra: Any) -> Any:
        return tuple(_specs(extra, "extra")) if isinstance(extra, (list, tuple)) else extra

    @field_validator("interval")
    @classmethod
    def _there(cls, interval: str) -> str:
        _check_interval(interval, "bars")
        return interval

    @model_validator(mode="after")
    def _together(self) -> FeatureSection:
        """Check what no part says alone: that there are columns, of one name each, and how long their bars are."""
        found = resolve([*(feature_set(self.set) if self.set != "auto" else ()), *self.extra])
        if not found and self.set == NONE:
            raise FeatureError("expected columns, got features.set none and no features.extra; name some")
        for column in (c for c in found if c.at):
            if length_of(column.at) <= length_of(self.interval):
                raise FeatureError(
                    f"expected 'at' coarser than the bars, which are of {self.interval}, got {column.at} for "
                    f"{column.name}; leave 'at' out, name a longer one, or shorter bars with features.interval"
                )
        return self

    @property
    def made_by(self) -> str:
        """Return the library that is asked for, else 'kernels'."""
        return self.level if self.level in LIBRARIES else "kernels"

    def keyed(self) -> dict[str, Any]:
        """Return what the columns depend on: the specs of the set, not its name, and of the levels only whether they
        run the kernels, whose results are the same at all of them.
        """
        sets = AUTO if self.set == "auto" else (self.set,)
        specs = [[spec.model_dump(mode="json") for spec in feature_set(name)] for name in sets]
        return {**super().keyed(), "set": specs, "level": self.made_by}

    def index(self, receipt: Receipt) -> str:
        """Return the index that stands for the market; empty = there is none."""
        return next(iter(receipt.indices), "") if self.market == "auto" else self.market

    def columns(self, *, close_only: bool) -> tuple[Column, ...]:
        """Return the columns that are computed; a source of closes only can have none that read anything else."""
        name = self.set if self.set != "auto" else AUTO[close_only]
        found = resolve([*feature_set(name), *self.extra])
        other = [c.name for c in found if close_only and set(reads([c])) - {"close", "market"}]
        if other:
            raise FeatureError(
                f"expected columns made of closes only, because the source has nothing else, got {other}; "
                "use --features.set close"
            )
        return found


def feature_set(name: str) -> list[Spec]:
    """Read a feature set, shipped with the package or from a YAML file: the specs under `features`.

    Raises ValueError for a name or a file that is not there and for what is no feature set.
    """
    if name == NONE:
        return []
    shipped = {path.stem: path for path in SETS.glob("*.yaml")}
    path = Path(name) if name.endswith((".yaml", ".yml")) else shipped.get(name)
    if path is None or not path.exists():
        known = ["auto", NONE, *sorted(shipped)]
        raise ValueError(f"expected a feature set or a YAML file of one, got '{name}'{nearest(name, known)}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a feature set in {path}, got: {error}") from error
    return [spec.model_copy(deep=True) for spec in _parsed(text, path)]


@lru_cache(maxsize=16)  # each task of a stage asks again, and YAML is slow
def _parsed(text: str, path: Path) -> tuple[Spec, ...]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"expected a feature set in {path}, got: {' '.join(str(error).split())}") from error
    for key in found if isinstance(found, dict) else ():
        if key not in KEYS:
            raise ValueError(
                f"expected {' and '.join(KEYS)} at the top of {path}, got '{key}'{nearest(str(key), list(KEYS))}"
            )
    if not isinstance(found, dict) or not isinstance(found.get("features"), list) or not found["features"]:
        raise ValueError(f"expected a list of specs under 'features' in {path}, got {str(found)[:80]!r}")
    return tuple(_specs(found["features"], path.name))


def _specs(found: Iterable[Any], where: str) -> list[Spec]:
    """Return specs, each resolved by itself and all together; the ValueError says which of them is wrong."""
    out: list[Spec] = []
    for number, one in enumerate(found, 1):
        try:
            out.append(spec_of(one))
            resolve(out[-1:])
            if out[-1].at:
                _check_interval(out[-1].at, "'at'")
        except (IndicatorError, FeatureError) as error:
            raise ValueError(f"{where}, feature {number}: {error}") from error
    try:
        resolve(out)
    except IndicatorError as error:
        raise ValueError(f"{where}: {error}") from error
    return out


def _check_interval(interval: str, what: str) -> None:
    if not length_of(interval):
        known = [*MINUTES, "1d", *PERIODS]
        raise FeatureError(
            f"expected an interval for {what} such as 15m, 1h or 1d, got '{interval}'{nearest(interval, known)}"
        )


def stored(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Return the columns of blocks: those before any operator within a moment, which is a second step over them."""
    out: dict[str, Column] = {}
    for column in (c.source for c in columns):
        if out.setdefault(column.name, column).content != column.content:
            raise FeatureError(
                f"expected one column of a name, got '{column.name}' as a feature and, made of something else, under "
                "an operator of 'cross'; give the feature another name"
            )
    return tuple(out.values())


def intervals_of(columns: Iterable[Column]) -> tuple[str, ...]:
    """Return the coarser intervals that columns are computed on, each once."""
    return tuple(dict.fromkeys(c.at for c in columns if c.at))
