"""The bandit: its posteriors against an independent computation, and each of its draws."""

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backend.core.policies import choose
from backend.core.rng import at_position, position_of, seeded
from backend.core.state import JobState, Spec, TrialType
from backend.core.zeus.results import Rewards, results, with_reward
from backend.core.zeus.thompson import Posterior, draw, posterior
from tests.core.reference import Zeus
from tests.core.stories import LOST, RUNNING, Row, story, trial
from tests.specs import core_spec

ARMS = (8, 16, 32)
costs = st.floats(1, 1e6)
seeds = st.integers(0, 2**63 - 1)
histories = st.lists(
    st.tuples(st.sampled_from(ARMS), costs, st.sampled_from([True, False, LOST, RUNNING])), max_size=20
)


def bandit(*rows: Row, **changes: object) -> JobState:
    """Return a job without pruning."""
    return story(*rows, kind=TrialType.MAB, spec=core_spec(num_pruning_rounds=0, **changes))


def drawn(state: JobState, seed: int = 0) -> int:
    return draw(state, ARMS, seeded(seed))[0]


def posterior_of(spec: Spec, rewards: Sequence[float]) -> Posterior:
    """Return the posterior after rewards, oldest first."""
    return posterior(spec, reduce(lambda before, reward: with_reward(spec, before, reward), rewards, Rewards()))


def test_a_reward_is_minus_the_cost_of_any_run_that_ended_with_a_verdict() -> None:
    state = bandit((8, 5, True), (16, 7, False), (8, 6, LOST), (8, 3, RUNNING), (8, 4, True))
    assert {size: (rewards.runs, rewards.mean_j) for size, rewards in results(state).rewards.items()} == {
        8: (2, -4.5),
        16: (1, -7),
    }


def test_the_latest_rewards_are_those_of_the_runs_that_ended_last() -> None:
    late, early = trial(1, (8, 5, True), started=1, ended=9), trial(2, (8, 6, True), started=2, ended=3)
    for window, latest in ((0, ()), (1, (-5,)), (2, (-6, -5)), (3, (-6, -5))):
        assert results(JobState(core_spec(window_size=window), (late, early))).rewards[8].latest_j == latest


def test_runs_of_every_type_give_rewards() -> None:
    trials = [trial(number, (8, number, True), kind) for number, kind in enumerate(TrialType, 1)]
    assert results(JobState(core_spec(window_size=9), tuple(trials))).rewards[8].latest_j == (-1, -2, -3, -4, -5)


@given(
    rewards=st.lists(st.floats(-1e6, -1), min_size=2, max_size=20),
    mean=st.floats(-1e6, 1e6),
    precision=st.just(0.0) | st.floats(1e-12, 1e3),
    window=st.integers(0, 25),
)
def test_the_posterior_is_the_conjugate_one(rewards: list[float], mean: float, precision: float, window: int) -> None:
    spec = core_spec(mab_prior_mean=mean, mab_prior_precision=precision, window_size=window)
    last = rewards[len(rewards) - window :] if 0 < window < len(rewards) else rewards
    variance = sum((x - sum(last) / len(last)) ** 2 for x in last) / len(last)
    assume(variance > 1e-3)
    posterior_precision = precision + len(last) / variance
    result = posterior_of(spec, rewards)
    assert result.mean_j == pytest.approx((precision * mean + sum(last) / variance) / posterior_precision, rel=1e-6)
    assert result.sd_j == pytest.approx(math.sqrt(1 / posterior_precision), rel=1e-6)


def test_the_posterior_of_a_worked_example() -> None:
    assert posterior_of(core_spec(), [-10.0, -14.0]) == Posterior(-12.0, math.sqrt(2.0))
    informed = core_spec(mab_prior_mean=-20.0, mab_prior_precision=0.5)
    assert posterior_of(informed, [-10.0, -14.0]) == Posterior(-16.0, 1.0)


@pytest.mark.parametrize("rewards", [[-5.0], [-5.0, -5.0], [-0.1] * 7])
@pytest.mark.parametrize("precision", [0.0, 1e9])
def test_equal_rewards_leave_no_spread(rewards: list[float], precision: float) -> None:
    result = posterior_of(core_spec(mab_prior_mean=-1.0, mab_prior_precision=precision), rewards)
    assert result == Posterior(rewards[0], 0.0)


def test_without_results_the_posterior_is_the_prior() -> None:
    assert posterior_of(core_spec(mab_prior_mean=-7.0, mab_prior_precision=4.0), []) == Posterior(-7.0, 0.5)


@given(rewards=st.lists(st.floats(-1e60, 0), min_size=1, max_size=10), precision=st.floats(0, 1e30))
def test_a_posterior_is_always_finite(rewards: list[float], precision: float) -> None:
    result = posterior_of(core_spec(mab_prior_precision=precision, mab_prior_mean=-1e30), rewards)
    assert math.isfinite(result.mean_j)
    assert math.isfinite(result.sd_j)
    assert result.sd_j >= 0


def test_only_the_window_of_the_latest_rewards_counts() -> None:
    spec = core_spec(window_size=2)
    assert posterior_of(spec, [-1000.0, -10.0, -14.0]) == posterior_of(spec, [-10.0, -14.0])
    assert posterior_of(core_spec(window_size=9), [-10.0, -14.0]) == posterior_of(core_spec(), [-10.0, -14.0])


@given(seed=seeds)
def test_the_first_arm_with_too_few_results_in_the_shuffled_order_is_pulled(seed: int) -> None:
    order = np.random.default_rng(seed).choice(ARMS, size=3, replace=False).tolist()
    assert drawn(bandit(), seed) == order[0]
    both = [arm for arm in order if arm != 16]
    assert drawn(bandit((16, 5, True), (16, 6, True)), seed) == both[0]


def test_every_arm_is_tried_before_one_is_drawn() -> None:
    for missing in ARMS:
        enough = [(arm, 5.0 + arm, True) for arm in ARMS for _ in range(2)]
        enough.remove((missing, 5.0 + missing, True))
        arm, reason = draw(bandit(*enough), ARMS, seeded(0))
        assert arm == missing
        assert "1 of the 2" in reason


def test_under_a_flat_prior_an_arm_without_results_is_tried_even_if_no_exploration_is_required() -> None:
    state = bandit((8, 5, True), (16, 5, True), mab_num_explorations=0)
    assert drawn(state) == 32


def test_under_a_proper_prior_an_arm_without_results_may_be_drawn() -> None:
    good, bad = ({"mab_prior_mean": mean, "mab_prior_precision": 1e9} for mean in (-1.0, -99.0))
    for prior, expected in ((good, {32}), (bad, {8, 16})):
        state = bandit((8, 5, True), (16, 5, True), mab_num_explorations=0, **prior)
        assert drawn(state) in expected


def test_without_spread_the_cheapest_wins() -> None:
    state = bandit((8, 5, True), (16, 4, True), (32, 6, True), mab_num_explorations=1)
    assert {drawn(state, seed) for seed in range(20)} == {16}


@given(history=histories, seed=seeds, explorations=st.integers(0, 3), window=st.integers(0, 4))
def test_the_draws_come_in_the_published_order(history: list[Row], seed: int, explorations: int, window: int) -> None:
    state = bandit(*history, mab_num_explorations=explorations, window_size=window, mab_prior_precision=1e-9)
    generator, twin = seeded(seed), np.random.default_rng(seed)
    arm, _ = draw(state, ARMS, generator)
    assert arm == drawn_by_hand(history, twin, explorations, window)
    assert generator.bit_generator.state == twin.bit_generator.state


def drawn_by_hand(history: list[Row], rng: np.random.Generator, explorations: int, window: int) -> int:
    rewards = {arm: [-price for size, price, how in history if size == arm and how in (True, False)] for arm in ARMS}
    for arm in rng.choice(np.array(ARMS), size=len(ARMS), replace=False).tolist():
        if len(rewards[arm]) < explorations:
            return int(arm)
    samples = []
    for arm in ARMS:
        last = np.array(rewards[arm][-window:] if window else rewards[arm])
        if len(last) == 0:
            mean, deviation = 0.0, math.sqrt(1 / 1e-9)
        elif last.var() == 0 or not np.isfinite(len(last) / last.var()):
            mean, deviation = last.mean(), 0.0
        else:
            precision = 1e-9 + len(last) / last.var()
            mean, deviation = last.sum() / last.var() / precision, math.sqrt(1 / precision)
        samples.append(rng.normal(mean, deviation))
    return ARMS[int(np.argmax(samples))]


@given(seed=seeds, explorations=st.integers(1, 3), window=st.integers(0, 3), data=st.data())
def test_a_whole_bandit_draws_as_published(seed: int, explorations: int, window: int, data: st.DataObject) -> None:
    published = Zeus([8, 16, 32], 16, 0, seed=seed, explorations=explorations, window=window)
    generator = seeded(seed)
    history: list[Row] = []
    for _ in range(12):
        expected = published.next_size()[0]
        state = bandit(*history, mab_num_explorations=explorations, window_size=window)
        assert choose(state, generator).batch_size == expected
        cost = float(data.draw(st.integers(1, 1000)))
        history.append((expected, cost, True))
        published.finish(expected, cost, True)


@given(seed=seeds, draws=st.integers(0, 5))
def test_a_generator_that_was_saved_continues_at_its_position(seed: int, draws: int) -> None:
    generator = seeded(seed)
    generator.normal(size=draws)
    generator.choice(5, size=5, replace=False)
    again = at_position(position_of(generator))
    assert again.normal(size=5).tolist() == generator.normal(size=5).tolist()
