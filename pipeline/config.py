"""The tree of sections: YAML files, then the environment, then the command line. It composes sections and holds none
of its own but `run`.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import dotenv
import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from storage.lake import LakeSection
from storage.section import Section, setting
from training.section import PredictSection, SearchSection, TrainSection
from training.splits import SplitSection

from . import krx
from .backtest.section import BacktestSection
from .backtest.single.section import AccountSection, OptimizeSection
from .cluster import ClusterSection
from .features.section import FeatureSection
from .kis.section import KisSection
from .labels import LabelSection
from .report.section import ReportSection
from .request import IngestSection
from .universe import UniverseSection

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "configs" / "base.yaml"
ENV_PREFIX = "PIPELINE__"


class ConfigError(Exception):
    """A configuration that cannot be used; the message names the path of the key."""


class RunSection(Section):
    """What a run is called, where its results lie and what it prints."""

    name: str = setting(
        "main",
        "name of the run; part of its folder's name",
        min_length=1,
        max_length=60,
        pattern=r"^[\w.-]+$",
        runtime=True,
    )
    data: str = setting("data", "folder of stage results, caches and the lake", unit="path", runtime=True)
    runs: str = setting("runs", "folder that gets one folder a run", unit="path", runtime=True)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting(
        "INFO", "least level that is logged", runtime=True
    )
    cache_enabled: bool = setting(True, "reuse finished stages whose key is unchanged", runtime=True)
    tune: bool = setting(False, "search hyperparameters before training", runtime=True)
    profile: bool = setting(
        False, "profile the stages that run, into the folder profile of the run's folder", runtime=True
    )
    tensorboard: bool = setting(
        False, "write epochs for TensorBoard into the folder tensorboard of the run's folder", runtime=True
    )


class Config(BaseSettings):
    """All sections. Sources of `load`, the later wins: configs/base.yaml, --config files, environment
    PIPELINE__SECTION__KEY, --section.key.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__")

    run: RunSection = setting(RunSection, "the run")
    cluster: ClusterSection = setting(ClusterSection, "device and Dask cluster")
    lake: LakeSection = setting(LakeSection, "market data tables")
    kis: KisSection = setting(KisSection, "broker API")
    ingest: IngestSection = setting(IngestSection, "what to fetch or import")
    features: FeatureSection = setting(FeatureSection, "indicator columns")
    labels: LabelSection = setting(LabelSection, "what is predicted")
    universe: UniverseSection = setting(UniverseSection, "who may be traded when")
    split: SplitSection = setting(SplitSection, "train, validation and test in time")
    train: TrainSection = setting(TrainSection, "models and trainer")
    search: SearchSection = setting(SearchSection, "hyperparameter search")
    predict: PredictSection = setting(PredictSection, "scores")
    backtest: BacktestSection = setting(BacktestSection, "portfolio simulation")
    account: AccountSection = setting(AccountSection, "money, size and costs of a strategy's runs")
    optimize: OptimizeSection = setting(OptimizeSection, "search of a strategy's parameters")
    report: ReportSection = setting(ReportSection, "the report")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # `load` lays all sources over each other by itself


def load(arguments: Sequence[str], prog: str, about: str) -> tuple[Config, argparse.Namespace]:
    """Read the configuration and the words of the command line; ConfigError says which key is wrong and which is
    meant.
    """
    dotenv.load_dotenv(Path.cwd() / ".env", override=False)
    parser = argparse.ArgumentParser(
        prog=prog, description=about, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="YAML files laid over configs/base.yaml",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say which stages would run or be reused, and why; do nothing"
    )
    parser.add_argument(
        "--profile",
        nargs="*",
        type=int,
        default=None,
        metavar=("SAMPLES", "ITERATIONS"),
        help="short for --run.profile true; two numbers are --optimize.samples and --optimize.iterations, as in "
        "optimize.py --profile 100 1",
    )
    parser.add_argument("--log-level", default=None, metavar="LEVEL", help="short for --run.log_level")
    cli: CliSettingsSource[argparse.ArgumentParser] = CliSettingsSource(
        Config, root_parser=parser, cli_prog_name=prog, cli_hide_none_type=True, cli_avoid_json=True
    )
    words, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        raise ConfigError(_unknown_option(unknown[0]))
    _check_environment()
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for path in [BASE, *map(_found, words.config)]:
        one = _resolved(_yaml(path))
        for key in _paths(one):
            origin[key] = str(path)
        values = _laid_over(values, one)
    if words.log_level:
        setattr(words, "run.log_level", words.log_level.upper())
    if words.profile is not None:
        setattr(words, "run.profile", "true")
        if len(words.profile) not in (0, 2):
            raise ConfigError(f"expected no number or two, samples and iterations, for --profile, got {words.profile}")
        for key, number in zip(("samples", "iterations"), words.profile):
            setattr(words, f"optimize.{key}", str(number))
    for key in [k for k in vars(words) if k.endswith(".end") and getattr(words, k) == "today"]:
        setattr(words, key, _today())
    try:
        for source in (EnvSettingsSource(Config), cli(parsed_args=words)):
            values = _laid_over(values, source())
        return Config(**values), words
    except SettingsError as error:
        raise ConfigError(
            f'expected JSON for what is no plain value, such as --features.extra \'[{{"indicator": "rsi"}}]\' or '
            f"PIPELINE__INGEST__SYMBOLS='[\"005930\"]', got {error}: {error.__cause__}; mind the quotes"
        ) from error
    except ValidationError as error:
        origin |= {
            key: f"environment {name}"
            for key in keys()
            if (name := ENV_PREFIX + key.upper().replace(".", "__")) in os.environ
        }
        origin |= {key: "command line" for key, value in vars(words).items() if value is not None}
        places = [e["loc"] for e in error.errors()]
        inmost = [e for e in error.errors() if not any(p[: len(e["loc"])] == e["loc"] != p for p in places)]
        raise ConfigError("\n".join(_sentence(e, origin) for e in inmost)) from error


def _found(name: str) -> Path:
    """Return a configuration file of the working directory or, where it has none of that name, of this project."""
    return Path(name) if Path(name).exists() or not (ROOT / name).exists() else ROOT / name


def _check_environment() -> None:
    """Refuse a PIPELINE__… variable that names no key; let `today` be an end there too."""
    known = {ENV_PREFIX + key.upper().replace(".", "__"): key for key in keys()}
    sections = {ENV_PREFIX + name.upper() for name in Config.model_fields}
    for name in [n for n in os.environ if n.startswith(ENV_PREFIX)]:
        if name not in known and name not in sections and not any(name.startswith(k + "__") for k in known):
            path = name.removeprefix(ENV_PREFIX).lower().replace("__", ".")
            raise ConfigError(f"{path}: unknown key (environment {name}){_nearest(path)}")
        if known.get(name, "").endswith(".end") and os.environ[name] == "today":
            os.environ[name] = _today()


def keys() -> list[str]:
    """Return the path of every key, such as train.batch_size."""
    out: list[str] = []

    def walk(model: type[BaseModel], prefix: str) -> None:
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                walk(kind, f"{prefix}{name}.")
            else:
                out.append(prefix + name)

    walk(Config, "")
    return out


def as_yaml(config: Config) -> str:
    """Return the whole configuration as YAML, as it was used; sections hold no secrets."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"expected a configuration file at {path}, got: {error.strerror}; see configs/ for those that exist"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected YAML in {path}, got: {error}") from error
    if not isinstance(found or {}, dict):
        raise ConfigError(f"expected sections (section: key: value) in {path}, got {type(found).__name__}")
    return found or {}


def _resolved(values: dict[str, Any]) -> dict[str, Any]:
    """Replace `end: today` by the last KRX session that has closed, so that every key and manifest names a date."""
    return {
        k: _resolved(v) if isinstance(v, dict) else (_today() if k == "end" and v == "today" else v)
        for k, v in values.items()
    }


@functools.cache
def _today() -> str:
    return str(krx.last_closed_session(datetime.now(UTC)))


def _laid_over(under: dict[str, Any], over: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return the values of both, of `over` where both have one; a section that `over` leaves empty changes nothing.
    Within a setting, such as search.space, each name's value is taken whole.
    """
    out, whole = dict(under), path in keys()
    for key, given in over.items():
        below = out.get(key)
        if isinstance(below, dict) and isinstance(given, dict) and not whole:
            out[key] = _laid_over(below, given, f"{path}.{key}".lstrip("."))
        elif given is not None or not isinstance(below, dict):
            out[key] = given
    return out


def _paths(values: dict[str, Any], prefix: str = "") -> list[str]:
    out = []
    for key, value in values.items():
        out += [f"{prefix}{key}", *(_paths(value, f"{prefix}{key}.") if isinstance(value, dict) else ())]
    return out


def _nearest(path: str) -> str:
    known = keys() if "." in path else list(Config.model_fields)
    found = difflib.get_close_matches(path, known, 1, 0.5)
    if not found and "." not in path:
        known = keys()
    last = path.rsplit(".", 1)[-1]
    by_name = difflib.get_close_matches(last, [k.rsplit(".", 1)[-1] for k in known], 1, 0.7)
    if not found and by_name:
        found = [k for k in known if k.rsplit(".", 1)[-1] == by_name[0]][:1]
    return f"; did you mean {found[0]}?" if found else "; --help lists every key"


def _unknown_option(word: str) -> str:
    if not word.startswith("-"):
        return f"unexpected word {word!r}; the values of a list are joined by commas: --section.key a,b"
    path = word.lstrip("-").split("=")[0]
    return f"unknown option {word!r}{_nearest(path)}"


def _sentence(error: Any, origin: dict[str, str]) -> str:
    path = ".".join(str(part) for part in error["loc"])
    key = next((k for k in keys() if path.startswith(f"{k}.")), path)  # an item is from where its list is
    where = origin.get(key, "environment or command line")
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key ({where}){_nearest(path)}"
    if error["type"] == "value_error" and ", got" in (said := str(error["ctx"]["error"])):
        # A sentence of the section's own; several keys together are from nowhere.
        return f"{path}: {said}" + ("" if path in Config.model_fields else f" ({where})")
    return f"{path}: {error['msg'][:1].lower()}{error['msg'][1:]}, got {error['input']!r} ({where})"
