"""The figures about each batch size of a job, for display."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.policies import POLICIES, stage
from backend.core.state import JobState, TrialType
from backend.core.summary import Best, best, lowest_mean_size
from tests.core.stories import LOST, RUNNING, Row, story, summary_of, trial
from tests.specs import core_spec


def test_a_fresh_job_knows_nothing() -> None:
    summaries = summary_of(story())
    assert [summary.batch_size for summary in summaries] == [8, 16, 32]
    assert all((s.runs, s.converged, s.lost, s.mean_cost_j) == (0, 0, 0, None) for s in summaries)
    assert lowest_mean_size(summaries) is None


def test_means_are_over_converged_runs_alone() -> None:
    trials = (
        trial(1, (16, 10.0, True), time_s=1.0, epochs=4),
        trial(2, (16, 20.0, True), time_s=3.0, epochs=7),
        trial(3, (16, 90.0, False), time_s=99.0, epochs=99),
        trial(4, (16, 1.0, LOST)),
        trial(5, (16, 1.0, RUNNING)),
    )
    sixteen = summary_of(JobState(core_spec(), trials))[1]
    assert (sixteen.runs, sixteen.converged, sixteen.lost) == (3, 2, 1)
    assert (sixteen.mean_cost_j, sixteen.mean_energy_j) == (15.0, 15.0)
    assert (sixteen.mean_time_s, sixteen.mean_epochs) == (2.0, 5.5)


def test_the_lowest_mean_is_that_of_converged_runs() -> None:
    summaries = summary_of(story((16, 10, True), (8, 1, True), (8, 30, True), (32, 1, False)))
    assert lowest_mean_size(summaries) == 16


def test_of_equally_cheap_batch_sizes_the_smaller_has_the_lowest_mean() -> None:
    assert lowest_mean_size(summary_of(story((32, 10, True), (16, 10, True)))) == 16


def best_of(state: JobState) -> Best:
    return best(state, summary_of(state))


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_without_a_converged_run_nothing_is_recommended(policy: str) -> None:
    for rows in ([], [(16, 10.0, False)], [(16, 10.0, RUNNING)]):
        state = story(*rows, spec=core_spec(policy=policy))
        assert best_of(state) == Best(None, None, "no batch size has converged yet")


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_batch_size_that_is_best_by_belief_and_by_mean_is_named_once(policy: str) -> None:
    state = story((16, 2000, True), (8, 1000, True), (8, 1002, True), spec=core_spec(policy=policy))
    assert best_of(state) == Best(8, 8, "recommended: 8, cost 1.00 kJ on average of 2 runs")


def test_under_gp_ucb_a_lucky_run_has_the_lowest_mean_and_is_not_recommended() -> None:
    spec = core_spec(policy="gp-ucb", max_epochs=100)
    runs = [trial(number, (16, 1000.0, True), TrialType.MAB, epochs=20) for number in range(1, 7)]
    lucky = trial(7, (8, 990.0, True), TrialType.MAB, epochs=10)
    state = JobState(spec, (*runs, lucky))
    assert best_of(state) == Best(
        16, 8, "recommended: 16, cost 1.00 kJ on average of 6 runs; lowest mean so far: 8, cost 990 J in one run"
    )
    assert "the recommended batch size is 16" in stage(state)[1]


def test_under_zeus_a_batch_size_whose_later_runs_failed_has_the_lowest_mean_and_is_not_recommended() -> None:
    spec = core_spec(num_pruning_rounds=1)
    pruned = [trial(number, row) for number, row in enumerate([(16, 10, True), (8, 9, True), (32, 12, True)], 1)]
    failed = [trial(number, (8, 20, False), TrialType.MAB) for number in (4, 5)]
    assert best_of(JobState(spec, (*pruned, *failed))) == Best(
        16, 8, "recommended: 16, cost 10.0 J in one run; lowest mean so far: 8, cost 9.00 J in one run"
    )


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_batch_size_that_has_never_converged_is_not_recommended(policy: str) -> None:
    spec = core_spec(policy=policy, num_pruning_rounds=0)
    state = story((16, 10, True), (8, 1, False), (8, 1, False), kind=TrialType.MAB, spec=spec)
    assert best_of(state).recommended == 16


def test_a_ruled_out_batch_size_has_a_reason() -> None:
    summaries = summary_of(story((16, 10, True), (8, 10, True), (32, 10, False)))
    assert [summary.ruled_out is None for summary in summaries] == [True, True, False]


rows = st.tuples(st.sampled_from([8, 16, 32]), st.floats(0, 1e9), st.sampled_from([True, False, LOST, RUNNING]))


@given(history=st.lists(rows, max_size=20))
def test_every_run_is_counted_once(history: list[Row]) -> None:
    summaries = summary_of(story(*history))
    assert sum(s.runs for s in summaries) == sum(isinstance(outcome, bool) for _, _, outcome in history)
    assert sum(s.lost for s in summaries) == sum(outcome == LOST for _, _, outcome in history)
    assert all((s.mean_cost_j is None) == (s.converged == 0) for s in summaries)
    lowest = lowest_mean_size(summaries)
    means = [s.mean_cost_j for s in summaries if s.mean_cost_j is not None]
    assert (lowest is None) == (not means)
    if lowest is not None:
        assert next(s.mean_cost_j for s in summaries if s.batch_size == lowest) == min(means)
