"""A job played through in no time: the two doors decide over a training whose runs are known.

Pure: what a run costs and when it converges is data (`Workload`), chance comes from a seed, and time is counted
and not waited for. The server, were it asked by such trainings, would decide the same.
"""

import bisect
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from backend.core.cost import run_cost
from backend.core.policies import choose, condensed, judge
from backend.core.state import Choice, JobState, Report, Spec, Trial, TrialStatus, VerdictCode
from backend.core.thompson import seeded

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
    concurrency: int = 1,
    drift: Drift = no_drift,
) -> list[Run]:
    """Play a job through, launching every recurrence again until it converges.

    Args:
        workload: the job and how its runs go.
        recurrences: how many trainings the user wants done.
        seed: of the job and of the luck of its runs. Under one seed every policy has the same luck: the n-th launch of
            a recurrence is at the same quantile of its batch size's runs.
        chooser: who picks batch sizes.
        concurrency: how many recurrences are under way at once.
        drift: what becomes of the epochs to the target.

    Raises:
        EndlessRetry: a recurrence does not end.
        NothingConverges: the policy has no batch size left.
    """
    spec, rng = workload.spec, seeded(seed)
    settled = JobState(spec, ())
    running: list[_Running] = []
    runs: list[Run] = []
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
            luck = np.random.default_rng((seed, recurrence, launch)).random()
            epochs = record.epochs[int(luck * len(record.epochs))] * drift(recurrence)
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
            running.append(_Running(trial, recurrence, launch, now_s, record, epochs))
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
        runs.append(
            Run(
                recurrence=one.recurrence,
                batch_size=ended.batch_size,
                epochs=epoch,
                converged=verdict.converged,
                energy_j=report.energy_j,
                time_s=report.time_s,
                cost_j=run_cost(spec, report.energy_j, report.time_s),
                code=verdict.code,
            )
        )
        settled = condensed(replace(settled, trials=(*settled.trials, ended)))
        if not verdict.converged:
            waiting.append((one.recurrence, one.launch + 1))
    return runs


def _with(settled: JobState, running: list[_Running], now_s: float) -> JobState:
    """The job as it stands: what has ended, and how far the running ones have come."""
    return replace(settled, trials=(*settled.trials, *(_so_far(settled.spec, one, now_s) for one in running)))


def _so_far(spec: Spec, one: _Running, now_s: float) -> Trial:
    report = _report(spec, one, _epochs_done(one, now_s))
    return replace(one.trial, epochs=report.epoch, energy_j=report.energy_j, time_s=report.time_s)


def _epochs_done(one: _Running, now_s: float) -> int:
    return int((now_s - one.began_s) / one.record.epoch_time_s + 1e-9)  # an end of an epoch is not before itself


def _report(spec: Spec, one: _Running, epoch: int) -> Report:
    time_s = epoch * one.record.epoch_time_s
    short_by = 0.0 if epoch >= one.target_epochs else -1.0 if spec.higher_is_better_metric else 1.0
    return Report(spec.target_metric + short_by, time_s * one.record.power_w, time_s, epoch)


def _stop_epoch(state: JobState, one: _Running, now_s: float) -> int:
    """The first epoch from now on whose report ends the run; once one would, every later one would."""
    return bisect.bisect_left(
        range(state.spec.max_epochs),
        True,
        lo=_epochs_done(one, now_s) + 1,
        key=lambda epoch: judge(state, one.trial, _report(state.spec, one, epoch)).stop,
    )
