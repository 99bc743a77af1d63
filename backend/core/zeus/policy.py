"""The published policy, `zeus`: rounds of pruning, then a bandit over the batch sizes that survived them."""

import math
from collections.abc import Set as AbstractSet

import numpy as np

from .. import breakdowns
from ..cost import trial_cost
from ..state import Choice, Expectation, JobState, NothingConverges, Stage, Trial, TrialType, stuck_message
from . import pruning, thompson
from .results import Results, Rewards, results


def choose(state: JobState, rng: np.random.Generator) -> Choice:
    """Return the batch size for the next run of a job.

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
                size, origin = state.spec.default_batch_size, "the default; no run has converged yet"
            elif best.batch_size in breakdowns.ruled_out(state):
                size, origin = state.spec.default_batch_size, f"the default; {best.batch_size} is ruled out"
            else:
                size, origin = best.batch_size, f"the cheapest so far, by trial {best.number}"
            return Choice(size, TrialType.CONCURRENT, f"{step.reason}; meanwhile {origin}")
        case pruning.Done():
            arm, reason = thompson.draw(state, step.survivors, rng)
            return Choice(arm, TrialType.MAB, reason)
        case pruning.Stuck():
            raise NothingConverges(_stuck_message(state, step))


def reference_cost(state: JobState) -> tuple[float, str]:
    """Return the cost that cost bounds are multiples of, in joules (infinity: none yet), and what it is."""
    cheapest = results(state).cheapest
    cost_j = math.inf if cheapest is None else trial_cost(state.spec, cheapest)
    return cost_j, "the lowest cost of a converged run"


def retry_outlook(_state: JobState, trial: Trial) -> str:
    """Say whether the batch size of a failed run may be dispatched again."""
    if trial.type is TrialType.PRUNING:
        return f"batch size {trial.batch_size} is not dispatched again in this job, unless the job is reset"
    return f"batch size {trial.batch_size} may be dispatched again"


def changed_rule(state: JobState, choice: Choice) -> str | None:
    """Name the change of the rules that explains a choice of an earlier version; None: no change explains it."""
    if choice.type is TrialType.PRUNING and choice.batch_size == pruning.progress(state).left_out:
        return "earlier versions try the smaller batch sizes also after a round's default has failed"
    return None


def stage(state: JobState) -> tuple[Stage, str]:
    """Return the stage of the job, and a description of it."""
    step = pruning.progress(state).step
    match step:
        case pruning.Explore() | pruning.Wait():
            return Stage.PRUNING, step.reason
        case pruning.Done():
            return Stage.MAB, f"the bandit chooses among {', '.join(map(str, step.survivors))}"
        case pruning.Stuck():
            return Stage.STUCK, _stuck_message(state, step)


def ruled_out(state: JobState) -> dict[int, str]:
    """Return the batch sizes that are ruled out, each with the reason."""
    return pruning.progress(state).ruled_out


def expectations(state: JobState) -> list[Expectation]:
    """Estimate the cost of a run with each batch size, from the bandit's posterior.

    A batch size without results has no estimate, unless there is a proper prior.
    """
    rewards = results(state).rewards
    estimates = []
    for size in state.spec.batch_sizes:
        has_posterior = size in rewards or state.spec.mab_prior_precision > 0
        posterior = thompson.posterior(state.spec, rewards.get(size, Rewards())) if has_posterior else None
        estimates.append(
            Expectation(
                size,
                None if posterior is None else -posterior.mean_j,
                None if posterior is None else posterior.sd_j,
            )
        )
    return estimates


def recommended(state: JobState, converged: AbstractSet[int]) -> int | None:
    """Return the batch size with the lowest expected cost, of those that have converged and are not ruled out."""
    among = converged - ruled_out(state).keys()
    expected = [(of.expected_j, of.batch_size) for of in expectations(state) if of.expected_j is not None]
    return min((cost for cost in expected if cost[1] in among), default=(0.0, None))[1]


def summarize_ended(state: JobState) -> Results:
    """Summarize all trials that have a verdict."""
    return results(state)


def _stuck_message(state: JobState, step: pruning.Stuck) -> str:
    return stuck_message(state.spec, step.reason, converged=results(state).cheapest is not None)
