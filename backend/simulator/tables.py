"""Tables of what was measured: CSV files whose cells are checked when they are read."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LARGEST = 1e30
"""Of seconds, joules and watts, as on the wire: beyond anything real, and their products stay finite."""
LEAST = 1e-9
"""Of what must be more than nothing."""
MOST = 2**31 - 1
"""Of what is counted, as on the wire."""


class TracesUnusable(Exception):
    """Raised when traces or trials are missing, wrong, or do not hold what is asked for; says which."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a table, and where it stands."""

    file: Path
    number: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def quantity(self, column: str, least: float = 0.0, most: float = LARGEST) -> float:
        """A cell as a number within limits, which NaN is not."""
        try:
            value = float(self[column])
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise self.wrong(column, f"a number from {least:g} to {most:g}")
        return value

    def count(self, column: str, least: int = 1) -> int:
        """A cell as a whole number."""
        try:
            value = int(self[column])
        except ValueError:
            value = -1
        if not least <= value <= MOST:
            raise self.wrong(column, f"a whole number from {least} to {MOST}")
        return value

    def one_of(self, column: str, known: Iterable[str]) -> str:
        """A cell as one of some words."""
        words = list(known)
        if self[column] not in words:
            raise self.wrong(column, f"one of {', '.join(words)}")
        return self[column]

    def wrong(self, column: str, wanted: str) -> TracesUnusable:
        """What is to be said of a cell that is not what is wanted."""
        return TracesUnusable(f"{self.file}, line {self.number}: {column} is {self[column][:40]!r}, not {wanted}")


def read(file: Path, columns: Iterable[str], advice: str) -> list[Line]:
    """The lines of a CSV file.

    Args:
        file: the file.
        columns: those that it must have.
        advice: what to do if it is missing, or is something else.

    Raises:
        TracesUnusable: it is.
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
                    raise TracesUnusable(f"{file}, line {reader.line_num}: other cells than the first line names")
                lines.append(Line(file, reader.line_num, cells))
    except (UnicodeDecodeError, csv.Error) as error:
        raise TracesUnusable(f"{file} is no table: {error}; {advice}") from error
    except OSError as error:
        raise TracesUnusable(f"{file}: {error.strerror}; {advice}") from error
    return lines
