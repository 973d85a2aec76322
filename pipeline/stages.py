"""The table of contents of the project: which stages there are, what each reads, and how a list of them is run.

A stage's key is made of its name, its sections without fields that change no result, the content of its inputs, the
device class, the digest of its own code and the versions of the numeric packages. Equal key: equal result, so the
finished directory is reused.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.emit import Emit
from storage.section import digest_of
from storage.store import MANIFEST, Store, read_json
from training.columns import check_made
from training.precision import check_scoring, resolved_precision
from training.registry import Registry

from . import certificates
from .cluster import Cluster
from .config import Config
from .features.levels import possible
from .importers.files import opened
from .job import Job
from .profile import Memory, profiled
from .provenance import code_digest, instruction_sets, versions
from .receipt import FILE as RECEIPT
from .receipt import Receipt

SHOWN = 80  # characters of a value in the reason why a stage would run


@dataclass(frozen=True)
class Stage:
    """A named function from (its sections, its input directories) to one output directory."""

    name: str
    function: str  # "module:name", imported when it runs
    needs: tuple[str, ...] | Callable[[Config], tuple[str, ...]]  # whose results it reads; may depend on settings
    sections: tuple[str, ...]
    optional: tuple[str, ...] = ()  # stages whose result is used when they are part of the run
    arithmetic: bool = False  # its bits depend on what the processor can do
    certified: bool = False  # tells what an audit said about the features
    chosen: Callable[[Config], tuple[str, ...]] = lambda config: ()  # modules that its settings name

    def reads(self, config: Config) -> tuple[str, ...]:
        return self.needs(config) if callable(self.needs) else self.needs

    def call(self) -> Callable[..., dict[str, Any]]:
        module, name = self.function.split(":")
        found: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
        return found


def _traded(config: Config) -> tuple[str, ...]:
    return ("ingest", *config.backtest.reads)


def _reported(config: Config) -> tuple[str, ...]:
    """Return what led to the scores that are traded, and what came of them."""
    models = ("features", "train", "predict") if "predict" in config.backtest.reads else config.backtest.reads
    return ("ingest", *models, "backtest")


def _searched(config: Config) -> tuple[str, ...]:
    """Name the module of the strategy; StrategyError where there is none that can be loaded."""
    from .strategies import strategy_of

    return (strategy_of(config.optimize.strategy).step.__module__,)


STAGES = (
    Stage("ingest", "pipeline.ingest:ingest", (), ("lake", "kis", "ingest")),
    Stage("features", "pipeline.features.stage:features", ("ingest",), ("features", "labels", "universe")),
    Stage("tune", "pipeline.learn.tune:tune", ("features",), ("split", "train", "search"), arithmetic=True),
    Stage("train", "pipeline.learn.train:train", ("features",), ("split", "train"), ("tune",), arithmetic=True),
    Stage("predict", "pipeline.learn.predict:predict", ("features", "train"), ("predict",), arithmetic=True),
    Stage("backtest", "pipeline.backtest.stage:backtest", _traded, ("backtest",)),
    Stage(
        "optimize",
        "pipeline.backtest.single.stage:optimize",
        ("ingest",),
        ("account", "optimize"),
        chosen=_searched,
    ),
    Stage(
        "report",
        "pipeline.report.stage:report",
        _reported,
        ("report",),
        ("tune",),
        certified=True,
    ),
)


@dataclass(frozen=True)
class Planned:
    """Say what would happen to a stage; `key` is None when it depends on stages that have to run first."""

    stage: Stage
    key: str | None
    manifest: dict[str, Any] | None
    why: str


def wanted(last: Sequence[str], config: Config) -> list[Stage]:
    """Return the stages that lead to `last`, in the order of the table; with run.tune a search precedes training."""
    names = set(last)
    for stage in reversed(STAGES):
        if stage.name == "tune" and config.run.tune and "train" in names:
            names.add("tune")
        if stage.name in names:
            names |= set(stage.reads(config))
    return [stage for stage in STAGES if stage.name in names]


def parts(stage: Stage, config: Config, inputs: dict[str, dict[str, Any]], device: str) -> dict[str, Any]:
    """Return what the stage's key is made of; `inputs` are the manifests of the stages that it reads."""
    read = [name for name in stage.sections if not (name == "kis" and config.ingest.path)]  # files ask no broker
    return {
        "stage": stage.name,
        "sections": {name: getattr(config, name).keyed() for name in read},
        "inputs": {name: manifest["content"] for name, manifest in inputs.items()},
        "device": device,
        "code": code_digest(stage.function.split(":")[0], *stage.chosen(config)),
        "versions": versions(),
        "processor": instruction_sets() if stage.arithmetic else [],
        "precision": resolved_precision(config.train, device) if "train" in stage.sections else "",
    }


class Runner:
    """Run stages or say what would run. profiles : the folder for profiles of those that run, None = none."""

    def __init__(self, config: Config, cluster: Cluster, emit: Emit, profiles: Path | None = None) -> None:
        possible(config.features, cluster.device)  # a result that was made elsewhere would hide it
        check_scoring(config.predict, cluster.device)
        self.config, self.cluster, self.emit, self.profiles = config, cluster, emit, profiles
        self.data = data = Path(config.run.data).absolute()
        self.store = Store(data / "stages")
        self.lake = config.lake.model_copy(update={"path": str(Path(config.lake.path or data / "lake").absolute())})
        self._last = ""  # the stage that is asked for

    def plan(self, stages: Sequence[Stage]) -> Iterator[Planned]:
        """Yield for each stage whether it would be reused or run, and why. Raises FilesError where there is nothing to
        read at the path of files that ingest is given.
        """
        if self.config.ingest.path:
            with opened(Path(self.config.ingest.path)):
                pass
        known: dict[str, dict[str, Any]] = {}
        promoted, self._last = self._promoted(stages), stages[-1].name
        for stage in stages:
            if stage.name == "train" and promoted:
                known["train"] = card = read_json(promoted / MANIFEST)
                yield Planned(stage, promoted.name, card, f"{card['model']} of the registry, made {card['made']}")
                continue
            reads = self._reads(stage, stages)
            missing = [name for name in reads if name not in known]
            if missing:
                yield Planned(stage, None, None, f"{' and '.join(missing)} would run first")
                continue
            key, made_of, manifest = self._look(stage, {name: known[name] for name in reads})
            if manifest is None:
                yield Planned(stage, key, None, self._difference(stage, made_of))
            else:
                known[stage.name] = manifest
                yield Planned(
                    stage, key, manifest, f"made {manifest['made']} with the same sections, inputs, code and versions"
                )

    def run(
        self, stages: Sequence[Stage], named: Callable[[str], None] = lambda name: None
    ) -> dict[str, dict[str, Any]]:
        """Run or reuse the stages in order; return their manifests, each with its `directory` and whether it was
        `reused`.

        `named` is told the name of each stage before its events come.
        """
        done: dict[str, dict[str, Any]] = {}
        promoted, self._last = self._promoted(stages), stages[-1].name
        for stage in stages:
            named(stage.name)
            inputs = {name: done[name] for name in self._reads(stage, stages)}
            if stage.name == "train" and promoted:
                key, directory, reused, manifest = promoted.name, promoted, True, read_json(promoted / MANIFEST)
            else:
                key, made_of, found = self._look(stage, inputs)
                reused = found is not None
                manifest = found or self._make(stage, key, made_of, inputs)
                directory = self.store.path(stage.name, key)
            done[stage.name] = {**manifest, "directory": str(directory), "reused": reused}
            self.emit(
                "stage",
                state="reused" if reused else "done",
                key=key,
                seconds=manifest["seconds"],
                rows=manifest.get("rows"),
            )
        return done

    def _promoted(self, stages: Sequence[Stage]) -> Path | None:
        """Return the folder of the registry that takes the place of the train stage's; None where that is to run.
        DataError where its model has learned other bars or labels than the configuration makes.
        """
        config = self.config
        if not config.predict.model or not any(stage.name == "predict" for stage in stages):
            return None
        folder = Registry(self.data).folder(config.predict.model)
        card = read_json(folder / MANIFEST)
        labels = [target["name"] for target in config.labels.targets()]
        check_made(f"{card['model']} {folder.name}", card["columns"], config.features.interval, labels)
        return folder

    def _reads(self, stage: Stage, stages: Sequence[Stage]) -> list[str]:
        present = {s.name for s in stages}
        return [*stage.reads(self.config), *(name for name in stage.optional if name in present)]

    def _look(
        self, stage: Stage, inputs: dict[str, dict[str, Any]]
    ) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
        made_of = parts(stage, self.config, inputs, self.cluster.device)
        if stage.certified and "features" in inputs:
            made_of["certificate"] = self._certificate(inputs)
        key = digest_of(made_of)
        return key, made_of, self._finished(stage, key) if self.config.run.cache_enabled else None

    def _certificate(self, inputs: dict[str, dict[str, Any]]) -> str:
        receipt = Receipt.load(self.store.path("ingest", inputs["ingest"]["key"]))
        return certificates.digest(certificates.of(self.data, receipt, inputs["features"]))

    def _finished(self, stage: Stage, key: str) -> dict[str, Any] | None:
        manifest = self.store.done(stage.name, key)
        if manifest is not None and (self.store.path(stage.name, key) / RECEIPT).exists():
            receipt = Receipt.load(self.store.path(stage.name, key))
            if receipt.lake != self.lake.path or not receipt.current():
                return None  # the lake lost or changed what the receipt names
            if manifest.get("torn") and stage.name == self._last:
                return None  # whoever asks for ingest itself has the broker asked for what it left out
        return manifest

    def _make(
        self, stage: Stage, key: str, made_of: dict[str, Any], inputs: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        sections = [self.lake if name == "lake" else getattr(self.config, name) for name in stage.sections]
        cached = self.config.run.cache_enabled
        text = f"{stage.name}: another run is making the same; waiting for it"
        waiting = functools.partial(self.emit, "log", level="info", text=text)
        with self.store.writing(stage.name, key, waiting) as out, Memory() as memory:
            manifest = self._finished(stage, key) if cached else None
            if manifest is not None:
                return manifest  # another run made it while this one waited for the directory
            self.store.begin(stage.name, key, anew=not cached)
            self.emit("stage", state="started", key=key)
            directories = {name: Path(manifest["directory"]) for name, manifest in inputs.items()}
            start = time.perf_counter()
            call = stage.call()
            with profiled(stage.name, self.profiles, self.emit, memory) as measured:
                result = call(
                    Job(out, directories, self.cluster, self.emit, anew=not cached, measured=measured), *sections
                )
            seconds = time.perf_counter() - start
            return self.store.finish(
                stage.name,
                key,
                {
                    **result,
                    "key": key,
                    "made_of": made_of,
                    "made": time.strftime("%Y-%m-%d %H:%M:%S%z"),
                    "seconds": round(seconds, 3),
                    "peak_memory_mb": memory.peak,
                },
            )

    def _difference(self, stage: Stage, made_of: dict[str, Any]) -> str:
        """Say what changed since the stage's latest result."""
        found = sorted((self.store.root / stage.name).glob("*/manifest.json"), key=lambda p: p.stat().st_mtime)
        if not found:
            return "never made"
        before = read_json(found[-1])["made_of"]
        changed = [f"{path} {_short(old)} -> {_short(new)}" for path, old, new in _changes(before, made_of)]
        return (
            "changed: " + "; ".join(changed[:6])
            if changed
            else "its directory or the lake is no longer what the manifest says, or the broker left minutes out"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def _changes(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _changes(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path.removeprefix("sections."), old, new
