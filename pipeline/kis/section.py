"""Configuration of the broker's API and of the simulator that stands in for it. Keys are named here, never held."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import ValidationInfo, field_validator

from pipeline.provenance import code_digest
from storage.section import Section, setting

from .limiter import SLOTS
from .token import Credentials

SIMULATOR = "pipeline.kis.simulator.server"
Environment = Literal["auto", "simulator", "live", "paper"]
URL = r"^(https?://[^\s/]\S*)?$"


@dataclass(frozen=True)
class Host:
    """Where an environment is and how many calls a second it takes from one key."""

    rest: str
    master: str
    calls_per_second: float


_MASTER = "https://new.real.download.dws.co.kr/common/master/"
HOSTS = {
    "live": Host("https://openapi.koreainvestment.com:9443", _MASTER, 18.0),  # notice of 2026-04-20
    "paper": Host("https://openapivts.koreainvestment.com:29443", _MASTER, 1.0),
    "simulator": Host("", "", 200.0),
}


class SimulatorSection(Section):
    """The simulated market and the server that shows it."""

    seed: int = setting(7, "names the market: the same seed gives the same prices", ge=0, lt=2**32)
    symbols: int = setting(120, "issues in the market, delisted ones and funds among them", ge=1, le=10_000)
    signal: float = setting(0.1, "strength of the planted cross-sectional signal; 0 = none", ge=0, le=1)
    clock: str = setting("", "the server's now, ISO with zone; empty = the evening of the last day asked for")
    day_ends: Literal["close", "evening"] = setting(
        "close", "evening = bars of KRX hold the trades after 16:00; kis.day_ends says how they are read"
    )
    quota: int = setting(200, "calls that the server takes in a second; 0 = any number", unit="1/s", ge=0, runtime=True)
    port: int = setting(0, "port of the server on loopback; 0 = any free", ge=0, le=65535, runtime=True)
    faults: str = setting("", "YAML file with faults that the server plays; empty = none", unit="path", runtime=True)
    start_s: float = setting(30.0, "patience for the server's start", unit="s", gt=0, runtime=True)


class KisSection(Section):
    """The broker's API: which environment, how fast, with whose keys."""

    live_key: str = setting(
        "LIVE_KIS_APP_KEY",
        "variable with the live app key; further keys: the same with _2, _3, …",
        min_length=1,
        runtime=True,
    )
    live_secret: str = setting("LIVE_KIS_APP_SECRET", "variable with the live secret", min_length=1, runtime=True)
    live_account: str = setting("LIVE_KIS_ACCOUNT_NUMBER", "variable with the live account", min_length=1, runtime=True)
    paper_key: str = setting(
        "PAPER_KIS_APP_KEY",
        "variable with the paper app key; further keys: the same with _2, _3, …",
        min_length=1,
        runtime=True,
    )
    paper_secret: str = setting("PAPER_KIS_APP_SECRET", "variable with the paper secret", min_length=1, runtime=True)
    paper_account: str = setting(
        "PAPER_KIS_ACCOUNT_NUMBER", "variable with the paper account", min_length=1, runtime=True
    )
    environment: Environment = setting("auto", "auto = live when the live app key is set, otherwise the simulator")
    rest_url: str = setting("", "address of the REST server instead of the environment's own", pattern=URL)
    master_url: str = setting("", "address of the symbol master files instead of the environment's own", pattern=URL)
    calls_per_second: float | None = setting(
        None,
        "calls started in any second with one app key; empty = 18 live, 1 paper, 200 simulator; 0 = no limit",
        unit="1/s",
        ge=0,
        le=SLOTS,
        runtime=True,
    )
    max_workers: int = setting(16, "calls in flight", ge=1, le=256, runtime=True)
    timeout_s: float = setting(15.0, "patience for one answer", unit="s", gt=0, le=600, runtime=True)
    retries: int = setting(8, "times that a call is made again after a fault", ge=0, le=100, runtime=True)
    token_folder: str = setting(
        "~/.cache/krx-research-pipeline/kis", "folder of access tokens and call counts", unit="path", runtime=True
    )
    day_ends: Literal["close", "evening"] = setting(
        "close", "when a daily bar of KRX is over; whether it holds the trades after 16:00 is not documented"
    )
    index_volume: float = setting(1e3, "what the broker counts as one in volumes of indices", unit="shares", gt=0)
    index_turnover: float = setting(1e6, "what it counts as one in turnovers of indices", unit="KRW", gt=0)
    flow_turnover: float = setting(1e6, "what it counts as one in turnovers of investors", unit="KRW", gt=0)
    simulator: SimulatorSection = setting(SimulatorSection, "the market that stands in for the broker")

    @field_validator("environment")
    @classmethod
    def _resolved(cls, value: Environment, info: ValidationInfo) -> Environment:
        """Settle `auto` when the configuration is read, so that keys and manifests name what was used."""
        if value != "auto":
            return value
        return "live" if os.environ.get(info.data.get("live_key", ""), "").strip() else "simulator"

    @field_validator("rest_url", "master_url")
    @classmethod
    def _private(cls, value: str, info: ValidationInfo) -> str:
        """Refuse to send real keys, or to take the list of symbols, over a wire that others can read and change."""
        environment = info.data.get("environment")
        if value.startswith("http:") and environment != "simulator" and not loopback(value):
            raise ValueError(
                f"expected https:// for another host in the environment {environment}: http:// sends keys and data in "
                "the clear and is taken for this host (127.0.0.1) only"
            )
        return value

    @property
    def embedded(self) -> bool:
        """Say whether the simulator has to be started: it is asked for and no address of a running one is given."""
        return self.environment == "simulator" and not self.rest_url

    @property
    def rate(self) -> float:
        """Calls a second; 0 = no limit."""
        given = self.calls_per_second
        if given is None and self.embedded:
            return float(self.simulator.quota)
        return HOSTS[self.environment].calls_per_second if given is None else given

    @property
    def keys(self) -> int:
        """Number of app keys, each with a rate of its own. CredentialsError says what is missing."""
        return len(self.credentials())

    def keyed(self) -> dict[str, Any]:
        """Return what the market's content depends on; for the simulator its code is part of that."""
        out = super().keyed()
        if self.environment == "simulator":
            out["simulator"]["code"] = code_digest(SIMULATOR)
        else:
            del out["simulator"]
        return out

    def variables(self) -> tuple[str, str, str]:
        """Return the names of the variables with key, secret and account; those of further keys end in _2, _3, …"""
        if self.environment == "paper":
            return self.paper_key, self.paper_secret, self.paper_account
        return self.live_key, self.live_secret, self.live_account

    def credentials(self) -> tuple[Credentials, ...]:
        """Read the app keys of this environment; the simulator takes any. CredentialsError says what is missing."""
        if self.environment == "simulator":
            return (Credentials("PSsimulator".ljust(36, "0"), "simulator".ljust(180, "0")),)
        return Credentials.all_from_environment(*self.variables())


def loopback(url: str) -> bool:
    """Say whether an address is on this host."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
