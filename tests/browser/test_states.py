"""Pages in the states that are rare: empty, paused, stuck, refused, expired. Each is looked at by axe, and saved."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from backend.usecases import users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.users import Role
from tests.browser.steps import PASSWORD, check, log_in, open_job
from tests.calls import Calls
from tests.databases import in_application
from tests.servers import Server


@pytest.fixture
def theme(request: pytest.FixtureRequest) -> str:
    """The colours of the page: light or dark."""
    return str(request.node.callspec.params["page"])


@pytest.fixture(scope="module")
def empty_site(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a user and without a job."""
    folder = tmp_path_factory.mktemp("empty")
    file = folder / "bso.db"
    file.write_bytes(migrated_sqlite_file.read_bytes())
    url = f"sqlite:///{file}"
    with in_application(url):
        users.create("admin", PASSWORD, Role.ADMIN, COMMAND_LINE)
    with Server(url, folder) as server:
        yield server


@pytest.fixture
def stuck(admin_calls: Calls) -> str:
    """The id of a job whose batch sizes have all failed."""
    calls = admin_calls
    calls.delete("stuck/one")
    calls.must(calls.register(job_id="stuck/one", job_id_prefix="stuck", batch_sizes=[8, 16], default_batch_size=8))
    while calls.describe("stuck/one")["stage"] != "Stuck":
        calls.diverge(calls.trial("stuck/one"))
    return "stuck/one"


@pytest.fixture
def paused(admin_calls: Calls) -> str:
    """The id of a paused job."""
    calls = admin_calls
    calls.delete("paused/one")
    calls.must(calls.register(job_id="paused/one", job_id_prefix="paused"))
    calls.converge(calls.trial("paused/one"))
    return "paused/one"


@pytest.mark.in_both_modes
def test_an_empty_server_has_code_to_copy(page: Page, empty_site: Server, theme: str) -> None:
    assert page.context.browser is not None
    context = page.context.browser.new_context(
        base_url=empty_site.url, color_scheme=theme, permissions=["clipboard-read", "clipboard-write"]
    )
    there = context.new_page()
    log_in(there, "admin")
    faults = check(there, f"empty-overview-{theme}")
    there.get_by_role("button", name="Copy the code").click()
    expect(there.get_by_role("button", name="Copy the code")).to_have_text("Copied")
    copied = there.evaluate("navigator.clipboard.readText()")
    assert copied == there.locator("#snippet").inner_text()
    compile(copied, "snippet", "exec")
    assert empty_site.url in copied
    for name in ("jobs", "trials", "savings", "compare", "tokens", "audit"):
        there.goto(f"/admin/{name}/")
        faults += check(there, f"empty-{name}-{theme}")
    context.close()
    assert faults == []


@pytest.mark.in_both_modes
def test_a_paused_and_a_stuck_job_say_so(page: Page, paused: str, stuck: str, theme: str) -> None:
    log_in(page, "admin")
    open_job(page, paused)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#state")).to_contain_text("Paused: every run gets the default batch size")
    faults = check(page, f"paused-{theme}")
    open_job(page, stuck)
    expect(page.locator("#state")).to_contain_text("Stuck: no batch size converged")
    faults += check(page, f"stuck-{theme}")
    page.goto("/admin/jobs/")
    faults += check(page, f"jobs-paused-and-stuck-{theme}")
    page.goto("/admin/")
    expect(page.locator("#attention")).to_contain_text("Stuck: ")
    faults += check(page, f"overview-stuck-{theme}")
    assert faults == []


@pytest.mark.in_both_modes
@pytest.mark.expects_status(401, 409, 422)
def test_refused_forms_say_why_and_keep_what_was_typed(page: Page, theme: str) -> None:
    log_in(page, "admin", "wrong password")
    expect(page.get_by_role("alert")).to_contain_text("No user has this name and this password")
    expect(page.get_by_label("Name")).to_have_value("admin")
    faults = check(page, f"refused-login-{theme}")
    log_in(page, "admin")
    page.goto("/admin/job/?job=speech")
    page.get_by_text("Note and tags…").click()
    page.get_by_label("Note").fill("a heat wave")
    page.get_by_label("Tags").fill("heat/wave")
    page.evaluate("document.querySelector('#note form').noValidate = true")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was saved: tags: the tag 'heat/wave'")
    expect(page.get_by_label("Note")).to_have_value("a heat wave")
    expect(page.get_by_label("Tags")).to_have_value("heat/wave")
    faults += check(page, f"refused-note-{theme}")
    page.goto("/admin/job/derive?job=speech")
    page.get_by_label("Batch sizes").first.fill("8, many")
    page.get_by_role("button", name="Register the job").click()
    expect(page.get_by_role("alert").first).to_contain_text("Batch sizes, 'many'")
    faults += check(page, f"refused-job-{theme}")
    page.goto("/admin/users/")
    page.get_by_label("Name").fill("viewer")
    page.get_by_label("Password, at least").first.fill(PASSWORD)
    page.get_by_role("button", name="Create a user").click()
    expect(page.get_by_role("alert")).to_contain_text("viewer")
    faults += check(page, f"refused-user-{theme}")
    page.goto("/admin/savings/?from=2026-03-01&to=2026-02-01")
    faults += check(page, f"refused-days-{theme}")
    assert faults == []


@pytest.mark.expects_status(422)
def test_a_page_with_a_refused_form_still_refreshes(page: Page, paused: str, admin_calls: Calls) -> None:
    page.clock.install()
    log_in(page, "admin")
    open_job(page, paused)
    page.get_by_text("Note and tags…").click()
    page.get_by_label("Tags").fill("a/b")
    page.evaluate("document.querySelector('#note form').noValidate = true")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#plots[data-drawn=yes]")).to_be_visible()
    admin_calls.trial(paused)
    page.clock.fast_forward(5000)
    expect(page.locator("#trials tr[data-trial='2']")).to_contain_text("running")
    expect(page.locator("#notice")).to_be_empty()
    expect(page.get_by_label("Tags")).to_have_value("a/b")


@pytest.mark.in_both_modes
def test_a_form_of_an_expired_session_is_filled_in_again_after_the_login(page: Page, theme: str) -> None:
    log_in(page, "operator")
    open_job(page, "speech")
    page.get_by_text("Note and tags…").click()
    page.get_by_label("Note").fill("typed before the end")
    page.context.clear_cookies()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Your session has ended, so nothing was done")).to_be_visible()
    faults = check(page, f"expired-session-{theme}")
    page.get_by_label("Name").fill("operator")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_label("Note")).to_have_value("typed before the end")
    expect(page.get_by_text("The form was not sent")).to_be_visible()
    faults += check(page, f"form-after-the-login-{theme}")
    page.reload()
    expect(page.get_by_text("The form was not sent")).to_have_count(0)
    assert faults == []


def row_of_operator(page: Page) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="operator"))


def test_what_was_typed_comes_back_in_its_own_form_and_not_after_a_log_out(page: Page) -> None:
    log_in(page, "admin")

    def change_rights_without_a_session() -> None:
        page.goto("/admin/users/")
        page.get_by_label("Change the rights of operator").click()
        row = row_of_operator(page)
        row.get_by_label("Role").select_option("admin")
        row.get_by_label("Only jobs starting with").fill("team-")
        page.context.clear_cookies()
        row.get_by_role("button", name="Change the rights").click()
        expect(page.get_by_text("Your session has ended, so nothing was done")).to_be_visible()

    change_rights_without_a_session()
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    row = row_of_operator(page)
    expect(row.get_by_label("Role")).to_have_value("admin")
    expect(row.get_by_label("Only jobs starting with")).to_have_value("team-")
    create = page.locator("form", has=page.get_by_role("button", name="Create a user"))
    expect(create.get_by_label("Role")).to_have_value("viewer")
    expect(create.get_by_label("Only jobs starting with")).to_have_value("")
    change_rights_without_a_session()
    log_in(page, "admin")
    page.get_by_role("button", name="Log out").click()
    log_in(page, "admin")
    page.goto("/admin/users/")
    expect(row_of_operator(page).get_by_label("Only jobs starting with")).to_have_value("")


@pytest.mark.in_both_modes
def test_a_list_without_a_match_leads_back_to_all(page: Page, theme: str) -> None:
    log_in(page, "admin")
    faults = []
    for name in ("jobs", "trials", "audit"):
        page.goto(f"/admin/{name}/?search=no-such-thing")
        expect(page.locator("tbody")).to_contain_text("Nothing found. Show all")
        faults += check(page, f"no-match-{name}-{theme}")
    page.goto("/admin/compare/?search=no-such-thing")
    faults += check(page, f"no-match-compare-{theme}")
    assert faults == []
