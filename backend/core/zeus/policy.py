"""The published policy, `zeus`: rounds of pruning, then a bandit over the batch sizes that are left."""

import math

import numpy as np

from backend.core.cost import trial_cost
from backend.core.state import Choice, Expectation, JobState, NothingConverges, Stage, Trial, TrialType, way_out
from backend.core.zeus import pruning, thompson
from backend.core.zeus.results import Results, Rewards, results


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
            best = results(state).cheapest
            if best is None:
                size, known = state.spec.default_batch_size, "the default; none has converged yet"
            else:
                size, known = best.batch_size, f"the cheapest so far, by trial {best.number}"
            return Choice(size, TrialType.CONCURRENT, f"{step.reason}; meanwhile {known}")
        case pruning.Done():
            arm, reason = thompson.draw(state, step.survivors, rng)
            return Choice(arm, TrialType.MAB, reason)
        case pruning.Stuck():
            raise NothingConverges(_way_out(state, step))


def cost_bound(state: JobState, trial: Trial) -> tuple[float, str]:
    """Cost in joules beyond which a run is stopped, and where it comes from."""
    if state.spec.beta_knob is None or trial.bound_factor is None:
        return math.inf, ""
    cheapest = results(state).cheapest
    if cheapest is None:
        return math.inf, ""
    bound_j = state.spec.beta_knob * trial_cost(state.spec, cheapest)
    return bound_j, f"{state.spec.beta_knob:g} times the lowest of a converged run"


def outlook(_state: JobState, trial: Trial) -> str:
    """Whether the batch size of a run that has failed is given again."""
    if trial.type is TrialType.PRUNING:
        return f"batch size {trial.batch_size} is not given again in this job, unless the job is reset"
    return f"batch size {trial.batch_size} may be given again"


def stage(state: JobState) -> tuple[Stage, str]:
    """What the job is busy with, and that in words."""
    step = pruning.progress(state).step
    match step:
        case pruning.Explore() | pruning.Wait():
            return Stage.PRUNING, step.reason
        case pruning.Done():
            return Stage.MAB, f"the bandit chooses among {', '.join(map(str, step.survivors))}"
        case pruning.Stuck():
            return Stage.STUCK, _way_out(state, step)


def ruled_out(state: JobState) -> dict[int, str]:
    """Why batch sizes are not given any more, by batch size."""
    return pruning.progress(state).ruled_out


def expectations(state: JobState) -> list[Expectation]:
    """What the bandit's posterior says of each batch size; nothing of one without results, unless there is a prior."""
    rewards = results(state).rewards
    found = []
    for size in state.spec.batch_sizes:
        known = size in rewards or state.spec.mab_prior_precision > 0
        belief = thompson.posterior(state.spec, rewards.get(size, Rewards())) if known else None
        found.append(
            Expectation(size, None if belief is None else -belief.mean_j, None if belief is None else belief.sd_j)
        )
    return found


def known(state: JobState) -> Results:
    """What is known from all ended trials."""
    return results(state)


def _way_out(state: JobState, step: pruning.Stuck) -> str:
    return way_out(state.spec, step.reason, converged=results(state).cheapest is not None)
