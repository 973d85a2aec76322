"""Corporate actions from the base price that exchange files tell beside a close: close - change."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import actions
from storage.schema import ACTIONS, BARS

from .cells import Floats
from .section import ACTION_COLUMNS

# A stock has an action less than once a year, and a year has 250 sessions. Where more than this share of the bases
# leaves the close before, the column is no change in won, has lost its sign, or is on another basis than the closes.
BELIEVED, JUDGED = 0.05, 100


def found_in(good: pa.Table, base: Floats) -> tuple[pa.Table | None, int]:
    """Return the ACTIONS, without source and ingested_at, that daily bars and their base prices show, and how many
    bases are of no use.

    good : bars sorted by (symbol, ts). base : KRW, one a bar, NaN = unknown. One day after another of a symbol counts,
    whichever file it came from. None where the bases cannot be believed; the number is then that of all of them.
    """
    symbol, close = good["symbol"], good["close"].to_numpy()
    same = np.zeros(len(base), bool)
    same[1:] = pc.equal(symbol.slice(1), symbol.slice(0, max(len(base) - 1, 0))).to_numpy()
    compared = same & ~np.isnan(base)
    left = compared.copy()
    left[1:] &= base[1:] != close[:-1]
    if compared.sum() >= JUDGED and left.sum() > BELIEVED * compared.sum():
        return None, int((~np.isnan(base)).sum())
    at = np.flatnonzero(left)
    both = np.union1d(at, at - 1)  # detect looks at a bar and the one before it
    pairs = good.take(pa.array(both)).cast(pa.schema([BARS.field(name) for name in good.column_names]))
    pairs = pairs.append_column("base", pa.array(base[both]))
    given = {name: pa.nulls(pairs.num_rows, ACTIONS.field(name).type) for name in ("source", "ingested_at")}
    for name, column in given.items():
        pairs = pairs.append_column(name, column)
    return actions.detect(pairs).select(ACTION_COLUMNS.names), 0
