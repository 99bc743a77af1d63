"""The policy `gp-ucb`: the batch size with the lowest optimistic cost of finishing the recurrence.

Failure-aware GP-UCB on the logarithm of the cost (after Srinivas et al., ICML 2010). Deterministic; docs/policies.md
has the maths. What is known of the batch sizes comes from `belief`.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from backend.core.cost import in_words
from backend.core.gp_ucb import epoch_cost, epochs
from backend.core.gp_ucb.belief import Belief, believe, learn, unsettled_runs, with_epoch_costs, with_probe
from backend.core.gp_ucb.gaussian import Mask, Vector, capped_lognormal_mean, normal_cdf
from backend.core.state import (
    Choice,
    Expectation,
    JobState,
    NothingConverges,
    Spec,
    Stage,
    Trial,
    TrialStatus,
    TrialType,
    way_out,
)

OPTIMISM = 0.75
"""Standard deviations below the expected logarithm of a cost, times sqrt(ln(2 + recurrences))."""
TRIES_BY_INDEX = 3
"""Launches of one recurrence that go by the index; then the best gets one, and those that have converged take turns."""
TURNS = 10
"""Failures in one recurrence after which a batch size that has converged before ranks with those that never have."""
MOST_DOUBLINGS = 60
"""Of the bound of later tries, and of what failures make dearer; beyond that it means nothing."""
LEAST_CHANCE = 0.1
"""Of converging, before anything has: whatever a curve says, runs may have failed by bad luck."""
DISCOURAGEMENT = 10.0
"""Before anything has converged: by what each failure makes a batch size dearer."""
HOPELESS = 3
"""Failures of every batch size, without a success in between, after which a person must act."""


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
    """The batch size for the next run of a job. Nothing about it is random.

    Raises:
        NothingConverges: every batch size has failed several times, since the last success if there was one.
    """
    spec, belief = state.spec, believe(state)
    grid = belief.grid
    if not belief.has_ended.any():
        return Choice(grid.sizes[belief.start], TrialType.MAB, _first_words(spec, grid.sizes[belief.start]))
    if stuck := _way_out(spec, belief):
        raise NothingConverges(stuck)
    best = cheapest(belief)
    guess = forecast(state, belief)
    if best is not None and belief.changed is not None:
        reason = f"the epochs to the target have changed: the best so far, {grid.sizes[best]}, is measured anew"
        return Choice(grid.sizes[best], TrialType.MAB, reason, bound_factor=None)
    within = reach(belief)
    failures = int(belief.failed_since_success.sum())
    if best is None:
        at = _lowest(guess.index_j, within)
        return Choice(grid.sizes[at], TrialType.MAB, _words(belief, guess, at, best))
    if failures < TRIES_BY_INDEX:
        at = _lowest(guess.index_j, within & ~belief.banned)
        return Choice(grid.sizes[at], TrialType.MAB, _words(belief, guess, at, best))
    if failures == TRIES_BY_INDEX:
        at = best
    else:
        turns = np.where(within, _turns(belief), np.inf)
        at = _lowest(guess.index_j, np.equal(turns, turns.min()))
    factor = min(2 * belief.failed_factor, 2.0**MOST_DOUBLINGS)
    reason = f"{failures} runs in a row have failed: {_words(belief, guess, at, best)}; {factor:g} times the bound"
    return Choice(grid.sizes[at], TrialType.MAB, reason, factor)


def cost_bound(state: JobState, trial: Trial) -> tuple[float, str]:
    """Cost in joules beyond which a run is stopped, and where it comes from."""
    spec, belief = state.spec, believe(state)
    best = cheapest(belief)
    costs_known = belief.epoch_cost.runs.any()
    if spec.beta_knob is None or best is None or trial.bound_factor is None or not costs_known:
        return math.inf, ""
    factor = spec.beta_knob * trial.bound_factor
    expected_j = float(expected_costs(belief)[best])
    return (
        factor * expected_j,
        f"{factor:g} times what the best batch size, {belief.grid.sizes[best]}, is expected to cost",
    )


def outlook(state: JobState, trial: Trial) -> str:
    """Whether the batch size of a run that has failed is given again, as things stand after it."""
    belief = learn(state.spec, believe(state), replace(trial, converged=False))
    if stuck := _way_out(state.spec, belief):
        return stuck
    size, has_converged = trial.batch_size, belief.has_converged
    if trial.out_of_memory and not belief.fits[belief.grid.index[size]]:
        return f"neither {size} nor a larger one is given again until the job is reset, or is seen to have changed"
    if not has_converged.any():
        return (
            f"no batch size has converged in this job yet, so {size} may be given again, but each of its failures "
            f"makes it count {DISCOURAGEMENT:g} times as dear"
        )
    if has_converged[belief.grid.index[size]]:
        return f"batch size {size} has converged before in this job, so it may be given again"
    never = f"batch size {size} has never converged in this job"
    if float(_turns(belief)[has_converged].min()) >= TURNS:
        return f"{never}, but nothing else works either, so it may be given again"
    return (
        f"{never}, so it is not given again until the job itself is seen to have changed, is reset, or nothing else "
        "works"
    )


def stage(state: JobState) -> tuple[Stage, str]:
    """What the job is busy with, and that in words."""
    belief = believe(state)
    best = cheapest(belief)
    if stuck := _way_out(state.spec, belief):
        return Stage.STUCK, stuck
    if best is None:
        return Stage.PRUNING, "no run has converged yet"
    if not belief.epoch_cost.runs.any():
        return Stage.MAB, "every run seems to have cost nothing: is its energy measured, and is eta_knob meant so?"
    expected_j = expected_costs(belief)[best]
    return (
        Stage.MAB,
        f"the best batch size so far is {belief.grid.sizes[best]}, expected to cost {in_words(expected_j)} a run",
    )


def ruled_out(state: JobState) -> dict[int, str]:
    """Why batch sizes are not given any more, by batch size."""
    belief = believe(state)
    sizes = belief.grid.sizes
    banned = {
        sizes[at]: f"failed {belief.failed[at]:g} times and never converged" for at in np.flatnonzero(belief.banned)
    }
    unfit = {sizes[at]: _why_unfit(belief, at) for at in map(int, np.flatnonzero(~belief.fits))}
    return banned | unfit


def expectations(state: JobState) -> list[Expectation]:
    """What the two beliefs say of each batch size; nothing before the first run has ended."""
    belief = believe(state)
    sizes = belief.grid.sizes
    if not belief.epoch_cost.runs.any():
        return [Expectation(size, None, None) for size in sizes]
    guess = forecast(state, belief)
    return [Expectation(size, float(guess.expected_j[at]), float(guess.sd_j[at])) for at, size in enumerate(sizes)]


def known(state: JobState) -> Belief:
    """What is known from all ended trials."""
    return believe(state)


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
    """Of the batch sizes that fit, which have run, or lie within one doubling or one step of one that has (n,)."""
    fits, within = belief.fits, np.zeros(len(belief.grid.sizes), dtype=bool)
    ran = belief.has_ended[fits]
    near = ran.copy()
    near[-1:] |= not ran.any()  # then what has run was too large for the memory, and is next to the largest that is not
    near[1:] |= ran[:-1]
    near[:-1] |= ran[1:]
    sizes = np.array(belief.grid.sizes)[fits]
    for size in sizes[ran]:
        near |= np.maximum(sizes, size) <= 2 * np.minimum(sizes, size)
    within[fits] = near
    return within


def in_flight(state: JobState, belief: Belief) -> Vector:
    """How many runs of every batch size are under way (n,)."""
    counts = np.zeros(len(belief.grid.sizes))
    for trial in state.trials:
        counts[belief.grid.index[trial.batch_size]] += trial.status is TrialStatus.DISPATCHED
    return counts


def forecast(state: JobState, belief: Belief) -> Forecast:
    """What a run would cost, given what has ended and what is under way."""
    spec = state.spec
    under_way = in_flight(state, belief)
    about_epochs = epochs.expecting(belief.epochs, under_way) if under_way.any() else belief.epochs.law
    about_cost = with_probe(spec, belief.epoch_cost, belief.grid, state.probed)
    about_cost = with_epoch_costs(spec, about_cost, belief.grid, unsettled_runs(state, belief))
    noise = belief.epochs.noise_variance
    mean, variance = about_epochs.mean + about_cost.law.mean, about_epochs.variance + about_cost.law.variance
    expected: Vector = np.exp(mean + (variance + noise) / 2)
    if belief.has_converged.any():
        index = _recurrence_costs(spec, belief, mean, variance, about_cost.law.mean)
    else:
        index = _first_success_costs(spec, belief, mean, variance, about_cost.law.mean)
    return Forecast(expected, expected * np.sqrt(variance), index)


def _recurrence_costs(spec: Spec, belief: Belief, mean: Vector, variance: Vector, log_epoch_cost: Vector) -> Vector:
    """Optimistic cost in joules of a recurrence that starts so, and goes on with the best if that fails (n,)."""
    best_j = float(expected_costs(belief)[belief.has_converged].min())
    optimism = OPTIMISM * math.sqrt(math.log(2 + float(belief.converged.sum())))
    sigma = math.sqrt(belief.epochs.noise_variance)
    index = np.empty(len(mean))
    for at, low in enumerate(mean - optimism * np.sqrt(variance)):
        cap_j = spec.max_epochs * math.exp(log_epoch_cost[at])
        if spec.beta_knob is not None:
            cap_j = max(min(cap_j, spec.beta_knob * best_j), epoch_cost.LEAST_J)
        succeeds = normal_cdf((math.log(cap_j) - low) / sigma)
        succeeds *= (belief.converged[at] + 1) / (belief.converged[at] + belief.failed[at] + 1)
        index[at] = capped_lognormal_mean(low, sigma, cap_j) + (1 - succeeds) * best_j
    return index


def _first_success_costs(spec: Spec, belief: Belief, mean: Vector, variance: Vector, log_epoch_cost: Vector) -> Vector:
    """Expected cost in joules of a success by one batch size alone, dearer with each of its failures (n,)."""
    index = np.empty(len(mean))
    for at, expected in enumerate(mean):
        cap_j = spec.max_epochs * math.exp(log_epoch_cost[at])
        sigma = math.sqrt(variance[at] + belief.epochs.noise_variance)
        succeeds = max(normal_cdf((math.log(cap_j) - expected) / sigma), LEAST_CHANCE)
        dearer = DISCOURAGEMENT ** min(belief.failed[at], MOST_DOUBLINGS)
        index[at] = capped_lognormal_mean(expected, sigma, cap_j) / succeeds * dearer
    return index


def _turns(belief: Belief) -> Vector:
    """Failures since a run last converged, by which later tries go; who has never converged comes last (n,)."""
    turns: Vector = belief.failed_since_success + TURNS * ~belief.has_converged
    return turns


def _hopeless(belief: Belief) -> str | None:
    """Why no batch size is left to give; None while one is."""
    if not belief.has_ended.any():
        return None
    if not belief.fits.any():
        return f"batch size {belief.grid.sizes[0]}, the smallest, does not fit in memory"
    if not belief.has_converged.any():
        hopeless = bool(np.all(belief.failed[belief.fits] >= HOPELESS))
        all_of_them = "every batch size" if belief.fits.all() else "every batch size that fits in memory"
        return f"{all_of_them} has failed {HOPELESS} times or more, and none has ever converged" if hopeless else None
    if float(_turns(belief)[reach(belief)].min()) < TURNS + HOPELESS:
        return None
    return f"{int(belief.failed_since_success.sum())} runs in a row have failed, of every batch size several"


def _way_out(spec: Spec, belief: Belief) -> str | None:
    """What a person can do when no batch size is left to give; None while one is."""
    hopeless = _hopeless(belief)
    return hopeless and way_out(spec, hopeless, converged=bool(belief.has_converged.any()))


def _lowest(values: Vector, among: Mask) -> int:
    return int(np.argmin(np.where(among, values, np.inf)))


def _why_unfit(belief: Belief, at: int) -> str:
    if belief.too_large is None or at < belief.too_large:
        return "does not fit in memory, as a probe found"
    if at == belief.too_large:
        return "did not fit in memory"
    return f"larger than {belief.grid.sizes[belief.too_large]}, which did not fit in memory"


def _first_words(spec: Spec, size: int) -> str:
    if size == spec.default_batch_size:
        return "no run has ended yet: the default batch size"
    return f"no run has ended yet: by what the job it starts from knows, {size} is the best"


def _words(belief: Belief, guess: Forecast, at: int, best: int | None) -> str:
    """Why a batch size is worth a run."""
    sizes = belief.grid.sizes
    text = f"expected {in_words(guess.expected_j[at])} ± {in_words(guess.sd_j[at], 3)}"
    ran = np.flatnonzero(belief.has_ended)
    if at not in ran:
        nearest = min(ran, key=lambda other: abs(belief.grid.x[other] - belief.grid.x[at]))
        text = f"not tried yet, next to {sizes[nearest]}; {text}"
    if best is None:
        return f"{text}; nothing has converged yet"
    if at == best:
        return f"the best so far; {text}"
    return f"{text}; the best so far is {in_words(guess.expected_j[best])} at {sizes[best]}"
