"""Simulations of whole random jobs: choices are valid and repeatable, and their texts hold finite numbers."""

import math
import re
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core import stored
from backend.core.policies import POLICIES, choose, compact, judge, ruled_out, stage, summarize_ended
from backend.core.rng import seeded
from backend.core.simulate import EndlessRetry, Run, SizeRecord, Workload, simulate
from backend.core.state import (
    Choice,
    JobState,
    NothingConverges,
    ProbeResult,
    Report,
    Spec,
    Stage,
    Trial,
    TrialStatus,
    TrialType,
    VerdictCode,
)
from tests.core.stories import trial
from tests.specs import core_spec

MAX_POWER_W = 250.0
NOT_FINITE = re.compile(r"\b(nan|inf)\b", re.IGNORECASE)

batch_sizes = st.lists(st.integers(1, 4096), min_size=1, max_size=8, unique=True).map(
    lambda sizes: tuple(sorted(sizes))
)
policies = st.sampled_from(sorted(POLICIES))


def epochs_of_runs(max_epochs: int) -> st.SearchStrategy[tuple[float, ...]]:
    """Return epochs to the target of a batch size's runs: always equal, spread, half of them never, or never."""
    count = st.integers(1, max_epochs).map(float)
    return st.one_of(
        st.tuples(count),
        st.tuples(count, count, count),
        st.tuples(count, st.just(math.inf)),
        st.just((math.inf,)),
    )


@st.composite
def specs(draw: st.DrawFn, policy: str) -> Spec:
    """Return any job."""
    sizes = draw(batch_sizes)
    return core_spec(
        policy=policy,
        batch_sizes=sizes,
        default_batch_size=draw(st.sampled_from(sizes)),
        eta_knob=draw(st.sampled_from([0.0, 0.5, 1.0])),
        beta_knob=draw(st.sampled_from([None, 1.0, 2.0])),
        max_epochs=draw(st.integers(1, 100)),
        max_power=MAX_POWER_W,
    )


@st.composite
def workloads(draw: st.DrawFn, policy: str = "gp-ucb", *, only_one_converges: bool = False) -> Workload:
    """Return any job and its runs.

    An epoch costs from 1e-6 to 1e12 J, and up to 25 times as much at one batch size as at another.
    """
    spec = draw(specs(policy))
    scale_j = 10.0 ** draw(st.floats(-6, 12))
    records = {}
    lucky = draw(st.sampled_from(spec.batch_sizes))
    for size in spec.batch_sizes:
        power_w = draw(st.floats(10, MAX_POWER_W))
        seconds = scale_j * draw(st.floats(0.2, 5)) / power_w
        if only_one_converges:
            epochs = (float(draw(st.integers(1, spec.max_epochs))),) if size == lucky else (math.inf,)
        else:
            epochs = draw(epochs_of_runs(spec.max_epochs))
        records[size] = SizeRecord(seconds, power_w, epochs)
    if len(spec.batch_sizes) > 1 and draw(st.booleans()):  # two batch sizes that cost the same
        one, other = draw(st.permutations(spec.batch_sizes))[:2]
        if not only_one_converges:
            records[one] = records[other]
    return Workload("any", spec, records)


def can_end(workload: Workload) -> bool:
    """Return whether some run of some batch size reaches the target."""
    return any(math.isfinite(epochs) for record in workload.sizes.values() for epochs in record.epochs)


def assert_sound(state: JobState, choice: Choice) -> None:
    """Check that a choice is from the list, and that no text about the job holds a broken number."""
    assert choice.batch_size in state.spec.batch_sizes
    assert choice.bound_factor is None or math.isfinite(choice.bound_factor)
    assert choice.epoch_limit_j is None or math.isfinite(choice.epoch_limit_j)
    limits = {"bound_factor": choice.bound_factor, "epoch_limit_j": choice.epoch_limit_j}
    run = trial(999, (choice.batch_size, 0.0, "running"), choice.type, epochs=0, **limits)
    verdicts = [judge(state, run, Report(metric, 1e40, 0.0, 1)) for metric in (None, 0.0, 1.0)]
    texts = [choice.reason, *(verdict.reason for verdict in verdicts), stage(state)[1], *ruled_out(state).values()]
    assert all(texts)
    assert not [text for text in texts if NOT_FINITE.search(text)]


def simulate_checked(
    workload: Workload, seed: int, concurrency: int, recurrences: int = 12
) -> tuple[list[Run], list[Choice]]:
    """Simulate a job, and check every choice."""
    choices = []

    def watched(state: JobState, rng: np.random.Generator) -> Choice:
        choices.append(choose(state, rng))
        assert_sound(state, choices[-1])
        return choices[-1]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = list(simulate(workload, recurrences, seed, chooser=watched, concurrency=concurrency))
    return runs, choices


@given(workload=workloads().filter(can_end), seed=st.integers(0, 99), concurrency=st.integers(1, 8))
@settings(max_examples=60)
def test_every_recurrence_of_any_job_that_can_converge_ends_and_every_choice_is_sound(
    workload: Workload, seed: int, concurrency: int
) -> None:
    try:
        runs, _ = simulate_checked(workload, seed, concurrency)
    except NothingConverges:
        return  # every batch size has failed several times, and the job is stuck
    assert sorted(run.recurrence for run in runs if run.converged) == list(range(12))


@given(workload=workloads().filter(can_end), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_a_batch_size_is_priced_out_once_and_launched_again_the_training_gets_another(
    workload: Workload, seed: int
) -> None:
    try:
        runs, _ = simulate_checked(workload, seed, concurrency=1)
    except NothingConverges:
        return
    priced_out = [place for place, run in enumerate(runs) if run.code is VerdictCode.PRICED_OUT]
    sizes = [runs[place].batch_size for place in priced_out]
    assert len(sizes) == len(set(sizes))
    for place in priced_out:
        assert runs[place].epochs == 1
        assert runs[place + 1].recurrence == runs[place].recurrence
        assert runs[place + 1].batch_size != runs[place].batch_size


@given(workload=workloads("zeus"), seed=st.integers(0, 99), concurrency=st.integers(1, 8))
@settings(max_examples=30)
def test_under_zeus_every_recurrence_ends_or_the_job_is_stuck(workload: Workload, seed: int, concurrency: int) -> None:
    try:
        runs, _ = simulate_checked(workload, seed, concurrency)
    except (NothingConverges, EndlessRetry):
        return
    assert sorted(run.recurrence for run in runs if run.converged) == list(range(12))


def test_a_job_that_cannot_converge_ends() -> None:
    spec = core_spec(batch_sizes=(8, 16), policy="gp-ucb", max_epochs=5)
    never = SizeRecord(1.0, 100.0, (math.inf,))
    with pytest.raises(NothingConverges, match="reset"):
        list(simulate(Workload("never", spec, {8: never, 16: never}), 1, seed=0))


@given(policy=policies, seed=st.integers(0, 99), concurrency=st.integers(1, 8), data=st.data())
@settings(max_examples=25)
def test_the_same_seed_twice_is_the_same_job_twice(
    policy: str, seed: int, concurrency: int, data: st.DataObject
) -> None:
    workload = data.draw(workloads(policy).filter(can_end))
    try:
        once = simulate_checked(workload, seed, concurrency)
    except (NothingConverges, EndlessRetry) as error:
        assert policy == "zeus" or isinstance(error, NothingConverges)
        with pytest.raises(type(error)):
            simulate_checked(workload, seed, concurrency)
        return
    assert simulate_checked(workload, seed, concurrency) == once


@given(workload=workloads(only_one_converges=True), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_the_only_batch_size_that_converges_is_found_and_later_recurrences_fail_rarely(
    workload: Workload, seed: int
) -> None:
    runs, _ = simulate_checked(workload, seed, concurrency=1)
    tried = [run.recurrence for run in runs if run.code is not VerdictCode.PRICED_OUT]
    launches = [tried.count(recurrence) for recurrence in range(12)]
    assert launches[0] <= 6 * len(workload.sizes)
    assert max(launches[1:]) <= 4


@given(workload=workloads(only_one_converges=True), seed=st.integers(0, 99), concurrency=st.integers(2, 8))
@settings(max_examples=25)
def test_where_only_one_batch_size_converges_all_recurrences_end_also_side_by_side(
    workload: Workload, seed: int, concurrency: int
) -> None:
    runs, _ = simulate_checked(workload, seed, concurrency)
    assert sum(run.converged for run in runs) == 12


@given(workload=workloads().filter(can_end), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_a_job_after_one_that_changes_ends_too(workload: Workload, seed: int) -> None:
    spec = replace(workload.spec, max_epochs=10 * workload.spec.max_epochs)
    changing = replace(workload, spec=spec)
    try:
        runs = list(simulate(changing, 16, seed, drift=lambda recurrence: 2.5 if recurrence >= 8 else 1.0))
    except NothingConverges:
        return  # bad luck in its first recurrence
    assert sum(run.converged for run in runs) == 16


@given(workload=workloads().filter(can_end), seed=st.integers(0, 99), data=st.data())
@settings(max_examples=25)
def test_a_job_with_a_probe_ends_too_and_never_gets_what_does_not_fit(
    workload: Workload, seed: int, data: st.DataObject
) -> None:
    sizes = workload.spec.batch_sizes
    converging = {size for size, record in workload.sizes.items() if min(record.epochs) <= workload.spec.max_epochs}
    unfit = data.draw(st.sets(st.sampled_from(sizes))) - converging - {workload.spec.default_batch_size}
    results = tuple(
        ProbeResult(size, size not in unfit, 1.0, data.draw(st.sampled_from([1e-9, 1.0, 1e9]))) for size in sizes
    )

    def with_probe(state: JobState, rng: np.random.Generator) -> Choice:
        state = replace(state, probe_results=results)
        assert ruled_out(state).keys() >= unfit
        choice = choose(state, rng)
        assert choice.batch_size not in unfit
        assert not NOT_FINITE.search(choice.reason)
        return choice

    try:
        runs = list(simulate(workload, 12, seed, chooser=with_probe))
    except NothingConverges:
        return  # bad luck in its first recurrence
    assert sum(run.converged for run in runs) == 12


@dataclass
class Twins:
    """One job on two servers. One reads all trials every time, the other stores a summary as text."""

    spec: Spec
    trials: list[Trial] = field(default_factory=list)
    compacted: JobState | None = None
    revision: int = 0

    def states(self) -> tuple[JobState, JobState]:
        summary = self.compacted.summary if self.compacted is not None else None
        later = [trial for trial in self.trials if summary is None or not _ended_by(trial, summary.last_revision)]
        self.compacted = compact(JobState(self.spec, tuple(later), summary))
        summary = self.compacted.summary
        if summary is not None and summary.last is not None:
            initial = summarize_ended(JobState(self.spec, ()))
            restored = stored.restore(stored.save(summary, initial, 1.0), initial)
            self.compacted = replace(self.compacted, summary=restored)
        return JobState(self.spec, tuple(self.trials)), self.compacted

    def ask(self, seed: int) -> bool:
        """Dispatch a trial. Return False if no batch size is left."""
        self.revision += 1
        full, compacted = self.states()
        try:
            choice = choose(full, seeded(seed))
        except NothingConverges:
            with pytest.raises(NothingConverges):
                choose(compacted, seeded(seed))
            return False
        assert choose(compacted, seeded(seed)) == choice
        assert stage(compacted) == stage(full)
        assert ruled_out(compacted) == ruled_out(full)
        number = len(self.trials) + 1
        self.trials.append(
            Trial(
                *(number, choice.batch_size, choice.type, TrialStatus.DISPATCHED, None),
                *(0.0, 0.0, 0, self.revision, None, choice.bound_factor, choice.epoch_limit_j),
            )
        )
        return True

    def report(self, i: int, metric: float | None, epochs: int, cost_j: float) -> None:
        self.revision += 1
        run = self.trials[i]
        report = Report(metric, run.energy_j + epochs * cost_j, 0.0, run.epochs + epochs)
        full, compacted = self.states()
        verdict = judge(full, run, report)
        assert judge(compacted, run, report) == verdict
        run = replace(run, energy_j=report.energy_j, epochs=report.epoch)
        if verdict.stop:
            run = replace(run, status=TrialStatus.SUCCEEDED, converged=verdict.result, ended=self.revision)
        self.trials[i] = run

    def lose(self, i: int) -> None:
        self.revision += 1
        self.trials[i] = replace(self.trials[i], status=TrialStatus.FAILED, ended=self.revision)


def _ended_by(trial: Trial, revision: int) -> bool:
    return trial.status is TrialStatus.SUCCEEDED and (trial.ended or 0) <= revision


@given(policy=policies, data=st.data())
@settings(max_examples=50)
def test_a_stored_summary_of_ended_trials_changes_no_decision(policy: str, data: st.DataObject) -> None:
    twins = Twins(data.draw(specs(policy)))
    cost_j = data.draw(st.floats(0.1, 1e6))
    for step in data.draw(st.lists(st.sampled_from(["ask", "report", "report", "report", "lose"]), max_size=40)):
        running = [i for i, run in enumerate(twins.trials) if run.status is TrialStatus.DISPATCHED]
        if step == "ask" or not running:
            if len(running) < 8 and not twins.ask(len(twins.trials)):
                return
        elif step == "lose":
            twins.lose(data.draw(st.sampled_from(running)))
        else:
            metric = data.draw(st.sampled_from([0.0, 0.0, 1.0, 1.0, None]))
            factor = data.draw(st.sampled_from([0.5, 1.0, 1.0, 3.0]))
            twins.report(data.draw(st.sampled_from(running)), metric, data.draw(st.integers(1, 5)), factor * cost_j)


wire_costs = st.one_of(st.just(0.0), st.floats(-30, 30).map(lambda power: 10.0**power))


@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 63),
            st.one_of(st.just(0.0), wire_costs),
            st.one_of(st.integers(0, 100), st.integers(0, 2**31 - 1)),
            st.sampled_from([True, True, False, "lost", "running"]),
        ),
        max_size=12,
    ),
    sizes=st.one_of(
        st.just(tuple(2**power for power in range(31))),
        st.just(tuple(range(1000, 1064))),
        st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=8, unique=True).map(
            lambda sizes: tuple(sorted(sizes))
        ),
    ),
    max_epochs=st.sampled_from([1, 100, 2**31 - 1]),
    beta=st.one_of(st.none(), st.floats(5e-324, 1e30, exclude_min=False)),
    max_power=st.sampled_from([1e-30, 100.0, 1e30]),
    eta=st.sampled_from([0.0, 0.5, 1.0]),
    data=st.data(),
)
@settings(max_examples=150)
def test_whatever_numbers_the_wire_lets_through_there_is_a_sound_choice(
    rows: list[tuple[int, float, int, bool | str]],
    sizes: tuple[int, ...],
    max_epochs: int,
    beta: float | None,
    max_power: float,
    eta: float,
    data: st.DataObject,
) -> None:
    spec = core_spec(
        policy="gp-ucb",
        batch_sizes=sizes,
        default_batch_size=data.draw(st.sampled_from(sizes)),
        max_epochs=max_epochs,
        beta_knob=beta,
        max_power=max_power,
        eta_knob=eta,
    )
    trials = tuple(
        trial(number, (sizes[i % len(sizes)], cost_j, outcome), TrialType.MAB, epochs=epochs, time_s=cost_j)
        for number, (i, cost_j, epochs, outcome) in enumerate(rows, 1)
    )
    state = JobState(spec, trials)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if stage(state)[0] is not Stage.STUCK:
            assert_sound(state, choose(state, seeded(0)))
            return
        failures = Counter(ended.batch_size for ended in trials if ended.converged is False)
        assert min(failures[size] for size in sizes) >= 3 or sum(failures.values()) >= 13
        with pytest.raises(NothingConverges):
            choose(state, seeded(0))
