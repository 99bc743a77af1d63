"""The cost of a run, and the cost bound."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backend.core import policies
from backend.core.cost import cost, run_cost, trial_cost
from backend.core.zeus.results import results
from tests.core.stories import LOST, RUNNING, story, trial
from tests.specs import core_spec

quantities = st.floats(0, 1e30)
powers = st.floats(1e-30, 1e30)
etas = st.floats(0, 1)
rows = st.tuples(st.sampled_from([8, 16, 32]), st.floats(0, 1e30), st.sampled_from([True, False, LOST, RUNNING]))


@given(energy=quantities, time=quantities, eta=etas, power=powers)
def test_the_cost_is_never_negative_and_always_finite(energy: float, time: float, eta: float, power: float) -> None:
    assert 0 <= cost(energy, time, eta=eta, max_power_w=power) < math.inf


@given(energy=quantities, time=quantities, power=powers)
def test_the_knob_s_ends_are_energy_alone_and_time_alone(energy: float, time: float, power: float) -> None:
    assert cost(energy, time, eta=1, max_power_w=power) == energy
    assert cost(energy, time, eta=0, max_power_w=power) == power * time


@given(energy=quantities, more=quantities, time=quantities, longer=quantities, eta=etas, power=powers)
def test_more_energy_or_time_never_costs_less(
    energy: float, more: float, time: float, longer: float, eta: float, power: float
) -> None:
    less = cost(min(energy, more), min(time, longer), eta=eta, max_power_w=power)
    assert less <= cost(max(energy, more), max(time, longer), eta=eta, max_power_w=power)


@given(time=st.floats(1e-10, 1e10), eta=etas, power=st.floats(1e-3, 1e6))
def test_a_run_at_full_power_costs_its_energy_whatever_the_knob(time: float, eta: float, power: float) -> None:
    assert cost(power * time, time, eta=eta, max_power_w=power) == pytest.approx(power * time)


@pytest.mark.parametrize(
    ("energy", "time", "eta", "power"),
    [
        *((-1, 1, 0.5, 1), (1, -1, 0.5, 1), (1, 1, -0.1, 1), (1, 1, 1.1, 1), (1, 1, 0.5, 0), (1, 1, 0.5, -1)),
        *((math.nan, 1, 0.5, 1), (1, math.nan, 0.5, 1), (1, 1, math.nan, 1), (1, 1, 0.5, math.nan)),
    ],
)
def test_a_value_outside_its_range_is_refused(energy: float, time: float, eta: float, power: float) -> None:
    with pytest.raises(ValueError, match="out of range"):
        cost(energy, time, eta=eta, max_power_w=power)


def test_a_trial_costs_what_its_job_s_knobs_say() -> None:
    spec = core_spec(eta_knob=0.25, max_power=200.0)
    ended = trial(1, (8, 40.0, True), time_s=3.0)
    assert trial_cost(spec, ended) == run_cost(spec, 40.0, 3.0) == 0.25 * 40.0 + 0.75 * 200.0 * 3.0


@given(history=st.lists(rows, max_size=12), beta=st.none() | st.floats(1e-3, 1e3))
def test_the_bound_comes_from_the_cheapest_converged_run_alone(
    history: list[tuple[int, float, bool | str]], beta: float | None
) -> None:
    converged = [price for _, price, outcome in history if outcome is True and price > 0]
    state = story(*history, spec=core_spec(beta_knob=beta))
    bound = policies.cost_bound(state.spec, 1.0, policies.reference_cost(state))
    if beta is None or not converged:
        assert bound == math.inf
    else:
        assert bound == beta * min(converged)


@given(history=st.lists(rows, min_size=1, max_size=12))
def test_of_equally_cheap_runs_the_earliest_counts(history: list[tuple[int, float, bool | str]]) -> None:
    assume(any(outcome is True and cost > 0 for _, cost, outcome in history))
    cheapest = results(story(*history, *history)).cheapest
    assert cheapest is not None
    assert cheapest.number <= len(history)
