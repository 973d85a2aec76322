"""How much of each: shares of equity for the chosen symbols.

Shapes: D decisions, S symbols, T sessions, V sessions ahead of them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .selection import Choice, Ints

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]

STILL = 1e-6  # a volatility up to this is a price that never moved, and what rounding leaves of it


def weigh(how: str, choice: Choice, score_DS: Floats, place_DS: Ints, volatility_DS: Floats, most: float) -> Floats:
    """Return shares of equity, (D, S) float64, negative = short; NaN = keep the shares there are.

    how : "equal", one slot each; else the slots of all that are chosen on a side are shared out by place ("rank": the
    last chosen 1, the one before 2, ...), by distance from the best score that is not chosen ("score"; from the last
    chosen where all are), or by 1 / volatility ("inverse_volatility"; an unknown one counts as the largest chosen).
    Where these are all zero or unknown, equal. place_DS : see `places`; volatility_DS : (D, S), read by the last only.
    most : no symbol gets more; what that cuts stays cash.
    """
    side_DS = choice.side_DS
    slot_D = 1.0 / choice.slots_D
    out = side_DS * slot_D[:, None]
    if how != "equal":
        count_D = np.isfinite(score_DS).sum(axis=1)
        for side in (1, -1):
            mine_DS = side_DS == side
            near_DS = place_DS if side > 0 else count_D[:, None] - 1 - place_DS  # 0 = the first of this side
            raw_DS = _raw(how, mine_DS, side * score_DS, near_DS, volatility_DS)
            n_D, total_D = mine_DS.sum(axis=1), raw_DS.sum(axis=1)
            some_D = total_D > 0
            share_DS = np.divide(raw_DS, total_D[:, None], out=np.zeros_like(raw_DS), where=some_D[:, None])
            shared_DS = side * share_DS * (n_D * slot_D)[:, None]
            out = np.where(mine_DS & some_D[:, None], shared_DS, out)
    out = np.clip(out, -most, most)
    return np.where(choice.kept_DS, np.nan, out)


def _raw(how: str, mine_DS: npt.NDArray[np.bool_], score_DS: Floats, near_DS: Ints, volatility_DS: Floats) -> Floats:
    """Return what the chosen of one side are weighed by; zero elsewhere."""
    n_D = mine_DS.sum(axis=1)
    if how == "rank":
        return np.where(mine_DS, n_D[:, None] - near_DS, 0).astype(np.float64)
    if how == "score":
        others_D = np.where(mine_DS | ~np.isfinite(score_DS), -np.inf, score_DS).max(axis=1)
        last_D = np.where(mine_DS, score_DS, np.inf).min(axis=1)
        cut_D = np.where(np.isfinite(others_D), others_D, last_D)
        with np.errstate(invalid="ignore"):
            return np.where(mine_DS, score_DS - cut_D[:, None], 0.0)
    known_DS = mine_DS & (volatility_DS > STILL)
    largest_D = np.where(known_DS, volatility_DS, 0.0).max(axis=1)
    used_DS = np.where(known_DS, volatility_DS, largest_D[:, None])
    return np.divide(1.0, used_DS, out=np.zeros_like(used_DS), where=mine_DS & (used_DS > 0))


def volatility(past_VS: Floats, return_TS: Floats, rows_D: Longs, window: int) -> Floats:
    """Return the standard deviation of the returns of the last `window` sessions up to each decision, (D, S).

    past_VS, return_TS : simple returns adjusted for actions, before and during the sessions, NaN = no bar. NaN with
    fewer than half of the window.
    """
    all_NS = np.concatenate([past_VS, return_TS])
    out = np.full((len(rows_D), all_NS.shape[1]), np.nan)
    known_NS = np.isfinite(all_NS)
    sums = [_sums(known_NS.astype(np.float64)), _sums(np.where(known_NS, all_NS, 0.0))]
    sums.append(_sums(np.where(known_NS, all_NS**2, 0.0)))
    last_D = rows_D + len(past_VS) + 1
    first_D = np.maximum(last_D - window, 0)
    n_DS, sum_DS, square_DS = (one[last_D] - one[first_D] for one in sums)
    enough = n_DS >= max(window / 2, 2.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = (square_DS - sum_DS**2 / n_DS) / (n_DS - 1)
    out[enough] = np.sqrt(np.maximum(variance[enough], 0.0))
    return out


def _sums(value_NS: Floats) -> Floats:
    """Return sums of the first 0..N rows."""
    return np.concatenate([np.zeros((1, value_NS.shape[1])), np.cumsum(value_NS, axis=0)])
