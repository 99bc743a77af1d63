"""Probes: a run reports the cost of an epoch with each batch size. The first probe of an exploration counts."""

from typing import Any

import pytest
from flask import Flask

from backend.usecases import reading
from tests.backend.test_gp_ucb import recur, register, train
from tests.calls import Calls


def probed(batch_size: int, **changes: Any) -> dict[str, Any]:
    """Return the result of a probe for a batch size. Default: 10 J per epoch."""
    return {
        "batch_size": batch_size,
        "fits": True,
        "epoch_time": 1.0,
        "epoch_energy": 10.0,
        "time": 2.0,
        "energy": 20.0,
    } | changes


def unfit(batch_size: int) -> dict[str, Any]:
    """Return the result of a probe for a batch size that does not fit in memory."""
    return probed(batch_size, fits=False, epoch_time=0.0, epoch_energy=0.0)


def probe(calls: Calls, trial: dict[str, Any], *sizes: dict[str, Any]) -> Any:
    """Report a probe."""
    body = {"job_id": trial["job_id"], "trial_number": trial["trial_number"], "sizes": sizes}
    return calls("POST", "/trials/probe", body)


def test_a_probe_is_wanted_until_there_has_been_one_and_again_after_a_reset(calls: Calls) -> None:
    register(calls)
    first = calls.trial()
    assert first["probe_wanted"]
    train(calls, first)
    assert calls.trial(run_id="second")["probe_wanted"]
    calls.must(probe(calls, first, probed(4), probed(8)))
    assert not calls.trial(run_id="second")["probe_wanted"]
    calls.must(calls.reset())
    assert calls.trial(run_id="third")["probe_wanted"]


def test_a_job_that_cannot_be_probed_wants_no_probe_until_a_reset_and_decides_as_before(calls: Calls) -> None:
    register(calls)
    register(calls, "train-unprobed")
    for job_id in ("train", "train-unprobed"):
        train(calls, calls.trial(job_id))
    calls.must(probe(calls, {"job_id": "train-unprobed", "trial_number": 1}))
    assert not calls.trial("train-unprobed", run_id="second")["probe_wanted"]
    assert calls.trial("train")["reason"] == calls.trial("train-unprobed", run_id="second")["reason"]
    calls.must(calls.reset("train-unprobed"))
    assert calls.trial("train-unprobed", run_id="third")["probe_wanted"]


def test_the_published_policy_wants_no_probe(calls: Calls) -> None:
    calls.register()
    assert not calls.trial()["probe_wanted"]


def test_a_probe_counts_in_the_next_choice(calls: Calls) -> None:
    register(calls)
    register(calls, "train-probed")
    for job_id in ("train", "train-probed"):
        train(calls, calls.trial(job_id))
    calls.must(
        probe(calls, {"job_id": "train-probed", "trial_number": 1}, probed(4, epoch_energy=1e6), probed(8), probed(32))
    )
    assert calls.trial("train")["reason"] != calls.trial("train-probed")["reason"]
    assert [trial["batch_size"] for trial in recur(calls, "train-probed", times=6)].count(4) == 0


def test_a_batch_size_that_does_not_fit_in_memory_is_not_dispatched(calls: Calls) -> None:
    register(calls)
    first = calls.trial()
    train(calls, first)
    calls.must(probe(calls, first, *map(unfit, (8, 32, 64))))
    assert {trial["batch_size"] for trial in recur(calls, times=12)} == {4, 16}
    sizes = calls.must(calls("GET", "/jobs/train"))["batch_sizes"]
    ruled_out = {size["batch_size"]: size["ruled_out"] for size in sizes if size["ruled_out"]}
    assert ruled_out.keys() == {8, 32, 64}
    assert "does not fit in memory" in ruled_out[64]


def test_of_two_probes_the_first_counts(calls: Calls) -> None:
    register(calls)
    first = calls.trial()
    train(calls, first)
    calls.must(probe(calls, first, probed(4), probed(8)))
    before = calls.must(calls("GET", "/jobs/train"))
    calls.must(probe(calls, first, unfit(8)))
    assert calls.must(calls("GET", "/jobs/train")) == before


def test_a_job_with_a_probe_is_replayed_without_a_difference(app: Flask, calls: Calls) -> None:
    register(calls)
    recur(calls, times=2)
    calls.must(probe(calls, calls.trial(), probed(4, epoch_energy=1e6), unfit(64)))
    recur(calls, times=6)
    calls.must(calls.reset())
    recur(calls, times=3)
    with app.app_context():
        assert reading.replay_job("train") == (12, [])


@pytest.mark.parametrize(
    ("sizes", "status", "message"),
    [
        ([probed(5)], 422, "5: not among the batch_sizes of job"),
        ([probed(4), probed(4)], 422, "list each batch size once"),
        ([probed(4, epoch_time=0.0)], 422, "epoch_time must be above 0"),
        ([probed(4, fits=False, epoch_energy=0.0)], 422, "epoch_time and epoch_energy must be 0"),
        ([probed(4, fits=False, epoch_time=0.0)], 422, "epoch_time and epoch_energy must be 0"),
        ([probed(4, energy=-1.0)], 422, "greater than or equal to 0"),
        ([probed(4, fits="yes")], 422, "fits"),
    ],
)
def test_an_invalid_probe_is_refused(calls: Calls, sizes: list[dict[str, Any]], status: int, message: str) -> None:
    register(calls)
    trial = calls.trial()
    answer = probe(calls, trial, *sizes)
    assert (answer.status, message in answer.message) == (status, True), answer.text
    assert calls.trial()["probe_wanted"]


def test_a_probe_of_an_unknown_job_or_trial_is_refused(calls: Calls) -> None:
    register(calls)
    assert probe(calls, {"job_id": "train", "trial_number": 7}, probed(4)).status == 400
    assert probe(calls, {"job_id": "nothing", "trial_number": 1}, probed(4)).status == 400
