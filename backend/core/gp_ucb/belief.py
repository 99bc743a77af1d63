"""What a job's ended trials say, as a summary that grows by one trial at a time.

It holds the two beliefs whose sum is the logarithm of a run's cost, the epochs to the target and the cost of an
epoch, and what failed where. Nothing here chooses; that is `gp_ucb`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from backend.core.cost import run_cost, trial_cost
from backend.core.gp_ucb import epoch_cost, epochs
from backend.core.gp_ucb.epoch_cost import EpochCostBelief
from backend.core.gp_ucb.epochs import EpochsBelief
from backend.core.gp_ucb.gaussian import Gaussian, Mask, Vector
from backend.core.state import JobState, Past, Probed, Spec, Trial, TrialStatus

MOST_LOST = 100
"""Lost runs that are looked at: the last of all those that came to the end of an epoch."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A job's batch sizes, where each is among them, and as points x = log2(size / default) (n,)."""

    sizes: tuple[int, ...]
    index: dict[int, int]
    x: Vector


class NothingToTake(Exception):
    """Raised when a job cannot begin with what another one knows; says why."""


@dataclass(frozen=True, slots=True)
class WarmStart:
    """What a job took from another one at its registration, at its own n batch sizes, as plain data to be stored."""

    mean: tuple[float, ...]
    """Of ln T (n,)."""
    covariance: tuple[tuple[float, ...], ...]
    """Of ln T (n, n)."""
    epoch_cost_shape: tuple[float, ...]
    """ln c (n,), up to a constant."""
    squares: float
    """Sum of squares of ln T within batch sizes, and"""
    freedom: float
    """its degrees of freedom."""
    start: int
    """The batch size to begin with."""


@dataclass(frozen=True, slots=True)
class Belief(Past):
    """The summary. Vectors (n,) have one entry per batch size, ascending; none is changed in place."""

    grid: Grid
    epochs: EpochsBelief
    epoch_cost: EpochCostBelief
    converged: Vector
    """Converged runs."""
    failed: Vector
    """Failed runs since T was last seen to have changed."""
    failed_since_success: Vector
    """Failed runs since a run last converged: the tries of the recurrence that is under way."""
    start: int
    """Where among the batch sizes to begin."""
    failed_factor: float = 1.0
    """The widest bound, as a multiple of the usual one, that a run has failed within since one last converged."""
    changed: int | None = None
    """Revision at which T was seen to have changed, until a run begun after that has ended."""
    unfit: frozenset[int] = frozenset()
    """Where among the batch sizes those are that a probe found not to fit in memory."""
    too_large: int | None = None
    """Where the smallest is that a run found not to fit, since one as large or larger converged."""

    @property
    def unsettled(self) -> tuple[int, ...]:
        """Batch sizes of which no run has ended: what runs that go on or were lost tell of an epoch's cost counts."""
        return tuple(self.grid.sizes[at] for at in np.flatnonzero(self.epoch_cost.runs == 0))

    @property
    def has_converged(self) -> Mask:
        """Which batch sizes have converged (n,)."""
        return np.greater(self.converged, 0)

    @property
    def has_ended(self) -> Mask:
        """Which batch sizes have converged, or failed since T was last seen to have changed (n,)."""
        return np.greater(self.converged + self.failed, 0)

    @property
    def fits(self) -> Mask:
        """Which batch sizes are not known to be too large for the memory (n,); one that has converged is not."""
        fits: Mask = np.ones(len(self.grid.sizes), dtype=bool)
        fits[list(self.unfit)] = False
        fits |= self.has_ended
        if self.too_large is not None:
            fits[self.too_large :] = False
        return fits | self.has_converged

    @property
    def banned(self) -> Mask:
        """Which batch sizes have failed and never converged (n,)."""
        return self.has_ended & ~self.has_converged


@lru_cache(maxsize=256)
def grid_of(spec: Spec) -> Grid:
    """A job's batch sizes as points."""
    x: Vector = np.log2(np.array(spec.batch_sizes, dtype=float) / spec.default_batch_size)
    return Grid(spec.batch_sizes, {size: at for at, size in enumerate(spec.batch_sizes)}, x)


@lru_cache(maxsize=256)
def beginning(spec: Spec) -> Belief:
    """The belief before the first trial."""
    grid, none = grid_of(spec), np.zeros(len(spec.batch_sizes))
    return Belief(
        grid,
        epochs.beginning(grid.x, epochs.cold(grid.x, spec.max_epochs)),
        epoch_cost.beginning(grid.x, spec.max_power),
        *(none, none, none),
        start=grid.index[spec.default_batch_size],
    )


def warm_beginning(spec: Spec, warm: WarmStart) -> Belief:
    """The belief before the first trial of a job that begins with what another one knows."""
    cold = beginning(spec)
    return replace(
        cold,
        epochs=epochs.beginning(
            cold.grid.x, Gaussian(np.array(warm.mean), np.array(warm.covariance)), warm.squares, warm.freedom
        ),
        epoch_cost=epoch_cost.beginning(cold.grid.x, spec.max_power, np.array(warm.epoch_cost_shape)),
        start=cold.grid.index[warm.start],
    )


def warm_start(donor: JobState, spec: Spec) -> WarmStart:
    """What a job may take from another one, whose runs need as many epochs: their law, at its own batch sizes.

    Epochs to the target do not depend on the GPU, the cost of an epoch does; of that its course over the batch sizes
    is taken, as a first guess, and not its height. The batch size to begin with is the best by these of those that
    converged in the other job.

    Raises:
        NothingToTake: no batch size of the job has converged in the other one.
    """
    known = believe(donor)
    shared = [size for size in spec.batch_sizes if size in known.grid.index and known.converged[known.grid.index[size]]]
    if not shared:
        raise NothingToTake("none of its batch sizes that converged is among this job's")
    theirs = known.grid.x
    x = np.log2(np.array(spec.batch_sizes, dtype=float) / donor.spec.default_batch_size)  # as they count
    law, prior = known.epochs.law, epochs.cold(theirs, donor.spec.max_epochs)
    across = np.linalg.solve(prior.covariance, epochs.KERNEL.covariance(theirs, x)).T
    mean = epochs.cold(x, donor.spec.max_epochs).mean + across @ (law.mean - prior.mean)
    covariance = epochs.KERNEL.covariance(x) - across @ (prior.covariance - law.covariance) @ across.T
    shape = epoch_cost.at(known.epoch_cost, x)
    expected = mean + shape
    start = min(shared, key=lambda size: float(expected[spec.batch_sizes.index(size)]))
    return WarmStart(
        mean=tuple(map(float, mean)),
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        epoch_cost_shape=tuple(map(float, shape)),
        squares=known.epochs.squares,
        freedom=known.epochs.freedom,
        start=start,
    )


def learn(spec: Spec, belief: Belief, trial: Trial) -> Belief:
    """The belief after one more trial, which has ended with a verdict."""
    at = belief.grid.index[trial.batch_size]
    took = max(trial.epochs, 1)  # a target reached within the first epoch counts as reached by it
    about_epochs, alarm = belief.epochs, False
    if belief.converged[at]:
        about_epochs, alarm = epochs.watch(about_epochs, at, took, reached=bool(trial.converged))
    if alarm:
        belief = replace(belief, failed=belief.failed * 0, failed_since_success=belief.failed * 0, failed_factor=1.0)
        belief = replace(belief, too_large=None)
    learnt = epochs.converged if trial.converged else epochs.failed
    over = belief.changed is not None and trial.started > belief.changed
    too_large = belief.too_large
    if trial.out_of_memory:
        too_large = at if too_large is None else min(too_large, at)
    elif trial.converged and too_large is not None and at >= too_large:
        too_large = None  # something else had taken the memory
    # One that broke off within its first epoch tells less than an epoch costs, and nobody knows by how much.
    told = [trial] if trial.converged or trial.epochs > 0 else []
    ended = trial.ended or 0
    return replace(
        belief,
        epochs=learnt(about_epochs, at, took),
        epoch_cost=with_epoch_costs(spec, belief.epoch_cost, belief.grid, told),
        converged=_plus_one(belief.converged, at) if trial.converged else belief.converged,
        failed=belief.failed if trial.converged else _plus_one(belief.failed, at),
        failed_since_success=belief.failed * 0 if trial.converged else _plus_one(belief.failed_since_success, at),
        failed_factor=1.0 if trial.converged else max(belief.failed_factor, trial.bound_factor or 1.0),
        last=trial,
        changed=ended if alarm else None if over else belief.changed,
        too_large=too_large,
    )


def believe(state: JobState) -> Belief:
    """What all ended trials of a job say."""
    belief = beginning(state.spec) if state.past is None else state.past
    if not isinstance(belief, Belief):
        raise TypeError(f"{type(belief).__name__} is what another policy knows")
    ended = [trial for trial in state.trials if trial.status is TrialStatus.SUCCEEDED]
    ended.sort(key=lambda trial: trial.ended or 0)
    for trial in ended:
        belief = learn(state.spec, belief, trial)
    unfit = frozenset(belief.grid.index[one.batch_size] for one in state.probed if not one.fits)
    return belief if unfit == belief.unfit else replace(belief, unfit=unfit)


def unsettled_runs(state: JobState, belief: Belief) -> list[Trial]:
    """Runs that tell what an epoch costs where none has ended: all that go on, and those that were lost last."""
    runs = [trial for trial in state.trials if trial.status is TrialStatus.DISPATCHED]
    lost = [trial for trial in state.trials if trial.status is TrialStatus.FAILED and trial.epochs]
    lost.sort(key=lambda trial: (trial.ended or 0, trial.number))
    untold = belief.unsettled
    return [trial for trial in (*runs, *lost[-MOST_LOST:]) if trial.epochs and trial.batch_size in untold]


def with_epoch_costs(spec: Spec, known: EpochCostBelief, grid: Grid, trials: Sequence[Trial]) -> EpochCostBelief:
    """What is known of an epoch's cost after trials that have come to the end of one, ended or not."""
    return epoch_cost.observed(
        known,
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


def with_probe(spec: Spec, known: EpochCostBelief, grid: Grid, probed: Sequence[Probed]) -> EpochCostBelief:
    """What is known of an epoch's cost with what a probe told of batch sizes that no run has told of."""
    return epoch_cost.observed(
        known,
        [
            epoch_cost.Observation(
                grid.index[one.batch_size],
                run_cost(spec, one.epoch_energy_j, one.epoch_time_s),
                1,
                one.epoch_energy_j,
                one.epoch_time_s,
                epoch_cost.PROBE_WEIGHT,
            )
            for one in probed
            if one.fits and not known.runs[grid.index[one.batch_size]]
        ],
    )


def _plus_one(counts: Vector, at: int) -> Vector:
    counts = counts.copy()
    counts[at] += 1
    return counts
