"""The answer to one of the doctor's questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """Hold the answer to one question; `what_to_do` is empty where nothing is to be done."""

    name: str
    status: Status
    text: str
    what_to_do: str = ""
