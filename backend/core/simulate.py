"""A job played through in no time: the two doors decide over a training whose runs are known.

Pure: what a run costs and when it converges is data (`Workload`), chance comes from a seed, and time is counted
and not waited for. The server, were it asked by such trainings, would decide the same.
"""

import bisect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from backend.core.cost import run_cost
from backend.core.policies import choose, condensed, judge
from backend.core.rng import seeded
from backend.core.state import Choice, JobState, Past, Probed, Report, Spec, Trial, TrialStatus, VerdictCode

PROBE_SHARE = 0.02
"""Of the time of the first run that converges: a probe that would take more is not made."""
PROBE_NOISE = 0.03
"""Standard deviation of the logarithm of what a probe tells of an epoch."""
MOST_LAUNCHES = 1000
"""Of one recurrence; beyond it the simulation is given up as endless."""


@dataclass(frozen=True, slots=True)
class SizeRecord:
    """How trainings with one batch size go. `epochs`: those to the target in each known run, infinity for never."""

    epoch_time_s: float
    power_w: float
    epochs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """A training that recurs, as its job's spec and by batch size."""

    name: str
    spec: Spec
    sizes: dict[int, SizeRecord]


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated launch. `recurrence` counts from 0; its launches go on until one converges."""

    recurrence: int
    batch_size: int
    epochs: int
    converged: bool
    energy_j: float
    time_s: float
    cost_j: float
    code: VerdictCode


Chooser = Callable[[JobState, np.random.Generator], Choice]
"""Picks the next batch size: the door, or a baseline."""

Drift = Callable[[int], float]
"""By what the epochs to the target are multiplied in a recurrence."""


class EndlessRetry(Exception):
    """Raised when a recurrence does not converge in `MOST_LAUNCHES` launches."""


@dataclass(slots=True)
class _Running:
    trial: Trial
    recurrence: int
    launch: int
    began_s: float
    record: SizeRecord
    target_epochs: float


def no_drift(_recurrence: int) -> float:
    """Nothing changes."""
    return 1.0


def simulate(
    workload: Workload,
    recurrences: int,
    seed: int,
    *,
    chooser: Chooser = choose,
    condense: Callable[[JobState], JobState] = condensed,
    concurrency: int = 1,
    drift: Drift = no_drift,
    past: Past | None = None,
    probe_s: float | None = None,
) -> Iterator[Run]:
    """Play a job through, launching every recurrence again until it converges; gives the runs as they end.

    Args:
        workload: the job and how its runs go.
        recurrences: how many trainings the user wants done.
        seed: of the job and of the luck of its runs. Under one seed every policy has the same luck: the n-th launch of
            a recurrence is at the same quantile of its batch size's runs.
        chooser: who picks batch sizes.
        condense: leaves out what neither the chooser nor the judge looks at, so that later runs take no longer.
        concurrency: how many recurrences are under way at once.
        drift: what becomes of the epochs to the target.
        past: what is known at the beginning.
        probe_s: seconds for which every batch size is tried after the first run that converges, at the expense of its
            recurrence and if that is short beside it; None: no probe.

    Raises:
        EndlessRetry: a recurrence does not end.
        NothingConverges: the policy has no batch size left.
    """
    spec, rng = workload.spec, seeded(seed)
    settled = JobState(spec, (), past)
    running: list[_Running] = []
    now_s, revision, number = 0.0, 0, 0
    waiting = [(recurrence, 0) for recurrence in reversed(range(recurrences))]
    while waiting or running:
        while waiting and len(running) < concurrency:
            recurrence, launch = waiting.pop()
            if launch >= MOST_LAUNCHES:
                raise EndlessRetry(f"{workload.name}: recurrence {recurrence} failed {launch} times")
            choice = chooser(_with(settled, running, now_s), rng)
            number, revision = number + 1, revision + 1
            record = workload.sizes[choice.batch_size]
            target_epochs = _target_epochs(record, seed, recurrence, launch, drift)
            trial = Trial(
                number=number,
                batch_size=choice.batch_size,
                type=choice.type,
                status=TrialStatus.DISPATCHED,
                converged=None,
                energy_j=0.0,
                time_s=0.0,
                epochs=0,
                started=revision,
                ended=None,
                bound_factor=choice.bound_factor,
            )
            running.append(_Running(trial, recurrence, launch, now_s, record, target_epochs))
        state = _with(settled, running, now_s)
        ends = [_stop_epoch(state, one, now_s) for one in running]
        which = min(range(len(running)), key=lambda i: running[i].began_s + ends[i] * running[i].record.epoch_time_s)
        one, epoch = running.pop(which), ends[which]
        now_s = one.began_s + epoch * one.record.epoch_time_s
        report = _report(spec, one, epoch)
        verdict = judge(state, one.trial, report)
        revision += 1
        ended = replace(
            one.trial,
            status=TrialStatus.SUCCEEDED,
            converged=verdict.converged,
            energy_j=report.energy_j,
            time_s=report.time_s,
            epochs=epoch,
            ended=revision,
        )
        energy_j, time_s = report.energy_j, report.time_s
        if verdict.converged and probe_s is not None and not settled.probed:
            if probe_s * len(workload.sizes) < PROBE_SHARE * time_s:
                settled = replace(settled, probed=_probe(workload, seed))
                time_s += probe_s * len(workload.sizes)
                energy_j += sum(probe_s * record.power_w for record in workload.sizes.values())
            else:
                probe_s = None
        yield Run(
            recurrence=one.recurrence,
            batch_size=ended.batch_size,
            epochs=epoch,
            converged=verdict.converged,
            energy_j=energy_j,
            time_s=time_s,
            cost_j=run_cost(spec, energy_j, time_s),
            code=verdict.code,
        )
        settled = condense(replace(settled, trials=(*settled.trials, ended)))
        if not verdict.converged:
            waiting.append((one.recurrence, one.launch + 1))


def simulate_fixed(
    workload: Workload, recurrences: int, seed: int, size_of: Callable[[int], int], drift: Drift = no_drift
) -> list[Run]:
    """Play a job through with a batch size that is fixed for every recurrence, without any bound, with the same luck.

    Args:
        workload: the job and how its runs go.
        recurrences: how many trainings the user wants done.
        seed: of the luck of the runs.
        size_of: batch size of a recurrence.
        drift: what becomes of the epochs to the target.

    Raises:
        EndlessRetry: a recurrence does not end.
    """
    spec, runs = workload.spec, []
    for recurrence in range(recurrences):
        size = size_of(recurrence)
        record = workload.sizes[size]
        for launch in range(MOST_LAUNCHES):
            target_epochs = _target_epochs(record, seed, recurrence, launch, drift)
            converged = target_epochs <= spec.max_epochs
            epochs = int(target_epochs) if converged else spec.max_epochs
            time_s = epochs * record.epoch_time_s
            energy_j = time_s * record.power_w
            code = VerdictCode.CONVERGED if converged else VerdictCode.MAX_EPOCHS
            cost_j = run_cost(spec, energy_j, time_s)
            runs.append(Run(recurrence, size, epochs, converged, energy_j, time_s, cost_j, code))
            if converged:
                break
        else:
            raise EndlessRetry(f"{workload.name}: batch size {size} does not converge in {MOST_LAUNCHES} launches")
    return runs


def cheapest_size(workload: Workload, stretch: float = 1.0) -> int | None:
    """The batch size with the lowest expected cost of a recurrence, failed launches included; None if none converges.

    Args:
        workload: the job and how its runs go.
        stretch: factor on the epochs to the target.
    """
    spec, costs = workload.spec, {}
    for size, record in workload.sizes.items():
        epochs = [math.ceil(one * stretch) if math.isfinite(one) else math.inf for one in record.epochs]
        paid = sum(min(one, spec.max_epochs) for one in epochs)
        converging = sum(one <= spec.max_epochs for one in epochs)
        if converging:
            per_epoch = run_cost(spec, record.epoch_time_s * record.power_w, record.epoch_time_s)
            costs[size] = per_epoch * paid / converging
    return min(costs, key=lambda size: costs[size], default=None)


def _target_epochs(record: SizeRecord, seed: int, recurrence: int, launch: int, drift: Drift) -> float:
    luck = np.random.default_rng((seed, recurrence, launch)).random()
    epochs = record.epochs[int(luck * len(record.epochs))]
    return math.ceil(epochs * drift(recurrence)) if math.isfinite(epochs) else math.inf


def _probe(workload: Workload, seed: int) -> tuple[Probed, ...]:
    """What a probe of every batch size tells."""
    noise = np.random.default_rng((seed, len(workload.sizes))).normal(0, PROBE_NOISE, len(workload.sizes))
    found = []
    for (size, record), off in zip(workload.sizes.items(), noise, strict=True):
        time_s = record.epoch_time_s * math.exp(off)
        found.append(Probed(size, fits=True, epoch_energy_j=time_s * record.power_w, epoch_time_s=time_s))
    return tuple(found)


def _with(settled: JobState, running: list[_Running], now_s: float) -> JobState:
    """The job as it stands: what has ended, and how far the running ones have come."""
    return replace(settled, trials=(*settled.trials, *(_so_far(settled.spec, one, now_s) for one in running)))


def _so_far(spec: Spec, one: _Running, now_s: float) -> Trial:
    report = _report(spec, one, _epochs_done(one, now_s))
    return replace(one.trial, epochs=report.epoch, energy_j=report.energy_j, time_s=report.time_s)


def _epochs_done(one: _Running, now_s: float) -> int:
    """Epochs whose end lies before now; one that ends just now has not been judged yet."""
    return max(0, math.ceil((now_s - one.began_s) / one.record.epoch_time_s - 1e-9) - 1)


def _report(spec: Spec, one: _Running, epoch: int) -> Report:
    time_s = epoch * one.record.epoch_time_s
    short_by = 0.0 if epoch >= one.target_epochs else -1.0 if spec.higher_is_better_metric else 1.0
    return Report(spec.target_metric + short_by, time_s * one.record.power_w, time_s, epoch)


def _stop_epoch(state: JobState, one: _Running, now_s: float) -> int:
    """The first epoch from now on whose report ends the run; once one would, every later one would."""

    def stops(epoch: int) -> bool:
        return judge(state, one.trial, _report(state.spec, one, epoch)).stop

    done = _epochs_done(one, now_s)
    last = int(max(done + 1, min(one.target_epochs, state.spec.max_epochs)))
    if last == done + 1 or not stops(last - 1):  # as most runs end
        return last
    return bisect.bisect_left(range(last), True, lo=done + 1, key=stops)
