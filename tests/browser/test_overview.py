"""The overview and the lists refresh by themselves. The questions that it answers are in `test_questions`."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.steps import log_in
from tests.calls import Calls

LIVE_MS = 10_000  # as in static/live.js


@pytest.fixture
def failing(admin_calls: Calls) -> Calls:
    """The calls of a training whose job has ended twice without a verdict, and has never converged."""
    calls = admin_calls
    calls.delete("never/one")
    calls.must(calls.register(job_id="never/one", job_id_prefix="never"))
    for _ in range(2):
        crash(calls)
    return calls


def crash(calls: Calls) -> None:
    calls.must(calls.end(calls.trial("never/one"), reason="ValueError: no data", current_epoch=1))


def test_the_overview_and_the_lists_refresh_by_themselves_until_they_are_told_not_to(
    page: Page, failing: Calls
) -> None:
    page.clock.install()
    log_in(page, "viewer")
    expect(page.locator("#as-of")).to_contain_text("As of")
    attention = page.locator("#attention")
    expect(attention).not_to_contain_text("never/one")
    crash(failing)
    page.clock.fast_forward(LIVE_MS)
    expect(attention).to_contain_text("ValueError: no data")
    page.get_by_label("Refresh by itself").uncheck()
    failing.delete("never/one")
    page.clock.fast_forward(LIVE_MS)
    expect(attention).to_contain_text("never/one")
    page.get_by_role("link", name="Trials", exact=True).click()
    expect(page.get_by_label("Refresh by itself")).not_to_be_checked()
    page.get_by_label("Refresh by itself").check()
    failing.must(failing.register(job_id="never/one", job_id_prefix="never"))
    crash(failing)
    page.clock.fast_forward(LIVE_MS)
    expect(page.locator("#rows tbody tr").first).to_contain_text("never/one")


def test_a_ticked_job_stays_ticked_while_its_list_changes(page: Page, failing: Calls) -> None:
    page.clock.install()
    log_in(page, "viewer")
    page.goto("/admin/jobs/")
    box = page.get_by_role("checkbox", name="Tick never/one")
    box.check()
    page.locator("h1").click()  # the box has the focus no more
    crash(failing)
    with page.expect_response(lambda answer: "/admin/jobs/" in answer.url):
        page.clock.fast_forward(LIVE_MS)
    expect(page.locator("#total")).to_be_visible()
    expect(box).to_be_checked()
    box.uncheck()
    page.locator("h1").click()
    page.clock.fast_forward(LIVE_MS)
    expect(page.locator("#rows tr", has_text="never/one")).to_contain_text("3")
