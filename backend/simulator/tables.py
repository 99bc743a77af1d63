"""CSV tables of measurements. Each cell is checked when it is read, and an error names its file and line."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MAX_QUANTITY = 1e30
"""Largest number of seconds, joules or watts, as on the wire: beyond anything real, and products stay finite."""
MIN_POSITIVE = 1e-9
"""Smallest value of a quantity that must be positive."""
MAX_COUNT = 2**31 - 1
"""Largest count, as on the wire."""


class TracesUnusable(Exception):
    """Raised when traces or trials are missing, wrong, or without the requested data. The message says which."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a table, with its file and line number."""

    file: Path
    number: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def quantity(self, column: str, minimum: float = 0.0, maximum: float = MAX_QUANTITY) -> float:
        """Return a cell as a number within limits. NaN is outside all limits.

        Raises:
            TracesUnusable: the cell is no such number.
        """
        try:
            value = float(self[column])
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum:
            raise self.wrong(column, f"a number from {minimum:g} to {maximum:g}")
        return value

    def count(self, column: str, minimum: int = 1) -> int:
        """Return a cell as a whole number.

        Raises:
            TracesUnusable: the cell is no whole number from `minimum` to `MAX_COUNT`.
        """
        try:
            value = int(self[column])
        except ValueError:
            value = -1
        if not minimum <= value <= MAX_COUNT:
            raise self.wrong(column, f"a whole number from {minimum} to {MAX_COUNT}")
        return value

    def one_of(self, column: str, allowed: Iterable[str]) -> str:
        """Return a cell that must be one of the allowed words.

        Raises:
            TracesUnusable: the cell is another word.
        """
        words = list(allowed)
        if self[column] not in words:
            raise self.wrong(column, f"one of {', '.join(words)}")
        return self[column]

    def wrong(self, column: str, expected: str) -> TracesUnusable:
        """Return the error for a cell that is not as expected."""
        return TracesUnusable(f"{self.file}, line {self.number}: {column} is {self[column][:40]!r}, not {expected}")


def read(file: Path, columns: Iterable[str], advice: str) -> list[Line]:
    """Read the lines of a CSV file.

    Args:
        file: the file.
        columns: the required columns.
        advice: what to do if the file is missing or wrong.

    Raises:
        TracesUnusable: the file is missing or wrong.
    """
    lines = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            missing = set(columns) - set(reader.fieldnames or ())
            if missing:
                raise TracesUnusable(f"{file} has no column {', '.join(sorted(missing))}; {advice}")
            for cells in reader:
                if None in cells or None in cells.values():
                    raise TracesUnusable(f"{file}, line {reader.line_num}: its cells do not match the first line")
                lines.append(Line(file, reader.line_num, cells))
    except (UnicodeDecodeError, csv.Error) as error:
        raise TracesUnusable(f"{file} is not a CSV table: {error}; {advice}") from error
    except OSError as error:
        raise TracesUnusable(f"{file}: {error.strerror}; {advice}") from error
    return lines
