"""The admin page in a real browser, in light mode, and in dark mode where colours matter or at full size."""

import pytest
from playwright.sync_api import Page, expect

from backend.usecases import dashboard, reading
from backend.usecases.audit import COMMAND_LINE
from backend.web.admin import plots
from lightning_bso.wire import JobSummary
from tests.browser.steps import JOB, PASSWORD, SCREENSHOTS, check, drawn, log_in, open_job
from tests.databases import in_application
from tests.servers import Server

POST = "async ([url, fields]) => (await fetch(url, {method: 'POST', body: new URLSearchParams(fields)})).status"


def history(site: Server, job: str = JOB) -> dashboard.History:
    with in_application(site.database_url):
        return dashboard.history(job, COMMAND_LINE)


def summary(site: Server, job: str) -> JobSummary:
    with in_application(site.database_url):
        return reading.describe(job, COMMAND_LINE)


def test_each_figure_shows_the_data_of_its_function(page: Page, site: Server) -> None:
    log_in(page, "viewer")
    for job in (JOB, "speech"):
        open_job(page, job)
        for plot, figure in plots.figures(history(site, job)).items():
            traces = drawn(page, plot)
            assert figure["data"]
            for trace in figure["data"]:
                assert traces[trace["name"]]["x"] == trace["x"], plot
                assert traces[trace["name"]]["y"] == pytest.approx(trace["y"]), plot


def test_the_slider_shows_the_cheapest_batch_size_at_another_eta(page: Page, site: Server) -> None:
    log_in(page, "viewer")
    open_job(page)
    of_job = history(site)
    winners = set()
    for eta in (0.0, 0.25, 0.5, 0.75, 1.0):
        page.get_by_label("eta, the weight").fill(str(eta))
        best = plots.winner(of_job.spec, of_job.summaries, eta)
        assert best is not None
        winners.add(best.batch_size)
        expect(page.locator("#eta-says")).to_contain_text(f"batch size {best.batch_size} would be the cheapest")
        times, energies = plots.eta_line(of_job.spec, of_job.summaries, eta)
        line = drawn(page, "energy")["equal cost"]
        assert (line["x"], line["y"]) == (pytest.approx(times), pytest.approx(energies))
    assert len(winners) > 1


@pytest.mark.expects_status(403)
def test_a_viewer_sees_no_actions_and_cannot_take_them(page: Page) -> None:
    log_in(page, "viewer")
    open_job(page)
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    expect(page.get_by_role("link", name="Tokens")).to_have_count(0)
    answer = page.goto("/admin/tokens/")
    assert answer is not None
    assert answer.status == 403
    expect(page.get_by_role("alert")).to_contain_text("needs the role admin")


@pytest.mark.expects_status(403)
def test_forms_that_a_viewer_sends_anyway_are_refused_and_change_nothing(page: Page, site: Server) -> None:
    log_in(page, "viewer")
    open_job(page, "speech")
    before = summary(site, "speech")
    token = page.locator("input[name=csrf_token]").first.input_value()
    for path, field in {
        "job/pause?job=speech": {"paused": "1"},
        "job/reset?job=speech": {},
        "job/end?job=speech": {"number": str(before.trials)},
        "job/delete?job=speech": {"typed": "speech"},
        "tokens/": {"label": "mine", "scope": "admin"},
        "tokens/revoke": {"label": "old"},
    }.items():
        form = [f"/admin/{path}", field | {"csrf_token": token}]
        post = (
            "([url, fields]) => fetch(url, {method: 'POST', body: new URLSearchParams(fields)}).then(it => it.status)"
        )
        assert page.evaluate(post, form) == 403, path
    assert summary(site, "speech") == before


@pytest.mark.expects_status(401)
def test_a_wrong_password_and_an_expired_session_lead_to_the_login(page: Page) -> None:
    log_in(page, "viewer", "wrong password")
    expect(page.get_by_role("alert")).to_contain_text("No user has this name and this password")
    log_in(page, "viewer")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.context.clear_cookies()
    page.get_by_role("link", name="Trials", exact=True).click()
    page.get_by_label("Name").fill("viewer")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Trials")).to_be_visible()


def test_an_admin_ends_a_trial_pauses_and_revokes_a_token(page: Page) -> None:
    log_in(page, "admin")
    open_job(page, "speech")
    if page.get_by_text("End…").count():  # only in the first of the two modes
        page.get_by_text("End…").first.click()
        page.get_by_role("button", name="End trial").first.click()
        expect(page.locator(".message.good")).to_contain_text("is ended")
    expect(page.locator("#trials")).to_contain_text("ended by admin on the admin page")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused: every run gets the default batch size 16")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("link", name="Tokens").click()
    page.get_by_label("Label").fill("temporary")
    page.get_by_role("button", name="Create a token").click()
    expect(page.locator("#new-token")).to_contain_text("bso_")
    page.locator("tr", has_text="temporary").locator("summary").click()
    page.get_by_role("button", name="Revoke temporary for good").click()
    expect(page.locator(".message.good")).to_contain_text("Revoked: temporary")
    page.get_by_role("link", name="Audit").click()
    expect(page.locator("tbody tr").first).to_contain_text("revoke token")


@pytest.mark.in_both_modes
@pytest.mark.expects_status(404)
def test_every_page_is_accessible(page: Page, request: pytest.FixtureRequest) -> None:
    theme = request.node.callspec.params["page"]
    page.goto("/admin/login/")
    faults = check(page, f"login-{theme}")
    log_in(page, "admin")
    faults += check(page, f"overview-{theme}")
    open_job(page)
    faults += check(page, f"job-{theme}")
    last = page.locator("#sizes").bounding_box()
    assert last is not None
    width, height = last["x"] * 2 + last["width"], last["y"] + last["height"] + 20
    top = SCREENSHOTS / f"job-top-{theme}.png"
    page.screenshot(path=top, full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})
    for name, path in {
        "jobs": "/admin/jobs/",
        "trials": "/admin/trials/",
        "trial": "/admin/trial/?job=speech&number=1",
        "new-job": "/admin/job/derive?job=speech&eta=0.3",
        "savings": "/admin/savings/",
        "compare": f"/admin/compare/?job=speech&job={JOB}",
        "choose": "/admin/compare/",
        "account": "/admin/account/",
        "users": "/admin/users/",
        "tokens": "/admin/tokens/",
        "audit": "/admin/audit/",
        "nothing-found": "/admin/trials/?search=no-such-trial",
        "wrong-filter": "/admin/trials/?batch_size=many",
        "no-job": "/admin/job/?job=no-such-job",
    }.items():
        page.goto(path)
        faults += check(page, f"{name}-{theme}")
    assert faults == []


def test_a_missing_script_fails_the_test_that_opens_the_page(page: Page, browser_errors: list[str]) -> None:
    log_in(page, "viewer")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.route("**/figures.js", lambda route: route.fulfill(status=404))
    with page.expect_console_message():
        page.goto("/admin/job/?job=speech")
    assert "status of 404" in browser_errors[0]
    browser_errors.clear()


def test_the_keyboard_alone_suffices(page: Page) -> None:
    log_in(page, "viewer")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
