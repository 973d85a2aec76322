"""Whole won: rounding, fees and what cash pays for, as plain functions that Numba can compile.

Amounts are int64 won, prices float64 won a share, rates whole numbers of 1e-7 (a thousandth of a basis point).
"""

from __future__ import annotations

import math

RATE = 10_000_000
SHARE_GRACE = 1e-9  # 3 * 0.1 / 0.1 is three shares
WON_GRACE = 1e-6  # n * price may lie a hair below a half or whole won
FITS = 2.0**62  # an int64, whatever a product of floats was rounded by


def won(amount: float) -> int:
    """Round to whole won, half up."""
    return math.floor(amount + 0.5 + WON_GRACE)


def fee(value: int, rate: int) -> int:
    """Return value * rate / RATE truncated to whole won, exact for any int64 value."""
    return (value // RATE) * rate + (value % RATE) * rate // RATE


def affordable(cash: int, price: float, rate: int) -> int:
    """Return the most shares whose value and fee at `rate` are covered by `cash`."""
    n = int((cash + 2) / (price * (1.0 + rate / RATE))) + 1
    while n > 0 and won(n * price) + fee(won(n * price), rate) > cash:
        n -= 1
    return n


def covered(wanted: int, cash: int, price: float, rate: int) -> int:
    """Return how many of the wanted shares `cash` pays for, fee included; seldom fewer than all, which is quick."""
    if wanted * price < cash and won(wanted * price) + fee(won(wanted * price), rate) <= cash:
        return wanted
    return min(wanted, affordable(cash, price, rate))


def portion(amount: int, part: int, whole: int) -> int:
    """Return amount * part / whole rounded down, exact where the product would not fit: whole up to 2**40, 0 <= part
    <= whole.
    """
    if part == whole:
        return amount
    if abs(float(amount)) * part < FITS:
        return amount * part // whole
    rest, out, over = amount % whole, 0, 0
    for shift in (40, 20, 0):  # long division in digits of 20 bits
        over = (over << 20) + rest * ((part >> shift) & 0xFFFFF)
        out = (out << 20) + over // whole
        over %= whole
    return (amount // whole) * part + out
