"""Jobs side by side: which ones are chosen, what the page says of them, and the figures."""

import html
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.calls import Calls

EVIL = """<a href="https://evil.example">'x'</a> & \\ % ?job=y #"""


def register(calls: Calls, job_id: str, energy: float = 10.0, **changes: Any) -> None:
    """Register a job with three converged runs."""
    calls.must(calls.register(**{"job_id": job_id, "job_id_prefix": job_id, "beta_knob": None} | changes))
    for _ in range(3):
        trial = calls.trial(job_id)
        calls.converge(trial, energy=energy + trial["batch_size"])


def compared(page: str) -> list[str]:
    """Return the ids of the jobs that the page compares."""
    head = re.search(r'<table id="sizes">\s*<thead>(.*?)</thead>', page, re.DOTALL)
    return [] if head is None else [html.unescape(name) for name in re.findall(r"<a [^>]*>(.*?)</a>", head[1])]


def offered(page: str, *, ticked: bool) -> list[str]:
    """Return the jobs that the page offers, those that are ticked or the others."""
    boxes = re.findall(r'<input type="checkbox" name="job" value="([^"]*)"( checked)?>', page)
    return [html.unescape(name) for name, checked in boxes if bool(checked) is ticked]


def test_the_figures_show_the_means_of_every_job_over_one_axis(calls: Calls, client: FlaskClient) -> None:
    register(calls, "here", batch_sizes=[8, 16])
    register(calls, "there", 30.0, max_power=900)
    register(calls, "nowhere", 50.0)
    query = {"job": ["here", "there", "nowhere"]}
    assert compared(client.get("/admin/compare/", query_string=query).text) == query["job"]
    figures = client.get("/admin/compare/plots", query_string=query).json["figures"]
    assert set(figures) == {"cost", "energy", "time", "epochs"}
    for name, figure in figures.items():
        plotted = {trace["name"]: dict(zip(trace["x"], trace["y"], strict=True)) for trace in figure["data"]}
        assert plotted == {
            job_id: {
                size["batch_size"]: size[f"mean_{name}"]
                for size in calls.describe(job_id)["batch_sizes"]
                if size["mean_cost"] is not None
            }
            for job_id in query["job"]
        }
    assert len({str(figure["layout"]["xaxis"]) for figure in figures.values()}) == 1


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"max_power": 900}, ["max_power is the power of the job's GPUs"]),
        ({"eta_knob": 0.9}, ["eta_knob weighs energy against time"]),
        ({"eta_knob": 0.9, "max_power": 900}, ["max_power is the power of", "eta_knob weighs energy"]),
    ],
    ids=str,
)
def test_the_page_explains_why_costs_do_not_compare(
    calls: Calls, client: FlaskClient, changes: dict[str, Any], reasons: list[str]
) -> None:
    register(calls, "here")
    register(calls, "there", **changes)
    page = html.unescape(client.get("/admin/compare/?job=here&job=there").text)
    assert ("Compare the jobs by their energies and times." in page) is bool(reasons)
    for reason in ("max_power is the power of", "eta_knob weighs energy"):
        assert (reason in page) is any(text.startswith(reason) for text in reasons)


def test_a_job_id_is_no_markup_and_no_parameter(calls: Calls, client: FlaskClient) -> None:
    register(calls, EVIL)
    register(calls, "y")
    page = client.get("/admin/jobs/").text
    ticks = re.findall(r'<input type="checkbox" form="chosen" name="job" value="([^"]*)"', page)
    assert {html.unescape(tick) for tick in ticks} == {EVIL, "y"}
    page = client.get("/admin/compare/", query_string={"job": [EVIL, "y"]}).text
    assert '<a href="https://evil' not in page
    assert compared(page) == [EVIL, "y"]
    address = re.search(r'data-figures="([^"]*)"', page)
    assert address is not None
    figures = client.get(html.unescape(address[1])).json["figures"]
    assert [trace["name"] for trace in figures["cost"]["data"]] == [html.escape(EVIL, quote=False), "y"]


def test_the_jobs_to_compare_are_chosen_from_a_list_that_the_server_searches(calls: Calls, client: FlaskClient) -> None:
    for number in range(30):
        calls.register(job_id=f"train-{number}")
    page = client.get("/admin/compare/").text
    assert offered(page, ticked=False) == [f"train-{number}" for number in range(29, 9, -1)]
    assert "The newest of 30" in page
    page = client.get("/admin/compare/?search=N-7&job=train-3").text
    assert (offered(page, ticked=True), offered(page, ticked=False)) == (["train-3"], ["train-7"])
    page = client.get("/admin/compare/?search=%25&job=train-3").text
    assert "No other job's id contains this text." in html.unescape(page)


def test_at_most_six_jobs_are_compared_each_once(calls: Calls, client: FlaskClient) -> None:
    names = [f"train-{number}" for number in range(8)]
    for name in names:
        calls.register(job_id=name)
    page = client.get("/admin/compare/", query_string={"job": [names[0], *names]}).text
    assert compared(page) == names[:6]
    assert "the last 2 are left out" in page


def test_a_training_is_compared_with_its_newest_job_on_each_other_gpu(calls: Calls, client: FlaskClient) -> None:
    for job_id, gpu in (("v-1", "V100"), ("v-2", "V100"), ("h-1", "H100"), ("a-1", "A40"), ("a-2", "A40")):
        register(calls, f"net-{job_id}", job_id_prefix="net-", gpu_model=gpu)
    register(calls, "net-work", gpu_model="T4")
    assert compared(client.get("/admin/compare/?like=net-a-1").text) == ["net-a-1", "net-h-1", "net-v-2"]
    page = client.get("/admin/compare/?like=net-work").text
    assert compared(page) == []
    assert "No other GPU model has a job of this training" in page
    assert offered(page, ticked=True) == ["net-work"]
    link = re.search(
        r'href="([^"]*)">Compare with this training on other GPUs', client.get("/admin/job/?job=net-a-1").text
    )
    assert link is not None
    assert link[1] == "/admin/compare/?like=net-a-1"


def test_a_job_that_is_missing_is_named_and_the_others_are_compared(calls: Calls, client: FlaskClient) -> None:
    register(calls, "here")
    register(calls, "there")
    page = client.get("/admin/compare/?job=here&job=nobody&job=there").text
    assert compared(page) == ["here", "there"]
    assert "nobody" in page
    assert client.get("/admin/compare/plots?job=here&job=nobody").status_code == 404
