"""A page that stays open during a training: the parts that it refreshes, and the parts that it leaves to the user."""

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.steps import drawn, log_in, wait_for_refresh
from tests.calls import Calls


@pytest.fixture
def training(admin_calls: Calls) -> Calls:
    """The calls of a training. The job is the test's own and has one running trial."""
    calls = admin_calls
    calls.delete("live")
    calls.must(calls.register(job_id="live", job_id_prefix="live", eta_knob=0.5, beta_knob=None))
    for size in (16, 8):
        trial = calls.trial("live")
        assert trial["batch_size"] == size
        calls.must(calls.report(trial, time=160.0 / size, energy=400.0 + 30 * size, metric=1.0))
    calls.trial("live")
    return calls


def open_live(page: Page) -> None:
    page.clock.install()
    log_in(page, "admin")
    page.goto("/admin/job/?job=live")
    expect(page.locator("#plots[data-drawn=yes]")).to_be_visible()
    page.evaluate("window.sameDocument = true")


def running(training: Calls) -> dict[str, object]:
    return training.records("live")[-1] | {"job_id": "live"}


def test_a_running_trial_is_refreshed_without_moving_the_slider(page: Page, training: Calls) -> None:
    open_live(page)
    slider = page.get_by_label("eta, the weight")
    slider.fill("0.9")
    training.must(training.report(running(training), energy=77.0))
    wait_for_refresh(page)
    expect(page.locator("#trials")).to_contain_text("77.0 J")
    training.must(training.report(running(training), energy=78.0, metric=1.0, current_epoch=2))
    training.trial("live")
    wait_for_refresh(page)
    expect(page.locator("#trials tr[data-trial='4']")).to_contain_text("running")
    expect(page.locator("#trials tr[data-trial='3']")).to_contain_text("converged")
    expect(page.locator("#figures")).to_contain_text("4")
    assert 3 in drawn(page, "costs")["32"]["x"]
    assert slider.input_value() == "0.9"
    assert page.evaluate("window.sameDocument")


def test_a_form_that_is_being_filled_in_is_left_alone_and_the_rest_is_not(page: Page, training: Calls) -> None:
    open_live(page)
    page.get_by_text("Delete…").click()
    typed = page.get_by_label("Type the job's id")
    typed.fill("liv")
    training.must(training.report(running(training), energy=79.0, metric=1.0, current_epoch=2))
    wait_for_refresh(page)
    expect(page.locator("#trials tr[data-trial='3']")).to_contain_text("converged")
    assert typed.input_value() == "liv"
    typed.fill("live")
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator(".message.good")).to_contain_text("Deleted")


def test_a_change_while_a_page_loads_is_shown_too(page: Page, training: Calls) -> None:
    page.clock.install()
    log_in(page, "viewer")

    def report_before_the_figures_load(route: Route) -> None:
        training.must(training.report(running(training), energy=81.0, metric=1.0, current_epoch=2))
        route.continue_()

    page.route("**/admin/job/plots*", report_before_the_figures_load, times=1)
    page.goto("/admin/job/?job=live")
    expect(page.locator("#plots[data-drawn=yes]")).to_be_visible()
    wait_for_refresh(page)
    expect(page.locator("#trials tr[data-trial='3']")).to_contain_text("converged")


@pytest.mark.expects_status(404)
def test_a_deleted_job_and_an_ended_session_show_a_notice(page: Page, training: Calls) -> None:
    open_live(page)
    training.delete("live")
    wait_for_refresh(page)
    expect(page.locator("#notice")).to_contain_text("The server answered 404")
    page.context.clear_cookies()
    wait_for_refresh(page)
    expect(page.locator("#notice")).to_contain_text("The session has ended")


def test_a_trials_page_follows_its_training_to_its_end(page: Page, training: Calls) -> None:
    page.clock.install()
    log_in(page, "viewer")
    page.goto("/admin/trial/?job=live&number=3")
    expect(page.locator("#plots[data-drawn=yes]")).to_be_visible()
    training.must(training.report(running(training), time=2.0, energy=80.0, metric=0.25))
    wait_for_refresh(page)
    expect(page.locator("#reports")).to_contain_text("0.25")
    training.must(training.report(running(training), time=4.0, energy=99.0, metric=1.0, current_epoch=2))
    wait_for_refresh(page)
    expect(page.locator("#state")).to_contain_text("converged")
    expect(page.locator("#report-count")).to_contain_text("(2)")
    assert drawn(page, "metric")["metric"]["y"] == [0.25, 1.0]
    assert drawn(page, "metric")["target"]["y"] == [1.0, 1.0]


def test_two_jobs_are_drawn_side_by_side(page: Page, training: Calls) -> None:
    log_in(page, "viewer")
    page.goto("/admin/job/?job=live")
    page.get_by_role("link", name="Compare with other jobs").click()
    page.get_by_label("speech").check()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#plots[data-drawn=yes]")).to_be_visible()
    assert set(drawn(page, "cost")) == {"live", "speech"}
    mean_costs = {size["batch_size"]: size.get("mean_cost") for size in training.describe("live")["batch_sizes"]}
    trace = drawn(page, "cost")["live"]
    assert dict(zip(trace["x"], trace["y"], strict=True)) == {size: cost for size, cost in mean_costs.items() if cost}


def test_two_gpus_are_compared_with_two_clicks_on_the_list_and_three_ticks_do_it_too(
    page: Page, training: Calls
) -> None:
    for gpu in ("A100", 'H100 "80 <GB>"'):
        job_id = f"gpus-{gpu}"
        training.must(training.register(job_id=job_id, job_id_prefix="gpus-", gpu_model=gpu))
        training.converge(training.trial(job_id))
    log_in(page, "viewer")
    page.goto("/admin/jobs/?search=gpus-")
    page.get_by_role("link", name="gpus-A100").click()
    page.get_by_role("link", name="Compare with this training on other GPUs").click()
    expect(page.locator("#plots[data-drawn=yes]")).to_be_visible()
    assert len(drawn(page, "energy")) == 2
    page.goto("/admin/jobs/?search=gpus-")
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Compare the ticked jobs").click()
    expect(page.locator("#plots[data-drawn=yes]")).to_be_visible()
    expect(page.locator("#sizes thead")).to_contain_text('gpus-H100 "80 <GB>"')
    assert 'gpus-H100 "80 <GB>"' in page.locator("#cost .legendtext").all_text_contents()
