"""Times on the pages: in the browser's zone, in words if they are recent, and in UTC on hover and without scripts."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from playwright.sync_api import Page, expect

from backend.usecases import dashboard
from backend.usecases.audit import COMMAND_LINE
from tests.browser.steps import log_in, wait_for_refresh
from tests.browser.test_live_pages import running, training
from tests.calls import Calls
from tests.databases import in_application
from tests.servers import Server

__all__ = ["training"]

ZONE = "Asia/Kolkata"
MINUTE_MS, DAY_MS = 60_000, 86_400_000


def started(site: Server) -> datetime:
    with in_application(site.database_url):
        return dashboard.trial("speech", 1, COMMAND_LINE).started_at.astimezone(UTC)


def test_a_time_is_in_words_while_it_is_recent_and_then_in_the_browsers_zone(page: Page, site: Server) -> None:
    assert page.context.browser is not None
    context = page.context.browser.new_context(base_url=site.url, timezone_id=ZONE, locale="en-GB")
    there, at = context.new_page(), started(site)
    there.clock.install()
    log_in(there, "viewer")
    there.goto("/admin/trial/?job=speech&number=1")
    time = there.locator(f"#facts time[datetime='{at:%Y-%m-%dT%H:%M:%SZ}']").first
    expect(time).to_have_text(re.compile(r"just now|[0-9]+ (min|h) ago"))
    there.clock.fast_forward(2 * MINUTE_MS)
    expect(time).to_have_text(re.compile(r"[0-9]+ (min|h) ago"))
    there.clock.fast_forward(DAY_MS)
    expect(time).to_have_text(re.compile(f"{at.astimezone(ZoneInfo(ZONE)):%H:%M}$"))
    assert time.get_attribute("title") == f"{at:%Y-%m-%d %H:%M:%S} UTC"
    context.close()


def test_without_scripts_a_time_is_in_utc_and_says_so(page: Page, site: Server) -> None:
    assert page.context.browser is not None
    context = page.context.browser.new_context(base_url=site.url, timezone_id=ZONE, java_script_enabled=False)
    there = context.new_page()
    log_in(there, "viewer")
    there.goto("/admin/trials/?job=speech")
    expect(there.locator("tbody")).to_contain_text(f"{started(site):%Y-%m-%d %H:%M:%S} UTC")
    context.close()


def test_a_part_that_a_refresh_replaces_shows_its_times_in_the_same_way(page: Page, training: Calls) -> None:
    page.clock.install()
    log_in(page, "admin")
    page.goto("/admin/job/?job=live")
    times = page.locator("#trials time")
    expect(times).to_have_text(["just now"] * 3)
    training.must(training.report(running(training), energy=79.0, metric=1.0, current_epoch=2))
    training.trial("live")
    wait_for_refresh(page)
    expect(times).to_have_text(["just now"] * 4)
