"""bfloat16 without a numpy dtype for it: the upper half of an FP32, kept as its bits in uint16.

numpy has no such type, and the one of ml_dtypes is unknown to onnxruntime's Python interface, so bits are
what both sides of it agree on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LARGEST = float(np.uint32(0x7F7F0000).view(np.float32))
"""The largest finite number of the type."""

Bits = npt.NDArray[np.uint16]


def to_bits(numbers: npt.NDArray[np.float32]) -> Bits:
    """Rounds to the nearest bfloat16, ties to even; what is too large becomes infinite, NaN stays NaN."""
    wide = np.ascontiguousarray(numbers, dtype="<f4").view("<u4")
    # Half of the last place that stays, less one where that place is even: the carry does the rounding.
    carried = wide + (np.uint32(0x7FFF) + ((wide >> np.uint32(16)) & np.uint32(1)))
    # A carry would run a NaN's mantissa over into another number.
    quiet = wide | np.uint32(0x00400000)
    rounded = np.where(np.isnan(numbers), quiet, carried)
    bits: Bits = (rounded >> np.uint32(16)).astype("<u2")
    return bits.reshape(numbers.shape)


def to_float32(bits: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """The same numbers, exactly."""
    return (bits.astype("<u4") << np.uint32(16)).view("<f4")
