"""Iterations of a search that are kept on the way, so that an interrupted search does not run them again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from pipeline.provenance import code_digest, versions
from pipeline.recurrence.parts import parts_digest
from pipeline.strategies.declare import Strategy, StrategyError
from storage.emit import Emit
from storage.section import digest_of
from storage.store import replacing

from .chunks import Span
from .driver import bound
from .frames import PRICES
from .instrument import Instrument
from .section import AccountSection, MetaSection
from .trials import Counted

Array = npt.NDArray[Any]
NUMBERS = (*PRICES, "volume", "turnover")  # of bars, what columns are computed on


class Kept:
    """Keep what the iterations of one search counted in a folder, a file each.

    asked : see `asked_for`; written into each file, so that nothing of another search is taken. emit : hears, in a
    sentence each, what is taken and what is not. Raises StrategyError for a folder that cannot be written.
    """

    def __init__(self, folder: str | Path, asked: str, emit: Emit) -> None:
        self.folder, self.asked, self.emit = Path(folder), asked, emit
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StrategyError(
                f"expected a folder for the iterations of a search as kept, got '{error.strerror}' at {folder}; give "
                "another"
            ) from error

    def take(self, number: int, code_CP: Array) -> Counted | None:
        """Return what the iteration of that number (from 0) counted; None where it is not there, is damaged, or is of
        another search or other combinations.
        """
        path = self._path(number)
        try:
            with np.load(path, allow_pickle=False) as file:
                asked, found = str(file["asked"]), Counted(*(file[name] for name in Counted._fields))
        except FileNotFoundError:
            return None
        except Exception as error:  # damaged bytes fail anywhere in the readers
            wrong = f"expected what it counted in {path}, got: {error}"
        else:
            same = np.array_equal(found.code_CP, code_CP)
            wrong = f"{path} is of other {'combinations' if asked == self.asked else 'bars, settings or code'}"
            wrong = "" if asked == self.asked and same else wrong
        if wrong:
            self.emit("log", level="warning", text=f"iteration {number + 1} is run again: {wrong}")
            return None
        self.emit("log", level="info", text=f"iteration {number + 1}: {len(code_CP):,} combinations taken from {path}")
        return found

    def put(self, number: int, counted: Counted) -> None:
        """Write what an iteration counted; readers see the old file or the new one, never a part. What cannot be
        written is said, and the search goes on without it.
        """
        path = self._path(number)
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, asked=np.array(self.asked), **counted._asdict())
        except OSError as error:
            text = (
                f"iteration {number + 1} is not kept: expected to write {path}, got '{error.strerror}'; free the disk"
            )
            self.emit("log", level="warning", text=f"{text} or give another folder, or an interruption loses it")

    def _path(self, number: int) -> Path:
        return self.folder / f"iteration-{number + 1}.npz"


def asked_for(
    found: Sequence[Instrument],
    spans: Sequence[tuple[Span, Span]],
    strategy: Strategy,
    account: AccountSection,
    section: MetaSection,
) -> str:
    """Name all that decides what given combinations count: bars, days, strategy, account, what makes the score, code
    and packages. What only draws combinations or stops is not in it, so that a search can be made longer.
    """
    total = xxhash.xxh3_128()
    for each, halves in zip(found, spans):
        total.update(f"{each.symbol}:{each.venue}:{each.interval}:{len(each)}".encode())
        arrays = (
            each.bars["ts"].to_numpy(),
            each.day_T,
            each.price_TC,
            each.flag_T,
            each.rule_TC,
            each.fact_TC,
            each.tick_RBC,
        )
        columns = (each.bars[name].to_numpy(np.float64) for name in NUMBERS if name in each.bars)
        for values in (*arrays, *columns, *(over.block_T for over in halves)):
            total.update(np.ascontiguousarray(values).tobytes())
        total.update(repr([(over.start, over.stop, over.year) for over in halves]).encode())
    declared = (strategy.parameters, strategy.columns, strategy.trigger, strategy.rising, strategy.lookback)
    return digest_of(
        {
            "bars": total.hexdigest(),
            "strategy": [repr(declared), parts_digest(bound(strategy.step))],
            "account": account.keyed(),
            "section": [section.periods, section.least_trades],
            "code": code_digest("pipeline.backtest.single.meta"),
            "versions": versions(),
        }
    )
