"""How the compiled passes are written: Numba's settings, powers of two, and the bits of numbers.

Sums may be taken in any order, so that loops become vectors; NaN and infinity keep their meaning. Kernels take rows
`start` to `stop`, hold no Python object, and are kept on disk once they are compiled (see Numba's NUMBA_CACHE_DIR).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

# Without _nrt rows would be counted as Python counts objects, which threads do at each other's expense.
kernel = njit(
    _nrt=False, nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"}
)

# Literals of Python would make everything double.
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)
MANTISSA, ONE_BITS, MANTISSA_SIZE, BIAS = (np.int32(n) for n in (0x7FFFFF, 0x3F800000, 23, 127))

# The polynomial nearest to 2^r for r within 1/2 of 0, relative error 9e-8.
C1, C2, C3, C4, C5 = (
    np.float32(c) for c in (0.693146978, 0.240222421, 0.0555073374, 0.00967151266, 0.00132647269)
)
LEAST_EXPONENT = np.float32(-126)
# Adding 3 2^22 leaves a whole number in the lowest bits.
ROUND, ROUND_BITS = np.float32(12582912), np.int32(0x4B400000)


@intrinsic
def bits_of(context: Any, number: Any) -> Any:
    """The bits of a single-precision number as an integer of 32 bits."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), code


@intrinsic
def number_of(context: Any, bits: Any) -> Any:
    """The single-precision number of these bits."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), code


@kernel
def power_of_two(x):  # type: ignore[no-untyped-def]
    """2^x to 2e-7 of it, 2^-126 where x is below; x <= 126, and NaN stays NaN."""
    inside = LEAST_EXPONENT if x < LEAST_EXPONENT else x
    whole = bits_of(inside + ROUND) - ROUND_BITS
    rest = inside - np.float32(whole)
    value = ((((C5 * rest + C4) * rest + C3) * rest + C2) * rest + C1) * rest + ONE
    return value * number_of((whole + BIAS) << MANTISSA_SIZE)


@kernel
def place_of(row, rows):  # type: ignore[no-untyped-def]
    """Which of an operand's rows, which repeat, belongs to a row; divisions take long."""
    if row < rows:
        return row
    return 0 if rows == 1 else row % rows


@kernel
def total_of(v, noise, sigma, gain, draw, row):  # type: ignore[no-untyped-def]
    """V = sum_j g_j sigma_j + noise of one draw and row in v [F]: sigma [J, D, R, F], gain [J, R], noise [R, F]."""
    rest = noise[row]
    for f in range(v.shape[0]):
        v[f] = rest[f]
    for j in range(sigma.shape[0]):
        own, level = sigma[j, draw, row], gain[j, row]
        for f in range(v.shape[0]):
            v[f] += level * own[f]


@kernel
def moment_of(own, total, power):  # type: ignore[no-untyped-def]
    """E|c|^2 = (v / V)^2 |x|^2 + v (1 - v / V) of a component of variance v in a sum of variance V."""
    share = own / total
    return (total + share * power - own) * share
