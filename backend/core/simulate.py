"""Simulate a job without waiting: `choose` and `judge` decide over a training whose runs are known in advance.

Pure: the cost and the outcome of a run are data (`Workload`), chance comes from a seed, and time is only counted. The
server would make the same decisions for such trainings.
"""

import bisect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from .cost import run_cost
from .policies import choose, compact, judge
from .rng import seeded
from .state import (
    Choice,
    EndedSummary,
    JobState,
    ProbeResult,
    Report,
    Spec,
    Trial,
    TrialStatus,
    VerdictCode,
)

PROBE_SHARE = 0.02
"""Limit of a probe's time, as a share of the time of the first run that converges. A longer probe is skipped."""
PROBE_NOISE = 0.03
"""Standard deviation of the logarithm of a probe's epoch time."""
MAX_LAUNCHES = 1000
"""Launches of one recurrence after which the simulation is abandoned as endless."""


@dataclass(frozen=True, slots=True)
class SizeRecord:
    """The runs of one batch size. `epochs` holds the epochs to the target of each known run; infinity: never."""

    epoch_time_s: float
    power_w: float
    epochs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """A recurring training: its job's spec, and its runs by batch size."""

    name: str
    spec: Spec
    sizes: dict[int, SizeRecord]


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated launch. `recurrence` counts from 0. A recurrence is launched until it converges."""

    recurrence: int
    batch_size: int
    epochs: int
    converged: bool
    energy_j: float
    time_s: float
    cost_j: float
    code: VerdictCode


Chooser = Callable[[JobState, np.random.Generator], Choice]
"""Picks the next batch size: `policies.choose`, or a baseline."""

Drift = Callable[[int], float]
"""Returns the factor on the epochs to the target in a recurrence."""


class EndlessRetry(Exception):
    """Raised when a recurrence does not converge in `MAX_LAUNCHES` launches."""


@dataclass(slots=True)
class _ActiveRun:
    trial: Trial
    recurrence: int
    launch: int
    start_s: float
    record: SizeRecord
    target_epochs: float


def no_drift(_recurrence: int) -> float:
    """Return the factor 1: nothing changes."""
    return 1.0


def simulate(
    workload: Workload,
    recurrences: int,
    seed: int,
    *,
    chooser: Chooser = choose,
    compactor: Callable[[JobState], JobState] = compact,
    concurrency: int = 1,
    drift: Drift = no_drift,
    initial: EndedSummary | None = None,
    probe_s: float | None = None,
) -> Iterator[Run]:
    """Simulate a job: launch every recurrence until it converges, and yield the runs as they end.

    Args:
        workload: the job and its runs.
        recurrences: number of trainings that the user wants done.
        seed: of the job and of the luck of its runs. Under one seed every policy has the same luck: the n-th launch of
            a recurrence is at the same quantile of its batch size's runs.
        chooser: picks the batch sizes.
        compactor: drops the trials that neither the chooser nor the judge reads, to keep later runs fast.
        concurrency: number of recurrences in progress at the same time.
        drift: factor on the epochs to the target.
        initial: the summary to start from, e.g. of a warm start.
        probe_s: seconds that a probe spends on each batch size after the first run that converges; None: no probe. The
            probe's cost is added to that run. A probe that takes too long (`PROBE_SHARE`) is skipped.

    Raises:
        EndlessRetry: a recurrence does not end.
        NothingConverges: the policy has no batch size left.
        ValueError: the job has no target. A workload knows its runs by their epochs to the target.
    """
    spec, rng = workload.spec, seeded(seed)
    if spec.target_metric is None:
        raise ValueError(f"{workload.name}: a simulated job needs a target_metric")
    ended_state = JobState(spec, (), initial)
    active: list[_ActiveRun] = []
    now_s, revision, number = 0.0, 0, 0
    waiting = [(recurrence, 0) for recurrence in reversed(range(recurrences))]
    while waiting or active:
        while waiting and len(active) < concurrency:
            recurrence, launch = waiting.pop()
            if launch >= MAX_LAUNCHES:
                raise EndlessRetry(f"{workload.name}: recurrence {recurrence} failed {launch} times")
            choice = chooser(_with_active(ended_state, active, now_s), rng)
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
                epoch_limit_j=choice.epoch_limit_j,
            )
            active.append(_ActiveRun(trial, recurrence, launch, now_s, record, target_epochs))
        state = _with_active(ended_state, active, now_s)
        end_epochs = [_end_epoch(state, run, now_s) for run in active]
        first = min(range(len(active)), key=lambda i: active[i].start_s + end_epochs[i] * active[i].record.epoch_time_s)
        run, epoch = active.pop(first), end_epochs[first]
        now_s = run.start_s + epoch * run.record.epoch_time_s
        report = _report(spec, run, epoch)
        verdict = judge(state, run.trial, report)
        revision += 1
        ended = replace(
            run.trial,
            status=TrialStatus.SUCCEEDED,
            converged=verdict.result,
            energy_j=report.energy_j,
            time_s=report.time_s,
            epochs=epoch,
            ended=revision,
        )
        energy_j, time_s = report.energy_j, report.time_s
        if verdict.converged and probe_s is not None and not ended_state.probe_results:
            if probe_s * len(workload.sizes) < PROBE_SHARE * time_s:
                ended_state = replace(ended_state, probe_results=_probe(workload, seed))
                time_s += probe_s * len(workload.sizes)
                energy_j += sum(probe_s * record.power_w for record in workload.sizes.values())
            else:
                probe_s = None
        yield Run(
            recurrence=run.recurrence,
            batch_size=ended.batch_size,
            epochs=epoch,
            converged=verdict.converged,
            energy_j=energy_j,
            time_s=time_s,
            cost_j=run_cost(spec, energy_j, time_s),
            code=verdict.code,
        )
        ended_state = compactor(replace(ended_state, trials=(*ended_state.trials, ended)))
        if not verdict.converged:
            waiting.append((run.recurrence, run.launch + 1))


def simulate_fixed(
    workload: Workload, recurrences: int, seed: int, size_of: Callable[[int], int], drift: Drift = no_drift
) -> list[Run]:
    """Simulate a job with a fixed batch size for each recurrence, without a cost bound and with the same luck.

    Args:
        workload: the job and its runs.
        recurrences: number of trainings that the user wants done.
        seed: of the luck of the runs.
        size_of: returns the batch size of a recurrence.
        drift: factor on the epochs to the target.

    Raises:
        EndlessRetry: a recurrence does not end.
    """
    spec, runs = workload.spec, []
    for recurrence in range(recurrences):
        size = size_of(recurrence)
        record = workload.sizes[size]
        for launch in range(MAX_LAUNCHES):
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
            raise EndlessRetry(f"{workload.name}: batch size {size} does not converge in {MAX_LAUNCHES} launches")
    return runs


def cheapest_size(workload: Workload, stretch: float = 1.0) -> int | None:
    """Return the batch size with the lowest expected cost of a recurrence; None if no batch size converges.

    The cost includes failed launches.

    Args:
        workload: the job and its runs.
        stretch: factor on the epochs to the target.
    """
    spec, costs = workload.spec, {}
    for size, record in workload.sizes.items():
        epochs = [math.ceil(count * stretch) if math.isfinite(count) else math.inf for count in record.epochs]
        paid = sum(min(count, spec.max_epochs) for count in epochs)
        converging = sum(count <= spec.max_epochs for count in epochs)
        if converging:
            per_epoch = run_cost(spec, record.epoch_time_s * record.power_w, record.epoch_time_s)
            costs[size] = per_epoch * paid / converging
    return min(costs, key=lambda size: costs[size], default=None)


def _target_epochs(record: SizeRecord, seed: int, recurrence: int, launch: int, drift: Drift) -> float:
    luck = np.random.default_rng((seed, recurrence, launch)).random()
    epochs = record.epochs[int(luck * len(record.epochs))]
    return math.ceil(epochs * drift(recurrence)) if math.isfinite(epochs) else math.inf


def _probe(workload: Workload, seed: int) -> tuple[ProbeResult, ...]:
    """Simulate a probe of every batch size."""
    noise = np.random.default_rng((seed, len(workload.sizes))).normal(0, PROBE_NOISE, len(workload.sizes))
    results = []
    for (size, record), log_error in zip(workload.sizes.items(), noise, strict=True):
        time_s = record.epoch_time_s * math.exp(log_error)
        results.append(ProbeResult(size, fits=True, epoch_energy_j=time_s * record.power_w, epoch_time_s=time_s))
    return tuple(results)


def _with_active(ended_state: JobState, active: list[_ActiveRun], now_s: float) -> JobState:
    """Return the job with its ended trials, and its active runs with their progress so far."""
    return replace(
        ended_state, trials=(*ended_state.trials, *(_trial_so_far(ended_state.spec, run, now_s) for run in active))
    )


def _trial_so_far(spec: Spec, run: _ActiveRun, now_s: float) -> Trial:
    report = _report(spec, run, _epochs_done(run, now_s))
    return replace(run.trial, epochs=report.epoch, energy_j=report.energy_j, time_s=report.time_s)


def _epochs_done(run: _ActiveRun, now_s: float) -> int:
    """Return the number of epochs that ended before now. An epoch that ends exactly now is not judged yet."""
    return max(0, math.ceil((now_s - run.start_s) / run.record.epoch_time_s - 1e-9) - 1)


def _report(spec: Spec, run: _ActiveRun, epoch: int) -> Report:
    time_s = epoch * run.record.epoch_time_s
    distance = 0.0 if epoch >= run.target_epochs else -1.0 if spec.higher_is_better_metric else 1.0
    return Report((spec.target_metric or 0.0) + distance, time_s * run.record.power_w, time_s, epoch)


def _end_epoch(state: JobState, run: _ActiveRun, now_s: float) -> int:
    """Return the first epoch from now on whose report ends the run.

    If the report of an epoch would end the run, so would the report of every later epoch. The exception is the report
    of the first epoch, whose cost may have a limit of its own.
    """

    def stops(epoch: int) -> bool:
        return judge(state, run.trial, _report(state.spec, run, epoch)).stop

    done = _epochs_done(run, now_s)
    if done == 0 and run.trial.epoch_limit_j is not None and stops(1):
        return 1
    last = int(max(done + 1, min(run.target_epochs, state.spec.max_epochs)))
    if last == done + 1 or not stops(last - 1):  # true for most runs, and it saves the search
        return last
    return bisect.bisect_left(range(last), True, lo=done + 1, key=stops)
