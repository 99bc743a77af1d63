"""The data of the admin page: all jobs, a job with a long history, a trial, and two jobs side by side."""

import csv
import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.core.attention import IN_A_ROW, Cause
from backend.errors import LabelTaken
from backend.usecases import dashboard
from backend.usecases import overview as overviews
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.overview import MAX_LATEST_JOBS, Overview
from backend.usecases.tokens import Scope, create, list_all
from backend.web.admin import plots
from tests.calls import Calls
from tests.databases import connected, let_time_pass

LEASE_S = 3600.0
DEFAULT = '<span class="badge default">default</span>'


@pytest.fixture
def overview(app: Flask) -> Callable[..., Overview]:
    """A function that returns the state of all jobs."""

    def overview(lease_s: float = LEASE_S) -> Overview:
        with app.app_context():
            return overviews.overview(COMMAND_LINE, lease_s)

    return overview


def csrf(page: str) -> str:
    match = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert match is not None, page
    return match[1]


def test_a_stuck_job_needs_attention_after_its_only_run(
    calls: Calls, client: FlaskClient, overview: Callable[..., Overview]
) -> None:
    calls.register(job_id="failing", job_id_prefix="failing", num_pruning_rounds=0)
    for _ in range(IN_A_ROW):
        calls.diverge(calls.trial("failing"))
    calls.register(batch_sizes=[16], num_pruning_rounds=1)
    assert not [job for job in overview().attention if job.job_id == "train"]
    calls.diverge(calls.trial())
    assert calls.ask().status == 409
    result = overview()
    stuck = next(job for job in result.attention if job.job_id == "train")
    assert (stuck.number, stuck.cause, stuck.trial) == (1, Cause.STUCK, 1)
    assert result.attention_count == len(result.attention)
    assert stuck.message in client.get("/admin/").text.replace("&#39;", "'")


def test_runs_that_a_user_ended_need_no_attention(
    calls: Calls, client: FlaskClient, overview: Callable[..., Overview]
) -> None:
    calls.register()
    for number in range(1, IN_A_ROW + 1):
        calls.trial()
        form = {"number": str(number), "csrf_token": csrf(client.get("/admin/job/?job=train").text)}
        client.post("/admin/job/end?job=train", data=form)
    assert {trial["status"] for trial in calls.records()} == {"Failed"}
    assert overview().attention == []
    assert calls.describe()["attention"] is None


def crash(calls: Calls, times: int, reason: str | None = None) -> None:
    for _ in range(times):
        calls.must(calls.end(calls.trial(), reason=reason, current_epoch=1))


def test_runs_that_end_without_a_verdict_three_in_a_row_need_attention_with_their_last_error(
    calls: Calls, client: FlaskClient, overview: Callable[..., Overview]
) -> None:
    calls.register()
    crash(calls, IN_A_ROW - 1, "OSError: the disk is full")
    assert (overview().attention, calls.describe()["attention"]) == ([], None)
    crash(calls, 1, "ValueError: <nothing> works")
    calls.trial()  # the next one runs already
    words = "the last 3 runs ended without a verdict, the latest with: ValueError: <nothing> works"
    (job,) = overview().attention
    assert (job.number, job.cause, job.trial, job.message) == (3, Cause.CRASHES, 3, words)
    assert calls.describe()["attention"] == words
    for path in ("", "job/?job=train"):
        assert words[1:] in html.unescape(client.get(f"/admin/{path}").text)


@pytest.mark.parametrize("way", ["left by a regular end", "lost"])
def test_every_end_without_a_verdict_counts(
    calls: Calls, overview: Callable[..., Overview], database_url: str, way: str
) -> None:
    calls.register()
    for _ in range(IN_A_ROW):
        trial = calls.trial()
        if way == "lost":
            let_time_pass(database_url, "train", trial["trial_number"], LEASE_S + 1)
        else:
            calls.must(calls.end(trial, over=True))
    calls.trial()
    assert [(job.cause, job.number) for job in overview().attention] == [(Cause.CRASHES, 3)]


def test_a_verdict_or_a_reset_ends_a_row_of_runs_without_one(calls: Calls, overview: Callable[..., Overview]) -> None:
    calls.register()
    crash(calls, 2)
    calls.diverge(calls.trial())
    crash(calls, 2)
    assert overview().attention == []
    crash(calls, 1)
    assert [(job.cause, job.number) for job in overview().attention] == [(Cause.CRASHES, 3)]
    calls.must(calls.reset())
    crash(calls, 2)
    assert overview().attention == []


def test_a_job_says_that_its_runs_have_failed_in_a_row(calls: Calls) -> None:
    calls.register(num_pruning_rounds=0)
    for _ in range(IN_A_ROW):
        calls.diverge(calls.trial())
    assert calls.describe()["attention"] == "3 runs have failed since the last success"


def test_a_success_beside_the_exploration_hides_no_stuck_job(calls: Calls, overview: Callable[..., Overview]) -> None:
    calls.register(batch_sizes=[16], num_pruning_rounds=2)
    calls.converge(calls.trial())
    exploring, beside = calls.trial(), calls.trial()
    assert beside["type"] == "Concurrent"
    calls.diverge(exploring)
    calls.converge(beside)
    assert calls.ask().status == 409
    assert [job.cause for job in overview().attention] == [Cause.STUCK]


def test_a_failing_job_past_its_pruning_is_listed_with_its_last_failure(
    calls: Calls, overview: Callable[..., Overview]
) -> None:
    calls.register(batch_sizes=[16], num_pruning_rounds=0, beta_knob=None)
    calls.converge(calls.trial())
    for _ in range(IN_A_ROW):
        calls.diverge(calls.trial())
    (job,) = overview().attention
    assert (job.number, job.cause, job.trial) == (3, Cause.FAILURES, 4)


def test_a_success_ends_a_row_of_failures(calls: Calls, overview: Callable[..., Overview]) -> None:
    calls.register(policy="gp-ucb")
    for _ in range(IN_A_ROW):
        calls.diverge(calls.trial())
    assert [job.number for job in overview().attention] == [IN_A_ROW]
    calls.converge(calls.trial())
    assert overview().attention == []


def test_the_pages_and_the_api_name_the_recommended_batch_size_and_another_one_with_the_lowest_mean(
    calls: Calls, client: FlaskClient, overview: Callable[..., Overview]
) -> None:
    calls.register(batch_sizes=[8, 16], num_pruning_rounds=1, beta_knob=None)
    for energy in (10.0, 9.0):  # 16, then 8
        calls.converge(calls.trial(), energy=energy)
    for _ in range(2):
        trial = calls.trial()
        if trial["batch_size"] == 8:
            calls.diverge(trial, energy=15.0)
        else:
            calls.converge(trial, energy=11.0)
    words = "recommended: 16, cost 10.5 J on average of 2 runs; lowest mean so far: 8, cost 9.00 J in one run"
    job = calls.describe()
    assert (job["recommended_batch_size"], job["best_batch_size"], job["best"]) == (16, 8, words)
    (listed,) = calls.must(calls("GET", "/jobs"))["jobs"]
    assert (listed["recommended_batch_size"], listed["best_batch_size"]) == (16, 8)
    (row,) = csv.DictReader(client.get("/admin/jobs/export/csv/").text.splitlines())
    assert (row["Recommended"], row["Default"], row["Lowest mean"]) == ("16", "16", "8")
    assert overview().recommended == {"train": 16}
    cell = f'16 {DEFAULT}<div class="small">lowest mean 8</div></td>'
    assert [client.get(f"/admin/{path}").text.count(cell) for path in ("", "jobs/")] == [1, 1]
    of_16 = [record for record in calls.records() if record["batch_size"] == 16]
    marks = f'16 {DEFAULT} <span class="badge recommended">recommended</span>'
    assert client.get("/admin/trials/").text.count(marks) == len(of_16) > 1
    calls.register(job_id="train-b")
    for path in ("job/?job=train", "compare/?job=train&job=train-b"):
        assert words in client.get(f"/admin/{path}").text


def test_the_jobs_of_the_last_launches_are_on_the_overview_with_their_last_runs(
    calls: Calls, client: FlaskClient, overview: Callable[..., Overview]
) -> None:
    assert overview().latest == []
    for number in range(MAX_LATEST_JOBS + 2):
        calls.must(calls.register(job_id=f"job-{number}", job_id_prefix=f"job-{number}", policy="gp-ucb"))
    launched = [f"job-{number}" for number in range(MAX_LATEST_JOBS + 1)]  # and one that never ran
    for job_id in launched:
        calls.converge(calls.trial(job_id))
    calls.diverge(calls.trial("job-3"))
    calls.trial("job-4")
    expected = ["job-4", "job-3", *(job_id for job_id in reversed(launched) if job_id not in ("job-3", "job-4"))]
    latest = overview().latest
    assert [job.job_id for job in latest] == expected[:MAX_LATEST_JOBS]
    assert [(job.launches, job.outcome_code) for job in latest[:3]] == [(2, None), (2, "diverged"), (1, "converged")]
    table = client.get("/admin/").text.split("Recently launched</h2>")[1].split("</table>")[0]
    first, second = re.findall(r"<tr>(<td>.*?)</tr>", table)[:2]
    assert f"16 {DEFAULT}" in first
    assert (
        '<span class="badge failed">failed: diverged</span> <a href="/admin/trial/?job=job-3&amp;number=2">' in second
    )


def test_the_savings_of_all_jobs_are_added_up(calls: Calls, overview: Callable[..., Overview]) -> None:
    for job_id in ("one", "other", "unknown"):
        calls.register(job_id=job_id, job_id_prefix=job_id, eta_knob=0.5, policy="gp-ucb", beta_knob=None)
        for number in range(4):
            trial = calls.trial(job_id)
            if job_id == "unknown" or number == 1:
                calls.diverge(trial)
            else:
                calls.converge(trial, energy=10.0 + trial["batch_size"])
    savings = [calls.must(calls("GET", f"/jobs/{job_id}/savings"))["against_default"] for job_id in ("one", "other")]
    result = overview()
    assert result.this_month == result.total
    for name, of_core in (("energy", "energy_j"), ("time", "time_s"), ("cost", "cost_j")):
        assert getattr(result.total.saved, of_core) == pytest.approx(sum(of_job[name] for of_job in savings))
    assert (result.total.known_jobs, result.total.unknown_jobs, result.job_count) == (2, 1, 3)
    assert [job.job_id for job in result.savings] == ["one", "other"]


def test_a_run_that_was_not_seen_for_its_lease_is_overdue(
    calls: Calls, client: FlaskClient, overview: Callable[..., Overview]
) -> None:
    calls.register()
    calls.trial()
    assert overview().overdue_count == 0
    page = client.get("/admin/").text
    assert "overdue)" not in page
    assert f'<td class="n">16 {DEFAULT}</td>' in page
    assert overview(lease_s=-1.0).overdue_count == 1  # a lease that expires at once


def test_a_run_that_started_long_ago_is_shown_and_can_be_ended(calls: Calls, client: FlaskClient) -> None:
    calls.register()
    calls.trial()
    for _ in range(30):
        calls.end(calls.trial())
    calls.reset()
    page = client.get("/admin/job/?job=train").text
    assert "End trial 1" in page
    assert "<dt>Running</dt><dd>1</dd>" in page
    assert page.count("<tr data-trial=") == 26
    trial = client.get("/admin/trial/?job=train&number=1").text
    assert "End trial 1" in trial
    answer = client.post("/admin/job/end?job=train", data={"number": "1", "csrf_token": csrf(trial)})
    assert answer.status_code == 302
    assert calls.records()[0]["outcome"].startswith("ended by")
    assert "End trial 1" not in client.get("/admin/trial/?job=train&number=1").text
    again = client.post("/admin/job/end?job=train", data={"number": "1", "csrf_token": csrf(page)})
    assert "had already ended" in client.get(again.location).text


def test_trials_that_ended_at_once_are_counted_once_where_the_plots_begin(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(lease_s=1e-6)
    calls = Calls.through_test_client(app.test_client())
    calls.register()
    running = [calls.trial() for _ in range(1)]
    patient = Calls.through_test_client(make_app(lease_s=3600.0).test_client())
    running += [patient.trial() for _ in range(4)]
    for trial in running:
        patient.report(trial, energy=40.0)
    calls.converge(calls.trial())  # this call marks all of them as lost, in one revision
    calls.converge(calls.trial())
    with app.app_context():
        whole = plots.cumulative_savings(dashboard.history("train", COMMAND_LINE))["data"]
        monkeypatch.setattr(dashboard, "MAX_PLOTTED_TRIALS", 4)
        history = dashboard.history("train", COMMAND_LINE)
        last = plots.cumulative_savings(history)["data"]
    assert len({trial.trial.ended for trial in history.ended}) < len(history.ended)
    assert [trace["y"] for trace in last] == [pytest.approx(trace["y"][-4:]) for trace in whole]


def test_markers_distinguish_failures_ends_without_a_verdict_and_resets(app: Flask, calls: Calls) -> None:
    calls.register(batch_sizes=[16])
    calls.converge(calls.trial())
    calls.end(calls.trial())
    calls.reset()
    calls.diverge(calls.trial())
    with app.app_context():
        (trace,) = plots.costs(dashboard.history("train", COMMAND_LINE))["data"]
    assert trace["marker"]["symbol"] == ["circle", "circle-open", "x"]
    assert trace["marker"]["opacity"] == [0.35, 0.35, 1.0]
    assert trace["text"] == [
        "Trial 1 with batch size 16 (converged)<br>cost 10.0 J: 10.0 J in 1 s, 1 epoch.",
        "Trial 2 with batch size 16 (crashed)<br>cost 0 J: 0 J in 0 s, 0 epochs.",
        "Trial 3 with batch size 16 (failed: diverged)<br>cost 10.0 J: 10.0 J in 1 s, 1 epoch.",
    ]


def test_ruled_out_batch_sizes_are_marked_in_the_beliefs(app: Flask, calls: Calls) -> None:
    calls.register(policy="gp-ucb")
    calls.converge(calls.trial())
    calls.diverge(calls.trial())
    with app.app_context():
        traces = {trace["name"]: trace for trace in plots.beliefs(dashboard.history("train", COMMAND_LINE))["data"]}
    assert traces["ruled out"]["x"] == [str(calls.records()[-1]["batch_size"])]
    assert traces["tried"]["x"] == ["16"]


def test_a_page_that_is_up_to_date_gets_204_without_figures(calls: Calls, client: FlaskClient) -> None:
    calls.register()
    trial = calls.trial()
    for path in ("/admin/job/plots?job=train", "/admin/trial/plots?job=train&number=1"):
        revision = client.get(path).json["revision"]
        same = client.get(f"{path}&since={revision}")
        assert (same.status_code, same.text) == (204, "")
        calls.heartbeat(trial)
        assert client.get(f"{path}&since={revision}").status_code == 200
    assert client.get("/admin/job/plots?job=nobody&since=1").status_code == 404


def test_a_trials_figures_are_its_reports(calls: Calls, client: FlaskClient) -> None:
    calls.register(eta_knob=0.5)
    trial = calls.trial()
    reports = [{"time": float(at), "energy": 20.0 * at, "metric": 0.1 * at, "current_epoch": at} for at in (1, 2, 3)]
    for report in reports:
        calls.must(calls.report(trial, **report))
    figures = client.get("/admin/trial/plots?job=train&number=1").json["figures"]
    (metric, target), (cost,) = figures["metric"]["data"], figures["cost"]["data"]
    assert (metric["x"], metric["y"]) == ([1, 2, 3], [report["metric"] for report in reports])
    assert target["y"] == [1.0, 1.0]
    assert cost["y"] == [0.5 * report["energy"] + 0.5 * 100 * report["time"] for report in reports]


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.99, 1.0])
def test_the_line_of_equal_cost_stays_within_the_limits_of_the_figure(app: Flask, calls: Calls, eta: float) -> None:
    calls.register(eta_knob=0.5, beta_knob=None)
    for _ in range(8):
        trial = calls.trial()
        size: Any = trial["batch_size"]
        calls.must(calls.report(trial, time=160.0 / size, energy=400.0 + 30 * size, metric=1.0))
    with app.app_context():
        history = dashboard.history("train", COMMAND_LINE)
    sizes = plots.converged(history.summaries)
    best = plots.winner(history.spec, history.summaries, eta)
    assert best is not None
    times, energies = plots.eta_line(history.spec, history.summaries, eta)
    for axis, values in (("mean_time_s", times), ("mean_energy_j", energies)):
        low, high = plots.limits([getattr(size, axis) for size in sizes])
        assert all(low - 1e-6 <= value <= high + 1e-6 for value in values)
        assert low < min(getattr(size, axis) for size in sizes)
    for time_s, energy_j in zip(times, energies, strict=True):
        if eta > 0:
            cost_j = eta * energy_j + (1 - eta) * 100 * time_s
            assert cost_j == pytest.approx(eta * best.mean_energy_j + (1 - eta) * 100 * best.mean_time_s)


def test_a_label_names_one_token_until_the_token_expires(app: Flask, client: FlaskClient, database_url: str) -> None:
    with app.app_context():
        create("ci", Scope.RUN, valid_days=1)
        with connected(database_url) as connection:
            connection.exec_driver_sql("UPDATE tokens SET expires_at = created_at")
        create("ci", Scope.READ)
        with pytest.raises(LabelTaken, match="revoke it, or choose another label"):
            create("ci", Scope.ADMIN)
        assert [token.expired for token in list_all()] == [True, False]
