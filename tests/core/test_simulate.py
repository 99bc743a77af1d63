"""The simulated job: the cost, the luck and the end of its runs; and the baselines."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backend.core.baselines import compact as few_trials
from backend.core.baselines import pick_at_random, search_grid
from backend.core.policies import POLICIES, choose, compact, judge
from backend.core.rng import seeded
from backend.core.simulate import (
    Chooser,
    EndlessRetry,
    Run,
    SizeRecord,
    Workload,
    cheapest_size,
    simulate,
    simulate_fixed,
)
from backend.core.state import Choice, JobState, NothingConverges, Report, Trial, TrialStatus, TrialType, VerdictCode
from tests.specs import core_spec

LAUNCHES = 12
"""Launches of one recurrence, where a test shortens the wait for `EndlessRetry`."""


def workload(epochs: dict[int, tuple[float, ...]], **changes: object) -> Workload:
    """Return a job from its batch sizes' epochs to the target. An epoch takes 1 s at 1 W, so it costs 1 J."""
    sizes = tuple(epochs)
    spec = core_spec(**{"batch_sizes": sizes, "default_batch_size": sizes[0], "beta_knob": None} | changes)
    return Workload("example", spec, {size: SizeRecord(1.0, 1.0, of_size) for size, of_size in epochs.items()})


def always(size: int, bound_factor: float | None = 1.0) -> Chooser:
    """Return a chooser that always chooses one batch size."""

    def choose_it(_state: JobState, _rng: np.random.Generator) -> Choice:
        return Choice(size, TrialType.MAB, "the only one", bound_factor)

    return choose_it


def launches(runs: list[Run]) -> dict[int, list[Run]]:
    """Return the launches of every recurrence, in order."""
    by_recurrence: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        by_recurrence[run.recurrence].append(run)
    return by_recurrence


def recurrences_that_converged(runs: list[Run]) -> list[int]:
    """Return their numbers, ascending. A recurrence that converged twice appears twice."""
    return sorted(run.recurrence for run in runs if run.converged)


# the cost of a run


def test_a_run_takes_the_time_the_energy_and_the_epochs_on_record_for_its_batch_size() -> None:
    spec = core_spec(batch_sizes=(8, 16, 32), eta_knob=0.25, max_power=300.0, max_epochs=50, beta_knob=None)
    records = {
        8: SizeRecord(10.0, 50.0, (7.0,)),
        16: SizeRecord(6.0, 80.0, (5.0,)),
        32: SizeRecord(4.0, 120.0, (9.0,)),
    }
    runs = list(simulate(Workload("example", spec, records), 6, seed=0, chooser=search_grid, compactor=few_trials))
    assert {run.batch_size for run in runs} == {8, 16, 32}
    for run in runs:
        record = records[run.batch_size]
        assert run.epochs == record.epochs[0]
        assert run.time_s == pytest.approx(run.epochs * record.epoch_time_s)
        assert run.energy_j == pytest.approx(run.time_s * record.power_w)
        assert run.cost_j == pytest.approx(0.25 * run.energy_j + 0.75 * 300.0 * run.time_s)
        assert run.code is VerdictCode.CONVERGED


def test_a_run_that_never_reaches_the_target_pays_for_all_its_epochs() -> None:
    runs = list(
        simulate(
            workload({8: (math.inf,), 16: (3.0,)}, max_epochs=20),
            1,
            seed=0,
            chooser=search_grid,
            compactor=few_trials,
        )
    )
    assert [(run.epochs, run.energy_j, run.code) for run in runs] == [
        (20, 20.0, VerdictCode.MAX_EPOCHS),
        (3, 3.0, VerdictCode.CONVERGED),
    ]


def test_a_run_beyond_the_cost_bound_ends_with_the_first_epoch_that_crosses_it() -> None:
    example = workload({8: (4.0,), 16: (math.inf,), 32: (math.inf,)}, max_epochs=20, beta_knob=2.0)
    runs = list(simulate(example, 3, seed=0))
    stopped = [run for run in runs if run.code is VerdictCode.COST_BOUND]
    assert stopped
    assert {run.epochs for run in stopped} == {9}  # 8 J is not more than twice 4 J, 9 J is


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_target_is_reached_whichever_way_the_metric_goes(higher_is_better: bool) -> None:
    example = workload({8: (3.0,)}, higher_is_better_metric=higher_is_better, target_metric=-0.5)
    assert [(run.epochs, run.converged) for run in simulate(example, 1, seed=0)] == [(3, True)]


# luck


def quantiles(runs: list[Run], first: int) -> dict[tuple[int, int], int | None]:
    """Return the known run that every launch repeated, by recurrence and launch; None if it failed."""
    return {
        (recurrence, launch): run.epochs - first if run.converged else None
        for recurrence, tried in launches(runs).items()
        for launch, run in enumerate(tried)
    }


@pytest.mark.parametrize("concurrency", [1, 3])
def test_the_nth_launch_of_a_recurrence_is_at_the_same_quantile_for_every_chooser(concurrency: int) -> None:
    some_fail = [math.inf if run % 3 == 0 else run for run in range(30)]
    epochs = {size: tuple(first + run for run in some_fail) for size, first in ((8, 1), (16, 101))}
    example = workload(epochs, max_epochs=200)
    small = quantiles(list(simulate(example, 20, seed=5, chooser=always(8), concurrency=concurrency)), 1)
    large = quantiles(list(simulate(example, 20, seed=5, chooser=always(16), concurrency=concurrency)), 101)
    fixed = quantiles(simulate_fixed(example, 20, 5, lambda _: 16), 101)
    assert small == large == fixed
    assert len(set(small.values())) > 5  # the runs differ at all
    assert None in small.values()


def test_a_policy_has_the_luck_that_a_fixed_batch_size_has() -> None:
    example = workload({8: tuple(map(float, range(1, 41)))}, max_epochs=200)
    expected = [run.epochs for run in simulate_fixed(example, 15, 3, lambda _: 8)]
    for name in POLICIES:
        own = replace(example, spec=replace(example.spec, policy=name))
        assert [run.epochs for run in simulate(own, 15, 3)] == expected


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("concurrency", [1, 3])
def test_the_same_seed_gives_the_same_runs_and_another_seed_others(policy: str, concurrency: int) -> None:
    spread = tuple(map(float, range(5, 25)))
    example = workload({8: spread, 16: spread}, max_epochs=50, policy=policy)

    def runs(seed: int) -> list[Run]:
        return list(simulate(example, 10, seed, concurrency=concurrency))

    assert runs(1) == runs(1)
    assert runs(1) != runs(2)


# launches


def test_a_failed_recurrence_is_launched_again_until_it_converges() -> None:
    example = workload({8: (3.0, math.inf, math.inf)}, max_epochs=10)
    tried = launches(list(simulate(example, 12, seed=1, chooser=always(8))))
    assert sorted(tried) == list(range(12))
    assert max(map(len, tried.values())) > 1
    for runs in tried.values():
        assert [run.converged for run in runs] == [False] * (len(runs) - 1) + [True]


def test_one_recurrence_at_a_time_is_finished_before_the_next_begins() -> None:
    example = workload({8: (3.0, math.inf)}, max_epochs=10)
    order = [run.recurrence for run in simulate(example, 12, seed=1, chooser=always(8))]
    assert order == sorted(order)


def test_a_recurrence_that_never_converges_is_given_up_as_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.core.simulate.MAX_LAUNCHES", LAUNCHES)
    runs: list[Run] = []
    with pytest.raises(EndlessRetry, match=f"recurrence 0 failed {LAUNCHES} times"):
        runs.extend(simulate(workload({8: (math.inf,)}), 2, seed=0, chooser=always(8)))
    with pytest.raises(EndlessRetry, match=f"batch size 8 does not converge in {LAUNCHES} launches"):
        simulate_fixed(workload({8: (math.inf,)}), 2, 0, lambda _: 8)


def test_every_run_before_an_endless_recurrence_is_yielded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.core.simulate.MAX_LAUNCHES", LAUNCHES)
    runs = []
    simulation = simulate(
        workload({8: (4.0,)}), 5, 0, chooser=always(8), drift=lambda recurrence: 100.0 if recurrence == 2 else 1.0
    )
    with pytest.raises(EndlessRetry):
        for run in simulation:
            runs.append(run)  # noqa: PERF402 - the runs before the exception count
    assert recurrences_that_converged(runs) == [0, 1]
    assert len(launches(runs)[2]) == LAUNCHES


# several recurrences at the same time


@dataclass
class Turnstile:
    """A chooser that records the largest number of active runs."""

    chooser: Chooser
    max_active: int = 0

    def __call__(self, state: JobState, rng: np.random.Generator) -> Choice:
        """Return the choice of the wrapped chooser."""
        active = sum(trial.status is TrialStatus.DISPATCHED for trial in state.trials)
        self.max_active = max(self.max_active, active + 1)
        return self.chooser(state, rng)


@pytest.mark.parametrize("concurrency", [1, 2, 5])
def test_no_more_runs_are_active_than_allowed_and_every_recurrence_converges_once(concurrency: int) -> None:
    epochs = tuple(float(count) if count % 4 else math.inf for count in range(3, 20))
    turnstile = Turnstile(pick_at_random)
    example = workload({8: epochs, 16: epochs}, max_epochs=30)
    runs = list(simulate(example, 20, seed=2, chooser=turnstile, concurrency=concurrency))
    assert turnstile.max_active == concurrency
    assert recurrences_that_converged(runs) == list(range(20))


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("epoch_time_s", [1.0, 0.1, 1 / 3, 6277.98])
def test_equal_runs_side_by_side_all_end_with_their_target_epoch_and_none_later(
    policy: str, epoch_time_s: float
) -> None:
    spec = core_spec(batch_sizes=(8,), default_batch_size=8, beta_knob=None, policy=policy, max_epochs=100)
    example = Workload("equal", spec, {8: SizeRecord(epoch_time_s, 1.0, (37.0,))})
    runs = list(simulate(example, 9, seed=0, concurrency=3))
    assert [(run.epochs, run.converged) for run in runs] == [(37, True)] * 9


def test_equal_runs_that_fail_side_by_side_all_end_with_their_last_epoch() -> None:
    example = workload({8: (math.inf,), 16: (3.0,)}, max_epochs=10)
    runs = list(simulate(example, 3, seed=0, chooser=search_grid, compactor=few_trials, concurrency=3))
    assert {(run.batch_size, run.epochs) for run in runs} == {(8, 10), (16, 3)}


def test_the_bound_of_a_run_follows_the_results_of_a_parallel_run() -> None:
    example = workload({8: (50.0,), 16: (4.0,)}, max_epochs=100, beta_knob=2.0)
    sizes = iter([8, 16, 16, 16])

    def in_turn(_state: JobState, _rng: np.random.Generator) -> Choice:
        return Choice(next(sizes), TrialType.MAB, "its turn")

    runs = list(simulate(example, 3, seed=0, chooser=in_turn, concurrency=2))
    assert [(run.batch_size, run.epochs, run.code) for run in runs if run.batch_size == 8] == [
        (8, 9, VerdictCode.COST_BOUND)
    ]


# a plain simulator to compare with: it calls the judge after every epoch


@dataclass
class SteppedRun:
    """A running run, epoch by epoch."""

    trial: Trial
    recurrence: int
    start_s: float
    record: SizeRecord

    @property
    def next_s(self) -> float:
        """The end of its next epoch."""
        return self.start_s + (self.trial.epochs + 1) * self.record.epoch_time_s

    def advanced(self) -> Trial:
        """Return its trial after one more epoch."""
        epochs = self.trial.epochs + 1
        time_s = epochs * self.record.epoch_time_s
        return replace(self.trial, epochs=epochs, time_s=time_s, energy_j=time_s * self.record.power_w)


def epoch_by_epoch(example: Workload, recurrences: int, seed: int, concurrency: int) -> list[Run]:
    """Simulate a job without any shortcut. Every batch size always needs the same number of epochs."""
    spec, rng = example.spec, seeded(seed)
    ended_state = JobState(spec, ())
    waiting = list(range(recurrences))
    active: list[SteppedRun] = []
    runs: list[Run] = []
    events, now_s = 0, 0.0

    def state() -> JobState:
        return replace(ended_state, trials=(*ended_state.trials, *(run.trial for run in active)))

    def next_verdict(run: SteppedRun) -> tuple[Report, VerdictCode]:
        trial = run.advanced()
        metric = spec.target_metric - (0.0 if trial.epochs >= run.record.epochs[0] else 1.0)
        report = Report(metric, trial.energy_j, trial.time_s, trial.epochs)
        return report, judge(state(), run.trial, report).code

    while waiting or active:
        while waiting and len(active) < concurrency:
            choice = choose(state(), rng)
            events += 1
            trial = Trial(
                len(runs) + len(active) + 1,
                choice.batch_size,
                choice.type,
                TrialStatus.DISPATCHED,
                converged=None,
                energy_j=0.0,
                time_s=0.0,
                epochs=0,
                started=events,
                ended=None,
                bound_factor=choice.bound_factor,
                epoch_limit_j=choice.epoch_limit_j,
            )
            active.append(SteppedRun(trial, waiting.pop(0), now_s, example.sizes[choice.batch_size]))
        now_s = min(run.next_s for run in active)
        due = [run for run in active if run.next_s == now_s]
        for run in due:
            report, code = next_verdict(run)
            if code is VerdictCode.CONTINUE:
                continue
            active.remove(run)
            events += 1
            converged = code is VerdictCode.CONVERGED
            cost_j = spec.eta_knob * report.energy_j + (1 - spec.eta_knob) * spec.max_power * report.time_s
            runs.append(
                Run(
                    *(run.recurrence, run.trial.batch_size, report.epoch, converged),
                    *(report.energy_j, report.time_s, cost_j, code),
                )
            )
            result = None if code is VerdictCode.PRICED_OUT else converged
            ended = replace(run.advanced(), status=TrialStatus.SUCCEEDED, converged=result, ended=events)
            ended_state = compact(replace(ended_state, trials=(*ended_state.trials, ended)))
            if not converged:
                waiting.insert(0, run.recurrence)
            break  # an ended run changes the verdicts on the others
        else:
            for run in due:
                run.trial = run.advanced()
    return runs


@st.composite
def steady_workloads(draw: st.DrawFn, policy: str) -> Workload:
    """Return any small job in which each batch size always needs the same epochs.

    Times are whole seconds, so sums are exact.
    """
    sizes = draw(st.lists(st.sampled_from([8, 16, 32, 64]), min_size=1, max_size=3, unique=True).map(sorted))
    spec = core_spec(
        policy=policy,
        batch_sizes=tuple(sizes),
        default_batch_size=draw(st.sampled_from(sizes)),
        beta_knob=draw(st.sampled_from([None, 1.0, 1.5, 2.0])),
        eta_knob=draw(st.sampled_from([0.0, 0.5, 1.0])),
        max_epochs=draw(st.integers(1, 12)),
    )
    epochs = st.one_of(st.integers(1, 12).map(float), st.just(math.inf))
    watts = st.sampled_from([50.0, 75.0, 100.0])
    records = {size: SizeRecord(float(draw(st.integers(1, 4))), draw(watts), (draw(epochs),)) for size in sizes}
    return Workload("steady", spec, records)


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(data=st.data(), seed=st.integers(0, 9), concurrency=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_runs_end_with_the_epoch_at_which_a_plain_loop_over_all_epochs_ends_them(
    policy: str, data: st.DataObject, seed: int, concurrency: int
) -> None:
    example = data.draw(steady_workloads(policy))
    try:
        expected = epoch_by_epoch(example, 4, seed, concurrency)
    except NothingConverges:
        with pytest.raises(NothingConverges):
            list(simulate(example, 4, seed, concurrency=concurrency))
        return
    runs = list(simulate(example, 4, seed, concurrency=concurrency))
    assert [replace(run, cost_j=0.0) for run in runs] == [replace(run, cost_j=0.0) for run in expected]
    assert [run.cost_j for run in runs] == pytest.approx([run.cost_j for run in expected])


# drift


def test_drift_multiplies_the_epochs_to_the_target_from_its_recurrence_on() -> None:
    def drift(recurrence: int) -> float:
        return 2.5 if recurrence >= 3 else 1.0

    example = workload({8: (5.0,)}, max_epochs=100)
    expected = [5, 5, 5, 13, 13]  # 12.5 is reached with the end of the 13th
    assert [run.epochs for run in simulate(example, 5, 0, chooser=always(8), drift=drift)] == expected
    assert [run.epochs for run in simulate_fixed(example, 5, 0, lambda _: 8, drift)] == expected


def test_a_run_that_drift_takes_beyond_the_last_epoch_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.core.simulate.MAX_LAUNCHES", LAUNCHES)
    with pytest.raises(EndlessRetry):
        simulate_fixed(workload({8: (5.0,)}, max_epochs=10), 1, 0, lambda _: 8, lambda _: 2.5)


# fixed batch sizes


def test_a_fixed_batch_size_has_no_bound() -> None:
    example = workload({8: (2.0,), 16: (90.0,)}, max_epochs=100, beta_knob=1.0)
    runs = simulate_fixed(example, 4, 0, lambda recurrence: 8 if recurrence == 0 else 16)
    assert [(run.batch_size, run.epochs, run.code) for run in runs] == [
        (8, 2, VerdictCode.CONVERGED),
        *[(16, 90, VerdictCode.CONVERGED)] * 3,
    ]


def test_a_fixed_batch_size_that_fails_is_launched_again_at_the_price_of_all_epochs() -> None:
    runs = simulate_fixed(workload({8: (3.0, math.inf)}, max_epochs=10), 12, 1, lambda _: 8)
    assert {(run.converged, run.epochs, run.cost_j) for run in runs} == {(True, 3, 3.0), (False, 10, 10.0)}
    assert recurrences_that_converged(runs) == list(range(12))


def test_the_cheapest_batch_size_pays_for_the_launches_that_fail() -> None:
    example = workload({8: (10.0, math.inf), 16: (40.0, 40.0)}, max_epochs=50)
    assert cheapest_size(example) == 16  # 40 J, against 10 J plus 50 J for a failed launch in half of the runs
    often_enough = workload({8: (10.0, 10.0, 10.0, math.inf), 16: (40.0,)}, max_epochs=50)
    assert cheapest_size(often_enough) == 8


def test_the_cheapest_batch_size_depends_on_how_far_the_epochs_are_stretched() -> None:
    example = workload({8: (20.0,), 16: (30.0,)}, max_epochs=50)
    example = replace(example, sizes=example.sizes | {16: SizeRecord(0.5, 1.0, (30.0,))})
    assert cheapest_size(example) == 16
    assert cheapest_size(example, 2.0) == 8
    assert cheapest_size(example, 3.0) is None


def test_the_cheapest_batch_size_is_the_one_that_costs_least_in_the_long_run() -> None:
    spread = {8: (4.0, 5.0, math.inf, 9.0), 16: (12.0, 10.0), 32: (3.0, math.inf, math.inf)}
    example = workload(spread, max_epochs=20)
    costs = {
        size: sum(run.cost_j for run in simulate_fixed(example, 1000, 0, lambda _, size=size: size)) for size in spread
    }
    assert cheapest_size(example) == min(costs, key=costs.__getitem__)


# baselines


def sizes_of(example: Workload, recurrences: int, chooser: Chooser) -> list[int]:
    """Return the batch sizes of the launches."""
    return [run.batch_size for run in simulate(example, recurrences, seed=0, chooser=chooser, compactor=few_trials)]


def test_the_grid_tries_the_default_then_every_other_once_then_stays_with_the_cheapest() -> None:
    example = workload({8: (9.0,), 16: (6.0,), 32: (4.0,), 64: (7.0,)}, default_batch_size=16)
    assert sizes_of(example, 7, search_grid) == [16, 8, 32, 64, 32, 32, 32]


def test_the_grid_never_stays_with_a_batch_size_whose_run_failed() -> None:
    example = workload({8: (math.inf,), 16: (9.0,), 32: (math.inf,)}, max_epochs=10)
    example = replace(example, sizes=example.sizes | {8: SizeRecord(0.01, 1.0, (math.inf,))})
    assert sizes_of(example, 4, search_grid) == [8, 16, 32, 16, 16, 16]


def test_the_grid_starts_again_when_nothing_has_converged() -> None:
    state = JobState(core_spec(batch_sizes=(8, 16, 32), default_batch_size=16), ())
    order = []
    for number in range(1, 7):
        choice = search_grid(state, seeded(0))
        order.append(choice.batch_size)
        failed = Trial(
            *(number, choice.batch_size, choice.type, TrialStatus.SUCCEEDED, False, 1.0, 1.0, 1),
            *(2 * number, 2 * number + 1),
        )
        state = replace(state, trials=(*state.trials, failed))
    assert order[:3] == [16, 8, 32]
    assert sorted(order[3:]) == [8, 16, 32]


def test_the_grid_goes_by_the_only_run_it_tried_a_batch_size_with() -> None:
    example = workload({8: (5.0, 20.0), 16: (10.0,)}, max_epochs=50)
    seed = next(seed for seed in range(99) if simulate_fixed(example, 1, seed, lambda _: 8)[0].epochs == 5)
    runs = list(simulate(example, 20, seed, chooser=search_grid, compactor=few_trials))
    assert {run.batch_size for run in runs[2:]} == {8}
    assert {run.epochs for run in runs[2:]} == {5, 20}


@given(epochs=st.lists(st.lists(st.sampled_from([2.0, 5.0, 9.0, math.inf]), min_size=1), min_size=3, max_size=3))
def test_the_grid_makes_the_same_choices_from_compacted_trials(epochs: list[list[float]]) -> None:
    assume(any(count <= 9 for of_size in epochs for count in of_size))
    example = workload(dict(zip((8, 16, 32), map(tuple, epochs), strict=True)), max_epochs=9)
    trial_counts: list[int] = []

    def watched(state: JobState, rng: np.random.Generator) -> Choice:
        trial_counts.append(len(state.trials))
        return search_grid(state, rng)

    from_all, from_few = (
        list(simulate(example, 12, 0, chooser=watched, compactor=compactor))
        for compactor in (lambda state: state, few_trials)
    )
    assert from_few == from_all
    assert trial_counts[-1] <= 3


def test_the_random_baseline_takes_every_listed_batch_size_and_no_other() -> None:
    example = workload({8: (1.0,), 24: (1.0,), 100: (1.0,)})
    counts = Counter(sizes_of(example, 300, pick_at_random))
    assert set(counts) == {8, 24, 100}
    assert min(counts.values()) > 60


def test_a_baseline_has_no_bound() -> None:
    state = JobState(core_spec(policy="gp-ucb"), ())
    for chooser in (search_grid, pick_at_random):
        assert chooser(state, seeded(0)).bound_factor is None
