"""The two doors: which batch size a run gets, and what a report means for its run.

A policy is a module with the functions of `Policy`; to add one, write it beside `zeus` and `gp_ucb` and name it in
`POLICIES`.
"""

import math
from dataclasses import replace
from typing import Protocol

import numpy as np

from backend.core.cost import run_cost
from backend.core.gp_ucb import policy as gp_ucb
from backend.core.state import (
    Choice,
    Expectation,
    JobState,
    Past,
    Report,
    Spec,
    Stage,
    Trial,
    TrialStatus,
    TrialType,
    Verdict,
    VerdictCode,
)
from backend.core.zeus import policy as zeus


class Policy(Protocol):
    """What a policy decides. Each function looks at the job alone."""

    def choose(self, state: JobState, rng: np.random.Generator) -> Choice:
        """The batch size for the next run; raises NothingConverges when none is left."""

    def cost_bound(self, state: JobState, trial: Trial) -> tuple[float, str]:
        """Cost in joules beyond which a run is stopped (infinity: none), and where it comes from."""

    def outlook(self, state: JobState, trial: Trial) -> str:
        """Whether the batch size of a run that has failed, with what it came to, is given again, in words."""

    def stage(self, state: JobState) -> tuple[Stage, str]:
        """What the job is busy with, and that in words."""

    def ruled_out(self, state: JobState) -> dict[int, str]:
        """Why batch sizes are not given any more, by batch size."""

    def expectations(self, state: JobState) -> list[Expectation]:
        """What a run with each batch size is expected to cost."""

    def known(self, state: JobState) -> Past:
        """What is known from all ended trials, so that a decision need not look at them."""


POLICIES: dict[str, Policy] = {"zeus": zeus, "gp-ucb": gp_ucb}


def choose(state: JobState, rng: np.random.Generator) -> Choice:
    """The batch size for the next run of a job.

    Args:
        state: the job.
        rng: the job's generator; advanced only when the choice is random.

    Raises:
        NothingConverges: no batch size is left.
    """
    return POLICIES[state.spec.policy].choose(state, rng)


def choose_while_paused(spec: Spec) -> Choice:
    """The batch size for the next run of a job that is to decide nothing: the default, with no bound on its cost."""
    reason = "the job is paused: the default batch size"
    return Choice(spec.default_batch_size, TrialType.PAUSED, reason, bound_factor=None)


def judge(state: JobState, trial: Trial, report: Report) -> Verdict:
    """What a report means for its run, whatever stage the job has reached.

    A run whose cost is beyond the bound is stopped. Under `zeus` that comes first; under `gp-ucb` a run that reaches
    the target in the epoch that crosses the bound has converged, since what it cost is paid.

    Args:
        state: the job before the report.
        trial: the run, as it was given out.
        report: its latest report.
    """
    spec, policy = state.spec, POLICIES[state.spec.policy]
    cost_j = run_cost(spec, report.energy_j, report.time_s)
    bound_j, origin = policy.cost_bound(state, trial)
    trial = replace(
        trial,
        energy_j=report.energy_j,
        time_s=report.time_s,
        epochs=report.epoch,
        out_of_memory=report.out_of_memory,
    )
    reached = report.metric is not None and _reached(spec, report.metric)
    target = f"the target {spec.target_metric:.6g}"
    if report.out_of_memory:
        reason = f"batch size {trial.batch_size} does not fit in memory"
        return _failure(state, trial, VerdictCode.OUT_OF_MEMORY, reason)
    if cost_j > bound_j and not (reached and spec.policy != "zeus"):
        return _failure(state, trial, VerdictCode.COST_BOUND, f"cost {cost_j:.6g} J exceeds {bound_j:.6g} J, {origin}")
    if report.metric is None:
        reason = "the metric is not a finite number: the run has diverged"
        return _failure(state, trial, VerdictCode.DIVERGED, reason)
    if reached:
        reason = f"metric {report.metric:.6g} reached {target} at a cost of {cost_j:.6g} J"
        return Verdict(VerdictCode.CONVERGED, reason)
    if report.epoch >= spec.max_epochs:
        reason = f"metric {report.metric:.6g} has not reached {target} within {spec.max_epochs} epochs"
        return _failure(state, trial, VerdictCode.MAX_EPOCHS, reason)
    return Verdict(VerdictCode.CONTINUE, f"{target} is not reached yet; training goes on")


def stage(state: JobState) -> tuple[Stage, str]:
    """What the job is busy with, and that in words."""
    return POLICIES[state.spec.policy].stage(state)


def ruled_out(state: JobState) -> dict[int, str]:
    """Why batch sizes are not given any more, by batch size."""
    return POLICIES[state.spec.policy].ruled_out(state)


def expectations(state: JobState) -> list[Expectation]:
    """What a run with each batch size is expected to cost, ascending."""
    return POLICIES[state.spec.policy].expectations(state)


def bound(state: JobState, choice: Choice) -> float | None:
    """Cost in joules beyond which a run that is given a choice now would be stopped; None: it has no bound."""
    run = Trial(
        *(0, choice.batch_size, choice.type, TrialStatus.DISPATCHED, None, 0.0, 0.0, 0, 0, None),
        bound_factor=choice.bound_factor,
    )
    bound_j, _ = POLICIES[state.spec.policy].cost_bound(state, run)
    return bound_j if math.isfinite(bound_j) else None


def known(state: JobState) -> Past:
    """What is known from the ended trials of a job."""
    return POLICIES[state.spec.policy].known(state)


def condensed(state: JobState) -> JobState:
    """The same job with all ended trials taken into `past`."""
    left = tuple(trial for trial in state.trials if trial.status is not TrialStatus.SUCCEEDED)
    return replace(state, trials=left, past=known(state))


def _failure(state: JobState, trial: Trial, code: VerdictCode, reason: str) -> Verdict:
    return Verdict(code, f"{reason}; {POLICIES[state.spec.policy].outlook(state, trial)}")


def _reached(spec: Spec, metric: float) -> bool:
    return metric >= spec.target_metric if spec.higher_is_better_metric else metric <= spec.target_metric
