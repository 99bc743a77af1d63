"""Replaying a job's history finds no difference, unless the stored data was changed."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backend.core.breakdowns import with_breakdown
from backend.core.gp_ucb import belief, policy
from backend.core.policies import POLICIES, choose, judge
from backend.core.replay import PastReport, PastTrial, differences, state_at
from backend.core.rng import seeded
from backend.core.state import (
    Breakdown,
    Choice,
    JobState,
    NothingConverges,
    Report,
    Spec,
    Trial,
    TrialStatus,
    TrialType,
    VerdictCode,
)
from lightning_bso.quantities import PREFIXES
from tests.core.stories import Row, trial
from tests.specs import core_spec

SEED = 5
POWERS = {symbol: power for power, symbol in PREFIXES.items()}
EARLIER_RULE = "earlier versions try the smaller batch sizes also after a round's default has failed"


@dataclass
class Run:
    """A trial in progress."""

    trial: Trial
    choice: Choice
    exploration: int
    expired: bool = False
    reports: list[PastReport] = field(default_factory=list)


@dataclass
class Job:
    """A job in memory. Every call raises its revision, as on the server."""

    spec: Spec
    revision: int = 0
    exploration: int = 0
    runs: list[Run] = field(default_factory=list)
    rng: Any = field(default_factory=lambda: seeded(SEED))
    breakdowns: dict[int, tuple[Breakdown, ...]] = field(default_factory=dict)

    def state(self, exploration: int) -> JobState:
        trials = tuple(run.trial for run in self.runs if run.exploration == exploration)
        working = frozenset(trial.batch_size for trial in trials if trial.epochs or trial.converged)
        return JobState(self.spec, trials, breakdowns=self.breakdowns.get(exploration, ()), working_sizes=working)

    def ask(self, lost: set[int]) -> None:
        """Lose some of the running trials, then dispatch another. If no batch size is left, reset the job."""
        self.revision += 1
        before = list(self.runs)
        for number, run in enumerate(before):
            if number in lost and run.trial.status is TrialStatus.DISPATCHED:
                run.trial = replace(run.trial, status=TrialStatus.FAILED, ended=self.revision)
                run.expired = True
        try:
            choice = choose(self.state(self.exploration), self.rng)
        except NothingConverges:
            self.exploration += 1
            return
        trial = Trial(
            *(len(self.runs) + 1, choice.batch_size, choice.type, TrialStatus.DISPATCHED, None),
            *(0.0, 0.0, 0, self.revision, None, choice.bound_factor, choice.epoch_limit_j),
        )
        self.runs.append(Run(trial, choice, self.exploration))

    def report(self, run: Run, metric: float | None, cost: float) -> None:
        if run.trial.status is not TrialStatus.DISPATCHED and not run.expired:
            return
        self.revision += 1
        report = Report(metric, run.trial.energy_j + cost, 0.0, run.trial.epochs + 1)
        verdict = judge(self.state(run.exploration), run.trial, report)
        expired = run.trial.ended if run.expired else None
        run.reports.append(PastReport(self.revision, report, verdict, expired))
        run.expired = False
        run.trial = replace(
            run.trial,
            energy_j=report.energy_j,
            epochs=report.epoch,
            status=TrialStatus.SUCCEEDED if verdict.stop else TrialStatus.DISPATCHED,
            converged=verdict.result if verdict.stop else None,
            ended=self.revision if verdict.stop else None,
        )

    def end(self, run: Run, error: str | None, unfit: bool) -> None:
        if run.trial.status is TrialStatus.DISPATCHED:
            self.revision += 1
            run.trial = replace(run.trial, status=TrialStatus.FAILED, ended=self.revision)
            if error is not None and (unfit or not run.trial.epochs):
                breakdown = Breakdown(run.trial.batch_size, error, self.revision, unfit)
                before = self.breakdowns.get(run.exploration, ())
                self.breakdowns[run.exploration] = with_breakdown(self.spec, before, breakdown)

    def history(self) -> list[PastTrial]:
        return [PastTrial(run.trial, run.choice, run.exploration, tuple(run.reports)) for run in self.runs]


steps = st.one_of(
    st.tuples(st.just("ask"), st.sets(st.integers(0, 30), max_size=2)),
    st.tuples(st.just("report"), st.integers(0, 5), st.sampled_from([0.0, 0.0, 1.0, 1.0, None]), st.floats(1, 9)),
    st.tuples(st.just("end"), st.integers(0, 5), st.sampled_from([None, "a", "a", "b"]), st.booleans()),
)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Return a job after random calls, with up to six active runs at a time."""
    sizes = draw(st.sampled_from([(16,), (8, 16), (8, 16, 32)]))
    spec = core_spec(
        batch_sizes=sizes,
        max_epochs=3,
        num_pruning_rounds=draw(st.integers(0, 2)),
        beta_knob=draw(st.sampled_from([None, 1.5, 3.0])),
        mab_num_explorations=draw(st.integers(0, 2)),
        policy=draw(st.sampled_from(sorted(POLICIES))),
    )
    job = Job(spec)
    for step in draw(st.lists(steps, min_size=5, max_size=60)):
        latest = job.runs[-6:]
        match step:
            case ("ask", set() as lost):
                job.ask(lost)
            case ("report", int() as which, metric, float() as cost) if latest:
                job.report(latest[which % len(latest)], metric, cost)  # type: ignore[arg-type]
            case ("end", int() as which, str() | None as error, bool() as unfit) if latest:
                job.end(latest[which % len(latest)], error, unfit)
    assume(job.runs)
    return job


@given(job=jobs())
@settings(max_examples=300, deadline=None)
def test_every_decision_follows_from_what_is_stored(job: Job) -> None:
    assert differences(job.spec, job.history(), seeded(SEED), breakdowns=job.breakdowns) == []


@given(job=jobs(), data=st.data())
@settings(deadline=None)
def test_a_choice_that_was_tampered_with_is_found(job: Job, data: st.DataObject) -> None:
    history = job.history()
    which = data.draw(st.integers(0, len(history) - 1))
    choice = history[which].choice
    other = data.draw(
        st.sampled_from(
            [
                replace(choice, batch_size=choice.batch_size + 1),
                replace(choice, type=next(kind for kind in TrialType if kind is not choice.type)),
            ]
        )
    )
    history[which] = replace(history[which], choice=other)
    lines = differences(job.spec, history, seeded(SEED), breakdowns=job.breakdowns)
    assert [line for line in lines if line.startswith(f"trial {which + 1}: chose")]


@given(job=jobs(), data=st.data())
@settings(deadline=None)
def test_a_verdict_that_was_tampered_with_is_found(job: Job, data: st.DataObject) -> None:
    history = job.history()
    reported = [number for number, past in enumerate(history) if past.reports]
    assume(reported)
    which = data.draw(st.sampled_from(reported))
    first, *rest = history[which].reports
    other = data.draw(st.sampled_from([code for code in VerdictCode if code is not first.verdict.code]))
    history[which] = replace(
        history[which], reports=(replace(first, verdict=replace(first.verdict, code=other)), *rest)
    )
    lines = differences(job.spec, history, seeded(SEED), breakdowns=job.breakdowns)
    assert [line for line in lines if line.startswith(f"trial {which + 1}: judged")]


@given(job=jobs(), data=st.data())
@settings(deadline=None)
def test_a_reason_in_other_words_is_reported_as_a_difference_in_the_reason_only(job: Job, data: st.DataObject) -> None:
    history = job.history()
    which = data.draw(st.integers(0, len(history) - 1))
    past = history[which]
    history[which] = replace(past, choice=replace(past.choice, reason="the words of an earlier release"))
    count = 1
    if past.reports:
        first, *rest = past.reports
        reworded = replace(first, verdict=replace(first.verdict, reason="the words of an earlier release"))
        history[which], count = replace(history[which], reports=(reworded, *rest)), 2
    lines = differences(job.spec, history, seeded(SEED), breakdowns=job.breakdowns)
    assert len(lines) == count
    for line in lines:
        assert line.startswith(f"trial {which + 1}: ")
        assert 'only its reason differs: "the words of an earlier release", now "' in line


@given(job=jobs(), digits=st.integers(3, 6))
@settings(deadline=None)
def test_reasons_that_write_their_numbers_as_earlier_releases_did_are_no_difference(job: Job, digits: int) -> None:
    def as_earlier(reason: str) -> str:
        return re.sub(
            r"([0-9.]+) ([EPTGMkmµn]?)J\b",
            lambda cost: f"{float(cost[1]) * 10.0 ** POWERS[cost[2]]:.{digits}g} J",
            reason,
        )

    history = [
        replace(
            past,
            choice=replace(past.choice, reason=as_earlier(past.choice.reason)),
            reports=tuple(
                replace(report, verdict=replace(report.verdict, reason=as_earlier(report.verdict.reason)))
                for report in past.reports
            ),
        )
        for past in job.history()
    ]
    assert differences(job.spec, history, seeded(SEED), breakdowns=job.breakdowns) == []


def test_another_seed_is_found() -> None:
    job = Job(core_spec(num_pruning_rounds=0))
    for _ in range(20):
        job.ask(set())
    assert differences(job.spec, job.history(), seeded(SEED + 1))


def pruned(*rows: Row) -> list[PastTrial]:
    """Return the history of a `zeus` job whose runs all explored, by the rules of an earlier version."""
    return [
        PastTrial(trial(number, row), Choice(row[0], TrialType.PRUNING, "then"), 0, ())
        for number, row in enumerate(rows, 1)
    ]


def other_choices(spec: Spec, history: list[PastTrial]) -> list[str]:
    return [line for line in differences(spec, history, seeded(SEED)) if ": chose " in line]


def test_a_choice_by_the_rules_of_an_earlier_version_names_the_change_of_the_rules() -> None:
    spec = core_spec(batch_sizes=(4, 8, 16, 32), num_pruning_rounds=2)
    round_1: list[Row] = [(16, 9, False), (8, 5, True), (4, 6, True), (32, 7, True)]
    lines = other_choices(spec, pruned(*round_1, (8, 5, False), (4, 6, True), (32, 7, True)))
    assert [line.split(":")[0] for line in lines] == ["trial 2", "trial 3", "trial 6"]
    for line in lines:
        assert "(Pruning), would choose 32 (Pruning: pruning round" in line
        assert line.endswith("the rules have changed: " + EARLIER_RULE)


def test_a_choice_by_the_rules_of_an_earlier_version_may_have_no_counterpart() -> None:
    spec = core_spec(batch_sizes=(8, 16), num_pruning_rounds=1)
    [line] = other_choices(spec, pruned((16, 9, False), (8, 5, True)))
    assert "trial 2: chose batch size 8 (Pruning), would choose none (no batch size converged" in line
    assert line.endswith(EARLIER_RULE)


def test_a_choice_beside_a_step_that_has_paid_names_the_change_of_the_rules() -> None:
    spec = core_spec(batch_sizes=(8, 16, 32, 64, 128), max_epochs=100, policy="gp-ucb")
    epochs = {16: 50, 32: 20, 64: 7, 8: 100}

    def last_line(*sizes: int) -> str:
        trials = [
            trial(
                number,
                (size, 100.0 * epochs[size], True),
                TrialType.MAB,
                epochs=epochs[size],
                time_s=float(epochs[size]),
            )
            for number, size in enumerate(sizes, 1)
        ]
        history = [PastTrial(t, Choice(t.batch_size, TrialType.MAB, "then"), 0, ()) for t in trials]
        return other_choices(spec, history)[-1]

    line = last_line(16, 32, 64)
    assert "trial 3: chose batch size 64 (MAB), would choose 128 (MAB: not tried yet, beyond 32" in line
    assert line.endswith(
        "the rules have changed: earlier versions search beyond the neighbours only after larger gains, or never"
    )
    assert "rules" not in last_line(16, 32, 8), "no rules explain this one"


def play(epochs: dict[int, int], epoch_j: dict[int, float], recurrences: int) -> Job:
    """Return a job that has run alone, given the epochs to the target and the cost of an epoch of each batch size."""
    job = Job(core_spec(batch_sizes=tuple(epochs), default_batch_size=64, max_epochs=100, policy="gp-ucb"))
    for number in range(recurrences):
        job.ask(set())
        run = job.runs[-1]
        size = run.trial.batch_size
        while run.trial.status is TrialStatus.DISPATCHED:
            is_reached = run.trial.epochs + 1 >= epochs[size] + number % 3
            job.report(run, 1.0 if is_reached else 0.0, epoch_j[size])
    return job


def test_replay_names_the_change_of_the_rules_at_each_choice_that_0_2_0_made_differently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = (16, 32, 64, 128, 256, 512)
    explained = set()
    for epochs, costs in (
        ((30, 20, 20, 13, 16, 14), (200, 130, 100, 90, 88, 80)),
        ((12, 15, 20, 30, 45, 70), (150, 120, 100, 90, 85, 80)),
        ((10, 14, 20, 36, 40, 80), (130, 105, 100, 80, 70, 60)),
    ):
        with monkeypatch.context() as earlier:
            earlier.setattr(policy, "LOOK_SHARE", policy.EARLIER_LOOK_SHARE)
            earlier.setattr(belief, "PAYING_SHARE", 0.6)
            job = play(dict(zip(sizes, epochs, strict=True)), dict(zip(sizes, map(float, costs), strict=True)), 40)
            assert differences(job.spec, job.history(), seeded(SEED)) == []
        for line in differences(job.spec, job.history(), seeded(SEED)):
            assert ": chose batch size " in line
            explained.add(line.split("the rules have changed: ")[1])
    assert len(explained) == 2, explained


def test_a_first_run_without_a_limit_of_its_first_epoch_is_the_same_choice() -> None:
    spec = core_spec(batch_sizes=(8, 16), max_epochs=100, policy="gp-ucb")
    trials = [
        trial(number, (size, 5000.0, True), TrialType.MAB, epochs=50, time_s=50.0)
        for number, size in enumerate((16, 8), 1)
    ]
    history = [PastTrial(t, Choice(t.batch_size, TrialType.MAB, "then"), 0, ()) for t in trials]
    assert other_choices(spec, history) == []


def test_a_limit_that_differs_in_its_last_digits_is_the_same_choice() -> None:
    job = Job(core_spec(batch_sizes=(8, 16), max_epochs=100, policy="gp-ucb"))
    job.ask(set())
    for metric in (0.0, 0.0, 0.0, 1.0):
        job.report(job.runs[0], metric, 50.0)
    job.ask(set())
    limit_j = job.runs[1].choice.epoch_limit_j
    assert limit_j is not None
    for factor, differ in ((1 + 1e-9, 0), (1.01, 1)):
        job.runs[1].choice = replace(job.runs[1].choice, epoch_limit_j=limit_j * factor)
        lines = differences(job.spec, job.history(), seeded(SEED))
        assert len(lines) == differ
        assert not any("rules" in line for line in lines), "no rules explain another limit"


def test_another_bound_is_not_called_another_limit() -> None:
    job = Job(core_spec(batch_sizes=(8, 16), max_epochs=100, policy="gp-ucb"))
    job.ask(set())
    for metric in (0.0, 0.0, 0.0, 1.0):
        job.report(job.runs[0], metric, 50.0)
    job.ask(set())
    assert job.runs[1].choice.epoch_limit_j is not None
    job.runs[1].choice = replace(job.runs[1].choice, bound_factor=4.0)
    [line] = differences(job.spec, job.history(), seeded(SEED))
    assert "limit" not in line


def test_a_choice_that_no_rules_explain_names_no_change_of_them() -> None:
    spec = core_spec(batch_sizes=(4, 8, 16, 32), num_pruning_rounds=1)
    [line] = other_choices(spec, pruned((16, 9, False), (4, 5, True)))
    assert "chose batch size 4 (Pruning), would choose 32" in line
    assert "rules" not in line


@pytest.fixture
def revived() -> Job:
    """Return a job whose first run was lost at revision 3 and was revived at revision 4."""
    job = Job(core_spec(num_pruning_rounds=1))
    job.ask(set())
    job.report(job.runs[0], 0.0, 5.0)
    job.ask({0})
    job.report(job.runs[0], 0.0, 5.0)
    job.report(job.runs[0], 1.0, 5.0)
    return job


@pytest.mark.parametrize(
    ("revision", "status", "energy"),
    [
        (2, TrialStatus.DISPATCHED, 0.0),
        (3, TrialStatus.FAILED, 5.0),
        (5, TrialStatus.DISPATCHED, 10.0),
        (6, TrialStatus.SUCCEEDED, 15.0),
    ],
)
def test_a_revived_run_is_reconstructed_as_it_was_at_each_call(
    revived: Job, revision: int, status: TrialStatus, energy: float
) -> None:
    trial = state_at(revived.spec, revived.history(), 0, revision).trials[0]
    assert (trial.status, trial.energy_j) == (status, energy)
