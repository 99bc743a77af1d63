"""The admin page and the API's documentation below a proxy's path, with requests and in a real browser."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from lightning_bso import BsoClient
from tests import specs
from tests.client.jobs import registered
from tests.logins import PASSWORD, csrf
from tests.proxies.conftest import Site


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """A browser page. Afterwards, check that all requests stayed below the path, and that no error occurred."""
    outside: list[str] = []
    errors: list[str] = []
    context = browser.new_context(ignore_https_errors=True)
    opened = context.new_page()
    opened.on(
        "request",
        lambda request: (
            outside.append(request.url) if not request.url.startswith((f"{site.url}/", "data:", "blob:")) else None
        ),
    )
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert (outside, errors) == ([], [])


@pytest.fixture
def session(trusted: Site) -> requests.Session:
    """A session of ada."""
    session = requests.Session()
    address = f"{trusted.url}/admin/login/"
    form = {"name": "ada", "password": PASSWORD, "csrf_token": csrf(session.get(address, timeout=30).text)}
    answer = session.post(address, form, headers={"Referer": address}, allow_redirects=False, timeout=30)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/bso/admin/")
    return session


def log_in(page: Page, site: Site, path: str = "/admin/") -> None:
    page.goto(site.url + path)
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def test_a_user_works_below_the_path(page: Page, site: Site, trusted: Site) -> None:
    client = BsoClient(trusted.url, trusted.token)
    job_id = f"vision//{site.server.port}/resnet"
    client.register(registered(job_id=job_id, job_id_prefix=job_id))
    client.ask(job_id, "run")
    log_in(page, site)
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_label("Search").fill(job_id)
    page.get_by_role("button", name="Find").click()
    page.get_by_role("link", name=job_id, exact=True).click()
    expect(page.locator("#plots[data-drawn=yes]")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert client.describe(job_id).paused
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()


def test_after_the_login_the_page_that_was_asked_for_comes(page: Page, site: Site) -> None:
    log_in(page, site, "/admin/tokens/")
    expect(page).to_have_url(f"{site.url}/admin/tokens/")
    page.get_by_label("Label").fill(f"from the page at {site.server.port}")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_text("bso_").first).to_be_visible()


def test_the_documentation_tries_calls_below_the_path(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/openapi/swagger")
    operation = page.locator(".opblock", has_text="/healthz")
    operation.click()
    operation.get_by_role("button", name="Try it out").click()
    with page.expect_response(f"{site.url}/healthz") as answer:
        operation.get_by_role("button", name="Execute").click()
    assert answer.value.status == 200


def test_only_pages_below_the_path_get_the_sessions_cookie(session: requests.Session) -> None:
    (cookie,) = session.cookies
    assert (cookie.name, cookie.path, cookie.secure) == ("bso_session", "/bso", True)


def test_logging_out_ends_the_session(session: requests.Session, site: Site) -> None:
    token = csrf(session.get(f"{site.url}/admin/", timeout=30).text)
    referer = {"Referer": f"{site.url}/admin/"}
    answer = session.post(f"{site.url}/admin/login/out", {"csrf_token": token}, headers=referer, timeout=30)
    assert answer.url == f"{site.url}/admin/login/"
    assert not list(session.cookies) or session.get(f"{site.url}/admin/", timeout=30).url != f"{site.url}/admin/"


@pytest.mark.parametrize("path", ["", "/", "/admin", "/admin/jobs"])
def test_every_redirect_stays_below_the_path(session: requests.Session, site: Site, path: str) -> None:
    answer = session.get(site.url + path, allow_redirects=False, timeout=30)
    while answer.is_redirect:
        assert answer.next is not None
        assert answer.next.url is not None
        assert answer.next.url.startswith(f"{site.url}/"), answer.next.url
        answer = session.get(answer.next.url, allow_redirects=False, timeout=30)
    assert answer.status_code == 200


def test_the_callers_address_and_nothing_that_the_caller_invents_arrives(trusted: Site) -> None:
    invented = dict.fromkeys(("X-Forwarded-For", "X_Forwarded_For", "X-Forwarded_For"), "198.51.100.1")
    prefix = {
        "X-Forwarded-Prefix": "/elsewhere",
        "X_Forwarded_Prefix": "/elsewhere",
        "X_Forwarded_Host": "evil.example",
    }
    headers = invented | prefix | {"Authorization": f"Bearer {trusted.token}"}
    job = specs.job(job_id=f"train-{trusted.server.port}")
    assert requests.post(f"{trusted.url}/jobs", json=job, headers=headers, timeout=30).status_code == 201
    entries = requests.get(f"{trusted.url}/audit", headers=headers, timeout=30).json()["entries"]
    assert entries[0]["address"] == "127.0.0.1"
    page = requests.get(f"{trusted.url}/admin/", headers=headers, allow_redirects=False, timeout=30)
    assert urlsplit(page.headers["Location"]).path == "/bso/admin/login/"
    assert "example" not in page.headers["Location"]


def test_a_body_that_is_too_large_is_refused(trusted: Site) -> None:
    headers = {"Authorization": f"Bearer {trusted.token}"}
    answer = requests.post(f"{trusted.url}/jobs", data=b"x" * 70_000, headers=headers, timeout=30)
    assert answer.status_code == 413
