"""What goes wrong on purpose: a YAML file names faults and their rates, a seed makes their order repeatable."""

import random
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from storage.section import Section, setting


class FaultError(ValueError):
    """A file of faults that cannot be used."""


class Faults(Section):
    """Rates from 0 to 1 of what happens to a quotation call, in this order; at most one of the first three happens to a
    call."""

    seed: int = setting(0, "seed of the faults")
    reset: float = setting(0.0, "connection closed without an answer", ge=0.0, le=1.0)
    html_500: float = setting(0.0, "HTTP 500 with an HTML page", ge=0.0, le=1.0)
    rejected: float = setting(0.0, "EGW00201 although inside the quota", ge=0.0, le=1.0)
    slow: float = setting(0.0, "answer held back", ge=0.0, le=1.0)
    slow_seconds: float = setting(1.0, "how long", unit="s", ge=0.0, le=120.0)
    duplicated: float = setting(0.0, "page with a row repeated", ge=0.0, le=1.0)
    empty: float = setting(0.0, "page with empty {} rows among the others", ge=0.0, le=1.0)


def load(path: Path) -> Faults:
    """Read a YAML file of faults. Raises FaultError with the key and what it should be."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Faults(**({} if content is None else content))
    except OSError as error:
        raise FaultError(f"--faults {path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        raise FaultError(
            f"--faults {path}: expected YAML with names and rates, got {type(error).__name__}: {error}"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(Faults.model_fields)
        raise FaultError(
            f"--faults {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; known names: {known}"
        ) from None


class Mischief:
    """The dice behind the faults of one server."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._dice = random.Random(faults.seed)
        self.idle = not any(
            (faults.reset, faults.html_500, faults.rejected, faults.slow, faults.duplicated, faults.empty)
        )

    def happens(self, name: str) -> bool:
        """Roll for a fault by its name."""
        rate: float = getattr(self.faults, name)
        return rate > 0.0 and self._dice.random() < rate

    def spoil(self, rows: Sequence[bytes]) -> list[bytes]:
        """Repeat a row or put empty rows into a page of rendered rows, if the dice say so."""
        out = list(rows)
        if out and self.happens("duplicated"):
            at = self._dice.randrange(len(out))
            out.insert(at, out[at])
        if self.happens("empty"):
            out.insert(self._dice.randrange(len(out) + 1), b"{}")
            out.append(b"{}")
        return out
