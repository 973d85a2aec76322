"""What becomes of each row of a fold: a part uses it, or the first reason for which it does not.

Shapes: N rows sorted by (symbol, ts), T timestamps.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .panel import Panel
from .splits import GAP, NAMES, TEST, TRAIN, Fold

# outside : of no part, before a rolling training or after the test;  embargo : left out before a boundary;  look_back :
# training whose features or windows would read validation or test;  not_member : not in the universe;  warm_up : no
# complete window ends there;  unlabelled : nothing to learn or judge is known;  purged : the label ends in another
# part;  one_symbol : no other symbol of the moment is left to compare with
REASONS = ("outside", "embargo", "look_back", "not_member", "warm_up", "unlabelled", "purged", "one_symbol")
OUTSIDE, EMBARGO, LOOK_BACK, NOT_MEMBER, WARM_UP, UNLABELLED, PURGED, ONE_SYMBOL, USED = range(len(REASONS) + 1)


@dataclass
class LeftOut:
    """Hold for each row the part it is in, or in whose gap it lies, and why it is not used (int8, see REASONS)."""

    ts_N: NDArray[np.int64]
    part_N: NDArray[np.int8]
    why_N: NDArray[np.int8]

    @classmethod
    def of(cls, fold: Fold, ts_N: NDArray[np.int64], since_N: NDArray[np.int64]) -> LeftOut:
        """Say which rows boundaries leave out. since_N : the first bar that each row's features read. Of a gap before
        training the embargo takes as many timestamps as elsewhere, the look-back the others.
        """
        part_N = fold.of(ts_N)
        why_N = np.where(part_N == GAP, OUTSIDE, USED).astype(np.int8)
        stamps = np.unique(ts_N)
        for span, later in pairwise(fold.spans):
            gap_T = stamps[(stamps >= span.stop) & (stamps < later.start)]
            rest = gap_T[fold.embargo] if len(gap_T) > fold.embargo else later.start
            gap_N = (ts_N >= span.stop) & (ts_N < later.start)
            part_N[gap_N] = TRAIN if later.part == TRAIN else span.part
            why_N[gap_N] = np.where(ts_N[gap_N] < rest, EMBARGO, LOOK_BACK)
        why_N[fold.looking_back(ts_N, since_N)] = LOOK_BACK
        return cls(ts_N, part_N, why_N)

    def judge(self, fold: Fold, panel: Panel, complete_N: NDArray[np.bool_]) -> None:
        """Say which rows of parts are no members, end no complete window (complete_N says which do), have no label or
        are purged.
        """
        told = [
            (~panel.member_N, NOT_MEMBER),
            (~complete_N, WARM_UP),
            (np.isnan(panel.y_NH[:, 0]), UNLABELLED),
            (fold.purged(panel.ts_N, panel.end_N), PURGED),
        ]
        for rows_N, why in told:
            self.why_N[(self.why_N == USED) & rows_N] = why

    def without_target(self, target_N: NDArray[np.float32]) -> None:
        """Say which rows of training and validation have a label, but no target (N,): a rank among one symbol."""
        self.why_N[(self.why_N == USED) & (self.part_N != TEST) & np.isnan(target_N)] = ONE_SYMBOL

    def used(self, part: int) -> NDArray[np.bool_]:
        """Say which rows (N,) a part uses."""
        out_N: NDArray[np.bool_] = (self.why_N == USED) & (self.part_N == part)
        return out_N

    def empty(self) -> str:
        """Return the name of a part without a row to learn from or, in the test, to score; "" where all have some."""
        for name, code in NAMES.items():
            if not (self.why_N[self.part_N == code] >= (UNLABELLED if code == TEST else USED)).any():
                return name
        return ""

    @property
    def split_N(self) -> NDArray[np.int8]:
        """Return TRAIN, VALID, TEST or GAP (N,) of each row: what boundaries leave to a part."""
        return np.where(self.why_N > LOOK_BACK, self.part_N, GAP).astype(np.int8)

    def rows(self, part: int | None = None) -> dict[str, int]:
        """Count the rows left out for each reason, of one part or of all."""
        why_N = self.why_N if part is None else self.why_N[self.part_N == part]
        return dict(zip(REASONS, np.bincount(why_N, minlength=len(REASONS)).tolist()))

    def counts(self) -> dict[str, int]:
        """Count the rows of each part, used or not, and those left out."""
        split_N = self.split_N
        return {name: int((split_N == code).sum()) for name, code in NAMES.items()} | self.rows()

    def timestamps(self, part: int) -> tuple[int, dict[str, int]]:
        """Count the timestamps of a part, and those without a row left by the reason that took the last one."""
        mine_N = self.part_N == part
        stamps, code = np.unique(self.ts_N[mine_N], return_inverse=True)
        last_T = np.full(len(stamps), OUTSIDE, np.int8)
        np.maximum.at(last_T, code, self.why_N[mine_N])
        return len(stamps), dict(zip(REASONS, np.bincount(last_T, minlength=len(REASONS)).tolist()))
