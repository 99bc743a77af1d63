"""Batch sizes whose runs break: which are ruled out, and what the policies then give."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core import breakdowns
from backend.core.breakdowns import comparable, with_breakdown
from backend.core.gp_ucb.belief import belief_of
from backend.core.gp_ucb.policy import candidates
from backend.core.policies import POLICIES, choose, compact, judge, ruled_out, stage
from backend.core.rng import seeded
from backend.core.state import Breakdown, JobState, NothingConverges, Report, Spec, Stage, TrialType
from tests.core.stories import Row, running, story, trial
from tests.specs import core_spec

SIZES = (4, 8, 16, 32, 64)
"""16 is the default."""
ERROR = "RuntimeError: input of size 512 does not fit the pool at 0x7f3a"

errors = st.sampled_from(["ValueError: a", "ValueError: b", "OSError: c", "OSError: d"])
broken_runs = st.lists(st.tuples(st.sampled_from(SIZES), errors, st.sampled_from([False] * 5 + [True])), max_size=25)
rows = st.lists(st.tuples(st.sampled_from(SIZES), st.floats(1, 9), st.booleans()), max_size=20)
policies = pytest.mark.parametrize("policy", sorted(POLICIES))


def job(*history: Row, policy: str = "zeus", **changes: object) -> JobState:
    """Return a job in which every run has completed an epoch."""
    state = story(*history, spec=core_spec(batch_sizes=SIZES, policy=policy, **changes))
    return replace(state, working_sizes=frozenset(size for size, _, _ in history))


def broken(state: JobState, *runs: tuple[int, str, bool]) -> JobState:
    """Return the job after runs that broke."""
    kept: tuple[Breakdown, ...] = ()
    for revision, (size, error, unfit) in enumerate(runs, 1000):
        kept = with_breakdown(state.spec, kept, Breakdown(size, error, revision, unfit))
    return replace(state, breakdowns=kept)


def twice(*sizes: int) -> list[tuple[int, str, bool]]:
    return [(size, ERROR, False) for size in sizes for _ in range(2)]


# --- What is ruled out ---


def test_the_same_error_twice_rules_a_batch_size_out_while_another_works() -> None:
    state = broken(job((16, 5, True)), *twice(64))
    assert breakdowns.ruled_out(state) == {64: f"ended in the same error twice before its first epoch: {ERROR}"}


@pytest.mark.parametrize(
    ("history", "runs"),
    [
        ([(16, 5, True)], [(64, ERROR, False)]),
        ([(16, 5, True)], [(64, ERROR, False), (64, "OSError: the disk is full", False)]),
        ([(16, 5, True)], [(64, ERROR, False), (32, ERROR, False)]),
        ([], twice(64)),
        ([(64, 5, True)], twice(64)),
        ([(64, 5, False), (16, 5, True)], twice(64)),
        ([(64, 5, True)], twice(16)),
        ([(64, 5, True)], [(16, ERROR, True)]),
    ],
    ids=[
        "only once",
        "two errors",
        "two batch sizes",
        "nothing works",
        "nothing else works",
        "it has completed an epoch",
        "the default",
        "the default at once",
    ],
)
def test_nothing_is_ruled_out_by_less(history: list[Row], runs: list[tuple[int, str, bool]]) -> None:
    assert breakdowns.ruled_out(broken(job(*history), *runs)) == {}


def test_an_unfit_batch_size_is_ruled_out_at_once_whatever_else_works() -> None:
    for history in ([], [(64, 5, True)]):
        state = broken(job(*history), (64, "no training step was run", True))
        assert breakdowns.ruled_out(state) == {64: "cannot be trained with: no training step was run"}


def test_what_lies_beyond_an_unfit_batch_size_is_ruled_out_with_it_unless_a_run_has_trained_with_it() -> None:
    state = broken(job(), (32, "too long", True))
    beyond = "lies beyond batch size 32, which cannot be trained with: too long"
    assert breakdowns.ruled_out(state) == {32: "cannot be trained with: too long", 64: beyond}
    assert breakdowns.ruled_out(broken(job((64, 5, True)), (32, "too long", True))).keys() == {32}
    assert breakdowns.ruled_out(broken(job(), (8, "too many steps", True))).keys() == {4, 8}


def test_a_training_that_works_with_its_default_alone_breaks_twice_at_most() -> None:
    assert breakdowns.ruled_out(broken(job(), (8, "shape", True), (32, "shape", True))).keys() == set(SIZES) - {16}


varying = st.one_of(
    st.integers(-(10**9), 10**9).map(str),
    st.floats(allow_nan=False, allow_infinity=False, min_value=1e-9, max_value=1e9).map(str),
    st.integers(16, 2**48).map(hex),
    st.uuids(version=4).map(lambda uuid: f"x{uuid.hex}1"),
    st.datetimes().map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%S")),
)


@given(values=st.lists(st.tuples(varying, varying), min_size=3, max_size=3), tail=st.text(max_size=300))
def test_what_varies_in_an_error_does_not_hide_that_it_is_the_same(values: list[tuple[str, str]], tail: str) -> None:
    text = "ValueError: {} rows at <object at {}>,\n  expected [{}, 3]" + "." * breakdowns.COMPARED_LENGTH
    one, other = (text.format(*chosen) for chosen in zip(*values, strict=True))
    assert comparable(one) == comparable(other + tail)
    assert comparable(one) != comparable(other.replace("rows", "columns"))


def naively_ruled_out(spec: Spec, runs: Sequence[tuple[int, str, bool]], working: frozenset[int]) -> set[int]:
    """Apply the rule to all runs, without leaving any out."""
    found = set()
    unfit_sizes = {size for size, _, unfit in runs if unfit} - {spec.default_batch_size}
    for size in set(spec.batch_sizes) - {spec.default_batch_size}:
        same = [error for other, error, unfit in runs if other == size and not unfit]
        works = size in working or not working - {size}
        repeated = any(same.count(error) >= 2 for error in same)
        beyond = any(
            spec.default_batch_size < other < size or size < other < spec.default_batch_size for other in unfit_sizes
        )
        if size in unfit_sizes or (repeated and not works) or (beyond and size not in working):
            found.add(size)
    return found


@given(runs=broken_runs, working=st.frozensets(st.sampled_from(SIZES)))
def test_the_breakdowns_that_are_kept_rule_out_what_all_of_them_would(
    runs: list[tuple[int, str, bool]], working: frozenset[int]
) -> None:
    state = broken(replace(job(), working_sizes=working), *runs)
    assert breakdowns.ruled_out(state).keys() == naively_ruled_out(state.spec, runs, working)
    if not breakdowns.depends_on_working_sizes(state.breakdowns):
        without = replace(state, working_sizes=frozenset())
        assert breakdowns.ruled_out(without) == breakdowns.ruled_out(state)


@given(runs=st.lists(st.tuples(st.sampled_from(SIZES), st.text("abc", max_size=3)), max_size=300))
def test_few_breakdowns_are_kept_of_many_errors(runs: list[tuple[int, str]]) -> None:
    state = broken(job((16, 5, True)), *((size, error, False) for size, error in runs))
    for size in SIZES:
        kept = [breakdown.error for breakdown in state.breakdowns if breakdown.batch_size == size]
        assert sum(kept.count(error) == 1 for error in kept) <= breakdowns.MAX_SINGLE
        assert max(map(kept.count, kept), default=0) <= breakdowns.REPETITIONS


# --- What the policies do ---


@policies
@given(history=rows, runs=broken_runs, rounds=st.integers(0, 2), seed=st.integers(0, 9))
def test_no_policy_gives_a_batch_size_that_is_ruled_out(
    policy: str, history: list[Row], runs: list[tuple[int, str, bool]], rounds: int, seed: int
) -> None:
    state = broken(job(*history, policy=policy, num_pruning_rounds=rounds), *runs)
    gone = breakdowns.ruled_out(state)
    assert ruled_out(state).items() >= gone.items()
    for one in (state, compact(state)):
        try:
            choice = choose(one, seeded(seed))
        except NothingConverges:
            assert stage(one)[0] is Stage.STUCK
        else:
            assert choice.batch_size not in gone


@policies
@given(history=rows, runs=broken_runs, seed=st.integers(0, 9))
def test_breakdowns_that_rule_nothing_out_change_no_decision(
    policy: str, history: list[Row], runs: list[tuple[int, str, bool]], seed: int
) -> None:
    before = job(*history, policy=policy)
    after = broken(before, *((size, error, False) for size, error in {(size, error) for size, error, _ in runs}))
    assert not breakdowns.ruled_out(after)
    assert ruled_out(after) == ruled_out(before)
    run, report = running(before), Report(0.0, 20.0, 0.0, 1)
    assert judge(after, run, report) == judge(before, run, report)
    try:
        choice = choose(before, seeded(seed))
    except NothingConverges as stuck:
        with pytest.raises(NothingConverges, match="no batch size is left"):
            choose(after, seeded(seed))
        assert "no batch size is left" in str(stuck)
    else:
        assert choose(after, seeded(seed)) == choice


@given(history=rows, size=st.sampled_from([4, 8, 32, 64]), rounds=st.integers(0, 2))
def test_under_zeus_a_job_goes_on_as_if_it_had_never_had_the_batch_size(
    history: list[Row], size: int, rounds: int
) -> None:
    history = [(16, 1.0, True), *(row for row in history if row[0] != size)]
    state = broken(job(*history, num_pruning_rounds=rounds), *twice(size))
    others = tuple(other for other in SIZES if other != size)
    smaller = JobState(replace(state.spec, batch_sizes=others), state.trials)
    assert stage(state) == stage(smaller)
    assert {key: why for key, why in ruled_out(state).items() if key != size} == ruled_out(smaller)
    if stage(smaller)[0] is not Stage.STUCK:
        assert choose(state, seeded(1)) == choose(smaller, seeded(1))


@given(history=rows.filter(bool), size=st.sampled_from([4, 8, 32, 64]))
def test_under_gp_ucb_larger_batch_sizes_stay_candidates(history: list[Row], size: int) -> None:
    history = [row for row in history if row[0] != size] or [(16, 1.0, True)]
    state = broken(job(*history, policy="gp-ucb"), *twice(size))
    others = tuple(other for other in SIZES if other != size)
    smaller = JobState(replace(state.spec, batch_sizes=others), state.trials)
    among = [other for other, is_one in zip(SIZES, candidates(belief_of(state)), strict=True) if is_one]
    assert among == [other for other, is_one in zip(others, candidates(belief_of(smaller)), strict=True) if is_one]


@policies
def test_where_everything_else_is_ruled_out_the_default_remains(policy: str) -> None:
    others = [size for size in SIZES if size != 16]
    state = broken(job((16, 5, True), policy=policy), *twice(*others))
    assert ruled_out(state).keys() == set(others)
    for _ in range(20):
        choice = choose(state, seeded(1))
        assert choice.batch_size == 16
        number = len(state.trials) + 1
        state = replace(state, trials=(*state.trials, trial(number, (16, 5, True), choice.type)))


def test_under_zeus_the_default_takes_the_place_of_survivors_that_have_broken_since() -> None:
    state = job((16, 5, False), (8, 5, True), (4, 5, False), (32, 5, False), num_pruning_rounds=1)
    assert choose(state, seeded(1)).batch_size == 8
    state = broken(state, (8, ERROR, True))
    assert choose(state, seeded(1)).batch_size == 16
    assert choose(replace(state, spec=replace(state.spec, num_pruning_rounds=2)), seeded(1)).batch_size == 16


def test_under_zeus_runs_that_wait_do_not_get_a_cheapest_batch_size_that_has_broken_since() -> None:
    state = job((16, 5, True), (8, 3, True), (4, 1, "running"))
    assert choose(state, seeded(1)).batch_size == 8
    choice = choose(broken(state, (8, ERROR, True)), seeded(1))
    assert (choice.batch_size, choice.type) == (16, TrialType.CONCURRENT)


@policies
def test_a_batch_size_that_completes_an_epoch_after_all_is_given_again(policy: str) -> None:
    state = broken(job((16, 5, True), policy=policy, num_pruning_rounds=1), *twice(8))
    assert 8 in ruled_out(state)
    assert 8 not in ruled_out(replace(state, working_sizes=frozenset({8, 16})))


@policies
def test_the_verdict_on_a_run_whose_batch_size_is_ruled_out_says_that_it_is(policy: str) -> None:
    state = broken(job((16, 5, True), policy=policy), (64, ERROR, True))
    verdict = judge(state, running(state, 64), Report(None, 1.0, 0.0, 1))
    assert "batch size 64 is not dispatched again until the job is reset" in verdict.reason
