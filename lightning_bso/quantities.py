"""How numbers are written for people: on the admin page, in the reasons of decisions, and on the console.

Pure functions on the standard library alone. Each turns values into a text. Programs read the plain numbers instead.
"""

import math
import re
from decimal import Decimal

J_PER_WH = 3600.0
UNKNOWN = "–"
"""Stands in place of a value that is missing or not a number."""
DIGITS = 3
"""Significant digits of a quantity."""
PREFIXES = {18: "E", 15: "P", 12: "T", 9: "G", 6: "M", 3: "k", 0: "", -3: "m", -6: "µ", -9: "n"}
"""The SI prefixes in use, by their powers of ten."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_JOULES = re.compile(rf"(-?[0-9.]+(?:e[+-]?[0-9]+)?) ([{''.join(PREFIXES.values())}]?)J\b")


def quantity(value: float | None, unit: str, digits: int = DIGITS) -> str:
    """Write a value with an SI prefix: 5,835,000 J are "5.84 MJ".

    Args:
        value: the value in the unit. None and NaN are unknown.
        unit: the unit's symbol, such as "J".
        digits: significant digits, at least three.
    """
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return f"{'-' if value < 0 else ''}∞ {unit}"
    if value == 0:
        return f"0 {unit}"
    rounded = Decimal(f"{value:.{digits - 1}e}")  # before the prefix is chosen: 999.9 becomes 1.00 k
    power = rounded.adjusted() // 3 * 3
    if power not in PREFIXES:
        return f"{rounded:e} {unit}"
    return f"{rounded.scaleb(-power):f} {PREFIXES[power]}{unit}"


def joules(value: float | None) -> str:
    """Write an energy or a cost: "2.62 MJ"."""
    return quantity(value, "J")


def different_joules(first: float, second: float) -> tuple[str, str]:
    """Write two costs that are compared, with as many digits as tell them apart, and at least three."""
    for digits in range(DIGITS, 17):
        texts = quantity(first, "J", digits), quantity(second, "J", digits)
        if texts[0] != texts[1]:
            break
    else:
        return joules(first), joules(second)
    return texts


def number(value: float | None) -> str:
    """Write a number without a unit, such as a metric, with four significant digits, and from 1000 on without a point.

    Args:
        value: the number. None and NaN are unknown.
    """
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{value:.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Write a duration as people say it: "3.2 s", "2 h 14 min", "5 d 3 h".

    Args:
        seconds: the duration. None and NaN are unknown.
    """
    if seconds is None or math.isnan(seconds):
        return UNKNOWN
    if seconds < 0:
        return f"-{duration(-seconds)}"
    rounded = float(f"{seconds:.{DIGITS}g}")
    if rounded in (0, math.inf):
        return quantity(rounded, "s")
    if rounded < 1:
        digits, unit = quantity(seconds, "s").split()
        return f"{float(digits):g} {unit}"
    if rounded < _MINUTE:
        return f"{rounded:g} s"
    if round(seconds) < _HOUR:
        return _in_two_units(round(seconds), "min", _MINUTE, "s")
    if round(seconds / _MINUTE) < _DAY // _MINUTE:
        return _in_two_units(round(seconds / _MINUTE), "h", _HOUR // _MINUTE, "min")
    return _in_two_units(round(seconds / _HOUR), "d", _DAY // _HOUR, "h")


def count(amount: float, noun: str, plural: str | None = None) -> str:
    """Write how many there are: "1 run", "2 runs".

    Args:
        amount: how many.
        noun: the singular.
        plural: the plural; None: it has an s more.
    """
    return f"{amount:g} {noun if amount == 1 else plural or f'{noun}s'}"


def say_the_same(first: str, second: str) -> bool:
    """Whether two texts differ at most in how they write numbers.

    "832400 J, 1 runs" says the same as "832 kJ, 1 run".
    """
    if _words(first) != _words(second):
        return False
    pairs = zip(_JOULES.findall(first), _JOULES.findall(second), strict=True)
    return all(math.isclose(_joules(*one), _joules(*other), rel_tol=10.0 ** (1 - DIGITS)) for one, other in pairs)


def _in_two_units(parts: int, unit: str, length: int, part: str) -> str:
    whole, rest = divmod(parts, length)
    return f"{whole} {unit} {rest} {part}" if rest else f"{whole} {unit}"


def _words(text: str) -> str:
    return re.sub(r"\b1 (\w+)s\b", r"1 \1", _JOULES.sub("J", text))


def _joules(digits: str, prefix: str) -> float:
    powers = {symbol: power for power, symbol in PREFIXES.items()}
    return float(digits) * 10.0 ** powers[prefix]
