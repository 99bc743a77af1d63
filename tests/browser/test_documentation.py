"""The documentation site, built strictly and opened in a real browser that may contact only its file server."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from backend.config import ENV_PREFIX, Settings
from tests.servers import ROOT, environment

ACCESSIBLE = ["/", "/cost/", "/policies/", "/measured/", "/reference/http/", "/reference/python/"]


@dataclass(frozen=True)
class Site:
    folder: Path
    url: str


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of http.server
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site on a loopback address. The fixture `page` opens it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield Site(folder, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def test_every_page_of_the_navigation_opens(page: Page) -> None:
    page.goto("/")
    links = page.locator(".md-nav--primary a.md-nav__link").evaluate_all("links => links.map(link => link.href)")
    addresses = {link.partition("#")[0] for link in links}
    assert len(addresses) > 15
    for address in sorted(addresses):
        answer = page.goto(address)
        assert answer is not None
        assert answer.status == 200, address
        expect(page.locator("h1").first).to_be_visible()


def test_every_built_page_is_in_the_navigation(page: Page, site: Site) -> None:
    page.goto("/")
    links = page.locator(".md-nav--primary a.md-nav__link").evaluate_all("links => links.map(link => link.pathname)")
    built = {
        f"/{file.parent.relative_to(site.folder)}/".replace("/./", "/") for file in site.folder.rglob("index.html")
    }
    assert built == set(links)


def test_the_search_finds_a_batch_size(page: Page) -> None:
    page.goto("/")
    search, found = page.get_by_placeholder("Search"), page.locator(".md-search-result__meta")
    search.click()
    expect(found).to_contain_text("Type to start searching")  # what is typed earlier is lost
    search.press_sequentially("batch size")  # the page listens to keys
    expect(found).to_contain_text("matching documents")
    result = page.locator(".md-search-result__link").first
    expect(result).to_be_visible()
    result.click()
    expect(page.locator("article")).to_contain_text("batch size", ignore_case=True)


def test_the_reference_lists_what_the_code_has(page: Page) -> None:
    page.goto("/reference/settings/")
    for name in Settings.model_fields:
        expect(page.get_by_role("cell", name=f"{ENV_PREFIX}{name.upper()}", exact=True)).to_be_visible()
    page.goto("/reference/metrics/")
    expect(page.get_by_role("row", name="zeus_bso_trials")).to_contain_text("Trials by status.")
    page.goto("/reference/http/")
    expect(page.get_by_role("heading", name="POST /report")).to_be_visible()
    page.goto("/reference/python/")
    expect(page.get_by_role("heading", name="ZeusBSOCallback", exact=False).first).to_be_visible()
    page.goto("/reference/command-line/")
    expect(page.locator("article")).to_contain_text("id of the job, or a beginning of it")


@pytest.mark.in_both_modes
@pytest.mark.parametrize("address", ACCESSIBLE)
def test_a_page_is_accessible(page: Page, address: str) -> None:
    page.goto(address)
    findings = Axe().run(page).response["violations"]
    serious = [finding for finding in findings if finding["impact"] in ("serious", "critical")]
    assert [(finding["id"], finding["nodes"][0]["html"][:200]) for finding in serious] == []
