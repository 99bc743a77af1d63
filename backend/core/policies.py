"""The two doors: which batch size a run gets, and what a report means for its run.

One policy so far, `zeus`, the published one. Another is a module beside `pruning` and `thompson`, and a
case in each door.
"""

import numpy as np

from backend.core import pruning, thompson
from backend.core.cost import cheapest_converged, cost_bound, run_cost
from backend.core.state import Choice, JobState, Report, Spec, Stage, TrialType, Verdict, VerdictCode


class NothingConverges(Exception):
    """Raised by `choose` when no batch size is left. The user relaxes the spec or resets the job."""


def choose(state: JobState, rng: np.random.Generator) -> Choice:
    """The batch size for the next run of a job.

    Args:
        state: the job.
        rng: the job's generator; advanced only when the choice is random.

    Raises:
        NothingConverges: no batch size converged in a pruning round.
    """
    step = pruning.progress(state).step
    match step:
        case pruning.Explore():
            return Choice(step.batch_size, TrialType.PRUNING, step.reason)
        case pruning.Wait():
            best = cheapest_converged(state)
            if best is None:
                size, known = state.spec.default_batch_size, "the default; none has converged yet"
            else:
                size, known = best.batch_size, f"the cheapest so far, by trial {best.number}"
            return Choice(size, TrialType.CONCURRENT, f"{step.reason}; meanwhile {known}")
        case pruning.Done():
            arm, reason = thompson.draw(state, step.survivors, rng)
            return Choice(arm, TrialType.MAB, reason)
        case pruning.Stuck():
            raise NothingConverges(_way_out(step))


def judge(state: JobState, report: Report) -> Verdict:
    """What a report means for its run, whatever type of trial it is and whatever stage the job has reached.

    Args:
        state: the job before the report.
        report: the run's latest report.
    """
    spec = state.spec
    price = run_cost(spec, report.energy_j, report.time_s)
    bound = cost_bound(state)
    if price > bound:
        return Verdict(
            VerdictCode.COST_BOUND,
            f"cost {price:.6g} J exceeds {bound:.6g} J, {spec.beta_knob:g} times the lowest of a converged run",
        )
    if report.metric is None:
        return Verdict(VerdictCode.DIVERGED, "the metric is not a finite number: the run has diverged")
    target = f"the target {spec.target_metric:.6g}"
    if _reached(spec, report.metric):
        return Verdict(VerdictCode.CONVERGED, f"metric {report.metric:.6g} reached {target} at a cost of {price:.6g} J")
    if report.epoch >= spec.max_epochs:
        return Verdict(
            VerdictCode.MAX_EPOCHS,
            f"metric {report.metric:.6g} has not reached {target} within {spec.max_epochs} epochs",
        )
    return Verdict(VerdictCode.CONTINUE, f"{target} is not reached yet; training goes on")


def stage(state: JobState) -> tuple[Stage, str]:
    """What the job is busy with, and that in words."""
    step = pruning.progress(state).step
    match step:
        case pruning.Explore() | pruning.Wait():
            return Stage.PRUNING, step.reason
        case pruning.Done():
            return Stage.MAB, f"the bandit chooses among {', '.join(map(str, step.survivors))}"
        case pruning.Stuck():
            return Stage.STUCK, _way_out(step)


def ruled_out(state: JobState) -> dict[int, str]:
    """Why batch sizes are not given any more, by batch size."""
    return pruning.progress(state).ruled_out


def _reached(spec: Spec, metric: float) -> bool:
    return metric >= spec.target_metric if spec.higher_is_better_metric else metric <= spec.target_metric


def _way_out(step: pruning.Stuck) -> str:
    return (
        f"{step.reason}, so none is left to give. Lower target_metric, raise max_epochs or beta_knob, or add "
        "batch sizes, and register that as a new job; or reset this one to explore anew"
    )
