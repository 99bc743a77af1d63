"""Learn the target of a job that was registered without one, from the job's first runs.

These runs take the default batch size and end by their own rules, so they cost what they cost today. The target is the
weakest of their best metrics: each of them has reached it. Each run then counts as converged at its first report that
reached the target, with the cost of that report.

`policies` asks here until the target is known. `replay` derives it again from the stored reports.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lightning_bso.quantities import count, joules

from .state import Choice, Report, Spec, Stage, Trial, TrialStatus, TrialType, Verdict, VerdictCode

MAX_FAILURES = 5
"""Number of failed runs in a row after which the target counts as out of reach.

With an unchanged training and no tolerance, the last 5 of 3 + 5 runs all stay below the first 3 once in 56 times.
"""


@dataclass(frozen=True, slots=True)
class LearntTarget:
    """The target that an exploration has learnt, at the job's `revision`."""

    target_metric: float
    trials: tuple[int, ...]
    """Numbers of the trials that it was learnt from."""
    revision: int


def choose(spec: Spec) -> Choice:
    """Return the batch size for a run before the target is known: the default, with no bound on its cost."""
    runs = f"the first {spec.calibration_runs} runs" if spec.calibration_runs > 1 else "the first run"
    reason = f"calibration: the target is learnt from {runs} with the default batch size"
    return Choice(spec.default_batch_size, TrialType.CALIBRATION, reason, bound_factor=None)


def judge(spec: Spec, trial: Trial, report: Report) -> Verdict:
    """Decide what a report means for its run, before the target is known."""
    again = "the next run takes it again, because the target is learnt with the default"
    if report.out_of_memory:
        reason = f"batch size {trial.batch_size} does not fit in memory; {again}"
        return Verdict(VerdictCode.OUT_OF_MEMORY, reason)
    if report.metric is None:
        reason = f"the metric is not a finite number: the run has diverged; batch size {trial.batch_size}: {again}"
        return Verdict(VerdictCode.DIVERGED, reason)
    if report.epoch >= spec.max_epochs:
        return Verdict(
            VerdictCode.CALIBRATED, f"the run took its {count(spec.max_epochs, 'epoch')}; the target is learnt from it"
        )
    return Verdict(VerdictCode.CONTINUE, "the target is learnt from this run; training continues")


def stage(spec: Spec, ended: int) -> tuple[Stage, str]:
    """Return the stage before the target is known, and a description of it.

    Args:
        spec: the job's spec.
        ended: number of the calibration runs that have ended.
    """
    left = spec.calibration_runs - ended
    return Stage.CALIBRATION, (
        f"the target is learnt from {count(spec.calibration_runs, 'run')} with the default batch size "
        f"{spec.default_batch_size}; {left} {'is' if left == 1 else 'are'} still to end"
    )


def learn(spec: Spec, curves: Sequence[Sequence[Report]]) -> float:
    """Return the target: the weakest of the curves' best metrics, relaxed by the job's tolerance.

    Args:
        spec: the job's spec. Its tolerance is a share of the way from that curve's first metric to its best.
        curves: the reports of each calibration run, in order. Each has a metric.
    """
    metrics = [[report.metric for report in curve if report.metric is not None] for curve in curves]
    best, weakest = (max, min) if spec.higher_is_better_metric else (min, max)
    curve = weakest(metrics, key=best)
    return best(curve) - spec.target_tolerance * (best(curve) - curve[0])


def reached(spec: Spec, metric: float | None) -> bool:
    """Return whether a metric reaches the target. Nothing reaches a target that is not known."""
    if metric is None or spec.target_metric is None:
        return False
    return metric >= spec.target_metric if spec.higher_is_better_metric else metric <= spec.target_metric


def first_reached(spec: Spec, curve: Sequence[Report]) -> Report | None:
    """Return the first report that reaches the target."""
    return next((report for report in curve if reached(spec, report.metric)), None)


def judge_end(spec: Spec, why: str) -> Verdict:
    """Return the verdict on a run that has not reached the learnt target when its training ended by its own rules."""
    return Verdict(
        VerdictCode.TRAINING_OVER, f"{why}; the run has not reached the learnt target {spec.target_metric:.6g}"
    )


def verdict(spec: Spec, first: Report, cost_j: float) -> Verdict:
    """Return the verdict on a calibration run, once the target is learnt.

    Args:
        spec: the job's spec, with the target.
        first: the run's first report that reaches the target.
        cost_j: the cost of the run up to this report, in joules.
    """
    reason = (
        f"metric {first.metric:.6g} reached the learnt target {spec.target_metric:.6g} in epoch {first.epoch} "
        f"at a cost of {joules(cost_j)}"
    )
    return Verdict(VerdictCode.CONVERGED, reason)


def out_of_reach(latest: Sequence[Trial]) -> bool:
    """Return whether a learnt target has become out of reach, so that it must be learnt again.

    Args:
        latest: the exploration's last `MAX_FAILURES` runs with a verdict, or fewer if there are not as many.
    """
    return len(latest) == MAX_FAILURES and not any(trial.converged for trial in latest)


def at_target(trial: Trial, first: Report) -> Trial:
    """Return a calibration run as a result: converged, with what it had used at its first report at the target."""
    return replace(
        trial,
        status=TrialStatus.SUCCEEDED,
        converged=True,
        energy_j=first.energy_j,
        time_s=first.time_s,
        epochs=first.epoch,
    )
