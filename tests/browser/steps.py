"""Steps of a user on the admin page."""

from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

PASSWORD = "correct horse battery"
JOB = "vision/<b>resnet</b>"
MAX_TABS = 300
REFRESH_MS = 5000  # as in static/figures.js
SCREENSHOTS = Path("build/screenshots")
WIDTHS = (1024, 1440)
"""Widths of the screenshots, in pixels: a laptop and a desktop."""
TOO_WIDE = """() => [...document.querySelectorAll("html, .scroll, pre")]
    .filter(element => element.scrollWidth > element.clientWidth + 1).map(element => element.outerHTML.slice(0, 80))"""
FIGURES_FIT = """() => [...document.querySelectorAll(".plot")].every(plot => {
    const drawing = plot.querySelector(".main-svg");
    return drawing === null || Math.abs(drawing.clientWidth - plot.clientWidth) <= 1;
})"""


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


def check(page: Page, name: str) -> list[str]:
    """Save screenshots of the page, and return the serious findings of axe-core. Dark mode changes only colours."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    if page.locator("#plots").count():
        expect(page.locator("#plots[data-drawn=yes]")).to_be_visible()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(FIGURES_FIT)
        page.screenshot(path=SCREENSHOTS / f"{name}-{width}.png", full_page=True)
        assert page.evaluate(TOO_WIDE) == [], f"{name} scrolls sideways at {width} pixels"
    options = {"runOnly": ["color-contrast"]} if name.endswith("dark") else None
    violations = Axe().run(page, options=options).response["violations"]
    return [
        f"{name}: {violation['id']}: {violation['nodes'][0]['html'][:120]}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]
