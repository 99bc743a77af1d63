"""A job's past, decided once more: do the stored choices and verdicts follow from the stored trials?"""

from dataclasses import dataclass, replace

import numpy as np

from backend.core.policies import choose, judge
from backend.core.state import Choice, JobState, Report, Spec, Trial, TrialStatus, VerdictCode


@dataclass(frozen=True, slots=True)
class PastReport:
    """A report as it was answered, at the job's `revision`.

    `expired` is the revision at which the run had been taken for lost, if this report revived it.
    """

    revision: int
    report: Report
    code: VerdictCode
    expired: int | None


@dataclass(frozen=True, slots=True)
class PastTrial:
    """A trial as it stands, its reports by rising revision, and the reset (0, 1, …) that it came after."""

    trial: Trial
    choice: Choice
    exploration: int
    reports: tuple[PastReport, ...]


def state_at(spec: Spec, past: list[PastTrial], exploration: int, revision: int) -> JobState:
    """What a decision taken at a revision of the job looked at.

    A call that decides may end lost trials first, in the same revision; all else that it saw is older.
    """
    trials = (_trial_at(one, revision) for one in past if one.exploration == exploration)
    return JobState(spec, tuple(trial for trial in trials if trial is not None))


def differences(spec: Spec, past: list[PastTrial], rng: np.random.Generator) -> list[str]:
    """Every stored decision that the core would not take again, in words; empty if all follow.

    Args:
        spec: the job's spec.
        past: all its trials, by rising number.
        rng: its random generator at the beginning.
    """
    found = []
    for one in past:
        again = choose(state_at(spec, past, one.exploration, one.trial.started), rng)
        chosen = one.choice
        if (again.batch_size, again.type) != (chosen.batch_size, chosen.type):  # its wording may change
            found.append(
                f"trial {one.trial.number}: chose batch size {chosen.batch_size} ({chosen.type}), "
                f"would choose {again.batch_size} ({again.type}: {again.reason})"
            )
    for one in past:
        for report in one.reports:
            verdict = judge(state_at(spec, past, one.exploration, report.revision), report.report)
            if verdict.code != report.code:
                found.append(f"trial {one.trial.number}: judged {report.code}, would judge {verdict.code}")
    return found


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
            return replace(then, status=TrialStatus.FAILED, converged=None, ended=report.expired)
    return replace(then, status=TrialStatus.DISPATCHED, converged=None, ended=None)
