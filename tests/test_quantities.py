"""How numbers are written for people."""

import math
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lightning_bso.quantities import (
    PREFIXES,
    UNKNOWN,
    count,
    different_joules,
    duration,
    joules,
    number,
    quantity,
    say_the_same,
)

POWERS = {symbol: power for power, symbol in PREFIXES.items()}
SECONDS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
with_a_prefix = st.floats(1e-8, 9e20)
signs = st.sampled_from([-1, 1])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (310.04, "310 J"),
        (0.0012, "1.20 mJ"),
        (832_400, "832 kJ"),
        (-1.2e9, "-1.20 GJ"),
        (999.4, "999 J"),
        (999.9, "1.00 kJ"),
        (999_999_999.0, "1.00 GJ"),
        (0.0, "0 J"),
        (-0.0, "0 J"),
        (3e-12, "3.00e-12 J"),
        (5e25, "5.00e+25 J"),
        (math.inf, "∞ J"),
        (-math.inf, "-∞ J"),
        (math.nan, UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_a_quantity_has_three_digits_and_a_prefix(value: float | None, text: str) -> None:
    assert joules(value) == text


def test_an_energy_of_many_kilowatt_hours_has_the_prefix_of_its_size() -> None:
    assert quantity(5.835e9, "Wh") == "5.84 GWh"
    assert quantity(-5.835e8, "Wh") == "-584 MWh"


@given(value=with_a_prefix, sign=signs)
def test_a_quantity_is_read_back_as_its_value_within_half_of_the_last_digit(value: float, sign: int) -> None:
    digits, prefix = re.fullmatch(r"(-?[0-9.]+) ([EPTGMkmµn]?)J", joules(sign * value)).groups()  # type: ignore[union-attr]
    assert float(digits) * 10.0 ** POWERS[prefix] == pytest.approx(sign * value, rel=0.0051)
    assert 1 <= abs(float(digits)) < 1000
    assert len(re.sub(r"\D", "", digits)) == 3


@given(value=st.floats(allow_nan=True, allow_infinity=True))
def test_every_float_can_be_written(value: float) -> None:
    for text in (joules(value), number(value), duration(value)):
        assert text
        assert "nan" not in text


@given(one=with_a_prefix, other=with_a_prefix)
def test_a_larger_value_never_reads_as_a_smaller_one(one: float, other: float) -> None:
    def read(text: str) -> float:
        digits, unit = text.split()
        return float(digits) * 10.0 ** POWERS[unit[:-1]]

    assume(one <= other)
    assert read(joules(one)) <= read(joules(other)) * (1 + 1e-12)


@given(one=with_a_prefix, factor=st.floats(1 + 1e-12, 2))
def test_two_costs_that_are_compared_are_told_apart(one: float, factor: float) -> None:
    assume(one * factor != one)
    lower, higher = different_joules(one, one * factor)
    assert lower != higher


def test_costs_are_told_apart_by_as_few_digits_as_it_takes() -> None:
    assert different_joules(2.62e6, 656e3) == ("2.62 MJ", "656 kJ")
    assert different_joules(100.41, 100.2) == ("100.4 J", "100.2 J")
    assert different_joules(5.0, 5.0) == ("5.00 J", "5.00 J")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.2, "3.2 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min"),
        (119.6, "2 min"),
        (125, "2 min 5 s"),
        (3599.7, "1 h"),
        (8040, "2 h 14 min"),
        (84_960, "23 h 36 min"),
        (86_390, "1 d"),
        (442_800, "5 d 3 h"),
        (0.32, "320 ms"),
        (0.0032, "3.2 ms"),
        (0.9999, "1 s"),
        (0, "0 s"),
        (-8040, "-2 h 14 min"),
        (math.inf, "∞ s"),
        (None, UNKNOWN),
    ],
)
def test_a_duration_is_written_as_people_say_it(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@given(seconds=st.floats(1e-8, 1e9))
def test_a_duration_is_the_sum_of_its_parts_and_no_part_is_a_whole_larger_unit(seconds: float) -> None:
    words = duration(seconds).split()
    parts = [(float(digits), unit) for digits, unit in zip(words[::2], words[1::2], strict=True)]
    assert 1 <= len(parts) <= 2
    assert sum(amount * SECONDS[unit] for amount, unit in parts) == pytest.approx(seconds, rel=0.03)
    limits = {"h": 24, "min": 60, "s": 60, "ms": 1000, "µs": 1000, "ns": 1000}
    assert all(0 < amount < limits.get(unit, math.inf) for amount, unit in parts)


@pytest.mark.parametrize(
    ("value", "text"), [(0.97312, "0.9731"), (12.0, "12"), (1234.6, "1235"), (5.8e9, "5800000000"), (None, UNKNOWN)]
)
def test_a_number_without_a_unit_keeps_four_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_one_is_a_singular() -> None:
    assert [count(amount, "run") for amount in (0, 1, 1.0, 2)] == ["0 runs", "1 run", "1 run", "2 runs"]
    assert [count(amount, "batch", "batches") for amount in (1, 2)] == ["1 batch", "2 batches"]


@given(cost=with_a_prefix, digits=st.integers(3, 6), sign=signs)
def test_a_cost_in_joules_says_the_same_as_with_a_prefix(cost: float, digits: int, sign: int) -> None:
    words = "cost {} exceeds the bound; the best so far is {} at 16"
    then = words.format(f"{sign * cost:.{digits}g} J", "1.2 kJ")
    assert say_the_same(then, words.format(joules(sign * cost), "1.20 kJ"))
    assert not say_the_same(then, words.format(joules(sign * cost * 1.03), "1.20 kJ"))
    assert not say_the_same(then, words.format(joules(sign * cost), "1.20 kJ").replace("16", "32"))
    assert not say_the_same(then, words.format(joules(-sign * cost), "1.20 kJ"))


def test_other_words_do_not_say_the_same() -> None:
    assert say_the_same("within 1 epochs", "within 1 epoch")
    assert not say_the_same("within 1 epochs", "within 2 epochs")
    assert not say_the_same("cost 5 J", "energy 5 J")
    assert not say_the_same("cost 5 J", "cost 5 J of 5 J")
