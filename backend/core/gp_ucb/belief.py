"""The belief: the summary of a `gp-ucb` job's ended trials. It grows by one trial at a time.

It combines two posteriors, of the epochs to the target (`epochs`) and of the cost of an epoch (`epoch_cost`). The sum
of their logarithms is the logarithm of a run's cost. It also counts the successes and failures of each batch size.
Nothing here chooses a batch size; see `policy`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from .. import breakdowns
from ..cost import run_cost, trial_cost
from ..state import EndedSummary, JobState, ProbeResult, Spec, Trial, TrialStatus
from . import epoch_cost, epochs
from .epoch_cost import EpochCostBelief
from .epochs import EpochsBelief
from .gaussian import Gaussian, Mask, Vector

PAYING_SHARE = 0.65
"""A batch size pays if its first run converges at less than this share of what the best was expected to cost.

This holds only if the best has not failed. Where it fails by chance, its expected cost is no measure.
"""
MAX_LOST_TRIALS = 100
"""Limit of the lost trials that are read: the latest ones that finished an epoch."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A job's batch sizes, the index of each, and the batch sizes as points x = log2(size / default) (n,)."""

    sizes: tuple[int, ...]
    index: dict[int, int]
    x: Vector


class NoWarmStart(Exception):
    """Raised when a job cannot start from another job's belief. The message gives the reason."""


@dataclass(frozen=True, slots=True)
class WarmStart:
    """The data that a job takes from another job at its registration, at its own n batch sizes.

    It is plain data, and is stored with the job as JSON.
    """

    mean: tuple[float, ...]
    """Mean of ln T, T the epochs to the target (n,)."""
    covariance: tuple[tuple[float, ...], ...]
    """Covariance of ln T (n, n)."""
    epoch_cost_shape: tuple[float, ...]
    """ln c, c the cost of an epoch, up to a constant (n,)."""
    squares: float
    """Sum of squares of ln T within batch sizes."""
    freedom: float
    """Degrees of freedom of `squares`."""
    start: int
    """The first batch size of the new job."""


@dataclass(frozen=True, slots=True)
class Belief(EndedSummary):
    """The summary. Vectors (n,) have one entry per batch size, ascending. None is changed in place.

    T is the number of epochs to the target. An index counts from 0 along the batch sizes. The names of some fields are
    stored, here and in the two beliefs below; see `backend.core.stored`.
    """

    grid: Grid
    epochs: EpochsBelief
    epoch_cost: EpochCostBelief
    converged: Vector
    """Number of converged runs."""
    failed: Vector
    """Number of failed runs since the last drift of T."""
    failed_since_success: Vector
    """Number of failed runs since a run last converged: the tries of the current recurrence."""
    priced_out: Vector
    """Number of runs that were priced out since a run last converged."""
    start: int
    """Index of the first batch size to try."""
    failed_factor: float = 1.0
    """The widest bound, in multiples of the usual bound, of a run that failed since a run last converged."""
    changed: int | None = None
    """Revision of the last drift alarm, until a run that started after the alarm has ended; else None."""
    unfit: frozenset[int] = frozenset()
    """Indices of the batch sizes that do not fit in memory, by a probe."""
    broken: frozenset[int] = frozenset()
    """Indices of the batch sizes that are ruled out because their runs break."""
    paid: int = 0
    """Whether the last batch size to run for the first time has paid: 1 or -1, the side on which it lies of the best at
    that time; 0: it has not. See `PAYING_SHARE`."""
    too_large: int | None = None
    """Index of the smallest batch size that ran out of memory.

    It returns to None when this batch size or a larger one converges, and on a drift alarm.
    """

    @property
    def sizes_without_result(self) -> tuple[int, ...]:
        """Batch sizes without an ended run. For these, running and lost trials are evidence of an epoch's cost."""
        return tuple(self.grid.sizes[i] for i in np.flatnonzero(self.epoch_cost.runs == 0))

    @property
    def has_just_drifted(self) -> bool:
        """Whether the last covered trial has raised the drift alarm."""
        return self.changed is not None and self.changed == self.last_revision

    @property
    def has_converged(self) -> Mask:
        """Which batch sizes have converged, and have not broken since (n,)."""
        return np.greater(self.converged, 0) & self._works

    @property
    def has_ended(self) -> Mask:
        """Which batch sizes have converged, or have failed since the last drift (n,)."""
        return np.greater(self.converged + self.failed, 0)

    @property
    def fits(self) -> Mask:
        """Which batch sizes may fit in memory, and do not break (n,). A batch size that has converged fits."""
        fits: Mask = np.ones(len(self.grid.sizes), dtype=bool)
        fits[list(self.unfit)] = False
        fits |= self.has_ended
        if self.too_large is not None:
            fits[self.too_large :] = False
        return (fits | self.has_converged) & self._works

    @property
    def banned(self) -> Mask:
        """Which batch sizes have failed and never converged (n,)."""
        return self.has_ended & ~self.has_converged

    @property
    def _works(self) -> Mask:
        works: Mask = np.ones(len(self.grid.sizes), dtype=bool)
        works[list(self.broken)] = False
        return works


@lru_cache(maxsize=256)
def grid_of(spec: Spec) -> Grid:
    """Return a job's batch sizes as points."""
    x: Vector = np.log2(np.array(spec.batch_sizes, dtype=float) / spec.default_batch_size)
    return Grid(spec.batch_sizes, {size: i for i, size in enumerate(spec.batch_sizes)}, x)


@lru_cache(maxsize=256)
def initial_belief(spec: Spec) -> Belief:
    """Return the belief before the first trial."""
    grid, zeros = grid_of(spec), np.zeros(len(spec.batch_sizes))
    return Belief(
        grid,
        epochs.initial(grid.x, epochs.default_prior(grid.x, spec.max_epochs)),
        epoch_cost.initial(grid.x, spec.max_power),
        *(zeros, zeros, zeros, zeros),
        start=grid.index[spec.default_batch_size],
    )


def warm_belief(spec: Spec, warm: WarmStart) -> Belief:
    """Return the belief before the first trial of a job with a warm start."""
    cold = initial_belief(spec)
    return replace(
        cold,
        epochs=epochs.initial(
            cold.grid.x, Gaussian(np.array(warm.mean), np.array(warm.covariance)), warm.squares, warm.freedom
        ),
        epoch_cost=epoch_cost.initial(cold.grid.x, spec.max_power, np.array(warm.epoch_cost_shape)),
        start=cold.grid.index[warm.start],
    )


def warm_start(donor: JobState, spec: Spec) -> WarmStart:
    """Compute the warm start of a job from a donor, a job whose runs need as many epochs.

    The epochs to the target do not depend on the GPU, so the job takes over their posterior. The cost of an epoch
    depends on the GPU, so the job takes over only its shape over the batch sizes, as a first guess. The first batch
    size is the cheapest, by these estimates, of the job's batch sizes that converged in the donor.

    Args:
        donor: the other job.
        spec: the new job's spec.

    Raises:
        NoWarmStart: no batch size of the job has converged in the donor.
    """
    belief = belief_of(donor)
    index = belief.grid.index
    shared = [size for size in spec.batch_sizes if size in index and belief.converged[index[size]]]
    if not shared:
        raise NoWarmStart("none of this job's batch sizes has converged there")
    donor_x = belief.grid.x
    x = np.log2(np.array(spec.batch_sizes, dtype=float) / donor.spec.default_batch_size)  # on the donor's scale
    posterior, prior = belief.epochs.posterior, epochs.default_prior(donor_x, donor.spec.max_epochs)
    across = np.linalg.solve(prior.covariance, epochs.KERNEL.covariance(donor_x, x)).T
    mean = epochs.default_prior(x, donor.spec.max_epochs).mean + across @ (posterior.mean - prior.mean)
    covariance = epochs.KERNEL.covariance(x) - across @ (prior.covariance - posterior.covariance) @ across.T
    shape = epoch_cost.mean_at(belief.epoch_cost, x)
    expected = mean + shape
    start = min(shared, key=lambda size: float(expected[spec.batch_sizes.index(size)]))
    return WarmStart(
        mean=tuple(map(float, mean)),
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        epoch_cost_shape=tuple(map(float, shape)),
        squares=belief.epochs.squares,
        freedom=belief.epochs.freedom,
        start=start,
    )


def learn(spec: Spec, belief: Belief, trial: Trial) -> Belief:
    """Return the belief after one more trial, which has ended with a verdict."""
    i = belief.grid.index[trial.batch_size]
    if trial.is_priced_out:
        about_cost = with_epoch_costs(spec, belief.epoch_cost, belief.grid, [trial])
        return replace(belief, epoch_cost=about_cost, priced_out=_plus_one(belief.priced_out, i), last=trial)
    count = max(trial.epochs, 1)  # a target reached within the first epoch counts as one epoch
    about_epochs, alarm = belief.epochs, False
    if belief.converged[i]:
        about_epochs, alarm = epochs.detect_drift(about_epochs, i, count, reached=bool(trial.converged))
    if alarm:
        belief = replace(belief, failed=belief.failed * 0, failed_since_success=belief.failed * 0, failed_factor=1.0)
        belief = replace(belief, too_large=None)
    update = epochs.after_success if trial.converged else epochs.after_failure
    change_is_over = belief.changed is not None and trial.started > belief.changed
    too_large = belief.too_large
    if trial.out_of_memory:
        too_large = i if too_large is None else min(too_large, i)
    elif trial.converged and too_large is not None and i >= too_large:
        too_large = None  # something else had taken the memory
    # A run that failed within its first epoch cost less than an epoch, by an unknown amount.
    observed = [trial] if trial.converged or trial.epochs > 0 else []
    ended = trial.ended or 0
    return replace(
        belief,
        paid=belief.paid if belief.has_ended[i] else _paid(spec, belief, trial),
        epochs=update(about_epochs, i, count),
        epoch_cost=with_epoch_costs(spec, belief.epoch_cost, belief.grid, observed),
        converged=_plus_one(belief.converged, i) if trial.converged else belief.converged,
        failed=belief.failed if trial.converged else _plus_one(belief.failed, i),
        failed_since_success=belief.failed * 0 if trial.converged else _plus_one(belief.failed_since_success, i),
        priced_out=belief.failed * 0 if trial.converged else belief.priced_out,
        failed_factor=1.0 if trial.converged else max(belief.failed_factor, trial.bound_factor or 1.0),
        last=trial,
        changed=ended if alarm else None if change_is_over else belief.changed,
        too_large=too_large,
    )


def expected_costs(belief: Belief) -> Vector:
    """Return the mean cost of a converging run in joules, by batch size (n,)."""
    mean = belief.epochs.posterior.mean + belief.epoch_cost.posterior.mean
    variance = belief.epochs.posterior.variance + belief.epoch_cost.posterior.variance
    costs: Vector = np.exp(mean + (variance + belief.epochs.noise_variance) / 2)
    return costs


def cheapest_converged(belief: Belief) -> int | None:
    """Return the index of the cheapest batch size that has converged; None if none has."""
    has_converged = belief.has_converged
    return lowest(expected_costs(belief), has_converged) if has_converged.any() else None


def lowest(values: Vector, among: Mask) -> int:
    """Return the index of the lowest of some values."""
    return int(np.argmin(np.where(among, values, np.inf)))


def belief_of(state: JobState) -> Belief:
    """Summarize all ended trials of a job."""
    belief = initial_belief(state.spec) if state.summary is None else state.summary
    if not isinstance(belief, Belief):
        raise TypeError(f"{type(belief).__name__} is the summary of another policy")
    ended = [trial for trial in state.trials if trial.status is TrialStatus.SUCCEEDED]
    ended.sort(key=lambda trial: trial.ended or 0)
    for trial in ended:
        belief = learn(state.spec, belief, trial)
    unfit = frozenset(belief.grid.index[result.batch_size] for result in state.probe_results if not result.fits)
    broken = frozenset(belief.grid.index[size] for size in breakdowns.ruled_out(state))
    unchanged = (unfit, broken) == (belief.unfit, belief.broken)
    return belief if unchanged else replace(belief, unfit=unfit, broken=broken)


def trials_without_result(state: JobState, belief: Belief) -> list[Trial]:
    """Return the trials that are evidence of an epoch's cost at batch sizes without an ended run.

    These are the running trials and the latest lost trials that have finished an epoch.
    """
    running = [trial for trial in state.trials if trial.status is TrialStatus.DISPATCHED]
    lost = [trial for trial in state.trials if trial.status is TrialStatus.FAILED and trial.epochs]
    lost.sort(key=lambda trial: (trial.ended or 0, trial.number))
    sizes = belief.sizes_without_result
    return [trial for trial in (*running, *lost[-MAX_LOST_TRIALS:]) if trial.epochs and trial.batch_size in sizes]


def with_epoch_costs(spec: Spec, belief: EpochCostBelief, grid: Grid, trials: Sequence[Trial]) -> EpochCostBelief:
    """Return the belief of an epoch's cost after trials that finished an epoch, ended or not."""
    return epoch_cost.observe(
        belief,
        [
            epoch_cost.Observation(
                grid.index[trial.batch_size],
                trial_cost(spec, trial),
                max(trial.epochs, 1),
                trial.energy_j,
                trial.time_s,
            )
            for trial in trials
        ],
    )


def with_probe(spec: Spec, belief: EpochCostBelief, grid: Grid, results: Sequence[ProbeResult]) -> EpochCostBelief:
    """Return the belief of an epoch's cost after a probe. Batch sizes that a run has observed are skipped."""
    return epoch_cost.observe(
        belief,
        [
            epoch_cost.Observation(
                grid.index[result.batch_size],
                run_cost(spec, result.epoch_energy_j, result.epoch_time_s),
                1,
                result.epoch_energy_j,
                result.epoch_time_s,
                epoch_cost.PROBE_WEIGHT,
            )
            for result in results
            if result.fits and not belief.runs[grid.index[result.batch_size]]
        ],
    )


def _paid(spec: Spec, belief: Belief, trial: Trial) -> int:
    """Return the side of the best batch size on which a new one has paid, before its first run is counted; 0: not."""
    best = cheapest_converged(belief)
    if best is None or belief.failed[best] or not trial.converged:
        return 0
    # A cost of zero means that the run's meter was broken.
    if not 0 < trial_cost(spec, trial) < PAYING_SHARE * float(expected_costs(belief)[best]):
        return 0
    return 1 if trial.batch_size > belief.grid.sizes[best] else -1


def _plus_one(counts: Vector, i: int) -> Vector:
    counts = counts.copy()
    counts[i] += 1
    return counts
