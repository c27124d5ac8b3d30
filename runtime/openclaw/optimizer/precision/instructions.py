"""Which 8-bit types the instruction set multiplies fast, and without overflow."""

from __future__ import annotations

from dataclasses import dataclass

_SUMS_IN_32_BITS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_ARM = frozenset({"neon", "dotprod", "i8mm"})


@dataclass(frozen=True)
class Kind:
    """Types of 8-bit multiplication.

    Attributes:
        signed_activations: activations in INT8, else in UINT8; weights are always INT8.
        reduce_range: weights in 7 bits. Without VNNI, x86 adds two products of UINT8 and INT8 in 16 bits, which 8-bit
            weights overflow (Intel SDM, PMADDUBSW).
    """

    signed_activations: bool
    reduce_range: bool

    @property
    def weight_limit(self) -> int:
        """The largest magnitude of a weight."""
        return 64 if self.reduce_range else 127


def kind_of(instructions: frozenset[str]) -> Kind:
    """The types for a CPU, told by the words of ``devices.instructions``."""
    if instructions & _ARM:
        return Kind(signed_activations=True, reduce_range=False)
    return Kind(signed_activations=False, reduce_range=not instructions & _SUMS_IN_32_BITS)
