"""The two entry points: `choose` picks the batch size of a run, `judge` decides what a report means for its run.

A policy is a module with the functions of `Policy`. To add a policy, write a package beside `zeus` and `gp_ucb`, and
list its policy module in `POLICIES`.
"""

import math
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Protocol

import numpy as np

from lightning_bso.quantities import count, different_joules, joules

from . import breakdowns, calibration
from .cost import run_cost
from .gp_ucb import policy as gp_ucb
from .state import (
    Choice,
    EndedSummary,
    Expectation,
    JobState,
    Report,
    Spec,
    Stage,
    Trial,
    TrialStatus,
    TrialType,
    Verdict,
    VerdictCode,
)
from .zeus import policy as zeus


class Policy(Protocol):
    """The functions that a policy module provides. Each reads only the job's state."""

    def choose(self, state: JobState, rng: np.random.Generator) -> Choice:
        """Return the batch size for the next run. Raise NothingConverges if none is left."""

    def reference_cost(self, state: JobState) -> tuple[float, str]:
        """Return the cost that cost bounds are multiples of, in joules (infinity: none yet), and what it is."""

    def changed_rule(self, state: JobState, choice: Choice) -> str | None:
        """Name the change of the rules that explains a choice of an earlier version; None: no change explains it."""

    def retry_outlook(self, state: JobState, trial: Trial) -> str:
        """Say whether the batch size of a run may be dispatched again, given that the run has failed."""

    def stage(self, state: JobState) -> tuple[Stage, str]:
        """Return the stage of the job, and a description of it."""

    def ruled_out(self, state: JobState) -> dict[int, str]:
        """Return the batch sizes that are ruled out, each with the reason."""

    def expectations(self, state: JobState) -> list[Expectation]:
        """Estimate the cost of a run with each batch size."""

    def recommended(self, state: JobState, converged: AbstractSet[int]) -> int | None:
        """Return the batch size that is believed to cost least, of those that have converged."""

    def summarize_ended(self, state: JobState) -> EndedSummary:
        """Summarize all trials that have a verdict. Later decisions read the summary instead."""


POLICIES: dict[str, Policy] = {"zeus": zeus, "gp-ucb": gp_ucb}


def choose(state: JobState, rng: np.random.Generator) -> Choice:
    """Return the batch size for the next run of a job.

    Args:
        state: the job.
        rng: the job's generator; advanced only when the choice is random.

    Raises:
        NothingConverges: no batch size is left.
    """
    if state.spec.target_metric is None:
        return calibration.choose(state.spec)
    return POLICIES[state.spec.policy].choose(state, rng)


def choose_while_paused(spec: Spec) -> Choice:
    """Return the batch size for the next run of a paused job: the default, with no bound on its cost."""
    reason = "the job is paused: the default batch size"
    return Choice(spec.default_batch_size, TrialType.PAUSED, reason, bound_factor=None)


def judge(state: JobState, trial: Trial, report: Report) -> Verdict:
    """Decide what a report means for its run, in any stage of the job.

    A report that the run is out of memory ends the run in any case. Otherwise a run whose cost exceeds its bound is
    stopped. Under `zeus` this holds even if the run reached the target. Under `gp-ucb`, a run that reaches the target
    in the epoch that crosses the bound has converged, because that epoch is already paid for.

    Args:
        state: the job before the report.
        trial: the run before the report.
        report: the run's latest report.
    """
    spec, policy = state.spec, POLICIES[state.spec.policy]
    if spec.target_metric is None:
        return calibration.judge(spec, trial, report)
    cost_j = run_cost(spec, report.energy_j, report.time_s)
    reference_j, reference = policy.reference_cost(state)
    multiple, bound_j = bound_multiple(spec, trial.bound_factor), cost_bound(spec, trial.bound_factor, reference_j)
    if going_on := goes_on(spec, trial, report, reference_j):
        return going_on
    if _is_priced_out(spec, trial, report) and cost_j <= bound_j:
        return Verdict(VerdictCode.PRICED_OUT, _priced_out_reason(trial, cost_j))
    trial = replace(
        trial,
        energy_j=report.energy_j,
        time_s=report.time_s,
        epochs=report.epoch,
        out_of_memory=report.out_of_memory,
    )
    reached = calibration.reached(spec, report.metric)
    target = f"the target {spec.target_metric:.6g}"
    if report.out_of_memory:
        reason = f"batch size {trial.batch_size} does not fit in memory"
        return _failure(state, trial, VerdictCode.OUT_OF_MEMORY, reason)
    if cost_j > bound_j and not (reached and spec.policy != "zeus"):
        costs = " exceeds ".join(different_joules(cost_j, bound_j))
        reason = f"cost {costs}, {multiple:g} times {reference}"
        return _failure(state, trial, VerdictCode.COST_BOUND, reason)
    if report.metric is None:
        reason = "the metric is not a finite number: the run has diverged"
        return _failure(state, trial, VerdictCode.DIVERGED, reason)
    if reached:
        reason = f"metric {report.metric:.6g} reached {target} at a cost of {joules(cost_j)}"
        return Verdict(VerdictCode.CONVERGED, reason)
    reason = f"metric {report.metric:.6g} has not reached {target} within {count(spec.max_epochs, 'epoch')}"
    return _failure(state, trial, VerdictCode.MAX_EPOCHS, reason)


def goes_on(spec: Spec, trial: Trial, report: Report, reference_j: float) -> Verdict | None:
    """Return the verdict on a report after which its run goes on. None: the run ends, and `judge` says why.

    It needs no state of the job but one number, so most reports are judged without reading the job's history.

    Args:
        spec: the job's spec, which has a target.
        trial: the run before the report.
        report: the run's latest report.
        reference_j: the policy's reference cost.
    """
    bound_j = cost_bound(spec, trial.bound_factor, reference_j)
    is_within_bound = run_cost(spec, report.energy_j, report.time_s) <= bound_j
    if report.out_of_memory or report.metric is None or report.epoch >= spec.max_epochs or not is_within_bound:
        return None
    if calibration.reached(spec, report.metric) or _is_priced_out(spec, trial, report):
        return None
    return Verdict(VerdictCode.CONTINUE, f"the target {spec.target_metric:.6g} is not reached yet; training continues")


def cost_bound(spec: Spec, bound_factor: float | None, reference_j: float) -> float:
    """Return the cost bound of a run in joules; infinity: it has none."""
    return bound_multiple(spec, bound_factor) * reference_j


def bound_multiple(spec: Spec, bound_factor: float | None) -> float:
    """Return how many times the reference cost a run may cost; infinity: it has no bound."""
    return math.inf if spec.beta_knob is None or bound_factor is None else spec.beta_knob * bound_factor


def reference_cost(state: JobState) -> float:
    """Return the cost that cost bounds are multiples of, in joules; infinity: there is none yet."""
    return POLICIES[state.spec.policy].reference_cost(state)[0]


def stage(state: JobState) -> tuple[Stage, str]:
    """Return the stage of the job, and a description of it."""
    if state.spec.target_metric is None:
        return calibration.stage(state.spec, state.calibrated)
    return POLICIES[state.spec.policy].stage(state)


def ruled_out(state: JobState) -> dict[int, str]:
    """Return the batch sizes that are ruled out, each with the reason."""
    return POLICIES[state.spec.policy].ruled_out(state)


def expectations(state: JobState) -> list[Expectation]:
    """Estimate the cost of a run with each batch size, ascending."""
    return POLICIES[state.spec.policy].expectations(state)


def recommended(state: JobState, converged: AbstractSet[int]) -> int | None:
    """Return the batch size that the policy believes to cost least; None: there is none yet.

    Args:
        state: the job.
        converged: the batch sizes that have converged. Only they are recommended.
    """
    return POLICIES[state.spec.policy].recommended(state, converged)


def changed_rule(state: JobState, choice: Choice) -> str | None:
    """Name the change of the rules that explains a choice of an earlier version; None: no change explains it."""
    return POLICIES[state.spec.policy].changed_rule(state, choice)


def bound(state: JobState, choice: Choice) -> float | None:
    """Return the cost bound, in joules, of a run that gets this choice now; None: it has no bound."""
    bound_j = cost_bound(state.spec, choice.bound_factor, reference_cost(state))
    return bound_j if math.isfinite(bound_j) else None


def summarize_ended(state: JobState) -> EndedSummary:
    """Summarize all trials of a job that have a verdict."""
    return POLICIES[state.spec.policy].summarize_ended(state)


def compact(state: JobState) -> JobState:
    """Return the same job with all trials that have a verdict moved into the summary."""
    remaining = tuple(trial for trial in state.trials if trial.status is not TrialStatus.SUCCEEDED)
    return replace(state, trials=remaining, summary=summarize_ended(state))


def _is_priced_out(spec: Spec, trial: Trial, report: Report) -> bool:
    """Whether a report, which has not reached the target, is that of a first epoch that has cost too much.

    It is the run's first report. A run that reports within its epochs may have begun another one.
    """
    if trial.epoch_limit_j is None or not report.epoch == 1 < spec.max_epochs:
        return False
    if trial.epochs > 0 or run_cost(spec, trial.energy_j, trial.time_s) > 0:
        return False
    is_open = not (report.out_of_memory or report.metric is None or calibration.reached(spec, report.metric))
    return is_open and run_cost(spec, report.energy_j, report.time_s) > trial.epoch_limit_j


def _priced_out_reason(trial: Trial, cost_j: float) -> str:
    size, costs = trial.batch_size, different_joules(cost_j, trial.epoch_limit_j or 0.0)
    return (
        f"the first epoch has cost {costs[0]}, more than the {costs[1]} up to which a first run "
        f"with batch size {size} is worth its cost. {size} has not failed, and may be dispatched again in a later "
        "training"
    )


def _failure(state: JobState, trial: Trial, code: VerdictCode, reason: str) -> Verdict:
    works = {trial.batch_size} if trial.epochs else set()
    if trial.batch_size in breakdowns.ruled_out(replace(state, working_sizes=state.working_sizes | works)):
        return Verdict(code, f"{reason}; batch size {trial.batch_size} is not dispatched again until the job is reset")
    return Verdict(code, f"{reason}; {POLICIES[state.spec.policy].retry_outlook(state, trial)}")
