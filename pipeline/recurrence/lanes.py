"""The GPU driver: one thread a lane calls the same kernels on time-major tiles. A lane is a series, or a piece of a
long one, with one set of parameters.

All batches, and all kernels of one, run at once, each kernel on a stream of its own; memory is made once, and nothing
of the data goes through the host. The CUDA simulator runs every line of it with NumPy arrays. Not run on hardware so
far.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import config, cuda

from .grids import column_grid, kernel_grid, tile_grid
from .pieces import Pieces, cut_series, cuts_of
from .plan import AS_IS, Carry, Plan, Series

BYTES = 8 << 30  # of tiles at once, unless a chunk is given; never more than half of what is free
STREAMS = 32  # of a batch
_EVENT = {} if config.ENABLE_CUDASIM else {"timing": False}  # the simulator's take no options


class Shape(NamedTuple):
    """Say how the work is laid out: lanes of a block; side of the squares that are transposed, and the block that
    does it.
    """

    threads: int = 64
    side: int = 32
    block: tuple[int, int] = (32, 4)


SHAPE = Shape()


def run_lanes(
    plan: Plan,
    src_CN: Any,
    series: Series,
    dst_ON: Any,
    *,
    carry: Carry | None = None,
    chunk: int | None = None,
    lanes: int | None = None,
    pieces: int | None = None,
    shape: Shape = SHAPE,
) -> None:
    """Compute the columns of a plan on the GPU: the contract of `run_tiles`, with CuPy arrays and the carry on the
    device.

    Without a carry, series are cut into pieces where there are too few of them to give the GPU `lanes` (None = as many
    threads as it holds at once): cut, results agree with uncut ones within the tolerance of the indicators, not bit for
    bit. pieces : cut the longest series into so many, and others alike, whatever is wanted; 1 = cut nothing. A pass
    with infinite warm-up is never cut. A carry that is given leaves cut series with their last piece's state.
    chunk : bars that are time-major at once, None = as many as fit into BYTES and half of the free memory; no bit
    depends on it.
    """
    if not series.lengths.any():
        return
    xp = sys.modules[type(src_CN).__module__.partition(".")[0]]
    batches = batches_of(plan, series, xp, carry=carry, chunk=chunk, lanes=lanes, pieces=pieces, shape=shape)
    caller, src, dst = _caller(xp), as_given(src_CN), as_given(dst_ON)
    ways = [_streams(cuda.current_context().device, i) for i in range(len(batches))]
    try:
        _wait(caller, *(streams[0] for streams in ways))
        for batch, streams in zip(batches, ways):
            for begin in batch.begins:
                batch.load(src, begin, streams[0])
                batch.step(begin, streams)
                batch.store(dst, begin, streams[0])
        for streams in ways:
            _wait(streams[0], caller)
    except BaseException:
        cuda.synchronize()  # else the tiles would be let go, and given to others, while kernels still write to them
        raise
    if carry is not None:
        past = _past(src_CN, series, carry.past_CHN, xp)
        for batch in batches:
            batch.keep(carry, series)
        carry.past_CHN[...] = past


def batches_of(
    plan: Plan,
    series: Series,
    xp: Any,
    *,
    carry: Carry | None = None,
    chunk: int | None = None,
    lanes: int | None = None,
    pieces: int | None = None,
    shape: Shape = SHAPE,
) -> list[Batch]:
    """Return the batches that `run_lanes` runs, those of the longest pieces first, with their memory."""
    if pieces is None and carry is not None:
        pieces = 1
    warmups = [p.warmup for p in plan.passes]
    cuts = cuts_of(warmups, series, lanes=_capacity() if lanes is None else lanes, pieces=pieces)
    size = _bytes(xp) // len(cuts)
    return [Batch(plan, cut.passes, cut_series(series, cut), xp, carry, chunk, size, shape) for cut in cuts]


class Batch:
    """Hold passes whose series are cut alike: the memory of their lanes and what each launch is given."""

    def __init__(
        self,
        plan: Plan,
        passes: Sequence[int],
        pieces: Pieces,
        xp: Any,
        carry: Carry | None,
        chunk: int | None,
        size: int,
        shape: Shape,
    ) -> None:
        self.plan, self.pieces, self.xp, self.H, self.shape = plan, pieces, xp, plan.past, shape
        table = plan.table
        groups: dict[Any, list[int]] = {}
        for i in passes:
            p = plan.passes[i]
            groups.setdefault((p.kernel, p.first_input, p.inputs, p.state, p.outputs), []).append(i)
        self.passes = [i for some in groups.values() for i in some]
        inputs = [(plan.passes[i].first_input, plan.passes[i].inputs) for i in self.passes]
        if any(w.over != AS_IS for i in self.passes for w in plan.passes[i].writes):
            inputs.append((plan.close, 1))
        self.inputs = slice(min(first for first, _ in inputs), max(first + count for first, count in inputs))
        self.state_rows, self.out_rows = _rows(plan, self.passes, "state"), _rows(plan, self.passes, "outputs")
        C, O, S = self.inputs.stop - self.inputs.start, self.out_rows[-1], pieces.lengths.size
        longest = int(pieces.lengths[0])
        T = min(longest, chunk or max(self.H, size // (8 * (C + O) * S) - self.H))
        self.begins = range(0, longest, T)
        self.x_CTS, self.out_OTS = xp.empty((C, self.H + T, S)), xp.empty((O, self.H + T, S))
        self.state_KS = xp.zeros((self.state_rows[-1], S))
        for i, row in zip(self.passes, self.out_rows):
            if own := plan.passes[i].own:
                self.out_OTS[row : row + plan.passes[i].outputs, self.H - own : self.H] = xp.nan
        past = xp.zeros((C, 1, 1))
        goes_on = np.full(S, -1, np.int64)
        if carry is not None:
            past = xp.ascontiguousarray(carry.past_CHN[self.inputs])
            goes_on = np.where(pieces.before == 0, pieces.series, -1)
            self._resume(carry, xp.asarray(np.flatnonzero(goes_on >= 0)), xp.asarray(goes_on[goes_on >= 0]))
        writes = [
            (row + w.output, w.column, w.over)
            for i, row in zip(self.passes, self.out_rows)
            for w in plan.passes[i].writes
        ]
        self.writes = as_given(xp.asarray(np.array(writes, np.int64).reshape(-1, 3)))
        self.starts, self.lengths, self.early, self.goes_on = (
            as_given(xp.asarray(each)) for each in (pieces.starts, pieces.lengths, pieces.early, goes_on)
        )
        self.past, self.x, self.out = as_given(past), as_given(self.x_CTS), as_given(self.out_OTS)
        self.launches = []
        at = 0
        for (kernel, first, count, state, outputs), some in groups.items():
            k, o = self.state_rows[at], self.out_rows[at]
            self.launches.append(
                (
                    kernel_grid(kernel),
                    len(some),
                    as_given(self.x_CTS[first - self.inputs.start :][:count]),
                    as_given(xp.asarray(table.params[some])),
                    as_given(xp.asarray(table.meta[some, 6])),
                    as_given(self.state_KS[k : k + state * len(some)]),
                    as_given(self.out_OTS[o : o + outputs * len(some)]),
                )
            )
            at += len(some)

    def load(self, src: Any, begin: int, stream: Any) -> None:
        """Bring the inputs of a chunk, and the rows before it, into the tile."""
        C, rows, S = self.x.shape
        blocks = (-(-S // self.shape.side), -(-rows // self.shape.side), C)
        tile_grid(self.shape.side)[blocks, self.shape.block, stream](
            src[self.inputs], self.starts, self.lengths, self.past, self.goes_on, begin, self.H, self.x
        )

    def step(self, begin: int, streams: Sequence[Any]) -> None:
        """Run every kernel over a chunk, each on the next stream; the first one waits for all."""
        blocks = -(-self.x.shape[2] // self.shape.threads)
        others = streams[1 : len(self.launches)]
        _wait(streams[0], *others)
        for n, (grid, sets, x, params, own, state, out) in enumerate(self.launches):
            stream = streams[n % len(streams)]
            grid[(blocks, sets), self.shape.threads, stream](x, params, own, state, out, self.lengths, begin, self.H)
        for stream in others:
            _wait(stream, streams[0])

    def store(self, dst: Any, begin: int, stream: Any) -> None:
        """Write the columns of a chunk."""
        if self.writes.shape[0]:
            rows, S = self.out.shape[1] - self.H, self.out.shape[2]
            blocks = (-(-S // self.shape.side), -(-rows // self.shape.side), self.writes.shape[0])
            column_grid(self.shape.side)[blocks, self.shape.block, stream](
                self.x, self.plan.close - self.inputs.start, self.out, self.writes, self.starts, self.lengths,
                self.early, begin, self.H, dst,
            )  # fmt: skip

    def keep(self, carry: Carry, series: Series) -> None:
        """Leave the state after the last bars of all series, with one kind of NaN; the count is that of the whole
        series, cut or not.
        """
        last = np.flatnonzero(self.pieces.last)
        which = self.pieces.series[last]
        lengths, n, lanes = (self.xp.asarray(each) for each in (series.lengths[which], which, last))
        for i, k, o in zip(self.passes, self.state_rows, self.out_rows):
            p, meta = self.plan.passes[i], self.plan.table.meta[i]
            carry.state_KN[meta[2], n] += lengths
            carry.state_KN[meta[2] + 1 : meta[3], n] = self._one_nan(self.state_KS[k + 1 : k + p.state, lanes])
            if p.own:
                own = slice(self.H - p.own, self.H)
                kept = self._one_nan(self.out_OTS[o : o + p.outputs, own, lanes])
                carry.own_QHN[meta[9] : meta[9] + p.outputs, own, n] = kept

    def _one_nan(self, values: Any) -> Any:
        return self.xp.where(self.xp.isnan(values), self.xp.nan, values)

    def _resume(self, carry: Carry, lanes: Any, n: Any) -> None:
        for i, k, o in zip(self.passes, self.state_rows, self.out_rows):
            p, meta = self.plan.passes[i], self.plan.table.meta[i]
            self.state_KS[k : k + p.state, lanes] = carry.state_KN[meta[2] : meta[3], n]
            if p.own:
                own = slice(self.H - p.own, self.H)
                self.out_OTS[o : o + p.outputs, own, lanes] = carry.own_QHN[meta[9] : meta[9] + p.outputs, own, n]


def _rows(plan: Plan, passes: Sequence[int], what: str) -> list[int]:
    """Return the first row of each pass where they lie one after another, and the number of rows."""
    return [0, *np.cumsum([getattr(plan.passes[i], what) for i in passes]).tolist()]


def _past(src_CN: Any, series: Series, past_CHN: Any, xp: Any) -> Any:
    """Return the last H input rows of each series: of its new bars, and before them those of its past."""
    C, H, N = past_CHN.shape
    starts, lengths = xp.asarray(series.starts), xp.asarray(series.lengths)
    bar_HN = lengths - H + xp.arange(H)[:, None]
    row_HN, before_HN = xp.maximum(starts + bar_HN, 0), xp.clip(H + bar_HN, 0, H - 1)
    out = xp.empty_like(past_CHN)
    for c in range(C):
        old = past_CHN[c][before_HN, xp.arange(N)]
        out[c] = xp.where(bar_HN >= 0, src_CN[c][xp.where(bar_HN >= 0, row_HN, 0)], old)
    return out


def _capacity() -> int:
    """Return how many threads this GPU holds at once; the simulator does not say: 0."""
    device = cuda.current_context().device
    return int(getattr(device, "MULTIPROCESSOR_COUNT", 0) * getattr(device, "MAX_THREADS_PER_MULTI_PROCESSOR", 0))


def _bytes(xp: Any) -> int:
    """Return how many bytes tiles may take: what CuPy keeps for later is as free as what the device has left."""
    if xp is np:
        return BYTES
    free = xp.cuda.runtime.memGetInfo()[0] + xp.get_default_memory_pool().free_bytes()
    return int(min(BYTES, free // 2))


@functools.cache
def _streams(device: Any, batch: int) -> list[Any]:
    return [cuda.stream() for _ in range(STREAMS)]


def _caller(xp: Any) -> Any:
    """Return the stream on which the arrays' module works; NumPy has none."""
    return cuda.stream() if xp is np else cuda.external_stream(xp.cuda.get_current_stream().ptr)


def _wait(first: Any, *streams: Any) -> None:
    """Let streams wait for what has been given to the first one so far."""
    event = cuda.event(**_EVENT)
    event.record(first)
    for stream in streams:
        event.wait(stream)


def as_given(array: Any) -> Any:
    """Return an array as Numba sees it, without a copy and without waiting; the simulator takes NumPy's own."""
    return cuda.as_cuda_array(array, sync=False) if hasattr(array, "__cuda_array_interface__") else array
