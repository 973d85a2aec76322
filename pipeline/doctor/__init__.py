"""Say, before any work is done, whether this machine can run the pipeline, and for each fault what to do.

Only the standard library is imported at the top, so that it also runs where nothing is installed yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .finding import Finding, Status
from .gpu import Device, gpus
from .learning import precision
from .machine import calendar, clock, cpu, disk, folders, memory, time_zones, writable
from .packages import installed, python, requirements

if TYPE_CHECKING:
    from pipeline.config import Config

__all__ = ["DoctorError", "Finding", "Status", "run_checks"]

KEYS = ("LIVE_KIS_APP_KEY", "LIVE_KIS_APP_SECRET", "LIVE_KIS_ACCOUNT_NUMBER", "REDIS_URL", "CUDA_VISIBLE_DEVICES")


class DoctorError(Exception):
    """A machine that cannot run the pipeline as it is."""


def run_checks(config: Config | None = None, *, trains: bool = True) -> list[Finding]:
    """Ask everything; without a configuration the default folders and device auto are taken.

    `trains` says whether models are to be fitted: what only they need is asked then. No value of a key is read out.
    """
    data, runs, lake = "data", "runs", "data/lake"
    device: Device = "auto"
    keys_needed: tuple[str, ...] = ()
    if config is not None:
        data, runs, device = config.run.data, config.run.runs, config.cluster.device
        lake = config.lake.path or f"{data}/lake"
        keys_needed = needed_keys(config)
    written = folders(Path(data), Path(runs), Path(lake))
    if config is not None and asks_a_broker(config):
        written["kis.token_folder"] = Path(config.kis.token_folder).expanduser()
    return [
        python(),
        *installed(requirements("")),
        cpu(),
        memory(),
        disk(Path(data)),
        *(writable(name, folder) for name, folder in written.items()),
        *gpus(device),
        *(precision(config) if config is not None and trains else ()),
        *keys(os.environ, keys_needed),
        clock(),
        *time_zones(),
        calendar(),
    ]


def needed_keys(config: Config) -> tuple[str, ...]:
    """Return the variables without which this configuration cannot ingest: none for files and for the simulator."""
    if not asks_a_broker(config) or config.kis.environment == "simulator":
        return ()
    return config.kis.variables()[:2]


def asks_a_broker(config: Config) -> bool:
    """Say whether ingest asks a server that this program does not start itself."""
    return not config.ingest.path and not config.kis.embedded


def keys(environment: Mapping[str, str], needed: tuple[str, ...]) -> Iterator[Finding]:
    """Say which variables are set, never what they hold."""
    for name in dict.fromkeys((*needed, *KEYS)):
        if environment.get(name, "").strip():
            yield Finding(f"key {name}", "ok", "set")
        elif name in needed:
            yield Finding(
                f"key {name}",
                "fail",
                "not set",
                "put it into .env (see .env.example), or set kis.environment=simulator",
            )
        else:
            yield Finding(f"key {name}", "ok", "not set; this run does not need it")
