"""The figures about each batch size of a job, for display."""

from hypothesis import given
from hypothesis import strategies as st

from backend.core.state import JobState
from backend.core.summary import best_batch_size
from tests.core.stories import LOST, RUNNING, Row, story, summary_of, trial
from tests.specs import core_spec


def test_a_fresh_job_knows_nothing() -> None:
    summaries = summary_of(story())
    assert [summary.batch_size for summary in summaries] == [8, 16, 32]
    assert all((s.runs, s.converged, s.lost, s.mean_cost_j) == (0, 0, 0, None) for s in summaries)
    assert best_batch_size(summaries) is None


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


def test_the_best_batch_size_has_the_lowest_mean_cost() -> None:
    summaries = summary_of(story((16, 10, True), (8, 1, True), (8, 30, True), (32, 1, False)))
    assert best_batch_size(summaries) == 16


def test_of_equally_cheap_batch_sizes_the_smaller_is_the_best() -> None:
    assert best_batch_size(summary_of(story((32, 10, True), (16, 10, True)))) == 16


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
    best = best_batch_size(summaries)
    means = [s.mean_cost_j for s in summaries if s.mean_cost_j is not None]
    assert (best is None) == (not means)
    if best is not None:
        assert next(s.mean_cost_j for s in summaries if s.batch_size == best) == min(means)
