"""The savings of all jobs in a range of days: by team, by job and over time, in the API and on the page."""

from datetime import date, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update

from backend.core.savings import team_of
from backend.database.models import JobDay
from backend.usecases import savings, tokens
from backend.usecases.audit import COMMAND_LINE
from tests.calls import Calls
from tests.databases import connected

JOBS = {"vision/winner": (4.0, 10.0), "vision-loser": (16.0, 10.0), "speech": (9.0, 10.0)}
"""Energy of the run after the default's, and that of the default's."""


@pytest.fixture
def played(calls: Calls) -> Calls:
    """Jobs of two teams that win and lose, and one whose default never converges."""
    for job_id, (energy, of_default) in JOBS.items():
        calls.register(job_id=job_id, job_id_prefix=job_id, policy="gp-ucb", eta_knob=0.5, beta_knob=None)
        calls.converge(calls.trial(job_id), energy=of_default)
        calls.converge(calls.trial(job_id), energy=energy)
    calls.register(job_id="vision/unknown", job_id_prefix="vision", beta_knob=None)
    calls.diverge(calls.trial("vision/unknown"), energy=7.0)
    return calls


def get(calls: Calls, query: str = "") -> dict[str, Any]:
    return dict(calls.must(calls("GET", f"/savings{query}")))


def test_the_savings_of_teams_are_the_sums_of_their_jobs_losers_included(played: Calls) -> None:
    answer = get(played)
    assert [(group["group"], group["jobs"], group["unknown_jobs"]) for group in answer["groups"]] == [
        ("speech", 1, 0),
        ("vision", 3, 1),
    ]
    of_jobs = {
        job_id: played.must(played("GET", f"/jobs/{job_id.replace('/', '%2F')}/savings"))["against_default"]
        for job_id in JOBS
    }
    for name in ("energy", "time", "cost"):
        vision = of_jobs["vision/winner"][name] + of_jobs["vision-loser"][name]
        assert answer["groups"][1]["saved"][name] == pytest.approx(vision)
        assert answer["total"]["saved"][name] == pytest.approx(vision + of_jobs["speech"][name])
    assert answer["groups"][0]["energy_share_saved"] == pytest.approx((20 - 19) / 20)
    assert answer["total"]["spent"]["energy"] == pytest.approx(10 * 3 + 4 + 16 + 9 + 7)
    by_job = get(played, "?group_by=job")["groups"]
    assert {group["group"]: group["saved"]["energy"] for group in by_job} == pytest.approx(
        {"vision/winner": 6.0, "speech": 1.0, "vision/unknown": 0.0, "vision-loser": -6.0}
    )


def test_a_range_has_the_runs_that_ended_in_it_at_the_defaults_mean_over_all_time(
    played: Calls, app: Flask, database_url: str
) -> None:
    played.converge(played.trial("speech"), energy=2.0)
    today = datetime.fromisoformat(played.records("speech")[0]["ended_at"]).date()
    long_ago = today - timedelta(days=100)
    with connected(database_url) as connection:
        connection.execute(update(JobDay).values(day=long_ago))
    later = played.trial("speech")
    played.converge(later, energy=4.0)
    now = datetime.fromisoformat(played.records("speech")[-1]["ended_at"]).date()
    total = get(played, f"?since={now}")["total"]
    kept = played.must(played("GET", "/jobs/speech/savings"))
    mean = (kept["spent"]["energy"] + kept["against_default"]["energy"]) / kept["recurrences"]
    assert (total["jobs"], total["launches"], total["spent"]["energy"]) == (1, 1, 4.0)
    assert total["saved"]["energy"] == pytest.approx(mean - 4.0)
    assert get(played, f"?until={long_ago}")["total"]["launches"] == 8
    assert get(played, f"?since={now + timedelta(days=1)}")["groups"] == []
    with app.app_context():
        days = savings.by_day(COMMAND_LINE, (None, None))
    assert [day for day, _ in days] == [long_ago, now]
    assert sum(usage.energy_j for _, usage in days) == pytest.approx(get(played)["total"]["saved"]["energy"])


def test_a_token_of_a_team_sees_its_own_savings_alone(played: Calls, app: Flask) -> None:
    with app.app_context():
        token = tokens.create("vision", tokens.Scope.READ, job_id_prefix="vision")
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    assert [group["group"] for group in client.get("/savings").json["groups"]] == ["vision"]


def test_the_page_shows_teams_and_jobs_in_a_range_that_the_address_names(played: Calls, client: FlaskClient) -> None:
    page = client.get("/admin/savings/").text
    assert "This month" in page
    for name in ("vision", "speech", *JOBS):
        assert f">{name}</a>" in page
    assert "-6.00 J" in page.replace("−", "-")
    empty = client.get("/admin/savings/?to=2020-01-31").text
    assert "No run has ended in this time." in empty
    assert "is not a day" in client.get("/admin/savings/?from=yesterday").text
    figure = client.get("/admin/savings/plots?range=7d").json["figures"]["over-time"]
    axis = figure["layout"]["yaxis"]
    assert (axis["title"]["text"], axis["ticksuffix"]) == ("energy saved", "Wh")
    (day,) = figure["data"][0]["x"]
    assert date.fromisoformat(day)
    assert client.get("/admin/savings/plots?to=2020-01-31").json["figures"]["over-time"]["data"] == []


def test_the_team_is_the_part_of_an_id_before_a_slash_or_a_hyphen() -> None:
    names = ("a/b-c", "a-b/c", "abc", "/a", "-")
    assert [team_of(name) for name in names] == ["a", "a", "abc", "/a", "-"]
