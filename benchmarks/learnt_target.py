"""What a job costs that learns its target, beside a job whose user knows the target.

    python -m benchmarks.learnt_target [--seeds 5]          # simulated: the paper's traces, and random jobs
    python -m benchmarks.learnt_target --digits [--recurrences 30]  # real trainings, against a server of its own

The simulated trainings take their epochs to the target and their costs from the paper's traces, or from
`backend.simulator.synthetic`. Neither has curves, so these are made up: the metric approaches 1 exponentially, reaches
0.95 in the run's epochs to the target, and has noise. Every training ends by its own rule, after 1.5 times the epochs
that the default usually takes to the target.
"""

import argparse
import logging
import math
import statistics
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backend.core import calibration
from backend.core.cost import run_cost
from backend.core.policies import choose, compact, judge
from backend.core.rng import seeded
from backend.core.simulate import Workload
from backend.core.state import JobState, NothingConverges, Report, Trial, TrialStatus, Verdict, VerdictCode
from backend.simulator import synthetic, traces

ROOT = Path(__file__).parent.parent
KNOWN_TARGET = 0.95
RATE = -math.log(1 - KNOWN_TARGET)
NOISE = 0.002
"""Standard deviation of the metric."""
OWN_EPOCHS = 1.5
"""Epochs of a training by its own rule, in multiples of the default's median epochs to the target."""
RECURRENCES = 30
MAX_LAUNCHES = 50


@dataclass(frozen=True)
class Played:
    """The recurrences of a job."""

    cost: float
    """Cost of all launches, relative to the default batch size with the training's own rule."""
    launches: int
    below: float
    """Share of the recurrences that end below the weakest of the default's own runs."""


def curve(workload: Workload, batch_size: int, epochs: int, luck: tuple[int, ...]) -> list[Report]:
    """Return the reports of a run to the end of its training's own rule. The same luck gives the same run."""
    record, rng = workload.sizes[batch_size], np.random.default_rng(luck)
    known = [count for count in record.epochs if math.isfinite(count)]
    target_epochs = record.epochs[int(rng.random() * len(record.epochs))]
    best = 1.0 if math.isfinite(target_epochs) else 0.9  # a run that never reaches the target
    pace = RATE / (target_epochs if math.isfinite(target_epochs) else statistics.median(known or [epochs]))
    reports = []
    for epoch in range(1, epochs + 1):
        metric = best * (1 - math.exp(-pace * epoch)) + NOISE * rng.standard_normal()
        time_s = epoch * record.epoch_time_s
        reports.append(Report(float(metric), time_s * record.power_w, time_s, epoch))
    return reports


def own_epochs(workload: Workload) -> int | None:
    """Return the epochs of a training by its own rule. None: the default never reaches the target."""
    known = [count for count in workload.sizes[workload.spec.default_batch_size].epochs if math.isfinite(count)]
    return math.ceil(OWN_EPOCHS * statistics.median(known)) if known else None


def by_default(workload: Workload, epochs: int, seed: int) -> tuple[float, float]:
    """Return the cost of the recurrences without the optimizer, and the weakest metric that one of them ends with."""
    spec = workload.spec
    curves = [curve(workload, spec.default_batch_size, epochs, (seed, number, 0)) for number in range(RECURRENCES)]
    cost = sum(run_cost(spec, reports[-1].energy_j, reports[-1].time_s) for reports in curves)
    return cost, min(max(report.metric or 0.0 for report in reports) for reports in curves)


class Job:
    """A job as the server decides on it. Runs come one after the other."""

    def __init__(self, workload: Workload, epochs: int, seed: int, target: float | None, tolerance: float) -> None:
        self.registered = replace(
            workload.spec,
            policy="gp-ucb",
            max_epochs=epochs,
            target_metric=target,
            target_tolerance=tolerance,
            higher_is_better_metric=True,  # as in the curves
        )
        self.rng = seeded(seed)
        self.revision = 0
        self._restart()

    def _restart(self) -> None:
        self.state = JobState(self.registered, ())
        self.curves: list[tuple[Trial, list[Report]]] = []
        self.latest: list[Trial] = []

    def run(self, reports_of: dict[int, list[Report]]) -> Iterator[tuple[Report, Verdict]]:
        """Run one training. Yields its reports up to the verdict."""
        if self.registered.target_metric is None and calibration.out_of_reach(self.latest):
            self._restart()
        try:
            choice = choose(self.state, self.rng)
        except NothingConverges:
            self._restart()
            choice = choose(self.state, self.rng)
        self.revision += 1
        trial = Trial(
            *(self.revision, choice.batch_size, choice.type, TrialStatus.DISPATCHED, None, 0.0, 0.0, 0),
            *(self.revision, None, choice.bound_factor),
        )
        reports = reports_of[choice.batch_size]
        for report in reports:
            verdict = judge(self.state, trial, report)
            yield report, verdict
            if verdict.stop:
                break
        self._end(trial, reports, report, verdict)

    def _end(self, trial: Trial, reports: list[Report], last: Report, verdict: Verdict) -> None:
        self.revision += 1
        if verdict.code is not VerdictCode.CALIBRATED:
            self._add(calibration.at_target(replace(trial, ended=self.revision), last), converged=verdict.converged)
            return
        self.curves.append((trial, reports))
        spec = self.registered
        if len(self.curves) == spec.calibration_runs:
            learnt = calibration.learn(spec, [reports for _, reports in self.curves])
            self.state = JobState(replace(spec, target_metric=learnt), ())
            for trial, reports in self.curves:
                self.revision += 1
                first = calibration.first_reached(self.state.spec, reports)
                if first is not None:
                    self._add(calibration.at_target(replace(trial, ended=self.revision), first), converged=True)

    def _add(self, trial: Trial, *, converged: bool) -> None:
        ended = replace(trial, converged=converged)
        self.latest = [*self.latest, ended][-calibration.MAX_FAILURES :]
        self.state = compact(replace(self.state, trials=(*self.state.trials, ended)))


def play(workload: Workload, seed: int, target: float | None, tolerance: float, *, stop: bool) -> Played | None:
    """Play the recurrences of a job. None: the default never reaches the known target.

    Args:
        workload: the training.
        seed: of the luck of the runs.
        target: the target that the user knows; None: the job learns it.
        tolerance: of a learnt target.
        stop: whether a run ends at its verdict, and is launched again if it has failed.
    """
    epochs = own_epochs(workload)
    if epochs is None:
        return None
    default_cost, weakest = by_default(workload, epochs, seed)
    job = Job(workload, epochs, seed, target, tolerance)
    cost, launches, below = 0.0, 0, 0
    for number in range(RECURRENCES):
        for launch in range(MAX_LAUNCHES):
            reports_of = {size: curve(workload, size, epochs, (seed, number, launch)) for size in workload.sizes}
            run = list(job.run(reports_of))
            last, verdict = run[-1]
            size = next(size for size, reports in reports_of.items() if reports[0] is run[0][0])
            ends = last if stop else reports_of[size][-1]
            cost += run_cost(workload.spec, ends.energy_j, ends.time_s)
            launches += 1
            if verdict.converged or not stop:
                break
        seen = reports_of[size][: ends.epoch]
        below += max(report.metric or 0.0 for report in seen) < weakest
    return Played(cost / default_cost, launches, below / RECURRENCES)


def simulated(seeds: int) -> None:
    """Print the table of the simulated jobs."""
    data = traces.read(ROOT / "benchmarks" / "traces")
    groups = {
        "the paper's jobs on four GPUs": [
            traces.workload(data, gpu, job) for gpu in traces.GPUS for job in traces.JOBS.values()
        ],
        "20 random jobs": [synthetic.workload(number) for number in range(20)],
    }
    contenders = {
        f"target known ({KNOWN_TARGET:g})": (KNOWN_TARGET, 0.0),
        "target learnt": (None, 0.0),
        "target learnt, tolerance 0.02": (None, 0.02),
        "target learnt, tolerance 0.05": (None, 0.05),
    }
    print("| jobs | target | cost | launches | below | cost, `stop=False` | below |")
    print("|---|---|---|---|---|---|---|")
    for group, workloads in groups.items():
        for name, (target, tolerance) in contenders.items():
            cells: list[str] = []
            for stop in (True, False):
                played = [
                    result
                    for workload in workloads
                    for seed in range(seeds)
                    if (result := play(workload, seed, target, tolerance, stop=stop)) is not None
                ]
                cost = statistics.geometric_mean(result.cost for result in played)
                launches = statistics.fmean(result.launches for result in played)
                below = statistics.fmean(result.below for result in played)
                cells += [f"{cost:.3f}", f"{launches:.1f}", f"{below:.1%}"] if stop else [f"{cost:.3f}", f"{below:.1%}"]
            print(f"| {group} | {name} | {' | '.join(cells)} |", flush=True)


def digits(recurrences: int) -> None:
    """Train the digits example by its own rule, with a known target, and with a learnt one, and print the table."""
    sys.path.insert(0, str(ROOT / "examples"))
    import lightning.pytorch as pl
    import torch
    from demo import all_trials, server
    from lightning.pytorch.callbacks import EarlyStopping
    from lightning_digits import JOB, Classifier, Digits

    from lightning_bso import BsoClient, JobSpec, ZeusBSOCallback, ZeusBSOTrainFailError

    for noisy in ("lightning.pytorch", "lightning.fabric", "lightning_bso"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)

    def train(url: str, job: JobSpec, seed: int, *, stop: bool) -> bool:
        pl.seed_everything(seed, verbose=False)
        bso = ZeusBSOCallback(url, job, monitor="val_acc", stop=stop)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(
            max_epochs=job.max_epochs,
            accelerator="cpu",
            callbacks=[bso, EarlyStopping("val_acc", mode="max", patience=5)],
            enable_model_summary=False,
            **quiet,
        )
        try:
            trainer.fit(Classifier(), Digits())
        except ZeusBSOTrainFailError:
            return False
        return bso.result is not None or not stop

    learnt = JOB.model_copy(update={"target_metric": None})
    contenders = {
        "the default, no optimizer": (JOB.model_copy(update={"batch_sizes": [128], "beta_knob": None}), False),
        f"target known ({JOB.target_metric:g})": (JOB, True),
        "target learnt": (learnt, True),
        "target learnt, tolerance 0.05": (learnt.model_copy(update={"target_tolerance": 0.05}), True),
        "target learnt, `stop=False`": (learnt.model_copy(update={"job_id_prefix": "digits-on"}), False),
    }
    print(f"| {recurrences} recurrences of digits | cost (J) | launches | mean best accuracy | lowest |", flush=True)
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "digits.db") as url:
        train(url, JOB.model_copy(update={"job_id_prefix": "warm-up"}), 0, stop=True)
        client = BsoClient(url)
        for name, (job, stop) in contenders.items():
            named = job.model_copy(update={"job_id": f"{job.job_id_prefix}-{len(name)}"})
            for number in range(recurrences):
                for launch in range(MAX_LAUNCHES):
                    if train(url, named, number * MAX_LAUNCHES + launch, stop=stop):
                        break
            spec, trials = client.describe(named.job_id or "").spec, all_trials(client, named.job_id or "")
            cost = sum(
                spec.eta_knob * (trial.energy + trial.energy_after)
                + (1 - spec.eta_knob) * spec.max_power * (trial.time + trial.time_after)
                for trial in trials
            )
            best = [trial.best_metric for trial in trials if trial.converged and trial.best_metric is not None]
            print(
                f"| {name} | {cost:.1f} | {len(trials)} | {statistics.fmean(best):.4f} | {min(best):.4f} |", flush=True
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--digits", action="store_true", help="train for real, and simulate nothing")
    parser.add_argument("--recurrences", type=int, default=RECURRENCES)
    arguments = parser.parse_args()
    if arguments.digits:
        digits(arguments.recurrences)
    else:
        simulated(arguments.seeds)


if __name__ == "__main__":
    main()
