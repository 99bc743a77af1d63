"""What people do on the admin page, one step each."""

from typing import Any

from playwright.sync_api import Locator, Page, expect

PASSWORD = "correct horse battery"
JOB = "vision/<b>resnet</b>"
MOST_TABS = 100


def log_in(page: Page, name: str, password: str = PASSWORD) -> None:
    page.goto("/admin/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def open_job(page: Page, job: str = JOB) -> None:
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_label("Search").fill(job)
    page.get_by_role("button", name="Find").click()
    page.get_by_role("link", name=job, exact=True).click()
    expect(page.locator("#plots[data-drawn=yes]")).to_be_visible()


def drawn(page: Page, plot: str) -> dict[str, dict[str, Any]]:
    """The traces that plotly holds, by name."""
    traces = page.evaluate("id => document.getElementById(id).data.map(({name, x, y}) => ({name, x, y}))", plot)
    return {trace["name"]: trace for trace in traces}


def tab_to(page: Page, target: Locator) -> None:
    """Press the tab key until something has the focus."""
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{target} cannot be reached by the keyboard")
