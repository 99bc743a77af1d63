"""The controls of a job's figures, in a real browser."""

from playwright.sync_api import Page, expect

from tests.browser.steps import drawn, log_in, open_job, tab_to


def test_trials_are_shown_by_the_time_of_their_end_and_costs_on_a_logarithmic_axis(page: Page) -> None:
    log_in(page, "viewer")
    open_job(page)
    layout = "() => document.getElementById('costs').layout"
    assert page.evaluate(layout)["yaxis"]["type"] == "linear"
    numbers = drawn(page, "costs")["16"]["x"]
    for label in ("Trials by the time of their end", "Logarithmic costs"):
        tab_to(page, page.get_by_label(label))
        page.keyboard.press("Space")
    expect(page.locator("#costs .xtitle")).to_have_text("end of the trial")
    assert page.evaluate(layout)["yaxis"]["type"] == "log"
    times = drawn(page, "costs")["16"]["x"]
    assert len(times) == len(numbers)
    assert times == sorted(times)
    page.get_by_label("Trials by the time of their end").uncheck()
    expect(page.locator("#costs .xtitle")).to_have_text("trial")
    assert drawn(page, "costs")["16"]["x"] == numbers


def test_the_metric_of_chosen_trials_is_shown(page: Page) -> None:
    log_in(page, "viewer")
    open_job(page)
    assert "trial 2" not in drawn(page, "curves")
    page.get_by_label("Numbers of up to 8 trials").fill("2, 3")
    page.keyboard.press("Enter")
    expect(page.locator("#curves .legend")).to_contain_text("trial 2")
    assert list(drawn(page, "curves")) == ["trial 2", "trial 3", "target"]


def test_a_click_on_a_point_leads_to_its_trial(page: Page) -> None:
    log_in(page, "viewer")
    open_job(page)
    size, trace = next(iter(drawn(page, "costs").items()))
    point = page.locator("#costs .points path.point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#costs .hoverlayer")).to_contain_text(f"Trial {trace['x'][0]} with batch size {size}")
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"Trial {trace['x'][0]} of")
