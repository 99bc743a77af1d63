"""The rules of `gp-ucb` one by one, with a job's history as rows of (batch size, epochs, outcome)."""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.gp_ucb.belief import MAX_LOST_TRIALS, Belief, NoWarmStart, belief_of, warm_belief, warm_start
from backend.core.policies import choose, judge, reference_cost, ruled_out, stage
from backend.core.state import (
    Choice,
    JobState,
    NothingConverges,
    ProbeResult,
    Report,
    Spec,
    Stage,
    Trial,
    TrialType,
    Verdict,
    VerdictCode,
)
from tests.core.stories import LOST, PRICED_OUT, RUNNING, trial
from tests.specs import core_spec

FIVE = core_spec(batch_sizes=(4, 8, 16, 32, 64), max_epochs=100, policy="gp-ucb")
EPOCH_J = 100.0
MAX_POWER_W = FIVE.max_power

Row = tuple[int, int, bool | str]
"""Batch size, epochs, and whether it converged; or `LOST`, `RUNNING` or `PRICED_OUT`."""


def job(
    *rows: Row,
    spec: Spec = FIVE,
    epoch_j: dict[int, float] | None = None,
    power_w: float = MAX_POWER_W,
    summary: Belief | None = None,
    factors: Sequence[float | None] = (),
) -> JobState:
    """Return a job whose runs came one after the other.

    Args:
        rows: the runs.
        spec: the job's spec.
        epoch_j: cost of an epoch by batch size; else `EPOCH_J`.
        power_w: power draw of the runs.
        summary: the summary to start from.
        factors: bound factors of the last runs. Earlier runs have the usual bound.
    """
    trials = []
    for number, (size, epochs, outcome) in enumerate(rows, 1):
        energy_j = epochs * (epoch_j or {}).get(size, EPOCH_J)
        row = (size, energy_j, outcome)
        place = number - 1 - (len(rows) - len(factors))
        factor = factors[place] if place >= 0 else 1.0
        times = {"epochs": epochs, "time_s": energy_j / power_w, "bound_factor": factor}
        trials.append(trial(number, row, TrialType.MAB, **times))
    return JobState(spec, tuple(trials), summary)


def ask(state: JobState) -> Choice:
    """Return the next choice. The state of the generator must not matter."""
    choice = choose(state, np.random.default_rng(len(state.trials)))
    assert choice.type is TrialType.MAB
    assert choice.reason
    return choice


def next_size(*rows: Row, spec: Spec = FIVE, epoch_j: dict[int, float] | None = None) -> int:
    """Return the next batch size."""
    return ask(job(*rows, spec=spec, epoch_j=epoch_j)).batch_size


def run_of(state: JobState, size: int, bound_factor: float | None = 1.0) -> Trial:
    """Return a run that has just been dispatched."""
    return trial(len(state.trials) + 1, (size, 0.0, RUNNING), TrialType.MAB, epochs=0, bound_factor=bound_factor)


def verdict_on(
    state: JobState, size: int, cost_j: float, metric: float | None = 0.0, bound_factor: float | None = 1.0
) -> Verdict:
    """Return the verdict on a report of the next run, after five epochs."""
    return judge(state, run_of(state, size, bound_factor), Report(metric, cost_j, 0.0, 5))


def expected_cost(state: JobState) -> float:
    """Return the expected cost of the job's best batch size, from its bound: a run ends at beta times that cost."""
    low, high = 0.0, 1e12
    for _ in range(100):
        middle = (low + high) / 2
        if verdict_on(state, state.spec.default_batch_size, middle).code is VerdictCode.COST_BOUND:
            high = middle
        else:
            low = middle
    return high / float(state.spec.beta_knob or math.nan)


# --- The first runs ---


def test_the_first_recurrence_takes_the_default() -> None:
    choice = ask(job())
    assert choice.batch_size == 16
    assert "default" in choice.reason


def test_every_run_that_asks_before_the_first_verdict_gets_the_default() -> None:
    rows: list[Row] = []
    for _ in range(5):
        assert next_size(*rows) == 16
        rows.append((16, 0, RUNNING))
    assert next_size((16, 30, RUNNING), (16, 0, RUNNING)) == 16


def test_a_run_without_a_verdict_leaves_the_default_to_be_tried() -> None:
    assert next_size((16, 0, LOST)) == 16
    assert next_size((16, 30, LOST), (16, 3, LOST)) == 16


def test_a_single_batch_size_is_dispatched_for_ever() -> None:
    single = core_spec(batch_sizes=(16,), policy="gp-ucb", max_epochs=100)
    rows: list[Row] = [*[(16, 100, False)] * 2, (16, 9, True), *[(16, 20, False)] * 4]
    for end in range(len(rows) + 1):
        assert next_size(*rows[:end], spec=single) == 16


def test_nothing_about_a_choice_is_random() -> None:
    state = job((16, 10, True), (8, 9, True))
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    choices = {choose(state, rng) for _ in range(5)}
    assert len(choices) == 1
    assert rng.bit_generator.state == before


# --- Bans ---


def test_a_batch_size_that_failed_and_never_converged_is_not_dispatched_again_while_another_is_left() -> None:
    rows: list[Row] = [(16, 100, False)]
    tried = [16]
    while len(tried) < 5:
        tried.append(next_size(*rows))
        rows.append((tried[-1], 100, False))
    assert sorted(tried) == [4, 8, 16, 32, 64]


def test_the_default_is_not_exempt_from_the_ban() -> None:
    rows: list[Row] = [(16, 100, False), (8, 10, True)]
    for _ in range(20):
        size = next_size(*rows)
        assert size != 16
        rows.append((size, 10, True))


def test_a_failed_verdict_says_that_its_batch_size_is_banned() -> None:
    reason = verdict_on(job((16, 10, True)), 8, 1e6).reason
    assert "has never converged" in reason
    assert "not dispatched again until" in reason
    assert "batch size 8 " in reason


def test_a_failed_verdict_says_that_its_batch_size_may_be_dispatched_again() -> None:
    reason = verdict_on(job((16, 10, True), (8, 8, True)), 8, 1e6).reason
    assert "has converged before" in reason
    assert "may be dispatched again" in reason
    assert "batch size 8 " in reason


@pytest.mark.parametrize("code", [VerdictCode.COST_BOUND, VerdictCode.DIVERGED, VerdictCode.MAX_EPOCHS])
def test_every_failed_verdict_says_what_becomes_of_the_batch_size(code: VerdictCode) -> None:
    state = job((16, 10, True))
    report = {
        VerdictCode.COST_BOUND: Report(0.0, 1e6, 0.0, 1),
        VerdictCode.DIVERGED: Report(None, 1.0, 0.0, 1),
        VerdictCode.MAX_EPOCHS: Report(0.0, 1.0, 0.0, 100),
    }[code]
    verdict = judge(state, run_of(state, 8), report)
    assert verdict.code is code
    assert "has never converged" in verdict.reason


@lru_cache(maxsize=4096)
def learned(rows: tuple[Row, ...], spec: Spec) -> JobState:
    """Return the job with a summary of these runs. The same rows come up again and again, each time with one more."""
    if not rows:
        return JobState(spec, ())
    last = job(*rows, spec=spec).trials[-1:]
    return JobState(spec, (), belief_of(replace(learned(rows[:-1], spec), trials=last)))


@lru_cache(maxsize=4096)
def next_choice(rows: tuple[Row, ...], spec: Spec) -> Choice | None:
    """Return the next choice, or None if no batch size is left."""
    try:
        return ask(learned(rows, spec))
    except NothingConverges as error:
        assert "failed" in str(error) and "reset" in str(error)
        return None


def failed_next(*rows: Row, spec: Spec = FIVE) -> tuple[Row, str]:
    """Return the next run, which reaches the last epoch without a success, and the message of its verdict."""
    state, choice, epochs = learned(rows, spec), next_choice(rows, spec), spec.max_epochs
    assert choice is not None
    energy_j = epochs * EPOCH_J
    verdict = judge(
        state,
        run_of(state, choice.batch_size, choice.bound_factor),
        Report(0.0, energy_j, energy_j / MAX_POWER_W, epochs),
    )
    assert verdict.stop and not verdict.converged
    return (choice.batch_size, epochs, False), verdict.reason


@given(successes=st.lists(st.booleans(), max_size=12), sizes=st.sampled_from([(16,), (8, 16), (4, 8, 16, 32, 64)]))
def test_what_a_failed_verdict_says_of_its_batch_size_holds_at_the_next_ask(
    successes: list[bool], sizes: tuple[int, ...]
) -> None:
    spec = core_spec(batch_sizes=sizes, max_epochs=100, policy="gp-ucb")
    rows: list[Row] = []
    for converged in successes:
        choice = next_choice(tuple(rows), spec)
        if choice is None:
            return
        rows.append((choice.batch_size, 10, True) if converged else failed_next(*rows, spec=spec)[0])
    while not gives_up(rows, spec):
        row, message = failed_next(*rows, spec=spec)
        rows.append(row)
        stuck = gives_up(rows, spec)
        assert ("so no batch size is left to try" in message) == stuck
        if not stuck:
            assert ("not dispatched again until" in message) != ("may be dispatched again" in message)
        if "not dispatched again until" in message:
            choice = next_choice(tuple(rows), spec)
            assert choice is not None and choice.batch_size != row[0]
            assert ask(job(*rows, spec=spec)).batch_size == choice.batch_size  # learned from all runs at once, too


def test_before_anything_has_converged_a_failed_verdict_says_that_every_batch_size_may_be_dispatched_again() -> None:
    tried: tuple[Row, ...] = tuple((size, 100, False) for size in FIVE.batch_sizes)
    row, message = failed_next(*tried)
    assert f"so batch size {row[0]} may be dispatched again" in message
    assert "10 times as expensive" in message


def test_the_last_failed_verdict_has_the_message_of_the_next_ask() -> None:
    single = core_spec(batch_sizes=(16,), max_epochs=100, policy="gp-ucb")
    rows: tuple[Row, ...] = ((16, 100, False),) * 2
    last, message = failed_next(*rows, spec=single)
    with pytest.raises(NothingConverges) as refused:
        ask(job(*rows, last, spec=single))
    assert message.endswith(str(refused.value))


def test_where_nothing_else_works_a_failed_verdict_takes_its_ban_back() -> None:
    story: tuple[Row, ...] = ((16, 10, True), (8, 20, False), (32, 20, False), *[(16, 3, False)] * 10)
    assert "but nothing else works either, so it may be dispatched again" in verdict_on(job(*story), 8, 1e9).reason
    assert "not dispatched again until" in verdict_on(job(*story[:-1]), 8, 1e9).reason


def advice(*rows: Row, **changes: object) -> str:
    """Return the message for a user who asks a stuck job for a batch size."""
    spec = core_spec(**{"batch_sizes": (16,), "max_epochs": 100, "policy": "gp-ucb"} | changes)
    with pytest.raises(NothingConverges) as refused:
        choose(job(*rows, spec=spec), np.random.default_rng(0))
    assert stage(job(*rows, spec=spec)) == (Stage.STUCK, str(refused.value))
    return str(refused.value)


@pytest.mark.parametrize("policy", ["gp-ucb", "zeus"])
def test_a_bound_is_not_to_be_raised_before_there_is_one(policy: str) -> None:
    never = [trial(number, (16, 1e4, False), epochs=100) for number in range(1, 4)]
    once = [trial(1, (16, 1e3, True), epochs=10), *[trial(n, (16, 2e3, False), epochs=20) for n in range(2, 15)]]
    for trials, beta, bounded in ((never, 2.0, False), (once, 2.0, True), (once, None, False)):
        spec = core_spec(batch_sizes=(16,), max_epochs=100, policy=policy, beta_knob=beta)
        code, message = stage(JobState(spec, tuple(trials)))
        assert code is Stage.STUCK
        assert "raise max_epochs" in message
        assert ("beta_knob" in message) == bounded


def test_a_target_is_eased_in_its_own_direction() -> None:
    failed: tuple[Row, ...] = ((16, 100, False),) * 3
    assert "Lower target_metric" in advice(*failed)
    assert "Raise target_metric" in advice(*failed, higher_is_better_metric=False)


def test_what_converged_once_is_never_banned_however_often_it_fails() -> None:
    state = job((16, 10, True), (8, 9, True), *[(8, 3, False)] * 10)
    assert 8 not in ruled_out(state)
    assert "may be dispatched again" in verdict_on(state, 8, 1.0, metric=None).reason


def test_a_job_says_which_batch_sizes_are_banned() -> None:
    state = job((16, 10, True), (8, 20, False), (32, 20, False))
    assert ruled_out(state).keys() == {8, 32}
    assert all("never converged" in why for why in ruled_out(state).values())


def test_before_anything_has_converged_every_batch_size_is_tried_in_turns_until_the_job_is_stuck() -> None:
    rows: list[Row] = []
    while not gives_up(rows):
        rows.append((next_size(*rows), 100, False))
    failures = Counter(size for size, _, _ in rows)
    assert set(failures) == set(FIVE.batch_sizes)
    assert min(failures.values()) == 3
    assert max(failures.values()) <= 5
    code, message = stage(job(*rows))
    assert code is Stage.STUCK
    assert "max_epochs" in message and "reset" in message


def test_before_anything_has_converged_a_cheap_batch_size_is_tried_again_before_one_ten_times_as_expensive() -> None:
    epoch_j = {4: 1000.0, 8: 1000.0, 16: 1.0, 32: 1000.0, 64: 1000.0}
    lost: tuple[Row, ...] = tuple((size, 1, LOST) for size in (4, 8, 32, 64))  # the cost of an epoch is known
    assert next_size(*lost, (16, 100, False), epoch_j=epoch_j) == 16


def gives_up(rows: Sequence[Row], spec: Spec = FIVE) -> bool:
    return next_choice(tuple(rows), spec) is None


# --- Candidates ---


def test_the_second_choice_is_next_to_the_first() -> None:
    assert next_size((16, 10, True)) in {8, 16, 32}
    assert next_size((16, 100, False)) in {8, 32}


@given(
    sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=8, unique=True).map(sorted),
    outcomes=st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=20),
    data=st.data(),
)
def test_without_a_step_that_has_paid_a_new_batch_size_is_within_a_doubling_or_a_step_of_one_that_ran(
    sizes: list[int], outcomes: list[tuple[int, bool]], data: st.DataObject
) -> None:
    default = data.draw(st.sampled_from(sizes))
    spec = core_spec(batch_sizes=tuple(sizes), default_batch_size=default, max_epochs=100, policy="gp-ucb")
    rows: list[Row] = []
    ran: set[int] = set()
    for epochs, converged in outcomes:
        if gives_up(rows, spec):
            return
        choice = ask(job(*rows, spec=spec))
        size = choice.batch_size
        if "has paid" in choice.reason:
            assert any(max(size, other) <= 4 * min(size, other) for other, _, reached in rows if reached)
            return
        near = {sizes[max(sizes.index(other) - 1, 0)] for other in ran}
        near |= {sizes[min(sizes.index(other) + 1, len(sizes) - 1)] for other in ran}
        assert not ran or size in ran | near or any(max(size, other) <= 2 * min(size, other) for other in ran)
        ran.add(size)
        rows.append((size, epochs, converged))


@pytest.mark.parametrize("sizes", [(16, 32, 48, 64), (10, 24, 36, 48), (20, 48, 64, 96), (96, 194, 256, 388)])
def test_twice_a_batch_size_is_within_one_doubling_whatever_the_default(sizes: tuple[int, ...]) -> None:
    default, ran, between, twice = sizes
    spec = core_spec(batch_sizes=sizes, default_batch_size=default, max_epochs=100, policy="gp-ucb")
    cheap = {twice: EPOCH_J / 50}  # observed by a lost run, so this batch size has not been tried yet
    story: tuple[Row, ...] = ((default, 10, True), (ran, 10, True), (twice, 5, LOST))
    assert next_size(*story, spec=spec, epoch_j=cheap) == twice, between


WIDE = core_spec(batch_sizes=(1, 2, 4, 8, 16, 32, 64, 128, 256), max_epochs=100, policy="gp-ucb")
FAST = {size: EPOCH_J / 3 for size in WIDE.batch_sizes if size >= 64} | {2: EPOCH_J / 3, 1: EPOCH_J / 3}
"""Far from the default, an epoch costs a third. Lost runs of these sizes show it before they are candidates."""
LOOK_FAR: tuple[Row, ...] = ((128, 1, LOST), (2, 1, LOST))


def after_a_step(*rows: Row) -> Choice:
    """Return the choice after some runs, of a job that knows that an epoch is cheap far from the default."""
    return ask(job((16, 50, True), *LOOK_FAR, *rows, spec=WIDE, epoch_j=FAST))


@pytest.mark.parametrize(("step", "far"), [(32, 128), (8, 2)])
def test_after_a_step_that_has_paid_batch_sizes_within_two_doublings_on_its_side_are_tried(step: int, far: int) -> None:
    choice = after_a_step((step, 32, True))  # 0.62 times what the best was expected to cost
    assert choice.batch_size == far
    assert f"beyond {step} after a step that has paid" in choice.reason


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ((32, 35, True), "it cost more than 0.65 times what the best was expected to"),
        ((32, 20, False), "it failed"),
        ((32, 20, LOST), "it has no verdict"),
        ((32, 0, RUNNING), "it still runs"),
        ((16, 20, True), "the batch size had run before"),
    ],
)
def test_after_a_step_that_has_not_paid_only_neighbours_are_tried(step: Row, why: str) -> None:
    choice = after_a_step(step)
    assert choice.batch_size in {8, 16, 32, 64}, why
    assert "has paid" not in choice.reason


def test_a_step_from_a_best_that_has_failed_does_not_pay() -> None:
    assert "has paid" in after_a_step((16, 50, True), (32, 20, True)).reason
    assert "has paid" not in after_a_step((16, 50, False), (32, 20, True)).reason


def test_a_run_that_reported_no_cost_has_not_paid() -> None:
    free = ask(job((16, 50, True), *LOOK_FAR, (32, 20, True), spec=WIDE, epoch_j=FAST | {32: 0.0}))
    assert "has paid" not in free.reason


def test_a_step_that_has_paid_widens_the_choice_until_the_next_new_batch_size_has_run() -> None:
    assert after_a_step((32, 20, True), (32, 21, True)).batch_size == 128
    after = after_a_step((32, 20, True), (64, 100, False))
    assert after.batch_size <= 32 or after.batch_size == 128, "the neighbour of a batch size that has run"
    assert "has paid" not in after.reason


# --- A look at the first epoch ---

TRIED: tuple[Row, ...] = ((16, 50, True), (16, 50, True), (16, 50, True))


def look(state: JobState, *, cheaper: float = 1.0, epoch: int = 1, **changes: float | None) -> Verdict:
    """Return the verdict on the first report of the next run, whose first epoch costs the limit over `cheaper`."""
    choice = ask(state)
    assert choice.epoch_limit_j is not None
    report = Report(
        **{"metric": 0.0, "energy_j": choice.epoch_limit_j / cheaper, "time_s": 0.0, "epoch": epoch} | changes
    )
    return judge(state, replace(run_of(state, choice.batch_size), epoch_limit_j=choice.epoch_limit_j), report)


def test_a_first_run_ends_after_an_epoch_that_costs_more_than_its_limit_and_not_after_a_cheaper_one() -> None:
    state = job(*TRIED)
    too_dear = look(state, cheaper=0.99)
    assert too_dear.code is VerdictCode.PRICED_OUT
    assert too_dear.stop
    assert not too_dear.converged
    assert look(state, cheaper=1.01).code is VerdictCode.CONTINUE


def test_the_verdict_says_what_it_means_for_the_batch_size() -> None:
    state = job(*TRIED)
    size = ask(state).batch_size
    reason = look(state, cheaper=0.5).reason
    assert "the first epoch has cost" in reason
    assert f"{size} has not failed, and may be dispatched again" in reason


def test_only_the_report_of_the_first_epoch_can_price_a_run_out() -> None:
    state = job(*TRIED)
    assert look(state, cheaper=0.9, epoch=0).code is VerdictCode.CONTINUE
    assert look(state, cheaper=0.9, epoch=2).code is VerdictCode.CONTINUE
    later = replace(run_of(state, 8), epoch_limit_j=1.0, epochs=1)
    assert judge(state, later, Report(0.0, EPOCH_J * 2, 0.0, 1)).code is VerdictCode.CONTINUE


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"metric": 1.0}, VerdictCode.CONVERGED),
        ({"metric": None}, VerdictCode.DIVERGED),
        ({"energy_j": 1e9}, VerdictCode.COST_BOUND),
    ],
)
def test_a_dear_first_epoch_hides_no_other_verdict(changes: dict[str, float | None], code: VerdictCode) -> None:
    assert look(job(*TRIED), cheaper=0.5, **changes).code is code


def test_the_last_epoch_prices_no_run_out() -> None:
    state = job((16, 1, True), spec=replace(FIVE, max_epochs=1))
    limited = replace(run_of(state, 8), epoch_limit_j=1.0)
    assert judge(state, limited, Report(0.0, EPOCH_J, 0.0, 1)).code is VerdictCode.MAX_EPOCHS


@pytest.mark.parametrize(
    ("rows", "has_limit", "why"),
    [
        ((), False, "the default comes first"),
        (((16, 100, False),), False, "nothing has converged"),
        (TRIED, True, "the other one is new"),
        ((*TRIED, (8, 10, True)), False, "it has run"),
        ((*TRIED, (8, 1, LOST)), False, "a lost run has shown the cost of an epoch"),
        ((*TRIED, (8, 1, RUNNING)), False, "a running run has shown it"),
        ((*TRIED, (8, 0, LOST)), True, "this run was lost within its first epoch"),
    ],
)
def test_only_a_batch_size_whose_epochs_have_no_known_cost_has_a_limit(
    rows: tuple[Row, ...], has_limit: bool, why: str
) -> None:
    two = replace(FIVE, batch_sizes=(8, 16))
    choice = ask(job(*rows, spec=two, epoch_j={8: EPOCH_J / 10}))
    assert (choice.epoch_limit_j is not None) == has_limit, why


def test_a_probe_shows_the_cost_of_an_epoch_too() -> None:
    two = replace(FIVE, batch_sizes=(8, 16))
    probed = ProbeResult(8, fits=True, epoch_energy_j=EPOCH_J / 10, epoch_time_s=EPOCH_J / 10 / MAX_POWER_W)
    choice = ask(replace(job(*TRIED, spec=two), probe_results=(probed,)))
    assert (choice.batch_size, choice.epoch_limit_j) == (8, None)


def test_a_run_that_was_priced_out_is_no_failure_no_ban_and_no_try() -> None:
    before = job(*TRIED)
    size = ask(before).batch_size
    after = job(*TRIED, (size, 1, PRICED_OUT), epoch_j={size: 10 * EPOCH_J})
    assert ruled_out(after) == {}
    assert reference_cost(after) == pytest.approx(reference_cost(before), rel=0.01)
    then, now = belief_of(before), belief_of(after)
    assert np.array_equal(then.epochs.posterior.mean, now.epochs.posterior.mean), "nothing is learnt of the epochs"
    assert not now.has_ended[now.grid.index[size]]
    failed: list[Row] = [(size, 1, PRICED_OUT)] * 3 + [(32, 20, False)] * 2
    assert "in a row" not in ask(job(*TRIED, *failed, epoch_j={size: 10 * EPOCH_J})).reason


def test_launched_again_a_training_gets_another_batch_size_than_the_one_that_was_priced_out() -> None:
    size = ask(job(*TRIED)).batch_size
    again = ask(job(*TRIED, (size, 1, PRICED_OUT)))
    assert again.batch_size != size


def test_a_batch_size_that_was_priced_out_gets_a_full_run_once_it_looks_cheaper_than_the_best() -> None:
    size = ask(job(*TRIED)).batch_size
    rows: list[Row] = [*TRIED, (size, 1, PRICED_OUT), (16, 50, True)]
    epoch_j = {size: 1.1 * EPOCH_J}
    sizes = []
    for _ in range(60):
        choice = ask(job(*rows, epoch_j=epoch_j))
        if choice.batch_size == size:
            assert choice.epoch_limit_j is None
            return
        sizes.append(choice.batch_size)
        rows.append((choice.batch_size, 51, True))
    pytest.fail(f"never again, only {Counter(sizes)}")


# --- Tries within a recurrence ---

FAILED_THRICE: tuple[Row, ...] = ((16, 10, True), (8, 20, False), (32, 20, False), (4, 20, False))


def test_the_fourth_try_takes_the_best_that_has_converged_with_twice_the_bound() -> None:
    choice = ask(job(*FAILED_THRICE))
    assert (choice.batch_size, choice.bound_factor) == (16, 2)
    assert "3 runs in a row have failed" in choice.reason
    assert "2 times the bound" in choice.reason


def test_the_first_three_tries_have_the_usual_bound() -> None:
    for end in range(len(FAILED_THRICE)):
        assert ask(job(*FAILED_THRICE[:end])).bound_factor == 1


def test_from_the_fourth_try_on_the_bound_doubles() -> None:
    rows: list[Row] = [*FAILED_THRICE]
    factors: list[float | None] = []
    for _ in range(5):
        choice = ask(job(*rows, factors=factors))
        factors.append(choice.bound_factor)
        rows.append((choice.batch_size, 3, False))
        assert f"{choice.bound_factor:g} times the bound" in choice.reason
    assert factors == [2, 4, 8, 16, 32]


def test_runs_that_fail_side_by_side_double_the_bound_once() -> None:
    assert ask(job((16, 10, True), *[(16, 20, False)] * 8)).bound_factor == 2
    assert ask(job((16, 10, True), *[(16, 20, False)] * 16, factors=[2] * 8)).bound_factor == 4


def test_later_tries_use_batch_sizes_that_have_converged_and_at_last_all() -> None:
    rows: list[Row] = [(32, 10, True), *FAILED_THRICE[:2], (64, 20, False), (8, 20, False)]
    tries: list[int] = []
    while not gives_up(rows):
        tries.append(next_size(*rows))
        rows.append((tries[-1], 3, False))
    assert set(tries[:15]) == {16, 32}
    assert set(tries) == {4, 8, 16, 32, 64}
    assert len(tries) < 50


def test_a_run_that_converges_ends_the_tries() -> None:
    choice = ask(job(*FAILED_THRICE, (16, 10, True)))
    assert choice.bound_factor == 1
    assert choice.batch_size in {16, 64}


def test_a_run_that_ended_without_a_verdict_is_no_try() -> None:
    assert ask(job(*FAILED_THRICE[:3], (32, 3, LOST), (32, 3, LOST))).bound_factor == 1


def test_a_batch_size_that_converged_once_and_never_again_comes_to_an_end() -> None:
    single = core_spec(batch_sizes=(16,), max_epochs=100, policy="gp-ucb")
    state = job((16, 10, True), *[(16, 1, False)] * 13, spec=single)
    with pytest.raises(NothingConverges, match="13 runs in a row have failed"):
        ask(state)
    assert stage(state)[0] is Stage.STUCK
    assert ask(job((16, 10, True), *[(16, 1, False)] * 12, spec=single)).batch_size == 16


# --- Verdicts ---


def test_a_run_with_a_cost_of_zero_leaves_the_bound_unchanged() -> None:
    broken = {8: 0.0}
    before, after = job((16, 10, True)), job((16, 10, True), (8, 10, True), epoch_j=broken)
    assert expected_cost(after) == pytest.approx(expected_cost(before), rel=0.05)
    only_broken = job((16, 10, True), (8, 10, True), epoch_j={8: 0.0, 16: 0.0})
    assert verdict_on(only_broken, 16, 1e9).code is VerdictCode.CONTINUE
    assert ask(only_broken).batch_size in FIVE.batch_sizes
    assert "reported a cost of 0" in stage(only_broken)[1]


def test_a_job_without_an_ended_run_is_not_stuck_whatever_a_probe_finds() -> None:
    none_fits = tuple(ProbeResult(size, fits=False, epoch_energy_j=0.0, epoch_time_s=0.0) for size in FIVE.batch_sizes)
    state = replace(job((16, 0, RUNNING)), probe_results=none_fits)
    assert ask(state).batch_size == 16
    assert stage(state)[0] is Stage.PRUNING


def test_before_the_first_success_there_is_no_bound() -> None:
    for state in (job(), job((16, 100, False), (8, 100, False)), job((16, 3, LOST), (16, 5, RUNNING))):
        assert verdict_on(state, 16, 1e30).code is VerdictCode.CONTINUE


def test_the_bound_is_beta_times_what_the_best_is_expected_to_cost() -> None:
    state = job(*[(16, 10, True)] * 10)
    assert expected_cost(state) == pytest.approx(1000, rel=0.02)
    verdict = verdict_on(state, 8, 2100.0)
    assert verdict.code is VerdictCode.COST_BOUND
    assert "2 times the expected cost of the best batch size, 16" in verdict.reason
    assert verdict.reason.startswith("cost 2.10 kJ exceeds ")


def test_one_lucky_run_does_not_set_the_bound() -> None:
    usual = job(*[(16, 10, True)] * 9)
    lucky = job(*[(16, 10, True)] * 9, (16, 5, True))
    assert expected_cost(lucky) > 0.9 * expected_cost(usual)


def test_a_target_reached_in_the_epoch_that_crosses_the_bound_counts() -> None:
    state = job(*[(16, 10, True)] * 3)
    assert verdict_on(state, 8, 1e6, metric=0.0).code is VerdictCode.COST_BOUND
    assert verdict_on(state, 8, 1e6, metric=1.0).code is VerdictCode.CONVERGED


def test_under_zeus_a_target_reached_beyond_the_bound_does_not_count() -> None:
    state = job(*[(16, 10, True)] * 3, spec=core_spec(max_epochs=100, policy="zeus"))
    assert verdict_on(state, 8, 1e6, metric=1.0).code is VerdictCode.COST_BOUND


def test_a_run_that_diverges_beyond_the_bound_has_failed() -> None:
    assert verdict_on(job((16, 10, True)), 8, 1e6, metric=None).stop
    assert verdict_on(job((16, 10, True)), 8, 1.0, metric=None).code is VerdictCode.DIVERGED


def test_a_run_without_a_bound_continues_to_the_last_epoch() -> None:
    state = job((16, 10, True))
    assert verdict_on(state, 16, 1e30, bound_factor=None).code is VerdictCode.CONTINUE
    last = judge(state, run_of(state, 16, None), Report(0.0, 1e30, 0.0, 100))
    assert last.code is VerdictCode.MAX_EPOCHS


def test_a_run_with_a_higher_bound_may_cost_as_many_times_more() -> None:
    state = job((16, 10, True))
    bound_j = 2 * expected_cost(state)
    for factor in (1.0, 2.0, 4.0):
        assert verdict_on(state, 8, 0.99 * factor * bound_j, bound_factor=factor).code is VerdictCode.CONTINUE
        assert verdict_on(state, 8, 1.01 * factor * bound_j, bound_factor=factor).code is VerdictCode.COST_BOUND


@pytest.mark.parametrize("factor", [1.0, 8.0, None])
def test_without_a_beta_there_is_never_a_bound(factor: float | None) -> None:
    state = job((16, 10, True), spec=core_spec(max_epochs=100, policy="gp-ucb", beta_knob=None))
    assert verdict_on(state, 8, 1e30, bound_factor=factor).code is VerdictCode.CONTINUE


@pytest.mark.parametrize("beta", [5e-324, 1e-300, 1e-3, 1e30])
def test_any_beta_that_can_be_registered_leads_to_a_choice(beta: float) -> None:
    spec = core_spec(batch_sizes=(8, 16, 32), max_epochs=100, policy="gp-ucb", beta_knob=beta)
    for cost_j in (0.0, 1e-9, 1.0, 1e30):
        choice = ask(job((16, 1, True), (8, 1, True), spec=spec, epoch_j={8: cost_j, 16: cost_j}))
        assert "nan" not in choice.reason
        assert "inf" not in choice.reason


@pytest.mark.parametrize("costs", [(0.0, 1e30), (1e30, 0.0), (0.0, 1e6), (1e6, 0.0)])
def test_costs_that_cannot_be_compared_still_lead_to_choices_and_verdicts(costs: tuple[float, float]) -> None:
    sizes = tuple(2**power for power in range(31))
    spec = core_spec(batch_sizes=sizes, default_batch_size=2**15, max_epochs=100, policy="gp-ucb")
    state = job((2**15, 10, True), (2**16, 10, True), spec=spec, epoch_j=dict(zip((2**15, 2**16), costs, strict=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choice = ask(state)
        verdict = verdict_on(state, choice.batch_size, 1.0)
    for text in (choice.reason, verdict.reason):
        assert "nan" not in text
        assert "inf" not in text


# --- Running and lost runs ---


def test_the_cost_of_an_epoch_is_learnt_from_a_running_run() -> None:
    rows: tuple[Row, ...] = ((16, 10, True),)
    assert next_size(*rows) == 8
    assert next_size(*rows, (8, 2, RUNNING), epoch_j={8: 10 * EPOCH_J}) != 8
    assert next_size(*rows, (32, 2, RUNNING), epoch_j={32: EPOCH_J / 10}) == 32


def test_the_cost_of_an_epoch_is_learnt_from_a_lost_run() -> None:
    assert next_size((16, 10, True), (8, 2, LOST), epoch_j={8: 10 * EPOCH_J}) != 8


def test_of_many_lost_runs_only_the_last_are_evidence_of_an_epochs_cost() -> None:
    expensive = job((16, 10, True), *[(8, 2, LOST)] * MAX_LOST_TRIALS, epoch_j={8: 10 * EPOCH_J}).trials
    usual = job((16, 10, True), *[(8, 2, LOST)] * 2 * MAX_LOST_TRIALS).trials[len(expensive) :]
    choice = ask(JobState(FIVE, (*expensive, *usual)))
    only_usual = ask(job((16, 10, True), *[(8, 2, LOST)] * MAX_LOST_TRIALS))
    assert (choice.batch_size, choice.reason) == (only_usual.batch_size, only_usual.reason)


def test_runs_lost_long_ago_do_not_outweigh_those_that_have_ended_since() -> None:
    expensive = job((16, 10, True), *[(8, 2, LOST)] * 9, epoch_j={8: 10 * EPOCH_J}).trials
    since = job((16, 10, True), *[(8, 2, LOST)] * 9, *[(8, 8, True)] * 20).trials[len(expensive) :]
    choice = ask(JobState(FIVE, (*expensive, *since)))
    never_lost = ask(job((16, 10, True), *[(8, 8, True)] * 20))
    assert (choice.batch_size, choice.reason) == (never_lost.batch_size, never_lost.reason)


def test_a_running_run_does_not_change_the_bound() -> None:
    state = job((16, 10, True))
    with_others = job((16, 10, True), (16, 5, RUNNING), (8, 5, RUNNING), epoch_j={8: 1.0})
    assert expected_cost(with_others) == pytest.approx(expected_cost(state), rel=1e-9)


def test_runs_in_flight_spread_over_untried_sizes_that_look_alike() -> None:
    # At this power a larger batch is expected to gain as much per epoch as it needs more of them.
    alike_w = 0.64 * MAX_POWER_W
    rows: list[Row] = [(16, 10, True)]
    sizes = []
    for _ in range(6):
        sizes.append(ask(job(*rows, power_w=alike_w)).batch_size)
        rows.append((sizes[-1], 0, RUNNING))
    assert sizes.count(8) == sizes.count(32) == 3


def test_a_run_in_flight_makes_its_batch_size_look_surer_and_not_cheaper() -> None:
    def spread(*rows: Row) -> float:
        reason = ask(job((16, 10, True), *rows)).reason
        return float(reason.split("±")[1].split("J")[0])

    assert ask(job((16, 10, True), (8, 0, RUNNING))).batch_size == 8
    assert spread((8, 0, RUNNING)) < spread()


# --- Drift ---

STEADY: tuple[Row, ...] = ((16, 10, True), (32, 21, False), *[(16, 10, True)] * 5)


def alarmed() -> tuple[Row, ...]:
    """Return `STEADY` and then runs that need 2.5 times the epochs, up to the alarm."""
    rows = STEADY
    for _ in range(6):
        rows = (*rows, (16, 25, True))
        if belief_of(job(*rows)).changed is not None:
            return rows
    raise AssertionError("no alarm")


def test_runs_that_need_far_more_epochs_raise_the_alarm() -> None:
    assert belief_of(job(*STEADY)).changed is None
    rows = alarmed()
    last = job(*rows).trials[-1]
    assert belief_of(job(*rows)).changed == last.ended


def test_runs_that_need_far_fewer_epochs_raise_the_alarm() -> None:
    rows = (*STEADY, *[(16, 4, True)] * 4)
    assert any(belief_of(job(*rows[:end])).changed is not None for end in range(len(STEADY), len(rows) + 1))


def test_runs_that_fail_far_past_what_was_expected_raise_the_alarm() -> None:
    rows = (*STEADY, *[(16, 21, False)] * 3)
    assert any(belief_of(job(*rows[:end])).changed is not None for end in range(len(STEADY), len(rows) + 1))


@pytest.mark.parametrize("epochs", [2, 30, 60, 100])
def test_a_lone_outlier_does_not_raise_the_alarm(epochs: int) -> None:
    for end in range(2):
        assert belief_of(job(*STEADY, (16, epochs, True), *[(16, 10, True)] * end)).changed is None


def test_usual_spread_between_runs_does_not_raise_the_alarm() -> None:
    spread = (10, 12, 9, 11, 8, 10, 13, 9, 10, 11)
    rows: tuple[Row, ...] = tuple((16, epochs, True) for epochs in spread * 5)
    assert all(belief_of(job(*rows[:end])).changed is None for end in range(len(rows) + 1))


def test_failures_of_a_size_that_never_converged_raise_no_alarm() -> None:
    rows: tuple[Row, ...] = (*[(16, 10, True)] * 5, *[(32, 100, False)] * 10)
    assert belief_of(job(*rows)).changed is None


def test_after_the_alarm_nothing_is_banned() -> None:
    rows = alarmed()
    assert ruled_out(job(*rows[:-1])).keys() == {32}
    assert ruled_out(job(*rows)) == {}


def test_after_the_alarm_the_best_runs_without_a_bound_and_the_reason_says_so() -> None:
    choice = ask(job(*alarmed()))
    assert (choice.batch_size, choice.bound_factor) == (16, None)
    assert "have changed" in choice.reason
    assert "16" in choice.reason


def test_what_has_converged_before_the_alarm_still_counts_as_such() -> None:
    state = job(*alarmed())
    assert "has converged before" in verdict_on(state, 16, 1.0, metric=None).reason
    assert stage(state)[0] is Stage.MAB


def test_every_run_that_asks_until_the_first_run_after_the_alarm_has_ended_gets_the_best() -> None:
    rows = alarmed()
    for more in ([], [(16, 3, RUNNING)], [(16, 3, RUNNING), (16, 0, RUNNING)], [(16, 3, LOST)]):
        assert ask(job(*rows, *more)).bound_factor is None


@pytest.mark.parametrize("outcome", [True, False])
def test_the_first_run_after_the_alarm_ends_the_exception(outcome: bool) -> None:
    choice = ask(job(*alarmed(), (16, 25, outcome)))
    assert choice.bound_factor == 1
    assert "have changed" not in choice.reason


def test_a_run_begun_before_the_alarm_does_not_end_the_exception() -> None:
    rows = alarmed()
    state = job(*rows)
    last = state.trials[-1].ended or 0
    early = trial(90, (16, 25 * EPOCH_J, True), TrialType.MAB, epochs=25, started=1, ended=last + 1)
    late = trial(91, (16, 25 * EPOCH_J, True), TrialType.MAB, epochs=25, started=last + 2, ended=last + 3)
    assert ask(JobState(FIVE, (*state.trials, early))).bound_factor is None
    assert ask(JobState(FIVE, (*state.trials, early, late))).bound_factor == 1


def test_after_the_alarm_the_new_epochs_are_learnt_within_a_few_runs() -> None:
    state = job(*alarmed(), *[(16, 25, True)] * 4)
    assert expected_cost(state) == pytest.approx(2500, rel=0.1)


# --- Learning ---


def test_the_cheapest_of_three_is_dispatched_most_of_the_time() -> None:
    spec = core_spec(batch_sizes=(8, 16, 32), max_epochs=100, policy="gp-ucb")
    epochs = {8: 30, 16: 20, 32: 10}
    rows: list[Row] = []
    for _ in range(20):
        size = next_size(*rows, spec=spec)
        rows.append((size, epochs[size], True))
    assert [size for size, *_ in rows].count(32) >= 15


def test_of_two_equally_good_batch_sizes_one_is_dispatched() -> None:
    spec = core_spec(batch_sizes=(8, 16), max_epochs=100, policy="gp-ucb")
    rows: tuple[Row, ...] = ((16, 10, True), (8, 10, True)) * 5
    assert next_size(*rows, spec=spec) in spec.batch_sizes


def test_a_run_that_reached_the_target_within_its_first_epoch_counts_as_one_epoch() -> None:
    within = job((16, 1, True))
    trials = (trial(1, (16, EPOCH_J, True), TrialType.MAB, epochs=0, time_s=EPOCH_J / MAX_POWER_W),)
    assert ask(JobState(FIVE, trials)) == ask(within)


# --- Reasons ---


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([(16, 10, True)], ["next to 16", "J ±", "the best so far is", "at 16"]),
        ([(16, 100, False)], ["next to 16", "J ±", "no run has converged yet"]),
        ([(4, 9, True), (8, 9, True), (16, 9, True), *[(32, 9, True), (64, 9, True)] * 9], ["J ±"]),
        ([(size, 100, False) for size in FIVE.batch_sizes], ["no run has converged yet", "J ±"]),
        ([*FAILED_THRICE, (16, 99, False)], ["4 runs in a row", "J ±", "best so far", "2 times"]),
    ],
)
def test_a_reason_names_sizes_and_joules(rows: list[Row], parts: list[str]) -> None:
    reason = ask(job(*rows)).reason
    assert [part for part in parts if part not in reason] == [], reason


def test_a_job_says_what_its_best_batch_size_is_expected_to_cost() -> None:
    assert stage(job((16, 100, False))) == (Stage.PRUNING, "no run has converged yet")
    code, message = stage(job((16, 10, True)))
    assert code is Stage.MAB
    assert "16" in message
    assert "J a run" in message


# --- Warm start ---

DONOR: tuple[Row, ...] = ((16, 20, True), (8, 12, True), (8, 12, True), (32, 60, False))


def test_a_warm_job_begins_with_the_best_of_what_converged_in_the_other_one() -> None:
    spec = core_spec(batch_sizes=(4, 8, 16, 64), default_batch_size=64, max_epochs=100, policy="gp-ucb")
    warm = warm_start(job(*DONOR), spec)
    assert warm.start == 8
    choice = ask(job(spec=spec, summary=warm_belief(spec, warm)))
    assert choice.batch_size == 8
    assert "8 is the best" in choice.reason


def test_a_warm_job_expects_the_epochs_that_the_other_one_needed() -> None:
    warm = warm_start(job(*DONOR * 5), FIVE)
    cold, warmed = job((16, 20, True)), job((16, 20, True), summary=warm_belief(FIVE, warm))
    expected = {
        size: float(np.exp(belief_of(warmed).epochs.posterior.mean[at])) for at, size in enumerate(FIVE.batch_sizes)
    }
    assert expected[8] == pytest.approx(12, rel=0.1)
    assert expected[32] > 40
    assert (belief_of(warmed).epochs.posterior.variance < belief_of(cold).epochs.posterior.variance).all()


def test_warm_and_other_batch_sizes_have_a_posterior_whose_covariance_is_positive() -> None:
    spec = core_spec(batch_sizes=(3, 8, 11, 16, 200), default_batch_size=11, max_epochs=7, policy="gp-ucb")
    covariance = np.array(warm_start(job(*DONOR * 3), spec).covariance)
    assert np.linalg.eigvalsh((covariance + covariance.T) / 2).min() > 0
    np.testing.assert_allclose(covariance, covariance.T, atol=1e-9)


@pytest.mark.parametrize("rows", [(), ((16, 100, False),), ((32, 10, True),), ((16, 5, RUNNING), (8, 4, LOST))])
def test_a_job_without_a_converged_run_of_a_shared_size_gives_no_warm_start(rows: tuple[Row, ...]) -> None:
    spec = core_spec(batch_sizes=(8, 16), policy="gp-ucb")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NoWarmStart, match="converged"):
            warm_start(job(*rows), spec)


def test_a_batch_size_that_has_converged_is_chosen_though_a_run_beside_it_was_priced_out() -> None:
    spec = replace(FIVE, batch_sizes=(8, 16))
    assert ask(job(*[(16, 50, True)] * 3, (8, 10, True), (8, 1, PRICED_OUT), spec=spec)).batch_size == 8
