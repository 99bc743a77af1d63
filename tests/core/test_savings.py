"""The savings of a job against the cost of its recurrences at a fixed batch size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.cost import trial_cost
from backend.core.savings import saved_by_trial, savings
from backend.core.state import TrialStatus
from tests.core.stories import LOST, RUNNING, Row, story, totals_of


def test_failed_and_lost_runs_are_paid_and_are_no_recurrences() -> None:
    state = story((16, 10, True), (8, 5, False), (8, 4, True), (32, 7, LOST), (8, 100, RUNNING))
    saved = savings(state.spec, totals_of(state.trials))
    assert (saved.launches, saved.recurrences, saved.spent.cost_j, saved.best_batch_size) == (4, 2, 26, 8)
    assert saved.against_default is not None
    assert saved.against_best is not None
    assert (saved.against_default.cost_j, saved.against_best.cost_j) == (2 * 10 - 26, 2 * 4 - 26)


def test_nothing_is_said_of_a_default_that_has_never_converged() -> None:
    state = story((16, 10, False), (8, 5, True))
    saved = savings(state.spec, totals_of(state.trials))
    assert saved.against_default is None
    assert saved.against_best is not None
    nothing = savings(state.spec, [])
    assert (nothing.against_best, nothing.best_batch_size, nothing.spent.cost_j) == (None, None, 0)


rows = st.tuples(st.sampled_from([8, 16, 32]), st.floats(0, 1e9), st.sampled_from([True, False, LOST]))


@given(history=st.lists(rows, max_size=20), split=st.integers(0, 20))
def test_the_sums_after_each_trial_end_at_the_savings_wherever_they_begin(history: list[Row], split: int) -> None:
    state = story(*history)
    saved = savings(state.spec, totals_of(state.trials))
    if saved.against_default is None:
        return
    ended = [trial for trial in state.trials if trial.status is not TrialStatus.DISPATCHED]
    per_recurrence_j = (saved.against_default.cost_j + saved.spent.cost_j) / saved.recurrences
    earlier, later = ended[:split], ended[split:]
    before_j = sum(per_recurrence_j * bool(trial.converged) - trial_cost(state.spec, trial) for trial in earlier)
    steps = saved_by_trial(state.spec, per_recurrence_j, before_j, later)
    assert len(steps) == len(later)
    assert (steps or [before_j])[-1] == pytest.approx(saved.against_default.cost_j, rel=1e-6, abs=1e-3)
