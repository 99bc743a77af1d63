"""What a run tells of batch sizes by timing a few steps of each: the first probe of an exploration counts."""

from typing import Any

import pytest
from flask import Flask

from backend.usecases import reading
from tests.backend.test_gp_ucb import recur, register, train
from tests.calls import Calls


def told(batch_size: int, **changes: Any) -> dict[str, Any]:
    """What a probe tells of a batch size: an epoch of 10 J."""
    return {
        "batch_size": batch_size,
        "fits": True,
        "epoch_time": 1.0,
        "epoch_energy": 10.0,
        "time": 2.0,
        "energy": 20.0,
    } | changes


def unfit(batch_size: int) -> dict[str, Any]:
    """What a probe tells of a batch size that does not fit in memory."""
    return told(batch_size, fits=False, epoch_time=0.0, epoch_energy=0.0)


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
    calls.must(probe(calls, first, told(4), told(8)))
    assert not calls.trial(run_id="second")["probe_wanted"]
    calls.must(calls.reset())
    assert calls.trial(run_id="third")["probe_wanted"]


def test_a_job_that_cannot_be_probed_is_not_asked_again_until_a_reset_and_goes_on_as_it_was(calls: Calls) -> None:
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


def test_what_a_probe_tells_counts_in_the_next_choice(calls: Calls) -> None:
    register(calls)
    register(calls, "train-probed")
    for job_id in ("train", "train-probed"):
        train(calls, calls.trial(job_id))
    calls.must(
        probe(calls, {"job_id": "train-probed", "trial_number": 1}, told(4, epoch_energy=1e6), told(8), told(32))
    )
    assert calls.trial("train")["reason"] != calls.trial("train-probed")["reason"]
    assert [trial["batch_size"] for trial in recur(calls, "train-probed", times=6)].count(4) == 0


def test_what_does_not_fit_in_memory_is_not_given(calls: Calls) -> None:
    register(calls)
    first = calls.trial()
    train(calls, first)
    calls.must(probe(calls, first, *map(unfit, (8, 32, 64))))
    assert {trial["batch_size"] for trial in recur(calls, times=12)} == {4, 16}
    sizes = calls.must(calls("GET", "/jobs/train"))["batch_sizes"]
    ruled_out = {one["batch_size"]: one["ruled_out"] for one in sizes if one["ruled_out"]}
    assert ruled_out.keys() == {8, 32, 64}
    assert "does not fit in memory" in ruled_out[64]


def test_of_two_probes_the_first_counts(calls: Calls) -> None:
    register(calls)
    first = calls.trial()
    train(calls, first)
    calls.must(probe(calls, first, told(4), told(8)))
    before = calls.must(calls("GET", "/jobs/train"))
    calls.must(probe(calls, first, unfit(8)))
    assert calls.must(calls("GET", "/jobs/train")) == before


def test_a_job_with_a_probe_is_replayed_without_a_difference(app: Flask, calls: Calls) -> None:
    register(calls)
    recur(calls, times=2)
    calls.must(probe(calls, calls.trial(), told(4, epoch_energy=1e6), unfit(64)))
    recur(calls, times=6)
    calls.must(calls.reset())
    recur(calls, times=3)
    with app.app_context():
        assert reading.replay_job("train") == (12, [])


@pytest.mark.parametrize(
    ("sizes", "status", "said"),
    [
        ([told(5)], 422, "5 is no batch size of job"),
        ([told(4), told(4)], 422, "tell of each once"),
        ([told(4, epoch_time=0.0)], 422, "epoch_time must be above 0"),
        ([told(4, fits=False, epoch_energy=0.0)], 422, "epoch_time and epoch_energy must be 0"),
        ([told(4, fits=False, epoch_time=0.0)], 422, "epoch_time and epoch_energy must be 0"),
        ([told(4, energy=-1.0)], 422, "greater than or equal to 0"),
        ([told(4, fits="yes")], 422, "fits"),
    ],
)
def test_a_probe_that_tells_nothing_is_refused(
    calls: Calls, sizes: list[dict[str, Any]], status: int, said: str
) -> None:
    register(calls)
    trial = calls.trial()
    answer = probe(calls, trial, *sizes)
    assert (answer.status, said in answer.message) == (status, True), answer.text
    assert calls.trial()["probe_wanted"]


def test_a_probe_of_nobody_is_refused(calls: Calls) -> None:
    register(calls)
    assert probe(calls, {"job_id": "train", "trial_number": 7}, told(4)).status == 400
    assert probe(calls, {"job_id": "nothing", "trial_number": 1}, told(4)).status == 400
