"""Steps of a user on the admin page."""

from typing import Any

from playwright.sync_api import Locator, Page, expect

PASSWORD = "correct horse battery"
JOB = "vision/<b>resnet</b>"
MAX_TABS = 300
REFRESH_MS = 5000  # as in static/figures.js


def log_in(page: Page, name: str, password: str = PASSWORD) -> None:
    page.goto("/admin/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def wait_for_refresh(page: Page) -> None:
    """Let the time pass after which an open page asks for changes. The page must have been opened with a clock."""
    page.clock.fast_forward(REFRESH_MS)


def open_job(page: Page, job: str = JOB) -> None:
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_label("Search").fill(job)
    page.get_by_role("button", name="Find").click()
    page.get_by_role("link", name=job, exact=True).click()
    expect(page.locator("#plots[data-drawn=yes]")).to_be_visible()


def drawn(page: Page, plot: str) -> dict[str, dict[str, Any]]:
    """Return the traces that plotly has drawn, by name."""
    traces = page.evaluate("id => document.getElementById(id).data.map(({name, x, y}) => ({name, x, y}))", plot)
    return {trace["name"]: trace for trace in traces}


def tab_to(page: Page, target: Locator) -> None:
    """Press the tab key until the target has the focus."""
    for _ in range(MAX_TABS):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{target} cannot be reached by the keyboard")
