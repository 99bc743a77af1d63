"""A summary is restored from its text bit for bit, and a text of another version is not read."""

import json
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core import stored
from backend.core.gp_ucb.belief import Belief, belief_of, initial_belief, warm_belief, warm_start
from backend.core.policies import choose, reference_cost, summarize_ended
from backend.core.simulate import Workload, simulate
from backend.core.state import Choice, EndedSummary, JobState, NothingConverges, TrialType
from tests.core.stories import story, trial
from tests.core.test_gp_ucb import DONOR, FIVE, alarmed, job
from tests.core.test_gp_ucb_any_job import can_end, workloads
from tests.specs import core_spec

REFERENCE_J = 50.0


def saved(summary: EndedSummary, initial: EndedSummary) -> str:
    return stored.save(summary, initial, REFERENCE_J)


def are_equal(left: Any, right: Any) -> bool:
    """Return whether two beliefs, or parts of them, are equal to the last bit in every field."""
    if is_dataclass(left):
        assert type(left) is type(right)
        return all(are_equal(getattr(left, field.name), getattr(right, field.name)) for field in fields(left))
    if isinstance(left, np.ndarray):
        return bool(left.dtype == right.dtype and np.array_equal(left, right))
    return bool(left == right)


@given(
    workload=workloads().filter(can_end),
    donor=st.none() | st.just(job(*DONOR)),
    seed=st.integers(0, 99),
    concurrency=st.integers(1, 4),
)
@settings(max_examples=60)
def test_a_job_that_is_saved_and_restored_before_every_choice_makes_the_same_choices(
    workload: Workload, donor: JobState | None, seed: int, concurrency: int
) -> None:
    spec = workload.spec
    shared = donor is not None and set(spec.batch_sizes) & {8, 16}
    initial = warm_belief(spec, warm_start(donor, spec)) if donor is not None and shared else initial_belief(spec)

    def restoring(state: JobState, rng: np.random.Generator) -> Choice:
        belief = belief_of(state)
        choice = choose(state, rng)
        if belief.last is not None:
            restored = stored.restore(saved(belief, initial), initial)
            assert restored is not None
            assert are_equal(restored, belief)
            running = tuple(trial for trial in state.trials if trial.ended is None)
            assert choose(JobState(spec, running, restored), rng) == choice
        return choice

    changing = {"drift": lambda recurrence: 2.5 if recurrence >= 8 else 1.0}
    try:
        list(simulate(workload, 16, seed, chooser=restoring, concurrency=concurrency, initial=initial, **changing))
    except NothingConverges:
        return


def test_a_job_after_drift_keeps_its_new_prior() -> None:
    belief = belief_of(job(*alarmed()))
    restored = stored.restore(saved(belief, initial_belief(FIVE)), initial_belief(FIVE))
    assert restored is not None
    assert belief.changed is not None
    assert are_equal(restored, belief)


def test_the_text_stays_small_for_any_history() -> None:
    spec = core_spec(batch_sizes=tuple(range(1, 65)), default_batch_size=16, max_epochs=100, policy="gp-ucb")
    steady, changed = job(*DONOR * 50, spec=spec), job(*alarmed(), spec=spec)
    assert belief_of(changed).changed is not None
    assert len(saved(belief_of(steady), initial_belief(spec))) < 10_000
    assert len(saved(belief_of(changed), initial_belief(spec))) < 100_000


def test_a_text_of_another_version_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = saved(belief_of(job(*DONOR)), initial_belief(FIVE))
    assert stored.restore(text, initial_belief(FIVE)) is not None
    monkeypatch.setattr(stored, "VERSION", stored.VERSION + 1)
    assert stored.restore(text, initial_belief(FIVE)) is None


def test_the_same_trials_give_the_same_text_throughout_a_version() -> None:
    """If a change breaks this test on purpose, raise `stored.VERSION`. Else servers keep summaries of the old rules."""
    spec = core_spec(batch_sizes=(8, 16), max_epochs=100, policy="gp-ucb")
    rows = [(8 if size == 32 else size, epochs, converged) for size, epochs, converged in alarmed()]
    rows += [(8, 30, False), (16, 26, True), (16, 24, True), (16, 36, True)]
    data = json.loads(saved(belief_of(job(*rows, spec=spec)), initial_belief(spec)))
    assert data.pop("last")["number"] == len(rows)
    assert len(data.pop("digest")) == 16
    assert data.pop("reference_cost_j") == REFERENCE_J
    assert dict(leaves(data)) == pytest.approx(
        {
            "version": 6,
            "counted converged 0": 0,
            "counted converged 1": 12,
            "counted failed 0": 1,
            "counted failed 1": 0,
            "counted failed_since_success 0": 0,
            "counted failed_since_success 1": 0,
            "counted priced_out 0": 0,
            "counted priced_out 1": 0,
            "counted failed_factor": 1,
            "counted changed": None,
            "counted paid": 0,
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


def test_the_same_trials_of_a_zeus_job_give_the_same_text_throughout_a_version() -> None:
    spec = core_spec(num_pruning_rounds=1, window_size=2)
    explored = story((16, 30.0, True), (8, 50.0, False), (32, 20.0, True), spec=spec).trials
    bandit = [trial(4, (16, 28.0, True), TrialType.MAB), trial(5, (16, 35.0, True), TrialType.MAB)]
    data = json.loads(saved(summarize_ended(JobState(spec, (*explored, *bandit))), summarize_ended(JobState(spec, ()))))
    assert data["last"]["number"] == 5
    assert data["cheapest"]["number"] == 3
    assert [values[0] for values in data["explored"]] == [1, 2, 3]
    assert data["explored"][1] == [2, 8, "Pruning", "Succeeded", False, 50.0, 0.0, 1, 4, 5, 1.0, None, False]
    assert data["rewards"] == {
        "16": [3, -31.0, 26.0, [-28.0, -35.0]],
        "8": [1, -50.0, 0.0, [-50.0]],
        "32": [1, -20.0, 0.0, [-20.0]],
    }


def test_the_summary_of_one_policy_is_not_saved_for_another() -> None:
    with pytest.raises(TypeError, match="Results"):
        saved(summarize_ended(story((16, 30.0, True))), initial_belief(core_spec()))


def test_the_summary_of_one_policy_is_refused_by_another() -> None:
    spec = core_spec(policy="gp-ucb")
    for own, foreign in ((spec, core_spec()), (core_spec(), spec)):
        with pytest.raises(TypeError, match="another policy"):
            choose(JobState(own, (), summarize_ended(JobState(foreign, ()))), np.random.default_rng(0))


@given(where=st.integers(0), to=st.characters(max_codepoint=127))
def test_a_damaged_text_is_not_restored(where: int, to: str) -> None:
    spec = core_spec()
    text = saved(summarize_ended(story((16, 30.0, True))), summarize_ended(JobState(spec, ())))
    where %= len(text)
    damaged = f"{text[:where]}{to}{text[where + 1 :]}"
    assert (stored.restore(damaged, summarize_ended(JobState(spec, ()))) is None) == (damaged != text)
    assert stored.restore(text[:where], summarize_ended(JobState(spec, ()))) is None


@pytest.mark.parametrize("reference_j", [50.0, 0.1 + 0.2, math.inf])
def test_the_reference_cost_is_in_the_text(reference_j: float) -> None:
    spec = core_spec()
    summary, initial = summarize_ended(story((16, 30.0, True))), summarize_ended(JobState(spec, ()))
    assert stored.reference_cost(stored.save(summary, initial, reference_j)) == reference_j
    assert stored.reference_cost(saved(summary, initial)[:-1]) is None


def test_before_the_first_run_has_ended_there_is_no_reference_cost_not_even_after_a_warm_start() -> None:
    assert stored.reference_cost(stored.NOTHING) == math.inf
    assert stored.restore(stored.NOTHING, initial_belief(FIVE)) is None
    warm = warm_belief(FIVE, warm_start(job(*DONOR), FIVE))
    for initial in (summarize_ended(JobState(core_spec(), ())), initial_belief(FIVE), warm):
        spec = FIVE if isinstance(initial, Belief) else core_spec()
        assert reference_cost(JobState(spec, (), initial)) == math.inf


def test_a_program_of_another_version_reads_the_text_and_ignores_it() -> None:
    """Releases before version 4 read the JSON without a check, and compare the version."""
    spec = core_spec()
    text = saved(summarize_ended(story((16, 30.0, True))), summarize_ended(JobState(spec, ())))
    assert {json.loads(text)["version"], json.loads(stored.NOTHING)["version"]} == {stored.VERSION, 0}
    older = json.loads(text) | {"version": 3}
    assert stored.restore(json.dumps(older), summarize_ended(JobState(spec, ()))) is None


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested dicts and lists, each with its path."""
    if not isinstance(tree, dict | list):
        yield path.strip(), tree
        return
    for name, branch in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from leaves(branch, f"{path} {name}")


def test_nothing_is_saved_before_the_first_run_has_ended() -> None:
    with pytest.raises(ValueError, match="nothing"):
        saved(initial_belief(FIVE), initial_belief(FIVE))
