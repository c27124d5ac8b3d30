"""Quantities are numbers: whatever way they are written."""

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator.api import quantity

numbers = st.decimals(min_value=0, max_value=10**9, places=3, allow_nan=False)
SUFFIXES = {"n": "1e-9", "u": "1e-6", "m": "0.001", "": "1", "k": "1e3", "M": "1e6", "G": "1e9", "T": "1e12"}
BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


@given(number=numbers, suffix=st.sampled_from(sorted(SUFFIXES)))
def test_a_decimal_suffix_is_a_power_of_ten(number: Decimal, suffix: str) -> None:
    assert quantity.parse(f"{number}{suffix}") == number * Decimal(SUFFIXES[suffix])


@given(number=numbers, suffix=st.sampled_from(sorted(BINARY)))
def test_a_binary_suffix_is_a_power_of_two(number: Decimal, suffix: str) -> None:
    assert quantity.parse(f"{number}{suffix}") == number * 2 ** BINARY[suffix]


@given(number=st.integers(-(10**6), 10**6), exponent=st.integers(-9, 18))
def test_an_exponent_is_a_power_of_ten(number: int, exponent: int) -> None:
    expected = Decimal(number) * Decimal(10) ** exponent
    assert quantity.parse(f"{number}e{exponent}") == quantity.parse(f"{number}E{exponent:+d}") == expected


@given(number=st.integers(0, 10**12))
def test_a_number_and_its_text_and_its_thousandths_are_equal(number: int) -> None:
    assert quantity.equal(number, str(number))
    assert quantity.equal(number, f"{number * 1000}m")
    assert not quantity.equal(number, f"{number * 1000 + 1}m")


@given(text=st.text(max_size=12) | st.from_regex(r"[0-9]{1,3}[a-zA-Z]{1,3}"))
def test_a_text_is_a_quantity_exactly_where_the_schema_takes_it(text: str) -> None:
    if re.fullmatch(quantity.PATTERN, text):
        assert quantity.equal(text, text)
    else:
        with pytest.raises(ValueError, match="is not a quantity"):
            quantity.parse(text)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1000m", "1", True),
        ("1Gi", 1073741824, True),
        ("0.5", "500m", True),
        ("1e3", "1k", True),
        ("1E", "1e18", True),
        ("1Ei", "1E", False),
        ("1", "2", False),
        ("abc", "abc", False),
        (True, 1, False),
        (None, 0, False),
        ({}, "0", False),
    ],
)
def test_equality_is_of_values_and_only_of_quantities(one: object, other: object, same: bool) -> None:
    assert quantity.equal(one, other) is same


@pytest.mark.parametrize("text", ["", "m", "1 Gi", "1GiB", "1e", "1e1000", "--1", "1\n", "٣", "0x10", "1Mi2"])
def test_these_are_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity.parse(text)
