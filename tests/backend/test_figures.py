"""The figures of a job's page, for jobs that are hard to draw."""

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from backend.core.summary import SizeSummary
from backend.web.admin import plots
from tests.calls import Calls


def figures(client: FlaskClient, trials: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = client.get("/admin/job/plots", query_string={"job": "train", "trials": trials}).json or {}
    return dict(answer["figures"])


def texts(figure: dict[str, Any]) -> str:
    return " ".join(annotation["text"] for annotation in figure["layout"].get("annotations", []))


def test_a_job_without_ended_runs_has_empty_figures_that_say_why(calls: Calls, client: FlaskClient) -> None:
    calls.register()
    calls.trial()
    drawn = figures(client)
    assert texts(drawn["costs"]) == "No run has ended yet."
    assert "before a run has ended" in texts(drawn["beliefs"])
    assert "No run has converged" in texts(drawn["energy"])
    assert "no batch size has converged" in texts(drawn["savings"])
    assert "has reported a metric" in texts(drawn["curves"])
    assert all(not figure["layout"]["xaxis"]["visible"] for figure in drawn.values())


def test_one_converged_size_has_axes_around_it_and_a_line_through_it(calls: Calls, client: FlaskClient) -> None:
    calls.register(eta_knob=0.5)
    calls.must(calls.report(calls.trial(), metric=1.0, energy=2.62e6, time=8040.0))
    drawn = figures(client)
    dots, _, line = drawn["energy"]["data"]
    layout = drawn["energy"]["layout"]
    assert layout["xaxis"]["title"]["text"] == "mean time (h)"
    assert dots["x"] == [pytest.approx(8040 / 3600)]
    assert layout["xaxis"]["range"][0] < dots["x"][0] < layout["xaxis"]["range"][1]
    assert layout["yaxis"]["range"][0] < dots["y"][0] < layout["yaxis"]["range"][1]
    assert line["x"][0] < dots["x"][0] < line["x"][1]
    assert "uses 2.62 MJ<br>in 2 h 14 min and costs" in dots["hovertext"][0]
    assert all("annotations" not in figure["layout"] for figure in drawn.values())


def test_the_axis_of_costs_is_logarithmic_if_they_differ_a_thousandfold(calls: Calls, client: FlaskClient) -> None:
    calls.register(beta_knob=None, policy="zeus")
    for energy in (10.0, 9000.0):
        calls.converge(calls.trial(), energy=energy)
    assert figures(client)["costs"]["layout"]["yaxis"].get("type") is None
    calls.converge(calls.trial(), energy=1e6)
    layout = figures(client)["costs"]["layout"]
    assert layout["yaxis"]["type"] == "log"
    assert (layout["yaxis"]["tickformat"], layout["yaxis"]["ticksuffix"]) == ("~s", "J")


def test_many_batch_sizes_share_a_scale_of_colours(calls: Calls, client: FlaskClient) -> None:
    sizes = [8 * number for number in range(1, 41)]
    calls.register(batch_sizes=sizes, default_batch_size=160, beta_knob=None, policy="zeus", num_pruning_rounds=1)
    for count in range(1, 13):
        calls.converge(calls.trial(), energy=10.0 + count)
        traces = figures(client)["costs"]["data"]
        assert [trace["showlegend"] for trace in traces] == [count <= len(plots.COLOURS)] * count
    layout = figures(client)["costs"]["layout"]
    assert layout["coloraxis"]["colorbar"]["ticktext"] == ["8", "24", "48", "128", "320"]


def test_every_point_of_a_trial_leads_to_it_and_reads_as_a_sentence(calls: Calls, client: FlaskClient) -> None:
    calls.register()
    for _ in range(3):
        calls.converge(calls.trial())
    drawn = figures(client)
    for plot in ("costs", "savings"):
        for trace in drawn[plot]["data"]:
            if trace["name"] != "bound":
                assert trace["customdata"] == trace["x"]
                assert len(trace["meta"]["times"]) == len(trace["x"])
                for number, text in zip(trace["x"], trace["text"], strict=True):
                    assert re.search(rf"[Tt]rial {number}\b.*\.$", text)


def test_the_metric_of_the_latest_trials_is_shown_or_that_of_chosen_ones(calls: Calls, client: FlaskClient) -> None:
    calls.register()
    for _ in range(7):
        trial = calls.trial()
        calls.must(calls.report(trial, metric=0.25))
        calls.must(calls.report(trial, metric=1.0, current_epoch=2, energy=20.0, time=2.0))

    def shown(trials: str = "") -> list[str]:
        return [trace["name"] for trace in figures(client, trials)["curves"]["data"]]

    assert shown() == [f"trial {number}" for number in (3, 4, 5, 6, 7)] + ["target"]
    assert shown("2, 5 99 x") == ["trial 2", "trial 5", "target"]
    curve = figures(client, "2")["curves"]["data"][0]
    assert (curve["x"], curve["y"][0]) == ([1, 2], 0.25)
    assert curve["text"][0] == "In epoch 1, the metric of trial 2 is 0.25."


@given(points=st.lists(st.tuples(st.floats(0.1, 1e6), st.floats(0.1, 1e6)), min_size=1, max_size=40))
def test_no_label_lies_on_another_and_the_first_sizes_get_theirs_first(points: list[tuple[float, float]]) -> None:
    sizes = [
        SizeSummary(
            batch_size=8 * (number + 1),
            runs=1,
            converged=1,
            priced_out=0,
            lost=0,
            mean_cost_j=energy_j,
            mean_energy_j=energy_j,
            mean_time_s=time_s,
            mean_epochs=1.0,
            mean_best_metric=None,
            ruled_out=None,
        )
        for number, (time_s, energy_j) in enumerate(points)
    ]
    chosen = sizes[-1].batch_size
    labels = plots.labels(sizes, [chosen])
    assert labels[-1] == str(chosen)
    (low_s, high_s), (low_j, high_j) = (plots.limits(values) for values in zip(*points, strict=True))
    shown = [
        ((time_s - low_s) / (high_s - low_s), (energy_j - low_j) / (high_j - low_j), label)
        for (time_s, energy_j), label in zip(points, labels, strict=True)
        if label
    ]
    for i, (x, y, label) in enumerate(shown):
        for other_x, other_y, other in shown[:i]:
            width = plots.LABEL_WIDTH * max(len(label), len(other))
            assert abs(x - other_x) > 0.99 * width or abs(y - other_y) > 0.99 * plots.LABEL_HEIGHT
