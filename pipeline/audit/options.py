"""Options that audits of columns and of scores share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from . import AuditError


def options(prog: str, checks: Iterable[str]) -> argparse.ArgumentParser:
    """Return a parser of --symbols, --checks, --tries and --seed, whose errors `parsed` tells."""
    own = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False, exit_on_error=False)
    own.add_argument("--symbols", type=_list, default=[])
    own.add_argument("--checks", type=_list, default=list(checks))
    own.add_argument("--tries", type=int, default=20)
    own.add_argument("--seed", type=int, default=0)
    return own


def parsed(own: argparse.ArgumentParser, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options and what is left of the words. Raises AuditError."""
    try:
        return own.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise AuditError(f"{error}; --help lists the options") from error


def _list(text: str) -> list[str]:
    return [word for word in text.replace(" ", "").split(",") if word]
