"""Parameters that several pages read from the address or the form."""

from collections.abc import Mapping
from datetime import date

from flask import abort, request

from lightning_bso.wire import MAX_ID_LENGTH


def job_id(name: str = "job") -> str:
    """The job's id in the address. It may belong to no job; the use cases check it."""
    return request.args.get(name, "")[: MAX_ID_LENGTH + 1]


def prefix(form: Mapping[str, str]) -> str | None:
    """The prefix of job ids in a form. An empty field means all jobs. Spaces alone stay, and are refused later."""
    text = form.get("prefix", "")
    return text.strip() or text or None


def trial_number(text: str | None) -> int:
    """Parse a trial's number; abort with 404 if no trial can have it."""
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 9:
        abort(404, "there is no such trial")
    return int(text)


def trial_numbers(text: str) -> list[int]:
    """Find the numbers in a text such as "3, 5 8". Other words count as none."""
    words = text.replace(",", " ").split()
    return [int(word) for word in words if word.isascii() and word.isdecimal() and len(word) <= 9]


def days(parameters: Mapping[str, str]) -> tuple[date | None, date | None]:
    """The first and the last day of a range, each None if it is not given.

    Raises:
        ValueError: one is no day, or they are in the wrong order.
    """
    first, last = (_day(parameters.get(name, "")) for name in ("from", "to"))
    if first is not None and last is not None and first > last:
        raise ValueError(f"the first day, {first}, is after the last, {last}")
    return first, last


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text) if text else None
    except ValueError:
        raise ValueError(f"{text[:30]!r} is not a day, such as 2026-01-31") from None
    if day is not None and not 1970 <= day.year < 9999:  # some databases know no others
        raise ValueError(f"{text[:30]!r} is not a day after 1970")
    return day
