"""Move columns between long format (a series is a run of rows) and time-major tiles, 8 x 8 blocks transposed in
vector registers; lanes come in eights, or alone.

Half of the time of a set of indicators is spent writing its columns; a scalar loop here costs two to three times
more.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, register_jitable

_LANES = 8
_ELEMENTS = {types.float64: (ir.DoubleType(), 8), types.float32: (ir.FloatType(), 4)}


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose 8 vectors of 8 in 24 shuffles: pairs, then pairs of pairs, then halves."""

    def shuffle(a: Any, b: Any, mask: list[int]) -> Any:
        int32 = ir.IntType(32)
        return builder.shuffle_vector(
            a, b, ir.Constant(ir.VectorType(int32, _LANES), [ir.Constant(int32, m) for m in mask])
        )

    pairs = []
    for r in range(0, 8, 2):
        pairs.append(shuffle(rows[r], rows[r + 1], [0, 8, 2, 10, 4, 12, 6, 14]))
        pairs.append(shuffle(rows[r], rows[r + 1], [1, 9, 3, 11, 5, 13, 7, 15]))
    fours = {}
    for odd in range(2):
        for half in range(2):
            a, b = pairs[4 * half + odd], pairs[4 * half + 2 + odd]
            fours[odd, 0, half] = shuffle(a, b, [0, 1, 8, 9, 4, 5, 12, 13])
            fours[odd, 1, half] = shuffle(a, b, [2, 3, 10, 11, 6, 7, 14, 15])
    out: list[Any] = [None] * 8
    for odd in range(2):
        for two in range(2):
            a, b = fours[odd, two, 0], fours[odd, two, 1]
            out[odd + 2 * two] = shuffle(a, b, [0, 1, 2, 3, 8, 9, 10, 11])
            out[odd + 2 * two + 4] = shuffle(a, b, [4, 5, 6, 7, 12, 13, 14, 15])
    return out


def _block(to_long: bool) -> Any:
    """Make the intrinsic that copies a block between a tile and 8 runs of a column, converting float64 <-> float32 on
    the way.
    """

    def block(context: Any, tile: Any, at: Any, stride: Any, column: Any, offsets: Any, lane: Any, row: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            tile_array = context.make_array(signature.args[0])(context, builder, args[0])
            column_array = context.make_array(signature.args[3])(context, builder, args[3])
            offset_array = context.make_array(signature.args[4])(context, builder, args[4])
            int64 = ir.IntType(64)
            tile_type, tile_align = _ELEMENTS[signature.args[0].dtype]
            column_type, column_align = _ELEMENTS[signature.args[3].dtype]

            def vector(data: Any, offset: Any, element: Any) -> Any:
                return builder.bitcast(builder.gep(data, [offset]), ir.VectorType(element, _LANES).as_pointer())

            rows, runs = [], []
            for r in range(_LANES):
                offset = builder.add(args[1], builder.mul(args[2], ir.Constant(int64, r)))
                rows.append(vector(tile_array.data, offset, tile_type))
                start = builder.load(builder.gep(offset_array.data, [builder.add(args[5], ir.Constant(int64, r))]))
                runs.append(vector(column_array.data, builder.add(start, args[6]), column_type))
            if to_long:
                values = _transposed(builder, [builder.load(p, align=tile_align) for p in rows])
                if column_type != tile_type:
                    values = [builder.fptrunc(v, ir.VectorType(column_type, _LANES)) for v in values]
                for value, pointer in zip(values, runs):
                    builder.store(value, pointer, align=column_align)
            else:
                values = [builder.load(p, align=column_align) for p in runs]
                for value, pointer in zip(_transposed(builder, values), rows):
                    builder.store(value, pointer, align=tile_align)
            return context.get_dummy_value()

        return types.void(tile, types.int64, types.int64, column, offsets, types.int64, types.int64), generate

    return intrinsic(block)


_block_to_column = _block(to_long=True)
_block_to_tile = _block(to_long=False)


def _to_column(tile: Any, at: int, lanes: int, rows: int, column: Any, offsets: Any, pads: Any) -> None:
    """Copy tile rows at.. (rows, lanes) to column[offsets[s] + t]; rows before pads[s] are no bars and left out."""
    if lanes == 1:
        for t in range(max(pads[0], 0), rows):
            column[offsets[0] + t] = tile[at + t]
        return
    for lane in range(0, lanes, 8):
        top = 0
        for s in range(lane, lane + 8):
            top = max(top, pads[s])
        top = min((top + 7) // 8 * 8, rows)
        for s in range(lane, lane + 8):
            for t in range(max(pads[s], 0), top):
                column[offsets[s] + t] = tile[at + t * lanes + s]
        for t in range(top, rows, 8):
            _block_to_column(tile, at + t * lanes + lane, lanes, column, offsets, lane, t)


def _to_tile(tile: Any, at: int, lanes: int, rows: int, column: Any, offsets: Any, pads: Any) -> None:
    """Copy column[offsets[s] + t] to tile rows at.. (rows, lanes); rows before pads[s] become zeros."""
    if lanes == 1:
        begin = min(max(pads[0], 0), rows)
        for t in range(begin):
            tile[at + t] = 0.0
        for t in range(begin, rows):
            tile[at + t] = column[offsets[0] + t]
        return
    for lane in range(0, lanes, 8):
        top = 0
        for s in range(lane, lane + 8):
            top = max(top, pads[s])
        top = min((top + 7) // 8 * 8, rows)
        for s in range(lane, lane + 8):
            begin = min(max(pads[s], 0), top)
            for t in range(begin):
                tile[at + t * lanes + s] = 0.0
            for t in range(begin, top):
                tile[at + t * lanes + s] = column[offsets[s] + t]
        for t in range(top, rows, 8):
            _block_to_tile(tile, at + t * lanes + lane, lanes, column, offsets, lane, t)


to_column = register_jitable(_to_column)
to_tile = register_jitable(_to_tile)
