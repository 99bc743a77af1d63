"""The pruning rounds, with a job's history as rows of (batch size, cost, converged)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.policies import choose, ruled_out, stage
from backend.core.state import JobState, NothingConverges, Stage, Trial, TrialStatus, TrialType
from tests.core.reference import Zeus
from tests.core.stories import LOST, RUNNING, Row, story, trial, with_trials
from tests.specs import core_spec

FIVE = core_spec(batch_sizes=(4, 8, 16, 32, 64))


def next_size(*rows: Row, rounds: int = 2) -> int | str:
    """Return the next batch size in the pruning of `FIVE`; outside the pruning, the type of the choice or "stuck"."""
    state = story(*rows, spec=core_spec(batch_sizes=FIVE.batch_sizes, num_pruning_rounds=rounds))
    try:
        choice = choose(state, np.random.default_rng(0))
    except NothingConverges:
        return "stuck"
    return choice.batch_size if choice.type is TrialType.PRUNING else str(choice.type)


def test_a_round_begins_with_the_default() -> None:
    assert next_size() == 16


def test_then_it_goes_downwards() -> None:
    assert next_size((16, 10, True)) == 8
    assert next_size((16, 10, True), (8, 10, True)) == 4


def test_the_first_that_does_not_converge_ends_its_direction() -> None:
    assert next_size((16, 10, True), (8, 10, False)) == 32
    assert next_size((16, 10, True), (8, 10, True), (4, 10, True)) == 32


def test_after_a_default_that_fails_in_round_1_the_walk_goes_on_upwards_only() -> None:
    assert next_size((16, 10, False)) == 32
    assert next_size((16, 10, False), (32, 10, True)) == 64
    assert next_size((16, 10, False), (32, 10, True), (64, 9, True)) == 64, "the cheapest begins round 2"
    round_2: tuple[Row, ...] = ((64, 9, True), (32, 10, True))
    assert next_size((16, 10, False), (32, 10, True), (64, 9, True), *round_2) == "MAB"
    reasons = ruled_out(story((16, 10, False), (32, 10, True), (64, 9, True), spec=FIVE))
    assert reasons.keys() == {4, 8, 16}
    assert "16 did not converge, so smaller batch sizes were left out" in reasons[8]


ROUND_1: tuple[Row, ...] = ((16, 10, True), (8, 7, True), (4, 9, True), (32, 12, True), (64, 30, False))


def test_the_next_round_begins_with_the_cheapest() -> None:
    assert next_size(*ROUND_1) == 8


def test_only_batch_sizes_that_converged_enter_the_next_round() -> None:
    assert next_size(*ROUND_1, (8, 7, True), (4, 9, True), (16, 10, True)) == 32
    assert next_size(*ROUND_1, (8, 7, True), (4, 9, True), (16, 10, True), (32, 12, True)) == "MAB"


def test_after_a_default_that_fails_in_round_2_the_walk_goes_on_upwards_only() -> None:
    assert next_size(*ROUND_1, (8, 7, False)) == 16
    assert next_size(*ROUND_1, (8, 7, False), (16, 10, True)) == 32
    round_2: tuple[Row, ...] = ((8, 7, False), (16, 10, True), (32, 12, True))
    assert next_size(*ROUND_1, *round_2) == "MAB"
    assert ruled_out(story(*ROUND_1, *round_2, spec=FIVE)).keys() == {4, 8, 64}, "4 has converged in round 1"


def test_smaller_batch_sizes_that_an_earlier_version_tried_after_a_failed_default_still_count() -> None:
    assert next_size((16, 10, False), (8, 7, True)) == 32
    tried: tuple[Row, ...] = ((16, 10, False), (8, 7, True), (4, 9, True), (32, 10, False))
    assert next_size(*tried) == 8
    assert next_size(*tried, (8, 7, True), (4, 9, True)) == "MAB"


def test_a_smaller_batch_size_that_still_runs_after_a_failed_default_is_waited_for() -> None:
    choice = choose(story((16, 10, False), (8, 1, RUNNING), spec=FIVE), np.random.default_rng(0))
    assert (choice.batch_size, choice.type) == (16, TrialType.CONCURRENT)
    assert "trial 2 still explores batch size 8" in choice.reason


def test_results_of_an_earlier_round_do_not_count_in_the_next() -> None:
    assert next_size(*ROUND_1, (8, 7, True)) == 4


def test_of_equally_cheap_batch_sizes_the_smallest_is_the_next_default() -> None:
    assert next_size((16, 7, True), (8, 7, True), (4, 9, False), (32, 7, True), (64, 9, False)) == 8


def test_nothing_left_is_a_stuck_job() -> None:
    history: tuple[Row, ...] = ((16, 10, False), (32, 10, False))
    assert next_size(*history) == "stuck"
    with pytest.raises(NothingConverges, match=r"round 1.*target_metric.*max_epochs.*reset"):
        choose(story(*history, spec=FIVE), np.random.default_rng(0))
    assert stage(story(*history, spec=FIVE))[0] is Stage.STUCK


def test_a_job_may_get_stuck_in_its_second_round() -> None:
    history: tuple[Row, ...] = ((16, 10, True), (8, 10, False), (32, 10, False))
    assert next_size(*history) == 16
    assert next_size(*history, (16, 10, False)) == "stuck"


def test_without_rounds_there_is_no_pruning() -> None:
    assert next_size(rounds=0) == "MAB"


def test_a_run_without_a_result_is_repeated() -> None:
    assert next_size((16, 10, LOST)) == 16
    assert next_size((16, 10, True), (8, 10, LOST), (8, 10, LOST)) == 8


def test_while_one_run_explores_others_get_the_cheapest_so_far() -> None:
    choice = choose(story((16, 10, True), (8, 7, True), (4, 1, RUNNING), spec=FIVE), np.random.default_rng(0))
    assert (choice.batch_size, choice.type) == (8, TrialType.CONCURRENT)
    assert "trial 3" in choice.reason
    assert "trial 2" in choice.reason


def test_while_the_first_run_explores_others_get_the_default() -> None:
    choice = choose(story((16, 0, RUNNING), spec=FIVE), np.random.default_rng(0))
    assert (choice.batch_size, choice.type) == (16, TrialType.CONCURRENT)


def test_the_cheapest_so_far_may_come_from_any_type_of_run() -> None:
    state = story((16, 10, True), (8, 1, RUNNING), spec=FIVE)
    cheap = trial(3, (16, 6, True), TrialType.CONCURRENT)
    assert "trial 3" in choose(with_trials(state, [*state.trials, cheap]), np.random.default_rng(0)).reason


def test_of_two_results_in_a_round_the_first_to_end_counts() -> None:
    late = trial(1, (16, 10, False), started=2, ended=9)
    replacement = trial(2, (16, 10, True), started=4, ended=5)
    after = trial(3, (8, 10, True), started=6, ended=7)
    state = JobState(core_spec(batch_sizes=(8, 16), num_pruning_rounds=1), (late, replacement, after))
    assert ruled_out(state) == {}


def test_a_replacement_that_is_overtaken_does_not_begin_the_next_round() -> None:
    revived = trial(1, (16, 10, True), started=2, ended=5)
    replacement = trial(2, (16, 10, False), started=3, ended=6)
    state = JobState(core_spec(batch_sizes=(16,), num_pruning_rounds=2), (revived, replacement))
    choice = choose(state, np.random.default_rng(0))
    assert (choice.batch_size, choice.type) == (16, TrialType.PRUNING)
    assert "round 2" in choice.reason


def test_a_ruled_out_batch_size_has_a_reason() -> None:
    reasons = ruled_out(story((16, 10, True), (8, 10, False), (32, 10, True), (64, 9, False), spec=FIVE))
    assert reasons.keys() == {4, 8, 64}
    assert "trial 2" in reasons[8]
    assert "8 did not converge" in reasons[4]
    assert "smaller" in reasons[4]


outcomes = st.tuples(st.floats(1, 100), st.sampled_from([True, True, True, False]))


@given(
    sizes=st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=7, unique=True).map(sorted),
    rounds=st.integers(0, 3),
    data=st.data(),
)
def test_any_pruning_goes_as_published(sizes: list[int], rounds: int, data: st.DataObject) -> None:
    default = data.draw(st.sampled_from(sizes))
    spec = core_spec(batch_sizes=tuple(sizes), default_batch_size=default, num_pruning_rounds=rounds)
    published = Zeus(sizes, default, rounds)
    trials: list[Trial] = []

    def add(size: int, cost: float, outcome: bool | str, kind: TrialType) -> None:
        trials.append(trial(len(trials) + 1, (size, cost, outcome), kind))

    while not published.stuck:
        size, kind = published.next_size()
        if kind == "MAB":
            break
        for noise in data.draw(st.lists(st.sampled_from([LOST, True, False]), max_size=2)):
            if noise == LOST:
                add(size, 0.0, LOST, TrialType.PRUNING)
            else:
                add(data.draw(st.sampled_from(sizes)), 50.0, noise, TrialType.CONCURRENT)
        choice = choose(JobState(spec, tuple(trials)), np.random.default_rng(0))
        assert (choice.batch_size, choice.type) == (size, TrialType.PRUNING)
        cost, converged = data.draw(outcomes)
        add(size, cost, converged, TrialType.PRUNING)
        published.finish(size, cost, converged)

    state = JobState(spec, tuple(trials))
    if published.stuck:
        assert stage(state)[0] is Stage.STUCK
        assert ruled_out(state).keys() >= {t.batch_size for t in trials if t.converged is False}
    else:
        assert stage(state)[0] is Stage.MAB
        assert sorted(set(sizes) - ruled_out(state).keys()) == (published.arms or sizes)


@given(history=st.lists(st.tuples(st.sampled_from(FIVE.batch_sizes), st.floats(1, 9), st.booleans()), max_size=20))
def test_any_history_leads_to_a_listed_batch_size_or_a_stuck_job(history: list[Row]) -> None:
    step = next_size(*history)
    assert step in {*FIVE.batch_sizes, "MAB", "stuck"}


def test_a_running_trial_never_ends_a_round() -> None:
    state = story((16, 10, True), (8, 10, True), (4, 10, True), (32, 10, True), (64, 1, RUNNING), spec=FIVE)
    assert state.trials[-1].status is TrialStatus.DISPATCHED
    assert stage(state)[0] is Stage.PRUNING
