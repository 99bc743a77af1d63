"""The periods of the lists begin and end as people in a time zone mean them."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from backend.core.periods import NAMES, both, days, named

BERLIN = timezone(timedelta(hours=1))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize("clock", ["2026-03-01T00:10", "2026-03-01T06:30", "2026-03-01T23:50"])
def test_last_night_is_the_night_before_today_in_the_readers_zone(clock: str) -> None:
    since, until = named("night", datetime.fromisoformat(clock).replace(tzinfo=BERLIN))
    assert (since, until) == (utc("2026-02-28T17:00"), utc("2026-03-01T07:00"))


def test_the_other_periods_go_on_until_now() -> None:
    now = datetime(2026, 3, 1, 0, 30, tzinfo=BERLIN)
    assert named("24h", now) == (utc("2026-02-27T23:30"), None)
    assert named("7d", now) == (utc("2026-02-21T23:30"), None)
    assert named("month", now) == (utc("2026-02-28T23:00"), None)
    assert {name for name in NAMES if named(name, now)[1] is None} == {"24h", "7d", "month"}


def test_a_day_begins_and_ends_at_midnight_in_the_readers_zone() -> None:
    day = date(2026, 3, 1)
    assert days(day, day, BERLIN) == (utc("2026-02-28T23:00"), utc("2026-03-01T23:00"))
    assert days(None, day, BERLIN) == (None, utc("2026-03-01T23:00"))
    assert days(day, None) == (utc("2026-03-01T00:00"), None)


def test_two_periods_have_their_common_part() -> None:
    first, second = days(date(2026, 3, 1), date(2026, 3, 9)), days(date(2026, 3, 5), None)
    assert both(first, second) == (utc("2026-03-05T00:00"), utc("2026-03-10T00:00"))
    assert both((None, None), first) == first
