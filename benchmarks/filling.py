"""Fills a database with many random jobs of the simulator, through the real service.

Like a training, every run asks, reports half-way and at its end, and follows the verdict.
"""

import math
from dataclasses import dataclass

import numpy as np

from backend.core.simulate import Workload
from backend.errors import JobStuck
from backend.simulator import synthetic
from backend.usecases import jobs, runs
from backend.usecases.audit import COMMAND_LINE
from lightning_bso.wire import RegisteredJobSpec, ReportRequest

GPUS = ("NVIDIA H200", "NVIDIA A100-SXM4-80GB", "NVIDIA A40", "Tesla V100-PCIE-32GB")
LEASE_S = 24 * 3600
RUNNING_EVERY = 10
"""One in this many jobs has a last run that is still running."""


@dataclass(frozen=True, slots=True)
class Filled:
    """The content of a filled database."""

    job_ids: list[str]
    """Ids of the jobs, in the order of their creation."""
    trials: int
    stuck: int
    """Number of jobs with no batch size left to dispatch."""


def play_through(job_count: int, trials: int) -> Filled:
    """Create jobs and their trials. Requires an application context.

    If a job gets stuck, the next job has the missing trials in addition to its own. The last job is under `gp-ucb`,
    which always has a batch size to dispatch, so no trial is missing in the end.

    Args:
        job_count: number of jobs.
        trials: average number of trials per job.
    """
    job_ids, stuck, missing = [], 0, 0
    for number in reversed(range(job_count)):
        workload = synthetic.workload(number)
        job_ids.append(_register(workload, number))
        missing += trials
        running = missing if number % RUNNING_EVERY == 0 else None
        try:
            for run in range(1, missing + 1):
                _launch(workload, job_ids[-1], run, np.random.default_rng((number, run)), keeps_running=run == running)
                missing -= 1
        except JobStuck:
            stuck += 1
    return Filled(job_ids, job_count * trials - missing, stuck)


def _register(workload: Workload, number: int) -> str:
    spec, job_id = workload.spec, f"team-{number % 8}/training-{number:05}"
    jobs.register(
        RegisteredJobSpec(
            job_id=job_id,
            job_id_prefix=job_id,
            policy="zeus" if number % 4 == 3 else "gp-ucb",
            batch_sizes=list(spec.batch_sizes),
            default_batch_size=spec.default_batch_size,
            eta_knob=spec.eta_knob,
            beta_knob=spec.beta_knob,
            target_metric=spec.target_metric,
            higher_is_better_metric=spec.higher_is_better_metric,
            max_epochs=spec.max_epochs,
            max_power=spec.max_power,
            number_of_gpus=1,
            gpu_model=GPUS[number % len(GPUS)],
            mab_seed=number,
        ),
        by=COMMAND_LINE,
    )
    return job_id


def _launch(workload: Workload, job_id: str, run: int, rng: np.random.Generator, *, keeps_running: bool) -> None:
    trial = runs.ask(job_id, f"run-{run}", by=COMMAND_LINE, lease_s=LEASE_S, host=f"node-{run % 16}")
    record = workload.sizes[trial.batch_size]
    epochs_to_target = record.epochs[int(rng.random() * len(record.epochs))]
    last = int(min(epochs_to_target, workload.spec.max_epochs))
    for number, epoch in enumerate(sorted({math.ceil(last / 2), last}), 1):
        if keeps_running and epoch == last:
            return
        time_s = epoch * record.epoch_time_s
        verdict = runs.report(
            ReportRequest(
                job_id=job_id,
                batch_size=trial.batch_size,
                trial_number=trial.trial_number,
                time=time_s,
                energy=time_s * record.power_w,
                metric=1.0 if epoch >= epochs_to_target else 0.5,
                current_epoch=epoch,
                report_number=number,
                energy_source="nvml",
            ),
            by=COMMAND_LINE,
            lease_s=LEASE_S,
        )
        if verdict.stop_train:
            return
