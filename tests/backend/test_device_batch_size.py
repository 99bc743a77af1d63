"""A job remembers how much its runs take on a device at a time, after more has run out of memory."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.calls import Calls
from tests.specs import job


def limited(calls: Calls, trial: dict[str, Any], limit: int) -> None:
    """Say that a run goes on with this much at a time."""
    calls.must(calls.heartbeat(trial, max_device_batch_size=limit))


def limit_of(calls: Calls, job_id: str = "train") -> int | None:
    """Return the limit that a new run of the job gets."""
    limit: int | None = calls.trial(job_id, run_id=f"run {len(calls.records(job_id))}")["max_device_batch_size"]
    return limit


@pytest.fixture
def trial(calls: Calls) -> dict[str, Any]:
    """The first trial of a job."""
    calls.register()
    return calls.trial(run_id="first")


def test_no_run_is_limited_before_memory_ran_out(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(calls.heartbeat(trial))
    assert trial["max_device_batch_size"] is None
    assert limit_of(calls) is None


def test_the_next_runs_and_the_same_run_get_the_limit(calls: Calls, trial: dict[str, Any]) -> None:
    limited(calls, trial, 16)
    assert limit_of(calls) == 16
    assert calls.trial(run_id="first")["max_device_batch_size"] == 16


def test_another_job_is_not_limited(calls: Calls, trial: dict[str, Any]) -> None:
    limited(calls, trial, 16)
    calls.register(job_id="train-other")
    assert limit_of(calls, "train-other") is None


@pytest.mark.parametrize("later", [8, 32])
def test_the_smallest_limit_counts(calls: Calls, trial: dict[str, Any], later: int) -> None:
    limited(calls, trial, 16)
    limited(calls, trial, later)
    calls.must(calls.heartbeat(trial))
    assert limit_of(calls) == min(16, later)


def test_a_reset_forgets_it(calls: Calls, trial: dict[str, Any]) -> None:
    limited(calls, trial, 16)
    calls.must(calls.reset())
    assert limit_of(calls) is None


def test_users_see_it_and_how_to_clear_it(calls: Calls, trial: dict[str, Any], client: FlaskClient) -> None:
    seen = "A device takes at most <strong>16</strong> at a time, because more ran out of memory. A reset of the job"

    def shown() -> tuple[int | None, bool]:
        return calls.describe()["max_device_batch_size"], seen in client.get("/admin/job/?job=train").text

    assert shown() == (None, False)
    limited(calls, trial, 16)
    assert shown() == (16, True)
    calls.must(calls.reset())
    assert shown() == (None, False)


def test_a_run_that_cannot_go_on_leaves_the_limit_to_the_next(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(calls.end(trial, reason="OutOfMemoryError: 8 GiB", max_device_batch_size=16))
    assert calls.record(trial)["outcome"] == "OutOfMemoryError: 8 GiB"
    assert limit_of(calls) == 16


@pytest.mark.parametrize(("limits", "is_ruled_out"), [((16, 8), False), ((None, None), True)])
def test_such_an_end_is_no_breakdown_of_the_batch_size(
    calls: Calls, limits: tuple[int | None, ...], is_ruled_out: bool
) -> None:
    calls.register()
    calls.converge(calls.trial())  # another batch size works
    for number, limit in enumerate(limits):
        trial = calls.trial(run_id=f"broken {number}")
        assert trial["batch_size"] != job()["default_batch_size"]
        calls.must(calls.end(trial, reason="OutOfMemoryError", max_device_batch_size=limit))
    sizes = {each["batch_size"]: each["ruled_out"] for each in calls.describe()["batch_sizes"]}
    assert (sizes[trial["batch_size"]] is not None) == is_ruled_out
