"""Replay a job's history: do the stored choices, verdicts and reasons follow from the stored trials?

The history is plain data; `backend.database.states` loads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from lightning_bso.quantities import different_joules, say_the_same

from . import calibration
from .calibration import LearntTarget
from .policies import changed_rule, choose, choose_while_paused, compact, judge
from .state import (
    Breakdown,
    Choice,
    EndedSummary,
    JobState,
    NothingConverges,
    ProbeResult,
    Report,
    Spec,
    Trial,
    TrialStatus,
    TrialType,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class PastReport:
    """A report and its verdict, at the job's `revision`.

    If this report revived a lost run, `expired` is the revision at which the run was lost.
    """

    revision: int
    report: Report
    verdict: Verdict
    expired: int | None


@dataclass(frozen=True, slots=True)
class PastProbe:
    """The results of a probe, stored at the job's `revision`."""

    revision: int
    results: tuple[ProbeResult, ...]


@dataclass(frozen=True, slots=True)
class PastTrial:
    """A trial in its final form, with its choice, and its reports by rising revision.

    `exploration` is the number of resets of the job before the trial: 0, 1, …
    """

    trial: Trial
    choice: Choice
    exploration: int
    reports: tuple[PastReport, ...]


def state_at(
    spec: Spec,
    history: list[PastTrial],
    exploration: int,
    revision: int,
    summary: EndedSummary | None = None,
    probe: PastProbe | None = None,
    breakdowns: Sequence[Breakdown] = (),
) -> JobState:
    """Reconstruct the state that a decision read, at the revision of the decision.

    A call that decides may end lost trials first, in the same revision. Everything else in the state is older.

    Args:
        spec: the job's spec.
        history: all trials of the job.
        exploration: exploration of the decision.
        revision: revision of the decision.
        summary: stands in for trials that ended before; they are left out.
        probe: the probe of the exploration.
        breakdowns: the breakdowns of the exploration.
    """
    of_exploration = [past for past in history if past.exploration == exploration]
    trials = (_trial_at(past, revision) for past in of_exploration)
    visible = tuple(trial for trial in trials if trial is not None and not _is_covered(trial, summary))
    earlier = tuple(breakdown for breakdown in breakdowns if breakdown.revision < revision)
    return JobState(
        spec,
        visible,
        summary,
        probe.results if probe is not None and probe.revision < revision else (),
        earlier,
        frozenset(past.trial.batch_size for past in of_exploration if earlier and _works_at(past, revision)),
    )


def differences(
    spec: Spec,
    history: list[PastTrial],
    rng: np.random.Generator,
    initial: EndedSummary | None = None,
    probes: Mapping[int, PastProbe] = MappingProxyType({}),
    breakdowns: Mapping[int, Sequence[Breakdown]] = MappingProxyType({}),
    targets: Mapping[int, LearntTarget] = MappingProxyType({}),
) -> list[str]:
    """Describe every stored decision that the core would not make again; empty if all of them follow.

    Args:
        spec: the job's spec.
        history: all trials of the job, by rising number.
        rng: the job's random generator at the start.
        initial: the summary that the job started with.
        probes: the probes of the job, by exploration.
        breakdowns: the breakdowns of the job, by exploration.
        targets: the targets that the job has learnt, by exploration.
    """
    lines = [
        line for exploration, target in targets.items() for line in _compare_target(spec, history, exploration, target)
    ]
    decisions: list[tuple[int, PastTrial, PastReport | None]] = [(past.trial.started, past, None) for past in history]
    decisions += [(report.revision, past, report) for past in history for report in past.reports]
    decisions.sort(key=lambda decision: decision[0])
    summaries = {0: initial}
    for revision, past, report in decisions:
        exploration = past.exploration
        target = targets.get(exploration)
        state = state_at(
            spec
            if target is None or target.revision >= revision
            else replace(spec, target_metric=target.target_metric),
            history,
            exploration,
            revision,
            summaries.get(exploration),
            probes.get(exploration),
            breakdowns.get(exploration, ()),
        )
        state = compact(state)
        summaries[exploration] = state.summary
        lines += _compare_choice(state, past, rng) if report is None else _compare_verdict(state, past, report)
    return lines


def _compare_target(spec: Spec, history: list[PastTrial], exploration: int, target: LearntTarget) -> list[str]:
    """Learn a target again, and check that each calibration run counts with what it had used at the target."""
    runs = [past for past in history if past.exploration == exploration]
    curves = {
        past.trial.number: [report.report for report in past.reports if report.revision <= target.revision]
        for past in runs
    }
    again = calibration.learn(spec, [curves[number] for number in target.trials])
    if again != target.target_metric:
        return [f"learnt the target {target.target_metric:.17g}, would learn {again:.17g}"]
    spec = replace(spec, target_metric=again)
    lines = []
    for past in runs:
        first = calibration.first_reached(spec, curves[past.trial.number])
        if past.trial.number in target.trials and (
            first is None or past.trial != calibration.at_target(past.trial, first)
        ):
            lines.append(f"trial {past.trial.number}: does not count with what it had used at the learnt target")
    return lines


def _compare_choice(state: JobState, past: PastTrial, rng: np.random.Generator) -> list[str]:
    stored = past.choice
    try:
        again = choose_while_paused(state.spec) if stored.type is TrialType.PAUSED else choose(state, rng)
    except NothingConverges as error:
        now = f"would choose none ({error})"
    else:
        if again.is_as_stored(stored):
            return _compare_reason(past, f"batch size {stored.batch_size}", stored.reason, again.reason)
        now = f"would choose {again.batch_size} ({again.type}: {again.reason})"
        now_j, then_j = again.epoch_limit_j, stored.epoch_limit_j
        same_but_for_limit = replace(again, epoch_limit_j=None).is_as_stored(replace(stored, epoch_limit_j=None))
        if same_but_for_limit and now_j is not None and then_j is not None:
            limits = " instead of ".join(different_joules(now_j, then_j))
            now = f"would choose it again, with a limit of {limits} for the first epoch"
    rule = changed_rule(state, stored)
    because = "" if rule is None else f"; the rules have changed: {rule}"
    return [f"trial {past.trial.number}: chose batch size {stored.batch_size} ({stored.type}), {now}{because}"]


def _compare_verdict(state: JobState, past: PastTrial, report: PastReport) -> list[str]:
    earlier = [other.report for other in past.reports if other.revision < report.revision]
    last = earlier[-1] if earlier else Report(None, 0.0, 0.0, 0)
    trial = replace(past.trial, energy_j=last.energy_j, time_s=last.time_s, epochs=last.epoch)
    again, stored = judge(state, trial, report.report), report.verdict
    if again.code == stored.code:
        return _compare_reason(past, f"verdict {stored.code}", stored.reason, again.reason)
    return [f"trial {past.trial.number}: judged {stored.code}, would judge {again.code} ({again.reason})"]


def _compare_reason(past: PastTrial, decision: str, then: str, now: str) -> list[str]:
    """Compare the wording of two reasons. It may differ after an upgrade. How numbers are written does not count."""
    if say_the_same(then, now):
        return []
    return [f'trial {past.trial.number}: {decision} again, only its reason differs: "{then}", now "{now}"']


def _is_covered(trial: Trial, summary: EndedSummary | None) -> bool:
    has_verdict = trial.status is TrialStatus.SUCCEEDED
    return summary is not None and has_verdict and (trial.ended or 0) <= summary.last_revision


def _works_at(past: PastTrial, revision: int) -> bool:
    """Return whether the trial had completed an epoch or converged before a revision."""
    earlier = (report for report in past.reports if report.revision < revision)
    return any(report.report.epoch > 0 or report.verdict.converged for report in earlier)


def _trial_at(past: PastTrial, revision: int) -> Trial | None:
    """Return the trial as it was before a revision; None if it had not started."""
    final = past.trial
    if final.started >= revision:
        return None
    reports = [report for report in past.reports if report.revision < revision]
    last = reports[-1].report if reports else Report(None, 0.0, 0.0, 0)
    then = replace(final, energy_j=last.energy_j, time_s=last.time_s, epochs=last.epoch)
    match final.status:
        case TrialStatus.SUCCEEDED if (final.ended or 0) < revision:
            return final  # a calibration run counts with an earlier report than its last
        case TrialStatus.FAILED if (final.ended or 0) <= revision:
            return then
    for report in past.reports:
        if report.expired is not None and report.expired <= revision < report.revision:
            return replace(then, status=TrialStatus.FAILED, converged=None, ended=report.expired, out_of_memory=False)
    return replace(then, status=TrialStatus.DISPATCHED, converged=None, ended=None, out_of_memory=False)
