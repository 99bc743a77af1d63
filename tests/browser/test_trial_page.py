"""Why a run failed, found with few clicks and without typing, and buttons that copy."""

from playwright.sync_api import Page, expect

from tests.browser.steps import log_in, open_job, tab_to


def test_why_a_run_failed_is_three_clicks_from_the_overview(page: Page) -> None:
    log_in(page, "viewer")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.get_by_role("link", name="Trials", exact=True).click()
    page.get_by_role("link", name="Failures of 7 days").click()
    assert "zone=" in page.url
    expect(page.locator("tbody .badge.failed").first).to_have_text("failed: diverged")
    page.locator("tbody tr", has=page.locator(".badge.failed")).first.get_by_role("link", name="trial").click()
    expect(page.locator("#state")).to_contain_text("failed: diverged")
    expect(page.locator("#state")).to_contain_text("the run has diverged")
    expect(page.locator("#state")).to_be_in_viewport()
    number = int(page.locator("#neighbours .small").inner_text().split()[0])
    page.get_by_role("link", name=f"Trial {number - 1}").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"Trial {number - 1} of")


def test_a_form_by_date_keeps_the_browsers_zone_in_the_address(page: Page) -> None:
    log_in(page, "viewer")
    page.get_by_role("link", name="Trials", exact=True).click()
    page.get_by_role("button", name="Find").click()
    assert "zone" not in page.url
    page.get_by_label("Started").select_option("night")
    page.get_by_role("button", name="Find").click()
    assert "zone=" in page.url


def test_the_keyboard_copies_a_jobs_id_and_a_screen_reader_hears_it(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    log_in(page, "viewer")
    open_job(page, "speech")
    button = page.get_by_role("button", name="Copy the job’s id")
    tab_to(page, button)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Copied: the job’s id")).to_have_count(1)
    assert page.evaluate("navigator.clipboard.readText()") == "speech"
    expect(button).to_be_focused()
