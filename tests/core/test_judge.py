"""The verdict on a report: the order of the rules, and their exact limits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.policies import judge
from backend.core.state import Report, TrialType, VerdictCode
from tests.core.stories import LOST, RUNNING, Row, running, story
from tests.specs import core_spec

finite = st.floats(allow_nan=False, allow_infinity=False)


def verdict(
    *history: Row, cost: float = 1.0, metric: float | None = 0.0, epoch: int = 1, **changes: object
) -> VerdictCode:
    state = story(*history, spec=core_spec(**changes))
    return judge(state, running(state), Report(metric, cost, 0.0, epoch)).code


def test_below_the_target_the_training_continues() -> None:
    assert verdict() is VerdictCode.CONTINUE


def test_the_target_itself_counts_as_reached() -> None:
    assert verdict(metric=1.0) is VerdictCode.CONVERGED
    assert verdict(metric=math.nextafter(1.0, 0.0)) is VerdictCode.CONTINUE


def test_where_lower_is_better_the_target_is_reached_from_above() -> None:
    assert verdict(metric=1.0, higher_is_better_metric=False) is VerdictCode.CONVERGED
    assert verdict(metric=0.5, higher_is_better_metric=False) is VerdictCode.CONVERGED
    assert verdict(metric=math.nextafter(1.0, 2.0), higher_is_better_metric=False) is VerdictCode.CONTINUE


def test_the_bound_itself_is_within_it() -> None:
    assert verdict((16, 10, True), cost=20.0) is VerdictCode.CONTINUE
    assert verdict((16, 10, True), cost=math.nextafter(20.0, 30.0)) is VerdictCode.COST_BOUND


def test_a_cost_of_0_is_no_bound() -> None:
    assert verdict((16, 0, True), cost=1e9) is VerdictCode.CONTINUE
    assert verdict((16, 10, True), (8, 0, True), cost=20.0) is VerdictCode.CONTINUE
    assert verdict((16, 10, True), (8, 0, True), cost=21.0) is VerdictCode.COST_BOUND


def test_the_last_epoch_is_the_limit() -> None:
    assert verdict(epoch=9) is VerdictCode.CONTINUE
    assert verdict(epoch=10) is VerdictCode.MAX_EPOCHS
    assert verdict(epoch=11) is VerdictCode.MAX_EPOCHS


@pytest.mark.parametrize("metric", [0.0, 1.0, None])
@pytest.mark.parametrize("epoch", [1, 10])
def test_a_cost_beyond_the_bound_comes_before_every_other_rule(metric: float | None, epoch: int) -> None:
    assert verdict((16, 10, True), cost=21.0, metric=metric, epoch=epoch) is VerdictCode.COST_BOUND


def test_the_target_comes_before_the_last_epoch() -> None:
    assert verdict(metric=1.0, epoch=10) is VerdictCode.CONVERGED


def test_a_metric_that_is_no_number_ends_the_run_before_the_last_epoch_does() -> None:
    assert verdict(metric=None) is VerdictCode.DIVERGED
    assert verdict(metric=None, epoch=10) is VerdictCode.DIVERGED


def test_without_a_beta_there_is_no_bound() -> None:
    assert verdict((16, 10, True), cost=1e30, beta_knob=None) is VerdictCode.CONTINUE


def test_a_beta_below_one_asks_for_less_than_the_best() -> None:
    assert verdict((16, 10, True), cost=5.1, beta_knob=0.5) is VerdictCode.COST_BOUND


@pytest.mark.parametrize("outcome", [False, LOST, RUNNING])
def test_only_converged_runs_set_the_bound(outcome: bool | str) -> None:
    assert verdict((16, 1, outcome), cost=1e9) is VerdictCode.CONTINUE


def test_the_cheapest_of_all_converged_runs_sets_the_bound() -> None:
    history: tuple[Row, ...] = ((16, 10, True), (8, 4, True), (32, 20, True))
    assert verdict(*history, cost=8.0) is VerdictCode.CONTINUE
    assert verdict(*history, cost=8.5) is VerdictCode.COST_BOUND


def test_time_counts_in_the_cost() -> None:
    state = story((16, 10, True), spec=core_spec(eta_knob=0.5, max_power=100.0))
    assert judge(state, running(state), Report(0.0, 0.0, 0.2, 1)).code is VerdictCode.CONTINUE
    assert judge(state, running(state), Report(0.0, 0.0, 0.21, 1)).code is VerdictCode.COST_BOUND


@given(
    history=st.lists(
        st.tuples(st.sampled_from([8, 16, 32]), st.floats(0, 1e9), st.sampled_from([True, False, LOST, RUNNING])),
        max_size=6,
    ),
    cost=st.floats(0, 1e10),
    metric=st.none() | finite,
    epoch=st.integers(0, 20),
    target=finite,
    higher=st.booleans(),
    beta=st.none() | st.floats(1e-3, 1e3),
    kind=st.sampled_from(TrialType),
)
def test_any_report_is_judged_by_the_rules_in_their_order(
    history: list[Row],
    cost: float,
    metric: float | None,
    epoch: int,
    target: float,
    higher: bool,
    beta: float | None,
    kind: TrialType,
) -> None:
    spec = core_spec(target_metric=target, higher_is_better_metric=higher, beta_knob=beta)
    state = story(*history, kind=kind, spec=spec)
    decision = judge(state, running(state, kind=kind), Report(metric, cost, 0.0, epoch))
    converged = [price for _, price, outcome in history if outcome is True and price > 0]
    if beta is not None and converged and cost > beta * min(converged):
        expected = VerdictCode.COST_BOUND
    elif metric is None:
        expected = VerdictCode.DIVERGED
    elif metric == target or (metric > target) == higher:
        expected = VerdictCode.CONVERGED
    elif epoch >= 10:
        expected = VerdictCode.MAX_EPOCHS
    else:
        expected = VerdictCode.CONTINUE
    assert decision.code is expected
    assert decision.stop == (expected is not VerdictCode.CONTINUE)
    assert decision.converged == (expected is VerdictCode.CONVERGED)
    assert decision.reason
