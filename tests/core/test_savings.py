"""What a job has saved, by what its recurrences would have cost otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.cost import trial_cost
from backend.core.savings import saved_by_trial, savings
from backend.core.state import TrialStatus
from tests.core.stories import LOST, RUNNING, Row, story, totals_of


def test_failed_and_lost_runs_are_paid_and_are_no_recurrences() -> None:
    state = story((16, 10, True), (8, 5, False), (8, 4, True), (32, 7, LOST), (8, 100, RUNNING))
    found = savings(state.spec, totals_of(state.trials))
    assert (found.launches, found.recurrences, found.spent.cost_j, found.best_batch_size) == (4, 2, 26, 8)
    assert found.against_default is not None
    assert found.against_best is not None
    assert (found.against_default.cost_j, found.against_best.cost_j) == (2 * 10 - 26, 2 * 4 - 26)


def test_nothing_is_said_of_a_default_that_has_never_converged() -> None:
    state = story((16, 10, False), (8, 5, True))
    found = savings(state.spec, totals_of(state.trials))
    assert found.against_default is None
    assert found.against_best is not None
    nothing = savings(state.spec, [])
    assert (nothing.against_best, nothing.best_batch_size, nothing.spent.cost_j) == (None, None, 0)


rows = st.tuples(st.sampled_from([8, 16, 32]), st.floats(0, 1e9), st.sampled_from([True, False, LOST]))


@given(told=st.lists(rows, max_size=20), split=st.integers(0, 20))
def test_the_sums_after_each_trial_end_at_the_savings_wherever_they_begin(told: list[Row], split: int) -> None:
    state = story(*told)
    found = savings(state.spec, totals_of(state.trials))
    if found.against_default is None:
        return
    ended = [trial for trial in state.trials if trial.status is not TrialStatus.DISPATCHED]
    per_recurrence_j = (found.against_default.cost_j + found.spent.cost_j) / found.recurrences
    earlier, later = ended[:split], ended[split:]
    before_j = sum(per_recurrence_j * bool(one.converged) - trial_cost(state.spec, one) for one in earlier)
    steps = saved_by_trial(state.spec, per_recurrence_j, before_j, later)
    assert len(steps) == len(later)
    assert (steps or [before_j])[-1] == pytest.approx(found.against_default.cost_j, rel=1e-6, abs=1e-3)
