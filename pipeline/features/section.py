"""Which columns are made of the bars, and how a feature set names them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError, field_validator

from storage.section import Section, setting

from ..indicators import Column, Spec, reads, resolve
from ..indicators.libraries import LIBRARIES
from ..indicators.spec import IndicatorError, nearest
from ..receipt import Receipt

SETS = Path(__file__).parent.parent / "feature_sets"
NONE = "none"
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
    interval: str = setting("1d", "bars that are read", pattern=r"^\d+(m|h|d|w|mo)$")
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
            resolve(feature_set(name))
        return name

    @field_validator("extra")
    @classmethod
    def _computable(cls, extra: tuple[Spec, ...]) -> tuple[Spec, ...]:
        resolve(extra)
        return extra

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
        if not found:
            raise FeatureError("expected columns, got features.set none and no features.extra; name some")
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
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"expected a feature set in {path}, got: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not isinstance(found.get("features"), list) or not found["features"]:
        raise ValueError(f"expected a list of specs under 'features' in {path}, got {str(found)[:80]!r}")
    return [_spec(one, f"{path.name}, feature {i}") for i, one in enumerate(found["features"], 1)]


def _spec(found: Any, where: str) -> Spec:
    try:
        return Spec.model_validate(found)
    except (ValidationError, IndicatorError) as error:
        raise ValueError(
            f"expected a spec such as {{indicator: rsi, params: {{n: 14}}}} at {where}: {error}"
        ) from error


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
