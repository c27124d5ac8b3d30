"""Kubernetes quantities: "500m", "1Gi", "1e3".

Grammar: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from decimal import Decimal

# Two digits of exponent: nobody needs more, and a number of unbounded size cannot be computed with.
PATTERN = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?[0-9]{1,2}))?$"
_SHAPE = re.compile(PATTERN)
_SUFFIX = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
    "Ti": Decimal(2**40), "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip


def parse(text: str | int | float) -> Decimal:
    """The number that a quantity stands for, in units (cores, bytes).

    Raises:
        ValueError: `text` is not a quantity.
    """
    raw = str(text)
    if not _SHAPE.fullmatch(raw):
        raise ValueError(f'{raw!r} is not a quantity: write a number with an optional suffix, as in "500m" or "2Gi"')
    number = raw.rstrip("numkKMGTPEi") if not re.search(r"[eE][+-]?[0-9]", raw) else raw
    return Decimal(number) * _SUFFIX[raw[len(number) :]]


def equal(one: object, other: object) -> bool:
    """Whether both are quantities of the same value; "1000m" equals "1"."""
    if not isinstance(one, str | int | float) or not isinstance(other, str | int | float):
        return False
    try:
        return parse(one) == parse(other)
    except ValueError:
        return False
