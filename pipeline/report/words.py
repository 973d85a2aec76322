"""The texts of the report, one file a language; a test keeps their keys and placeholders in step."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

FILES = {"en": "en.json", "ko": "ko.json"}


@functools.cache
def texts(language: str) -> dict[str, str]:
    """Return all texts of a language by key."""
    found: dict[str, str] = json.loads(Path(__file__).with_name(FILES[language]).read_text(encoding="utf-8"))
    return found


def text(language: str, key: str, **values: object) -> str:
    """Return the text of a key with its placeholders filled in; KeyError for an unknown key or a missing value."""
    return texts(language)[key].format(**values)


def benchmark_name(backtest: dict[str, Any], language: str, kind: str = "benchmark") -> str:
    """Return what the portfolio is held against, for a legend ("benchmark") or a sentence ("f.against")."""
    choice = backtest["benchmark"]
    return text(language, f"{kind}.{choice if choice in ('equal', 'cap', 'none') else 'symbol'}", name=choice)
