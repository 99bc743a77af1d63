"""The periods by which lists are filtered: by name, and from one day to another. Each begins and ends in a time zone.

No clock is read here.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo

NAMES: Mapping[str, str] = {
    "night": "last night",
    "24h": "last 24 hours",
    "7d": "last 7 days",
    "month": "this month",
}
"""The periods that have a name, and what people call them."""
EVENING_H, MORNING_H = 18, 8
"""Hours of the day at which a night begins and ends."""

Period = tuple[datetime | None, datetime | None]
"""A beginning, and an end that is not part of the period. None: it has none."""


def named(name: str, now: datetime) -> Period:
    """Return a period by its name.

    Args:
        name: one of `NAMES`.
        now: the time, in the time zone whose days and nights are meant.
    """
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if name == "night":
        return today - timedelta(hours=24 - EVENING_H), today + timedelta(hours=MORNING_H)
    if name == "month":
        return today.replace(day=1), None
    # In UTC, because a day on which the clocks change has 23 or 25 hours.
    return now.astimezone(UTC) - {"24h": timedelta(days=1), "7d": timedelta(days=7)}[name], None


def days(first: date | None, last: date | None, zone: tzinfo = UTC) -> Period:
    """Return the period from the beginning of one day to the end of another. None: without a beginning, or an end."""
    since, last_begins = (None if day is None else datetime.combine(day, time(tzinfo=zone)) for day in (first, last))
    return since, last_begins and last_begins + timedelta(days=1)


def both(one: Period, other: Period) -> Period:
    """Return what two periods have in common."""
    begins = [begin for begin, _ in (one, other) if begin is not None]
    ends = [end for _, end in (one, other) if end is not None]
    return max(begins, default=None), min(ends, default=None)
