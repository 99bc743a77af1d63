"""The policy `gp-ucb`: choose the batch size with the lowest index.

The index is a lower confidence bound of the cost of a recurrence: failure-aware GP-UCB on the logarithm of the cost
(after Srinivas et al., ICML 2010). The policy is deterministic. It reads the `belief`; docs/policies.md has the maths.
"""

import math
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lightning_bso.quantities import count, joules

from .. import breakdowns
from ..state import (
    Choice,
    Expectation,
    JobState,
    NothingConverges,
    Spec,
    Stage,
    Trial,
    TrialStatus,
    TrialType,
    stuck_message,
)
from . import epoch_cost, epochs
from .belief import (
    Belief,
    belief_of,
    cheapest_converged,
    expected_costs,
    learn,
    lowest,
    trials_without_result,
    with_epoch_costs,
    with_probe,
)
from .gaussian import Mask, Vector, capped_lognormal_mean, normal_cdf

CONFIDENCE = 0.75
"""Width of the lower confidence bound: standard deviations of the log cost, times sqrt(ln(2 + recurrences))."""
LOOK_SHARE = 0.85
"""A first run is priced out after its first epoch if what is still to be paid exceeds this share of the best's cost."""
EARLIER_LOOK_SHARE = 0.9
"""`LOOK_SHARE` up to version 0.2.0, for `changed_rule`."""
TRIES_BY_INDEX = 3
"""Launches of one recurrence that go by the index.

The next launch gets the best batch size. Later launches take turns among the batch sizes that have converged.
"""
LOWEST_LIMIT, LIMIT_HALVINGS = 1e-6, 30
"""Search of the limit of an epoch's cost: the lowest, as a share of the best's cost, and the number of halvings."""
TURNS = 10
"""Failures in one recurrence after which a batch size that has converged ranks like one that never has."""
MAX_DOUBLINGS = 60
"""Largest exponent of the doubled bounds of later tries, and of the failure penalty. Beyond it they mean nothing."""
MIN_SUCCESS_PROBABILITY = 0.1
"""Lower limit of a predicted probability, before any run has converged: runs may have failed by bad luck."""
FAILURE_PENALTY = 10.0
"""Before any run has converged: the factor by which each failure of a batch size raises its index."""
FAILURES_UNTIL_STUCK = 3
"""Failures of every batch size, without a success in between, after which the job is stuck."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The predicted cost of a run in joules, by batch size (n,)."""

    expected_j: Vector
    """Mean cost of a converging run."""
    sd_j: Vector
    """Standard deviation of this estimate."""
    index_j: Vector
    """Lower confidence bound of the cost of a recurrence that starts with this batch size. The lowest index wins."""
    low_epochs: Vector
    """Lower confidence bound of ln T, T the epochs to the target."""
    is_priced: Mask
    """Whether a run or a probe has shown the cost of an epoch."""


def choose(state: JobState, _rng: np.random.Generator) -> Choice:
    """Return the batch size for the next run of a job. The choice is deterministic.

    Raises:
        NothingConverges: every batch size has failed several times, since the last success if there was one.
    """
    return _choose(state, belief_of(state), LOOK_SHARE)


def changed_rule(state: JobState, choice: Choice) -> str | None:
    """Name the change of the rules that explains a choice of an earlier version; None: no change explains it."""
    belief = belief_of(state)
    rules = [(belief, "earlier versions let the first epoch of a first run cost more")]
    if belief.paid:
        neighbours = replace(belief, paid=0)
        rules.append((neighbours, "earlier versions search beyond the neighbours only after larger gains, or never"))
    for seen, rule in rules:
        try:
            earlier = _choose(state, seen, EARLIER_LOOK_SHARE)
        except NothingConverges:
            continue
        if earlier.is_as_stored(choice):
            return rule
    return None


def _choose(state: JobState, belief: Belief, look_share: float) -> Choice:
    spec, grid = state.spec, belief.grid
    if not belief.has_ended.any():
        start = spec.default_batch_size if belief.start in belief.broken else grid.sizes[belief.start]
        return Choice(start, TrialType.MAB, _first_reason(spec, start))
    if message := _stuck_message(spec, belief):
        raise NothingConverges(message)
    best = cheapest_converged(belief)
    predicted = forecast(state, belief)
    if best is not None and belief.changed is not None:
        reason = (
            f"the epochs to the target have changed: the best batch size so far, {grid.sizes[best]}, is measured again "
            "without a cost bound"
        )
        return Choice(grid.sizes[best], TrialType.MAB, reason, bound_factor=None)
    allowed = candidates(belief)
    failures = int(belief.failed_since_success.sum())
    if best is None:
        chosen = lowest(predicted.index_j, allowed)
        return Choice(grid.sizes[chosen], TrialType.MAB, _reason(belief, predicted, chosen, best))
    if failures < TRIES_BY_INDEX:
        # A run beside others may be priced out after one of them has converged.
        is_open = (belief.priced_out == 0) | belief.has_converged
        chosen = lowest(predicted.index_j, allowed & ~belief.banned & is_open)
        limit_j = None if predicted.is_priced[chosen] else _epoch_limit(spec, belief, predicted, chosen, look_share)
        reason = _reason(belief, predicted, chosen, best)
        return Choice(grid.sizes[chosen], TrialType.MAB, reason, epoch_limit_j=limit_j)
    if failures == TRIES_BY_INDEX:
        chosen = best
    else:
        turns = np.where(allowed, _turns(belief), np.inf)
        chosen = lowest(predicted.index_j, np.equal(turns, turns.min()))
    factor = min(2 * belief.failed_factor, 2.0**MAX_DOUBLINGS)
    reason = _reason(belief, predicted, chosen, best)
    reason = f"{failures} runs in a row have failed: {reason}; {factor:g} times the bound"
    return Choice(grid.sizes[chosen], TrialType.MAB, reason, factor)


def reference_cost(state: JobState) -> tuple[float, str]:
    """Return the cost that cost bounds are multiples of, in joules (infinity: none yet), and what it is."""
    belief = belief_of(state)
    best = cheapest_converged(belief)
    if best is None or not belief.epoch_cost.runs.any():
        return math.inf, "the expected cost of the best batch size"
    expected_j = float(expected_costs(belief)[best])
    return expected_j, f"the expected cost of the best batch size, {belief.grid.sizes[best]}"


def retry_outlook(state: JobState, trial: Trial) -> str:
    """Say whether the batch size of a run may be dispatched again, given that the run has failed."""
    belief = learn(state.spec, belief_of(state), replace(trial, converged=False))
    if message := _stuck_message(state.spec, belief):
        return message
    size, has_converged = trial.batch_size, belief.has_converged
    if trial.out_of_memory and not belief.fits[belief.grid.index[size]]:
        return (
            f"batch size {size} and larger ones are not dispatched again until the job is reset, or is seen to have "
            "changed"
        )
    if not has_converged.any():
        return (
            f"no batch size has converged in this job yet, so batch size {size} may be dispatched again, but each of "
            f"its failures makes it count as {FAILURE_PENALTY:g} times as expensive"
        )
    if has_converged[belief.grid.index[size]]:
        return f"batch size {size} has converged before in this job, so it may be dispatched again"
    never = f"batch size {size} has never converged in this job"
    if float(_turns(belief)[has_converged].min()) >= TURNS:
        return f"{never}, but nothing else works either, so it may be dispatched again"
    return (
        f"{never}, so it is not dispatched again until the job is seen to have changed, the job is reset, or nothing "
        "else works"
    )


def stage(state: JobState) -> tuple[Stage, str]:
    """Return the stage of the job, and a description of it."""
    belief = belief_of(state)
    best = cheapest_converged(belief)
    if message := _stuck_message(state.spec, belief):
        return Stage.STUCK, message
    if best is None:
        return Stage.PRUNING, "no run has converged yet"
    if not belief.epoch_cost.runs.any():
        return Stage.MAB, "every run reported a cost of 0; check that energy is measured, and that eta_knob is right"
    expected_j = expected_costs(belief)[best]
    return (
        Stage.MAB,
        f"the recommended batch size is {belief.grid.sizes[best]}, expected to cost {joules(expected_j)} a run",
    )


def ruled_out(state: JobState) -> dict[int, str]:
    """Return the batch sizes that are ruled out, each with the reason."""
    belief = belief_of(state)
    sizes = belief.grid.sizes
    banned = {
        sizes[i]: f"failed {count(belief.failed[i], 'time')} and never converged" for i in np.flatnonzero(belief.banned)
    }
    unfit = {sizes[i]: _unfit_reason(belief, i) for i in map(int, np.flatnonzero(~belief.fits))}
    return banned | unfit | breakdowns.ruled_out(state)


def expectations(state: JobState) -> list[Expectation]:
    """Estimate the cost of a run with each batch size. There are no estimates before the first run has ended."""
    belief = belief_of(state)
    sizes = belief.grid.sizes
    if not belief.epoch_cost.runs.any():
        return [Expectation(size, None, None) for size in sizes]
    predicted = forecast(state, belief)
    return [Expectation(size, float(predicted.expected_j[i]), float(predicted.sd_j[i])) for i, size in enumerate(sizes)]


def recommended(state: JobState, converged: AbstractSet[int]) -> int | None:
    """Return the batch size with the lowest expected cost, of those that have converged."""
    belief = belief_of(state)
    best = cheapest_converged(belief)
    if best is None or not belief.epoch_cost.runs.any():
        return None
    size = belief.grid.sizes[best]
    return size if size in converged else None


def summarize_ended(state: JobState) -> Belief:
    """Summarize all trials that have a verdict."""
    return belief_of(state)


def candidates(belief: Belief) -> Mask:
    """Return which batch sizes may be tried next (n,).

    These are the batch sizes that have run, and their neighbours within one doubling or one step in the list. After a
    step that has paid, they are also those within two doublings of the best, on the side of the step. Batch sizes that
    do not fit in memory are excluded.
    """
    fits, mask = belief.fits, np.zeros(len(belief.grid.sizes), dtype=bool)
    ran = belief.has_ended[fits]
    near = ran.copy()
    # If only batch sizes that do not fit have run, the largest one that fits is their neighbour.
    near[-1:] |= not ran.any()
    near[1:] |= ran[:-1]
    near[:-1] |= ran[1:]
    sizes = np.array(belief.grid.sizes)[fits]
    for size in sizes[ran]:
        near |= _within(2, size, sizes)
    if belief.paid and (best := cheapest_converged(belief)) is not None:
        size = belief.grid.sizes[best]
        near |= _within(4, size, sizes) & (belief.paid * (sizes - size) > 0)
    mask[fits] = near
    return mask


def in_flight(state: JobState, belief: Belief) -> Vector:
    """Return the number of running runs per batch size (n,)."""
    counts = np.zeros(len(belief.grid.sizes))
    for trial in state.trials:
        counts[belief.grid.index[trial.batch_size]] += trial.status is TrialStatus.DISPATCHED
    return counts


def forecast(state: JobState, belief: Belief) -> Forecast:
    """Predict the cost of a run from the ended and the running trials."""
    spec = state.spec
    running = in_flight(state, belief)
    about_epochs = epochs.with_runs_in_flight(belief.epochs, running) if running.any() else belief.epochs.posterior
    about_cost = with_probe(spec, belief.epoch_cost, belief.grid, state.probe_results)
    about_cost = with_epoch_costs(spec, about_cost, belief.grid, trials_without_result(state, belief))
    noise = belief.epochs.noise_variance
    mean = about_epochs.mean + about_cost.posterior.mean
    variance = about_epochs.variance + about_cost.posterior.variance
    expected: Vector = np.exp(mean + (variance + noise) / 2)
    if belief.has_converged.any():
        index = _recurrence_costs(spec, belief, mean, variance, about_cost.posterior.mean)
    else:
        index = _first_success_costs(spec, belief, mean, variance, about_cost.posterior.mean)
    low_epochs = about_epochs.mean - _width(belief) * np.sqrt(about_epochs.variance)
    return Forecast(expected, expected * np.sqrt(variance), index, low_epochs, about_cost.runs > 0)


def _recurrence_costs(spec: Spec, belief: Belief, mean: Vector, variance: Vector, log_epoch_cost: Vector) -> Vector:
    """Return the lower confidence bound, in joules, of the cost of a recurrence that starts with each batch size (n,).

    If the first run fails, the recurrence continues with the best batch size.
    """
    best_j = float(expected_costs(belief)[belief.has_converged].min())
    sigma = math.sqrt(belief.epochs.noise_variance)
    reliability = (belief.converged + 1) / (belief.converged + belief.failed + 1)
    index = np.empty(len(mean))
    for i, low in enumerate(mean - _width(belief) * np.sqrt(variance)):
        cap_j = _cap(spec, math.exp(log_epoch_cost[i]), best_j)
        index[i] = _cost_with_fallback(low, sigma, cap_j, float(reliability[i]), best_j)
    return index


def _epoch_limit(spec: Spec, belief: Belief, predicted: Forecast, i: int, look_share: float) -> float | None:
    """Return the highest cost of the first epoch, in joules, after which a first run goes on; None: whatever it costs.

    Beyond it, the lower confidence bound of what is still to be paid, until a run converges, exceeds `look_share` of
    the cost of the best batch size. The bound is that of the index, with the epoch's cost known and already paid.
    """
    best_j = float(expected_costs(belief)[belief.has_converged].min())
    sigma, low_epochs = math.sqrt(belief.epochs.noise_variance), float(predicted.low_epochs[i])

    def is_too_dear(epoch_j: float) -> bool:
        cap_j = _cap(spec, epoch_j, best_j)
        to_pay_j = _cost_with_fallback(low_epochs + math.log(epoch_j), sigma, cap_j, 1.0, best_j) - epoch_j
        return to_pay_j > look_share * best_j

    low_j, high_j = LOWEST_LIMIT * best_j, best_j
    if not is_too_dear(high_j):
        return None
    for _ in range(LIMIT_HALVINGS):
        middle_j = math.sqrt(low_j * high_j)
        low_j, high_j = (low_j, middle_j) if is_too_dear(middle_j) else (middle_j, high_j)
    return high_j


def _width(belief: Belief) -> float:
    """Return the width of the lower confidence bounds, in standard deviations."""
    return CONFIDENCE * math.sqrt(math.log(2 + float(belief.converged.sum())))


def _cap(spec: Spec, epoch_j: float, best_j: float) -> float:
    """Return the cost at which a run ends at the latest."""
    cap_j = spec.max_epochs * epoch_j
    return cap_j if spec.beta_knob is None else max(min(cap_j, spec.beta_knob * best_j), epoch_cost.MIN_COST_J)


def _cost_with_fallback(low: float, sigma: float, cap_j: float, reliability: float, best_j: float) -> float:
    """Return the expected cost of a run, and of the best batch size in case that the run fails.

    Args:
        low: mean of the logarithm of the run's cost.
        sigma: standard deviation of this logarithm.
        cap_j: the cost at which the run ends at the latest.
        reliability: probability that the run converges if it gets that far.
        best_j: cost of the best batch size.
    """
    success = normal_cdf((math.log(cap_j) - low) / sigma) * reliability
    return capped_lognormal_mean(low, sigma, cap_j) + (1 - success) * best_j


def _first_success_costs(spec: Spec, belief: Belief, mean: Vector, variance: Vector, log_epoch_cost: Vector) -> Vector:
    """Return the expected cost, in joules, of a success with each batch size alone, with the failure penalty (n,)."""
    index = np.empty(len(mean))
    for i, expected in enumerate(mean):
        cap_j = spec.max_epochs * math.exp(log_epoch_cost[i])
        sigma = math.sqrt(variance[i] + belief.epochs.noise_variance)
        success = max(normal_cdf((math.log(cap_j) - expected) / sigma), MIN_SUCCESS_PROBABILITY)
        penalty = FAILURE_PENALTY ** min(belief.failed[i], MAX_DOUBLINGS)
        index[i] = capped_lognormal_mean(expected, sigma, cap_j) / success * penalty
    return index


def _turns(belief: Belief) -> Vector:
    """Return the rank of each batch size for later tries; the lowest goes first (n,).

    The rank counts failures since a run last converged. Batch sizes that never converged rank last.
    """
    turns: Vector = belief.failed_since_success + TURNS * ~belief.has_converged
    return turns


def _stuck_reason(belief: Belief) -> str | None:
    """Return why no batch size is left to try; None while one is left."""
    if not belief.has_ended.any():
        return None
    if not belief.fits.any():
        if belief.broken:
            return "every batch size does not fit in memory or is ruled out after errors"
        return f"batch size {belief.grid.sizes[0]}, the smallest, does not fit in memory"
    if not belief.has_converged.any():
        if not bool(np.all(belief.failed[belief.fits] >= FAILURES_UNTIL_STUCK)):
            return None
        works = " and does not end in errors" if belief.broken else ""
        all_of_them = "every batch size" if belief.fits.all() else f"every batch size that fits in memory{works}"
        return f"{all_of_them} has failed {FAILURES_UNTIL_STUCK} times or more, and none has ever converged"
    if float(_turns(belief)[candidates(belief)].min()) < TURNS + FAILURES_UNTIL_STUCK:
        return None
    return f"{int(belief.failed_since_success.sum())} runs in a row have failed, several at every batch size"


def _stuck_message(spec: Spec, belief: Belief) -> str | None:
    """Return what a user can do when no batch size is left to try; None while one is left."""
    reason = _stuck_reason(belief)
    return reason and stuck_message(spec, reason, converged=bool(belief.has_converged.any()))


def _within(factor: float, size: int, sizes: npt.NDArray[np.int_]) -> Mask:
    """Return which of some batch sizes are at most `factor` times a batch size, and at least its `factor`-th part."""
    within: Mask = np.maximum(sizes, size) <= factor * np.minimum(sizes, size)
    return within


def _unfit_reason(belief: Belief, i: int) -> str:
    if belief.too_large is None or i < belief.too_large:
        return "does not fit in memory, according to a probe"
    if i == belief.too_large:
        return "did not fit in memory"
    return f"larger than {belief.grid.sizes[belief.too_large]}, which did not fit in memory"


def _first_reason(spec: Spec, size: int) -> str:
    if size == spec.default_batch_size:
        return "no run has ended yet: the default batch size"
    return f"no run has ended yet: in the job of the warm start, batch size {size} is the best"


def _reason(belief: Belief, predicted: Forecast, i: int, best: int | None) -> str:
    """Explain the choice of a batch size."""
    sizes = belief.grid.sizes
    text = f"expected {joules(predicted.expected_j[i])} ± {joules(predicted.sd_j[i])}"
    ran = np.flatnonzero(belief.has_ended)
    if i not in ran:
        nearest = min(ran, key=lambda other: abs(belief.grid.x[other] - belief.grid.x[i]))
        near = candidates(replace(belief, paid=0))[i]
        where = f"next to {sizes[nearest]}" if near else f"beyond {sizes[nearest]} after a step that has paid"
        text = f"not tried yet, {where}; {text}"
    if best is None:
        return f"{text}; no run has converged yet"
    if i == best:
        return f"the best so far; {text}"
    return f"{text}; the best so far is {joules(predicted.expected_j[best])} at {sizes[best]}"
