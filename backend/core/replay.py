"""A job's past, decided once more: do the stored choices, verdicts and reasons follow from the stored trials?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from backend.core.policies import choose, choose_while_paused, condensed, judge
from backend.core.state import Choice, JobState, Past, Probed, Report, Spec, Trial, TrialStatus, TrialType, Verdict


@dataclass(frozen=True, slots=True)
class PastReport:
    """A report as it was answered, at the job's `revision`.

    `expired` is the revision at which the run had been taken for lost, if this report revived it.
    """

    revision: int
    report: Report
    verdict: Verdict
    expired: int | None


@dataclass(frozen=True, slots=True)
class PastProbe:
    """What a probe told, at the job's `revision`."""

    revision: int
    probed: tuple[Probed, ...]


@dataclass(frozen=True, slots=True)
class PastTrial:
    """A trial as it stands, its reports by rising revision, and the reset (0, 1, …) that it came after."""

    trial: Trial
    choice: Choice
    exploration: int
    reports: tuple[PastReport, ...]


def state_at(
    spec: Spec,
    past: list[PastTrial],
    exploration: int,
    revision: int,
    known: Past | None = None,
    probe: PastProbe | None = None,
) -> JobState:
    """What a decision taken at a revision of the job looked at.

    A call that decides may end lost trials first, in the same revision; all else that it saw is older.

    Args:
        spec: the job's spec.
        past: all its trials.
        exploration: the reset that the decision came after.
        revision: of the decision.
        known: what is known from trials that ended before; they are left out.
        probe: that of the exploration.
    """
    trials = (_trial_at(one, revision) for one in past if one.exploration == exploration)
    seen = tuple(trial for trial in trials if trial is not None and not _told(trial, known))
    return JobState(spec, seen, known, probe.probed if probe is not None and probe.revision < revision else ())


def differences(
    spec: Spec,
    past: list[PastTrial],
    rng: np.random.Generator,
    beginning: Past | None = None,
    probes: Mapping[int, PastProbe] = MappingProxyType({}),
) -> list[str]:
    """Every stored decision that the core would not take again, in words; empty if all follow.

    Args:
        spec: the job's spec.
        past: all its trials, by rising number.
        rng: its random generator at the beginning.
        beginning: what the job began with.
        probes: of its batch sizes, by exploration.
    """
    found: list[str] = []
    decisions: list[tuple[int, PastTrial, PastReport | None]] = [(one.trial.started, one, None) for one in past]
    decisions += [(report.revision, one, report) for one in past for report in one.reports]
    decisions.sort(key=lambda decision: decision[0])
    known = {0: beginning}
    for revision, one, report in decisions:
        exploration = one.exploration
        state = state_at(spec, past, exploration, revision, known.get(exploration), probes.get(exploration))
        state = condensed(state)
        known[exploration] = state.past
        found += _choice_differs(state, one, rng) if report is None else _verdict_differs(state, one, report)
    return found


def _choice_differs(state: JobState, one: PastTrial, rng: np.random.Generator) -> list[str]:
    chosen = one.choice
    again = choose_while_paused(state.spec) if chosen.type is TrialType.PAUSED else choose(state, rng)
    if replace(again, reason=chosen.reason) == chosen:
        return _words_differ(one, f"batch size {chosen.batch_size}", chosen.reason, again.reason)
    return [
        f"trial {one.trial.number}: chose batch size {chosen.batch_size} ({chosen.type}), "
        f"would choose {again.batch_size} ({again.type}: {again.reason})"
    ]


def _verdict_differs(state: JobState, one: PastTrial, report: PastReport) -> list[str]:
    again, verdict = judge(state, one.trial, report.report), report.verdict
    if again.code == verdict.code:
        return _words_differ(one, f"verdict {verdict.code}", verdict.reason, again.reason)
    return [f"trial {one.trial.number}: judged {verdict.code}, would judge {again.code} ({again.reason})"]


def _words_differ(one: PastTrial, decision: str, then: str, now: str) -> list[str]:
    """As they do after an upgrade that says things otherwise."""
    if then == now:
        return []
    return [f'trial {one.trial.number}: {decision} again, only its reason differs: "{then}", now "{now}"']


def _told(trial: Trial, known: Past | None) -> bool:
    return known is not None and trial.status is TrialStatus.SUCCEEDED and (trial.ended or 0) <= known.through


def _trial_at(past: PastTrial, revision: int) -> Trial | None:
    final = past.trial
    if final.started >= revision:
        return None
    reports = [report for report in past.reports if report.revision < revision]
    last = reports[-1].report if reports else Report(None, 0.0, 0.0, 0)
    then = replace(final, energy_j=last.energy_j, time_s=last.time_s, epochs=last.epoch)
    match final.status:
        case TrialStatus.SUCCEEDED if (final.ended or 0) < revision:
            return then
        case TrialStatus.FAILED if (final.ended or 0) <= revision:
            return then
    for report in past.reports:
        if report.expired is not None and report.expired <= revision < report.revision:
            return replace(then, status=TrialStatus.FAILED, converged=None, ended=report.expired, out_of_memory=False)
    return replace(then, status=TrialStatus.DISPATCHED, converged=None, ended=None, out_of_memory=False)
