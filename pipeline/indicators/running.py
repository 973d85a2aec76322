"""What kernels share for one lane: prices of a bar, exponential means, sums over windows. Plain functions that a kernel
calls and each driver compiles with it (recurrence/parts.py). Those for all lanes are in rows.py. See spec.py for the
names.
"""

from __future__ import annotations

from ..recurrence import Floats


def smoothed(old: float, value: float, count: float, size: float, weight: float) -> float:
    """Return an exponential mean after its `count`-th value: begun with the mean of the first `size`, it then moves by
    `weight` of the difference; as it was before the first. Wilder's smoothing has weight 1 / size.
    """
    begun = count > size
    mean = old + (weight if begun else 1.0 / size) * (value - (old if begun else 0.0))
    return mean if count > 0.0 else old


def macd_line(
    state_KS: Floats, row: int, s: int, close: float, count: float, fast: float, slow: float, signal: float
) -> tuple[float, float]:
    """Return the fast less the slow exponential mean of lane s after its `count`-th close, and the exponential mean of
    that, known from close slow + signal - 1 on. Takes three state rows from `row` on.
    """
    late = count - slow + 1.0  # of the line, which begins when the slow mean does
    quick = smoothed(state_KS[row, s], close, count - slow + fast, fast, 2.0 / (fast + 1.0))  # both begin together
    long = smoothed(state_KS[row + 1, s], close, count, slow, 2.0 / (slow + 1.0))
    line = quick - long
    mean = smoothed(state_KS[row + 2, s], line, late, signal, 2.0 / (signal + 1.0))
    state_KS[row, s] = quick
    state_KS[row + 1, s] = long
    state_KS[row + 2, s] = mean
    return line, mean


def lasts(total: float) -> bool:
    """Return whether a positive sum that decays is still one: below 1e-300 its ratios lose their digits and then its
    reciprocal is infinite, so that kernels take it for 0.
    """
    return total > 1e-300


def gain_and_loss(state_KS: Floats, row: int, s: int, change: float, count: float, size: float) -> tuple[float, float]:
    """Return Wilder's means of rises and of falls of lane s after its `count`-th change; see `smoothed`. Takes two
    state rows from `row` on.
    """
    share = 1.0 / size
    up = smoothed(state_KS[row, s], change if change > 0.0 else 0.0, count, size, share)
    down = smoothed(state_KS[row + 1, s], -change if change < 0.0 else 0.0, count, size, share)
    state_KS[row, s] = up
    state_KS[row + 1, s] = down
    return up, down


def full_range(high: float, low: float, before: float) -> float:
    """Return the range of a bar and the close before it."""
    return (high if high > before else before) - (low if low < before else before)


def typical(high: float, low: float, close: float) -> float:
    """Return the mean of high, low and close; the close itself, to the bit, where they are equal. Sums of whole prices
    are exact, so that equal means are equal.
    """
    mean = (high + low + close) * (1.0 / 3.0)
    return mean if high > low else close


def unchanged(run: float, same: bool, count: float) -> float:
    """Return how many values in a row changed nothing, counted from the second value of the lane."""
    run = run + 1.0 if same else 0.0
    return run if count > 1.0 else 0.0


def phased(phase: float, count: float, size: float) -> tuple[bool, float]:
    """Return whether sums are renewed at the `count`-th value of a lane, each `size` values, and the phase after it."""
    phase = phase + 1.0 if count > 0.0 else 0.0
    renew = phase >= size
    return renew, (0.0 if renew else phase)


def renewed(total: float, change: float, fresh: float, entering: float, renew: bool) -> tuple[float, float]:
    """Return a running sum moved by `change` and the fresh one that `entering` joins; on renewal the fresh one takes
    its place, so that rounding never gathers over more than two windows.
    """
    total, fresh = total + change, fresh + entering
    return (fresh if renew else total), (0.0 if renew else fresh)


def one_sum(state_KS: Floats, row: int, s: int, change: float, value: float, count: float, size: float) -> float:
    """Return the sum over the last `size` values of lane s after its `count`-th, moved by `change`, the value less the
    one that leaves, and renewed every `size` values. Takes three state rows from `row` on: the sum, the fresh one, the
    phase, 0 after a renewal.
    """
    renew, phase = phased(state_KS[row + 2, s], count, size)
    total, fresh = renewed(state_KS[row, s], change, state_KS[row + 1, s], value, renew)
    state_KS[row, s] = total
    state_KS[row + 1, s] = fresh
    state_KS[row + 2, s] = phase
    return total


def two_sums(
    state_KS: Floats, row: int, s: int, change_a: float, a: float, change_b: float, b: float, count: float, size: float
) -> tuple[float, float]:
    """Return the sums of a and of b over the last `size` values, as `one_sum`. Takes five state rows from `row` on:
    both sums, both fresh ones, the phase.
    """
    renew, phase = phased(state_KS[row + 4, s], count, size)
    total_a, fresh_a = renewed(state_KS[row, s], change_a, state_KS[row + 2, s], a, renew)
    total_b, fresh_b = renewed(state_KS[row + 1, s], change_b, state_KS[row + 3, s], b, renew)
    state_KS[row, s] = total_a
    state_KS[row + 1, s] = total_b
    state_KS[row + 2, s] = fresh_a
    state_KS[row + 3, s] = fresh_b
    state_KS[row + 4, s] = phase
    return total_a, total_b


def anchored(
    state_KS: Floats, row: int, s: int, value: float, leaving: float, count: float, size: float
) -> tuple[float, float, float]:
    """Return an anchor, the mean less it and the population variance of the last `size` values of lane s after its
    `count`-th, by sums of differences from the anchor; all are renewed every `size` values.

    `leaving` is the value `size` bars ago. Takes eight state rows from `row` on: those of `two_sums`, of differences
    and of their squares, the anchor, that of the fresh sums, and the next: the value nearest to 0 since the renewal,
    which is none that stands out. Equal values leave a variance of rounding: the kernel counts them (`unchanged`) and
    decides. NaN where values or their squares are not finite, until the sums are renewed.
    """
    inverse, anchor, fresh_anchor = 1.0 / size, state_KS[row + 5, s], state_KS[row + 6, s]
    value = value if count > 0.0 else 0.0
    anchor = value if count == 1.0 else anchor
    fresh_anchor = value if count == 1.0 else fresh_anchor
    nearest, begins = state_KS[row + 7, s], state_KS[row + 4, s] == 0.0
    nearest = value if begins else nearest
    nearest = value if abs(value) < abs(nearest) else nearest
    y, fresh, gone = value - anchor, value - fresh_anchor, leaving - anchor
    gone = gone if count > size else 0.0
    change = (y - gone) * (y + gone)
    total, squares = two_sums(state_KS, row, s, y - gone, fresh, change, fresh * fresh, count, size)
    renew = state_KS[row + 4, s] == 0.0
    anchor = fresh_anchor if renew else anchor
    state_KS[row + 5, s] = anchor
    state_KS[row + 6, s] = nearest if renew else fresh_anchor
    state_KS[row + 7, s] = nearest
    mean = total * inverse
    variance = squares * inverse - mean * mean
    return anchor, mean, (0.0 if variance < 0.0 else variance)
