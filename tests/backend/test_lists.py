"""The lists of the admin page: their parameters are no more trustworthy than their content."""

import csv
import html
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from backend.database.models import Trial
from backend.usecases import lists
from backend.web.admin.listing import PERIOD_NAMES
from tests.calls import Calls
from tests.databases import connected

LISTS = ["/admin/jobs/", "/admin/trials/", "/admin/audit/", "/admin/jobs/export/csv/", "/admin/trials/export/csv/"]
UNKNOWN_NAMES = [
    *("endpoint", "export_type", "name", "self", "values", "filename", "_anchor", "_external", "_method", "_scheme"),
    *(
        "flt",
        "flt0_policy_equals",
        "Policy",
        "policy ",
        "policies",
        "gpu_model",
        "page_size",
        "sort_desc",
        "parameters",
    ),
    *("", " ", "'", "%", "\x00", "é😀", "a" * 300, "search[]", "page.x", "{{7*7}}", "__class__"),
]
KNOWN_NAMES = [
    "search",
    "sort",
    "desc",
    "page",
    "policy",
    "gpu",
    "paused",
    "job",
    "batch_size",
    "status",
    "prefix",
    *PERIOD_NAMES,
]
VALUES = ["", "csv", "POST", "https://evil.example/#"]


def found(page: str) -> int:
    """Return the number of rows that a page says its list has."""
    match = re.search(r'<h1>\w+ <span class="small" id="total" data-live>\((\d+)\)', page)
    assert match is not None, page
    return int(match[1])


def first_cells(page: str) -> list[str]:
    """Return the texts of the first column."""
    cells = re.findall(r"<tr><td>(.*?)</td>", page)
    return [html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in cells]


def register(calls: Calls, *job_ids: str, **changes: Any) -> None:
    """Register jobs."""
    for job_id in job_ids:
        calls.must(calls.register(job_id=job_id, job_id_prefix=job_id, **changes))


@pytest.mark.parametrize("name", UNKNOWN_NAMES + KNOWN_NAMES, ids=lambda name: ascii(name)[:30])
def test_a_list_ignores_unknown_parameters_and_its_links_stay_on_the_site(
    client: FlaskClient, calls: Calls, name: str
) -> None:
    calls.register()
    for path in LISTS:
        for value in VALUES:
            queries: list[dict[str, Any]] = [
                {name: value},
                {name: value, "_external": "1"},
                {"_external": "1", "policy": "", "search": "train"} | {name: value},
            ]
            for parameters in queries:
                answer = client.get(path, query_string=parameters)
                assert answer.status_code in (200, 302), (path, parameters)
                assert re.match(rf"{path}(\?|$)", answer.headers.get("Location", path)), (path, parameters)
                links = re.findall(r'href="([^"]*)"', answer.text)
                assert [link for link in links if not link.startswith(("/", "#"))] == [], (path, parameters)
                if name in UNKNOWN_NAMES and name.strip():
                    assert not any(f"{name}=" in link for link in links), (path, parameters)


def test_search_filters_and_order_stay_in_the_links_of_a_list(client: FlaskClient) -> None:
    parameters = {"search": "train", "sort": "job", "desc": "1", "gpu": "A40", "endpoint": "x"}
    page = client.get("/admin/jobs/", query_string=parameters).text.replace("&amp;", "&")
    (export,) = re.findall(r'href="(/admin/jobs/export/csv/[^"]*)"', page)
    assert "search=train" in export
    assert "gpu=A40" in export
    assert "endpoint" not in page


def test_empty_fields_of_the_form_are_dropped_and_the_rest_stays(client: FlaskClient) -> None:
    for path in ("/admin/jobs/", "/admin/jobs/export/csv/"):
        answer = client.get(f"{path}?policy=&gpu=A40&search=x&paused=&endpoint=y")
        assert answer.status_code == 302
        assert answer.location == f"{path}?gpu=A40&search=x"
        assert client.get(f"{path}?search=&policy=").location == path


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("trials", {"batch_size": "abc"}, "Batch size: 'abc' is not a whole number."),
        ("trials", {"batch_size": "1.5"}, "Batch size: '1.5' is not a whole number."),
        ("trials", {"batch_size": "9" * 5000}, "is not a whole number."),
        ("trials", {"batch_size": "99999999999999999999"}, "is not between 0 and"),
        ("trials", {"batch_size": "-1"}, "is not between 0 and"),
        ("trials", {"status": "Succeeded"}, "Status: 'Succeeded' is not one of went_wrong, running, converged,"),
        ("trials", {"when": "yesterday"}, "Started: 'yesterday' is not one of night, 24h, 7d, month."),
        ("trials", {"from": "31.1.2026"}, "Started: '31.1.2026' is not a day, such as 2026-01-31."),
        ("trials", {"to": "0001-01-01"}, "Started: '0001-01-01' is not a day after 1970."),
        ("audit", {"when": "7d", "zone": "Berlin"}, "Time: 'Berlin' is not a time zone that this server knows"),
        ("jobs", {"when": "7d", "zone": "../etc"}, "Had runs: '../etc' is not a time zone"),
        ("jobs", {"policy": "<b>"}, "Policy: '<b>' is not one of gp-ucb, zeus."),
        ("jobs", {"paused": "yes"}, "Paused: 'yes' is not one of 1, 0."),
    ],
    ids=str,
)
def test_an_impossible_filter_finds_nothing_and_the_page_says_why(
    client: FlaskClient, calls: Calls, name: str, parameters: Mapping[str, str], message: str
) -> None:
    calls.register()
    calls.trial()
    page = client.get(f"/admin/{name}/", query_string=parameters)
    assert page.status_code == 200
    assert found(page.text) == 0
    (alert,) = re.findall(r'role="alert">([^<]*)<', page.text)
    assert message in html.unescape(alert)
    export = client.get(f"/admin/{name}/export/csv/", query_string=parameters)
    assert (export.status_code, export.text.count("\n")) == (200, 1)


def test_each_filter_finds_its_rows(client: FlaskClient, calls: Calls) -> None:
    register(calls, "train", policy="gp-ucb", gpu_model="H100")
    register(calls, "other", policy="zeus", gpu_model="A40", batch_sizes=[16, 32])
    calls.converge(calls.trial())
    calls.diverge(calls.trial("other"))
    calls.trial("other")
    for path, rows in {
        "jobs/?policy=zeus": 1,
        "jobs/?policy=zeus&gpu=H100": 0,
        "jobs/?gpu=A40": 1,
        "jobs/?gpu=A": 0,
        "jobs/?paused=0": 2,
        "jobs/?paused=1": 0,
        "trials/?job=other": 2,
        "trials/?job=othe": 0,
        "trials/?batch_size=16": sum(
            trial["batch_size"] == 16 for job in ("train", "other") for trial in calls.records(job)
        ),
        "trials/?status=running": 1,
        "trials/?status=converged": 1,
        "trials/?status=failed": 1,
        "trials/?status=diverged": 1,
        "trials/?status=diverged&job=train": 0,
        "trials/?status=cost_bound": 0,
        "trials/?status=went_wrong": 1,
        "jobs/?prefix=oth": 1,
        "trials/?prefix=oth": 2,
        "trials/?prefix=OTH": 0,
        "trials/?search=other+round%27s+default": 1,
        "trials/?search=OTHER": 2,
        "trials/?search=other+diverged": 1,
        "audit/?action=register": 2,
        "audit/?action=register&job=other": 1,
    }.items():
        assert found(client.get(f"/admin/{path}").text) == rows, path


def test_each_list_is_filtered_by_date(client: FlaskClient, calls: Calls, database_url: str) -> None:
    register(calls, "train", "never-ran")
    calls.converge(calls.trial())
    before = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=3)
    with connected(database_url) as connection:
        connection.execute(update(Trial).values(started_at=before, last_seen_at=before))
    calls.trial()
    for path, rows in {
        "trials/?when=24h": 1,
        "trials/?when=7d": 2,
        "trials/?to=1999-12-31": 0,
        "trials/?from=1999-12-31": 2,
        "trials/?from=1999-12-31&to=9998-12-31&zone=Pacific/Kiritimati": 2,
        "trials/?when=7d&to=1999-12-31": 0,
        "jobs/?when=24h": 1,
        "jobs/?from=1999-12-31": 1,
        "audit/?when=24h&action=ask": 2,
        "audit/?to=1999-12-31&action=ask": 0,
    }.items():
        assert found(client.get(f"/admin/{path}").text) == rows, path


def test_a_day_is_that_of_the_readers_zone_at_its_time_of_the_year(
    client: FlaskClient, calls: Calls, database_url: str
) -> None:
    calls.register()
    calls.trial()
    for started, day in {"2026-01-31 23:30": "2026-02-01", "2026-07-31 22:30": "2026-08-01"}.items():  # UTC+1, UTC+2
        with connected(database_url) as connection:
            connection.execute(update(Trial).values(started_at=datetime.fromisoformat(started)))
        for zone, rows in (("Europe/Berlin", 1), ("UTC", 0)):
            path = f"/admin/trials/?from={day}&to={day}&zone={zone}"
            assert found(client.get(path).text) == rows, path


def test_the_jobs_of_a_team_are_a_click_away(client: FlaskClient, calls: Calls) -> None:
    register(calls, "vision-a", "vision-b", "visionary/a", "speech/a")
    page = client.get("/admin/jobs/").text
    assert re.findall(r'href="([^"]*)">(vision[^<]*|speech[^<]*\()', page)[0] == (
        "/admin/jobs/?team=vision",
        "vision (2)",
    )
    assert first_cells(client.get("/admin/jobs/?team=vision").text) == ["vision-b", "vision-a"]


def test_last_nights_failures_are_a_click_away(client: FlaskClient, calls: Calls) -> None:
    calls.register()
    page = client.get("/admin/trials/").text.replace("&amp;", "&")
    assert 'href="/admin/trials/?status=went_wrong&when=night"' in page
    assert client.get("/admin/trials/?status=went_wrong&when=night").status_code == 200


def test_every_column_with_an_order_sorts_both_ways_and_unknown_ones_do_not(client: FlaskClient, calls: Calls) -> None:
    for job_id in ("b", "c", "a"):
        register(calls, job_id)
        calls.converge(calls.trial(job_id))
    for name, table in (("jobs", lists.JOBS), ("trials", lists.TRIALS), ("audit", lists.AUDIT)):
        page = client.get(f"/admin/{name}/").text
        links = re.findall(rf'href="/admin/{name}/\?sort=(\w+)"', page)
        assert set(links) == set(table.sortable), name
        for column in links:
            up = first_cells(client.get(f"/admin/{name}/?sort={column}").text)
            down = first_cells(client.get(f"/admin/{name}/?sort={column}&desc=1").text)
            assert up == down[::-1], (name, column)
    assert first_cells(client.get("/admin/jobs/?sort=job").text) == ["a", "b", "c"]
    newest_first = ["a", "c", "b"]
    for sort in ("", "?sort=best", "?sort=recommended", "?sort=nothing&desc=1", "?sort=__class__", "?sort=id"):
        assert first_cells(client.get(f"/admin/jobs/{sort}").text) == newest_first, sort


def test_trials_are_sorted_by_their_cost_and_by_their_job_across_jobs(client: FlaskClient, calls: Calls) -> None:
    for job_id, eta, power in (("energy", 1.0, 100), ("time", 0.0, 70.5), ("both", 0.25, 300)):
        register(calls, job_id, eta_knob=eta, max_power=power, beta_knob=None)
        for time in (3.0, 0.5, 2.25):
            calls.must(calls.report(calls.trial(job_id), energy=100.0 / time, time=time, metric=1.0))
    for direction in ("", "&desc=1"):
        by_cost, by_job = (
            list(csv.DictReader(client.get(f"/admin/trials/export/csv/?sort={column}{direction}").text.splitlines()))
            for column in ("cost", "job")
        )
        costs = [float(row["Cost (J)"]) for row in by_cost]
        assert costs == sorted(costs, reverse=bool(direction))
        assert len({row["Job"] for row in by_cost[:4]}) > 1
        jobs = [row["Job"] for row in by_job]
        assert jobs == sorted(jobs, reverse=bool(direction))


def test_jobs_are_sorted_by_their_last_launch_those_without_one_as_the_oldest(
    client: FlaskClient, calls: Calls
) -> None:
    register(calls, *"abc")
    for job_id in "cac":
        calls.trial(job_id)
    assert first_cells(client.get("/admin/jobs/?sort=launched").text) == ["b", "a", "c"]
    assert first_cells(client.get("/admin/jobs/?sort=launched&desc=1").text) == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("page", "number"), [("-1", 1), ("0", 1), ("1", 2), ("2", 3), ("3", 3), ("9" * 30, 3), ("x", 1)], ids=str
)
def test_a_page_out_of_range_is_the_nearest_page(
    client: FlaskClient, calls: Calls, monkeypatch: pytest.MonkeyPatch, page: str, number: int
) -> None:
    monkeypatch.setattr(lists, "PAGE_SIZE", 2)
    register(calls, *"abcde")
    text = client.get(f"/admin/jobs/?page={page}&sort=job").text
    assert f"Page {number} of 3" in text
    assert "".join(first_cells(text)) == ["ab", "cd", "e"][number - 1]


def test_pages_show_each_row_once_even_if_all_values_are_equal(
    client: FlaskClient, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "PAGE_SIZE", 3)
    register(calls, *"abcdefgh")
    for sort in ("policy", "policy&desc=1"):
        pages = [first_cells(client.get(f"/admin/jobs/?sort={sort}&page={page}").text) for page in range(3)]
        assert [len(page) for page in pages] == [3, 3, 2]
        assert {job for page in pages for job in page} == set("abcdefgh")


def test_a_search_for_very_many_words_is_answered(client: FlaskClient, calls: Calls) -> None:
    calls.register()
    calls.trial()
    for name in ("jobs", "trials", "audit"):
        assert client.get(f"/admin/{name}/", query_string={"search": "t " * 2000}).status_code == 200


def test_an_export_has_the_search_the_filters_and_the_order_of_its_page(client: FlaskClient, calls: Calls) -> None:
    register(calls, "train-b", "train-a", "other")
    lines = client.get("/admin/jobs/export/csv/?search=train&sort=job&desc=1").text.splitlines()
    assert [line.split(",")[0] for line in lines] == ["Job", "train-b", "train-a"]
    created = [line.split(",")[-1] for line in client.get("/admin/jobs/export/csv/").text.splitlines()[1:]]
    assert all(earlier >= later for earlier, later in pairwise(created))


def test_a_row_deleted_during_an_export_is_left_out(
    client: FlaskClient, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job_id in ("a", "b"):
        register(calls, job_id)
        calls.trial(job_id)
    find_all = lists.find_all

    def find_and_delete(*args: Any) -> Any:
        ids = find_all(*args)
        calls.delete("a")
        return ids

    monkeypatch.setattr(lists, "find_all", find_and_delete)
    assert [line.split(",")[0] for line in client.get("/admin/jobs/export/csv/").text.splitlines()] == ["Job", "b"]
    register(calls, "a")
    calls.trial("a")
    assert [line.split(",")[0] for line in client.get("/admin/trials/export/csv/").text.splitlines()] == ["Job", "b"]
