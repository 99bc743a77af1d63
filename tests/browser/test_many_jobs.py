"""The overview and the lists of a server with many jobs: by mouse, by keyboard alone, and on a phone."""

from playwright.sync_api import Page, expect

from backend.usecases import reading
from tests.browser.steps import JOB, log_in, tab_to
from tests.databases import in_application
from tests.servers import Server

PER_PAGE = 50


def count(site: Server) -> tuple[int, int]:
    """Return the numbers of jobs and trials."""
    with in_application(site.database_url):
        counts = reading.count()
    return counts.jobs, sum(counts.trials.values())


def test_the_overview_counts_all_jobs_and_links_to_them(page: Page, site: Server) -> None:
    log_in(page, "viewer")
    jobs, _ = count(site)
    assert jobs >= 12
    expect(page.locator(".figures div", has_text="Jobs").first).to_contain_text(str(jobs))
    running = page.get_by_role("region", name="Running trials").get_by_role("link", name="team-").first
    job = running.inner_text()
    running.click()
    expect(page.get_by_role("heading", name=job, exact=True)).to_be_visible()
    expect(page.locator("#plots[data-drawn=yes]")).to_be_visible()


def test_the_lists_show_all_jobs_and_trials_in_pages(page: Page, site: Server) -> None:
    log_in(page, "viewer")
    for name, total in zip(("Jobs", "Trials"), count(site), strict=True):
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_role("heading", name=name)).to_contain_text(f"({total})")
        expect(page.locator("tbody tr")).to_have_count(min(total, PER_PAGE))
    last = -(-total // PER_PAGE)
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_text(f"Page 2 of {last}", exact=True)).to_be_visible()
    page.goto(f"/admin/trials/?page={last - 1}")
    expect(page.locator("tbody tr")).to_have_count(total - (last - 1) * PER_PAGE)
    expect(page.get_by_role("link", name="Next")).to_have_count(0)


def test_filters_and_order_select_and_sort_the_rows(page: Page) -> None:
    log_in(page, "viewer")
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_label("Policy").select_option("zeus")
    page.get_by_role("button", name="Find").click()
    policies = page.locator("tbody td:nth-child(2)")
    expect(policies.first).to_have_text("zeus")
    assert set(policies.all_inner_texts()) == {"zeus"}
    page.get_by_role("columnheader", name="Job").get_by_role("link", name="Job").click()
    expect(page.get_by_role("columnheader", name="Job")).to_have_attribute("aria-sort", "ascending")
    jobs = page.locator("tbody td:nth-child(1)").all_inner_texts()
    assert len(jobs) >= 3
    assert jobs == sorted(jobs)


def test_the_keyboard_alone_finds_sorts_and_opens_a_job(page: Page) -> None:
    log_in(page, "viewer")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    tab_to(page, page.get_by_role("link", name="Jobs", exact=True))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    tab_to(page, page.get_by_label("Search"))
    page.keyboard.type("team-")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="speech", exact=True)).to_have_count(0)
    for order in ("ascending", "descending"):
        tab_to(page, page.get_by_role("columnheader", name="Job").get_by_role("link", name="Job"))
        page.keyboard.press("Enter")
        expect(page.get_by_role("columnheader", name="Job")).to_have_attribute("aria-sort", order)
    last = page.locator("tbody a").first
    job = last.inner_text()
    tab_to(page, last)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=job, exact=True)).to_be_visible()


def test_on_a_phone_no_page_is_wider_than_the_screen_and_the_menu_is_there(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    log_in(page, "admin")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    menu = page.get_by_role("navigation", name="Pages")
    wider = []
    for name in menu.get_by_role("link").all_inner_texts():
        link = menu.get_by_role("link", name=name, exact=True)
        expect(link).to_be_in_viewport(ratio=1)
        link.click()
        expect(link).to_have_attribute("aria-current", "page")
        wider += [name] * is_wider_than_the_screen(page)
    for path in (f"job/?job={JOB}", "trial/?job=speech&number=1", f"compare/?job=speech&job={JOB}"):
        page.goto(f"/admin/{path}")
        wider += [path] * is_wider_than_the_screen(page)
    assert wider == []


def is_wider_than_the_screen(page: Page) -> bool:
    page.wait_for_load_state()  # a page without its styles has another width
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))
