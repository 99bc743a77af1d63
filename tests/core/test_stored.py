"""What has been learnt comes back from its text bit for bit, and the text of another version is not read."""

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core import stored
from backend.core.gp_ucb.belief import beginning, believe, warm_beginning, warm_start
from backend.core.policies import choose, known
from backend.core.simulate import Workload, simulate
from backend.core.state import Choice, JobState, NothingConverges, TrialType
from tests.core.stories import story, trial
from tests.core.test_gp_ucb import DONOR, FIVE, alarmed, told
from tests.core.test_gp_ucb_any_job import can_end, workloads
from tests.specs import core_spec


def the_same(one: Any, other: Any) -> bool:
    """Whether two beliefs, or parts of them, are the same to the last bit, in every field."""
    if is_dataclass(one):
        assert type(one) is type(other)
        return all(the_same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and np.array_equal(one, other))
    return bool(one == other)


@given(
    workload=workloads().filter(can_end),
    donor=st.none() | st.just(told(*DONOR)),
    seed=st.integers(0, 99),
    concurrency=st.integers(1, 4),
)
@settings(max_examples=60)
def test_any_job_that_is_written_down_before_every_choice_goes_on_as_if_it_had_not_been(
    workload: Workload, donor: JobState | None, seed: int, concurrency: int
) -> None:
    spec = workload.spec
    shared = donor is not None and set(spec.batch_sizes) & {8, 16}
    first = warm_beginning(spec, warm_start(donor, spec)) if donor is not None and shared else beginning(spec)

    def written_down(state: JobState, rng: np.random.Generator) -> Choice:
        learnt = believe(state)
        choice = choose(state, rng)
        if learnt.last is not None:
            restored = stored.restore(stored.save(learnt, first), first)
            assert restored is not None
            assert the_same(restored, learnt)
            running = tuple(trial for trial in state.trials if trial.ended is None)
            assert choose(JobState(spec, running, restored), rng) == choice
        return choice

    changing = {"drift": lambda recurrence: 2.5 if recurrence >= 8 else 1.0}
    try:
        list(simulate(workload, 16, seed, chooser=written_down, concurrency=concurrency, past=first, **changing))
    except NothingConverges:
        return


def test_a_job_that_has_changed_keeps_what_was_known_before() -> None:
    learnt = believe(told(*alarmed()))
    restored = stored.restore(stored.save(learnt, beginning(FIVE)), beginning(FIVE))
    assert restored is not None
    assert learnt.changed is not None
    assert the_same(restored, learnt)


def test_the_text_stays_small_whatever_the_job_has_seen() -> None:
    spec = core_spec(batch_sizes=tuple(range(1, 65)), default_batch_size=16, max_epochs=100, policy="gp-ucb")
    steady, changed = told(*DONOR * 50, spec=spec), told(*alarmed(), spec=spec)
    assert believe(changed).changed is not None
    assert len(stored.save(believe(steady), beginning(spec))) < 10_000
    assert len(stored.save(believe(changed), beginning(spec))) < 100_000


def test_what_another_version_has_written_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = stored.save(believe(told(*DONOR)), beginning(FIVE))
    assert stored.restore(text, beginning(FIVE)) is not None
    monkeypatch.setattr(stored, "VERSION", stored.VERSION + 1)
    assert stored.restore(text, beginning(FIVE)) is None


def test_what_the_same_trials_make_is_what_this_version_has_always_written() -> None:
    """If this fails on purpose, raise `stored.VERSION`: else servers go on with what the old rules made of a job."""
    spec = core_spec(batch_sizes=(8, 16), max_epochs=100, policy="gp-ucb")
    rows = [(8 if size == 32 else size, epochs, converged) for size, epochs, converged in alarmed()]
    rows += [(8, 30, False), (16, 26, True), (16, 24, True), (16, 36, True)]
    written = json.loads(stored.save(believe(told(*rows, spec=spec)), beginning(spec)))
    assert written.pop("last")["number"] == len(rows)
    assert dict(leaves(written)) == pytest.approx(
        {
            "version": 2,
            "counted converged 0": 0,
            "counted converged 1": 12,
            "counted failed 0": 1,
            "counted failed 1": 0,
            "counted failed_since_success 0": 0,
            "counted failed_since_success 1": 0,
            "counted failed_factor": 1,
            "counted changed": None,
            "counted too_large": None,
            "epochs runs 0": 0,
            "epochs runs 1": 4,
            "epochs mean 0": 0,
            "epochs mean 1": 3.3096362829234343,
            "epochs site_precision 0": 4.212882040204659,
            "epochs site_precision 1": 0,
            "epochs site_shift 0": 16.995517825556092,
            "epochs site_shift 1": 0,
            "epochs squares": 0.7329109858672208,
            "epochs freedom": 6.5,
            "epochs rising": 0.31531593514039247,
            "epochs falling": 0,
            "epochs_prior mean 0": 2.963780486619174,
            "epochs_prior mean 1": 2.6716039747930544,
            "epochs_prior covariance 0 0": 1.0603072983129493,
            "epochs_prior covariance 0 1": 1.0238488180684493,
            "epochs_prior covariance 1 0": 1.0238488180684493,
            "epochs_prior covariance 1 1": 1.0327955455287152,
            "epoch_cost runs 0": 2,
            "epoch_cost runs 1": 8,
            "epoch_cost mean 0": 4.605170185988092,
            "epoch_cost mean 1": 4.605170185988092,
            "epoch_cost energy_j 0": 5100,
            "epoch_cost energy_j 1": 22100,
            "epoch_cost time_s 0": 51,
            "epoch_cost time_s 1": 221,
        }
    )


def test_what_the_same_trials_of_a_zeus_job_make_is_what_this_version_has_always_written() -> None:
    spec = core_spec(num_pruning_rounds=1, window_size=2)
    explored = story((16, 30.0, True), (8, 50.0, False), (32, 20.0, True), spec=spec).trials
    bandit = [trial(4, (16, 28.0, True), TrialType.MAB), trial(5, (16, 35.0, True), TrialType.MAB)]
    written = json.loads(stored.save(known(JobState(spec, (*explored, *bandit))), known(JobState(spec, ()))))
    assert written["last"]["number"] == 5
    assert written["cheapest"]["number"] == 3
    assert [values[0] for values in written["explored"]] == [1, 2, 3]
    assert written["explored"][1] == [2, 8, "Pruning", "Succeeded", False, 50.0, 0.0, 1, 4, 5, 1.0, False]
    assert written["rewards"] == {
        "16": [3, -31.0, 26.0, [-28.0, -35.0]],
        "8": [1, -50.0, 0.0, [-50.0]],
        "32": [1, -20.0, 0.0, [-20.0]],
    }


def test_what_one_policy_has_learnt_is_not_written_down_for_another() -> None:
    with pytest.raises(TypeError, match="Results"):
        stored.save(known(story((16, 30.0, True))), beginning(core_spec()))


def test_what_one_policy_has_learnt_is_nothing_to_decide_by_for_another() -> None:
    spec = core_spec(policy="gp-ucb")
    for one, other in ((spec, core_spec()), (core_spec(), spec)):
        with pytest.raises(TypeError, match="another policy"):
            choose(JobState(one, (), known(JobState(other, ()))), np.random.default_rng(0))


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """What is at the ends of nested dicts and lists, by the way to it."""
    if not isinstance(tree, dict | list):
        yield path.strip(), tree
        return
    for name, branch in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from leaves(branch, f"{path} {name}")


def test_nothing_is_written_before_the_first_run_has_ended() -> None:
    with pytest.raises(ValueError, match="nothing"):
        stored.save(beginning(FIVE), beginning(FIVE))
