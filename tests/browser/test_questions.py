"""The ten questions of an engineer, each answered in at most three steps from the overview, by mouse and by keyboard.

A step is a click, or the key that does the same. No id is typed. `pytest -s` shows the steps of each question.
"""

from collections.abc import Callable
from uuid import uuid4

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.steps import drawn, log_in, tab_to
from tests.calls import Calls

MAX_STEPS = 3
GPUS = ("A100", "H100")


@pytest.fixture
def history(admin_calls: Calls) -> None:
    """A training on two GPUs that has converged, one that fails three times, and a job that was deleted."""
    calls = admin_calls
    for job_id in ("lost-one", "broken-one", *map("asked-{}".format, GPUS)):
        calls.delete(job_id)
    for gpu in GPUS:
        calls.must(calls.register(job_id=f"asked-{gpu}", job_id_prefix="asked", gpu_model=gpu, policy="gp-ucb"))
        for _ in range(3):
            calls.converge(calls.trial(f"asked-{gpu}"))
    calls.must(calls.register(job_id="broken-one", job_id_prefix="broken"))
    for _ in range(3):
        calls.must(calls.end(calls.trial("broken-one"), reason="CUDA driver error", current_epoch=1))
    calls.must(calls.register(job_id="lost-one", job_id_prefix="lost"))
    calls.must(calls.delete("lost-one"))


class Walk:
    """A walk from the overview to an answer. It counts the steps."""

    def __init__(self, page: Page, press: Callable[[Locator], None]) -> None:
        self._page, self._press = page, press
        self.steps: dict[str, int] = {}

    def __call__(self, question: str, *path: Callable[[], Locator]) -> None:
        """Go to the overview, and press one after the other."""
        self._page.goto("/admin/")
        for target in path:
            self._press(target())
        self.steps[question] = len(path)
        assert len(path) <= MAX_STEPS


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_each_question_is_answered_in_three_steps_without_typing_an_id(page: Page, by: str) -> None:
    def press(target: Locator) -> None:
        if by == "mouse":
            target.click()
        else:
            tab_to(page, target)
            with page.expect_navigation():
                page.keyboard.press("Enter")

    def link(name: str) -> Callable[[], Locator]:
        return lambda: page.get_by_role("link", name=name, exact=True).first

    def button(name: str) -> Callable[[], Locator]:
        return lambda: page.get_by_role("button", name=name, exact=True)

    log_in(page, "admin")
    walk = Walk(page, press)

    walk("the recommended batch size of a job, and why", link("Jobs"), link("asked-A100"))
    expect(page.locator("#figures")).to_contain_text("Recommended batch size")
    expect(page.locator("#state")).to_contain_text("The next run gets batch size")

    walk("saved this month by team", link("By team"))
    expect(page.get_by_role("region", name="Savings by team")).to_contain_text("asked")

    walk(
        "why a run of the last night failed",
        link("Trials"),
        link("Failures of 7 days"),
        lambda: page.locator("tr", has_text="broken-one").first.get_by_role("link", name="trial"),
    )
    expect(page.locator("#state")).to_contain_text("CUDA driver error")

    walk("what is stuck")
    expect(page.locator("#attention")).to_contain_text("broken-one")

    walk("which jobs never converge")
    expect(page.get_by_role("region", name="Jobs that never converged")).to_contain_text("broken-one")

    walk("who deleted a job", link("Audit"))
    deletion = page.locator("tbody tr", has_text="lost-one").filter(has_text="delete").first
    expect(deletion).to_contain_text("token test_each_question")

    walk("a token for a team", link("Tokens"))
    page.get_by_label("Label").fill(f"team-{uuid4().hex}")
    page.get_by_label("Only jobs starting with").fill("asked")
    press(button("Create a token")())
    expect(page.locator("#new-token")).to_be_visible()

    walk("another eta, as a new job", link("asked-A100"), button("New job with this eta…"), button("Register the job"))
    expect(page.get_by_role("status").filter(has_text="Give the training job_id")).to_be_visible()

    walk("two GPUs compared", link("Jobs"), link("asked-A100"), link("Compare with this training on other GPUs"))
    expect(page.locator("#plots[data-drawn=yes]")).to_be_visible()
    assert len(drawn(page, "energy")) == len(GPUS)

    walk("everything exported", link("Jobs"))
    with page.expect_download() as download:
        if by == "mouse":
            button("reports.csv")().click()
        else:
            tab_to(page, button("reports.csv")())
            page.keyboard.press("Enter")
    assert "energy_j" in download.value.path().read_text()
    walk.steps["everything exported"] += 1

    print(f"\nsteps by {by}:", *(f"{steps} {question}" for question, steps in walk.steps.items()), sep="\n  ")
