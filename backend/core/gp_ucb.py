"""The policy `gp-ucb`: the batch size with the lowest optimistic cost of finishing the recurrence.

Failure-aware GP-UCB on the logarithm of the cost (after Srinivas et al., ICML 2010). Deterministic; docs/policies.md
has the maths. What is known of the batch sizes comes from `belief`.
"""

import math
from dataclasses import dataclass

import numpy as np

from backend.core import epochs
from backend.core.belief import Belief, believe, with_epoch_costs
from backend.core.gaussian import Mask, Vector, capped_lognormal_mean, normal_cdf
from backend.core.state import Choice, JobState, Spec, Stage, Trial, TrialStatus, TrialType

OPTIMISM = 0.75
"""Standard deviations below the expected logarithm of a cost, times sqrt(ln(2 + recurrences))."""
TRIES_BY_INDEX = 2
"""Launches of one recurrence that go by the index; the next takes what has worked, without a bound."""
MOST_DOUBLINGS = 60
"""Of the bound of later tries; beyond that it means nothing."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would cost in joules, by batch size (n,)."""

    expected_j: Vector
    """Mean cost of a converging run."""
    sd_j: Vector
    """How sure that is."""
    index_j: Vector
    """Optimistic cost of finishing the recurrence when it starts so: what is minimised."""


def choose(state: JobState, _rng: np.random.Generator) -> Choice:
    """The batch size for the next run of a job. Nothing about it is random."""
    spec, belief = state.spec, believe(state)
    grid = belief.grid
    if not belief.has_ended.any():
        return Choice(grid.sizes[belief.start], TrialType.MAB, _first_words(spec, grid.sizes[belief.start]))
    best = cheapest(belief)
    guess = forecast(state, belief)
    if best is not None and belief.changed is not None:
        reason = f"the epochs to the target have changed: the best so far, {grid.sizes[best]}, is measured anew"
        return Choice(grid.sizes[best], TrialType.MAB, reason, bound_factor=None)
    failures = int(belief.failed_since_success.sum())
    within = reach(belief)
    if best is not None and failures == TRIES_BY_INDEX:
        reason = (
            f"{failures} runs have failed since one converged: the best so far, {grid.sizes[best]}, without a bound"
        )
        return Choice(grid.sizes[best], TrialType.MAB, reason, bound_factor=None)
    if best is not None and failures > TRIES_BY_INDEX:
        tries = np.where(within, belief.failed_since_success, np.inf)
        at = _lowest(guess.index_j, np.equal(tries, tries.min()))
        factor = 2.0 ** min(failures - TRIES_BY_INDEX, MOST_DOUBLINGS)
        reason = f"{failures} runs in a row have failed: {_words(belief, guess, at, best)}"
        return Choice(grid.sizes[at], TrialType.MAB, f"{reason}; the bound is {factor:g} times as high", factor)
    left = within & ~belief.banned
    if left.any():
        at = _lowest(guess.index_j, left)
        return Choice(grid.sizes[at], TrialType.MAB, _words(belief, guess, at, best))
    at = _lowest(guess.index_j, np.equal(belief.failed, belief.failed.min()))
    reason = f"nothing has converged and all have failed: a new round; {_words(belief, guess, at, best)}"
    return Choice(grid.sizes[at], TrialType.MAB, reason)


def cost_bound(state: JobState, trial: Trial) -> tuple[float, str]:
    """Cost in joules beyond which a run is stopped, and where it comes from."""
    spec, belief = state.spec, believe(state)
    best = cheapest(belief)
    if spec.beta_knob is None or best is None or trial.bound_factor is None:
        return math.inf, ""
    factor = spec.beta_knob * trial.bound_factor
    expected_j = float(expected_costs(belief)[best])
    return (
        factor * expected_j,
        f"{factor:g} times what the best batch size, {belief.grid.sizes[best]}, is expected to cost",
    )


def outlook(state: JobState, trial: Trial) -> str:
    """Whether the batch size of a run that has failed is given again."""
    belief = believe(state)
    if belief.converged[belief.grid.index[trial.batch_size]]:
        return f"batch size {trial.batch_size} has converged before in this job, so it may be given again"
    return (
        f"batch size {trial.batch_size} has never converged in this job, so it is not given again until the job itself "
        "is seen to have changed, is reset, or nothing else works"
    )


def stage(state: JobState) -> tuple[Stage, str]:
    """What the job is busy with, and that in words."""
    belief = believe(state)
    best = cheapest(belief)
    if best is None:
        return Stage.PRUNING, "no run has converged yet"
    expected_j = expected_costs(belief)[best]
    return (
        Stage.MAB,
        f"the best batch size so far is {belief.grid.sizes[best]}, expected to cost {expected_j:.4g} J a run",
    )


def ruled_out(state: JobState) -> dict[int, str]:
    """Why batch sizes are not given any more, by batch size."""
    belief = believe(state)
    return {
        belief.grid.sizes[at]: f"failed {belief.failed[at]:g} times and never converged"
        for at in np.flatnonzero(belief.banned)
    }


def condensed(state: JobState) -> JobState:
    """The same job with all ended trials taken into `past`."""
    return JobState(
        state.spec,
        tuple(trial for trial in state.trials if trial.status is not TrialStatus.SUCCEEDED),
        believe(state),
    )


def expected_costs(belief: Belief) -> Vector:
    """Mean cost of a converging run in joules, by batch size (n,)."""
    mean = belief.epochs.law.mean + belief.epoch_cost.law.mean
    variance = belief.epochs.law.variance + belief.epoch_cost.law.variance
    costs: Vector = np.exp(mean + (variance + belief.epochs.noise_variance) / 2)
    return costs


def cheapest(belief: Belief) -> int | None:
    """Where among the batch sizes the cheapest one is that has converged; None if none has."""
    has_converged = belief.has_converged
    return _lowest(expected_costs(belief), has_converged) if has_converged.any() else None


def reach(belief: Belief) -> Mask:
    """Which batch sizes have run, or lie within one doubling or one step of one that has (n,)."""
    ran = belief.has_ended
    near = ran.copy()
    near[1:] |= ran[:-1]
    near[:-1] |= ran[1:]
    for at in np.flatnonzero(ran):
        near |= np.abs(belief.grid.x - belief.grid.x[at]) <= 1
    return near


def forecast(state: JobState, belief: Belief) -> Forecast:
    """What a run would cost, given what has ended and what is under way."""
    spec = state.spec
    in_flight = np.zeros(len(belief.grid.sizes))
    for trial in state.trials:
        in_flight[belief.grid.index[trial.batch_size]] += trial.status is TrialStatus.DISPATCHED
    about_epochs = epochs.expecting(belief.epochs, in_flight) if in_flight.any() else belief.epochs.law
    unsettled = [trial for trial in state.trials if trial.status is not TrialStatus.SUCCEEDED and trial.epochs]
    about_cost = with_epoch_costs(spec, belief.epoch_cost, belief.grid, unsettled) if unsettled else belief.epoch_cost
    noise = belief.epochs.noise_variance
    mean, variance = about_epochs.mean + about_cost.law.mean, about_epochs.variance + about_cost.law.variance
    expected: Vector = np.exp(mean + (variance + noise) / 2)
    has_converged = belief.has_converged
    best = float(expected_costs(belief)[has_converged].min()) if has_converged.any() else None

    recurrences = float(belief.converged.sum())
    optimism = OPTIMISM * math.sqrt(math.log(2 + recurrences))
    sigma = math.sqrt(noise)
    index = np.empty(len(mean))
    for at, low in enumerate(mean - optimism * np.sqrt(variance)):
        cap = spec.max_epochs * math.exp(about_cost.law.mean[at])
        if best is not None and spec.beta_knob is not None:
            cap = min(cap, spec.beta_knob * best)
        succeeds = normal_cdf((math.log(cap) - low) / sigma)
        succeeds *= (belief.converged[at] + 1) / (belief.converged[at] + belief.failed[at] + 1)
        this_run = capped_lognormal_mean(low, sigma, cap)
        # Before anything has converged the recurrence goes on with the same: as many runs as it takes.
        index[at] = this_run / max(succeeds, 1e-12) if best is None else this_run + (1 - succeeds) * best
    return Forecast(expected, expected * np.sqrt(variance), index)


def _lowest(values: Vector, among: Mask) -> int:
    return int(np.argmin(np.where(among, values, np.inf)))


def _first_words(spec: Spec, size: int) -> str:
    if size == spec.default_batch_size:
        return "no run has ended yet: the default batch size"
    return f"no run has ended yet: by what the job it starts from knows, {size} is the best"


def _words(belief: Belief, guess: Forecast, at: int, best: int | None) -> str:
    """Why a batch size is worth a run."""
    sizes = belief.grid.sizes
    text = f"expected {guess.expected_j[at]:.4g} J ± {guess.sd_j[at]:.2g}"
    ran = np.flatnonzero(belief.has_ended)
    if at not in ran:
        nearest = min(ran, key=lambda other: abs(belief.grid.x[other] - belief.grid.x[at]))
        text = f"not tried yet, next to {sizes[nearest]}; {text}"
    if best is None:
        return f"{text}; nothing has converged yet"
    if at == best:
        return f"the best so far; {text}"
    return f"{text}; the best so far is {guess.expected_j[best]:.4g} J at {sizes[best]}"
