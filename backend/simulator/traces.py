"""Workloads from measured trainings: the traces published with the paper, or a folder in the same format.

`summary_train.csv` has one line per run and target, with the epochs to the target (empty: never reached).
`summary_power_GPU.csv` has the time and the power of one epoch per batch size and power limit.
`benchmarks/traces/README.md` describes the columns.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..core.cost import cost
from ..core.simulate import SizeRecord, Workload
from ..core.state import Spec
from . import tables
from .tables import MAX_COUNT, MAX_QUANTITY, MIN_POSITIVE, Line, TracesUnusable

GPUS = ("v100", "p100", "rtx6000", "a40")
JOB_COLUMNS = ("dataset", "network", "optimizer", "batch_size")
TRAIN_COLUMNS = (*JOB_COLUMNS, "target_metric", "target_epoch")
POWER_COLUMNS = (*JOB_COLUMNS, "power_limit", "time_per_epoch", "average_power")


@dataclass(frozen=True, slots=True)
class TracedJob:
    """A job that the paper simulates.

    `default` is its default batch size on a GPU with enough memory.
    """

    dataset: str
    network: str
    optimizer: str
    target: float
    higher_is_better: bool
    max_epochs: int
    default: int


JOBS = {
    job.dataset: job
    for job in (
        TracedJob("cifar100", "shufflenetv2", "adadelta", 0.6, True, 100, 1024),
        TracedJob("imagenet", "resnet50", "adadelta", 0.65, True, 100, 256),
        TracedJob("squad", "bert_base_uncased", "adamw", 84.0, True, 6, 32),
        TracedJob("librispeech", "deepspeech2", "adamw", 40.0, False, 16, 256),
        TracedJob("movielens-1m", "ncf", "adam", 0.41, True, 100, 1024),
        TracedJob("sentiment140", "bert_base_uncased", "adamw", 0.84, True, 10, 128),
    )
}


@dataclass(frozen=True, slots=True)
class Traces:
    """The lines of the files; `power` by GPU."""

    train: list[Line]
    power: dict[str, list[Line]]

    def targets(self, job: TracedJob) -> list[float]:
        """Return every target for which a run of the job's training was measured, ascending."""
        return sorted({_target(row) for row in _rows_of(job, self.train)})


def read(folder: Path, gpus: Iterable[str] = GPUS) -> Traces:
    """Read a folder of traces.

    Raises:
        TracesUnusable: a file is missing or wrong.
    """
    advice = "name the folder of the traces with --traces"
    return Traces(
        tables.read(folder / "summary_train.csv", TRAIN_COLUMNS, advice),
        {gpu: tables.read(folder / f"summary_power_{gpu}.csv", POWER_COLUMNS, advice) for gpu in gpus},
    )


def workload(
    traces: Traces,
    gpu: str,
    job: TracedJob,
    *,
    eta: float = 0.5,
    beta: float | None = 2.0,
    best_power_limit: bool = False,
    default: int | None = None,
) -> Workload:
    """Return a job on a GPU, as it was measured.

    Args:
        traces: the data.
        gpu: a GPU of the data.
        job: its training and target.
        eta: weight of energy against time.
        beta: early-stop knob.
        best_power_limit: use the power limit with the cheapest epoch for each batch size; else the highest limit.
        default: default batch size; None: the job's.

    Raises:
        TracesUnusable: the job was not measured on this GPU, or a cell is wrong.
    """
    power, epochs = defaultdict(list), defaultdict(list)
    for row in _rows_of(job, traces.power[gpu]):
        power[row.count("batch_size")].append(
            (
                row.count("power_limit"),
                row.quantity("time_per_epoch", MIN_POSITIVE),
                row.quantity("average_power", MIN_POSITIVE),
            )
        )
    for row in _rows_of(job, traces.train):
        if _target(row) == job.target:
            never = row["target_epoch"].strip().lower() in {"", "nan"}
            epochs[row.count("batch_size")].append(math.inf if never else row.quantity("target_epoch", 1, MAX_COUNT))
    sizes = sorted(set(power) & set(epochs))
    if not sizes:
        raise TracesUnusable(f"no run of {job.dataset} to {job.target:g} was measured on {gpu}")
    max_power = float(max(limit for rows in power.values() for limit, _, _ in rows))

    def epoch_cost(row: tuple[int, float, float]) -> float:
        return cost(row[1] * row[2], row[1], eta=eta, max_power_w=max_power)

    records = {}
    for size in sizes:
        rows = power[size]
        _, time_s, power_w = min(rows, key=epoch_cost) if best_power_limit else max(rows)
        records[size] = SizeRecord(time_s, power_w, tuple(epochs[size]))
    fitting = [size for size in sizes if size <= (default or job.default)]
    spec = Spec(
        batch_sizes=tuple(sizes),
        default_batch_size=max(fitting, default=sizes[0]),
        eta_knob=eta,
        beta_knob=beta,
        target_metric=job.target,
        higher_is_better_metric=job.higher_is_better,
        max_epochs=job.max_epochs,
        max_power=max_power,
    )
    return Workload(f"{job.dataset}/{gpu}", spec, records)


def power_limits(traces: Traces, gpu: str, job: TracedJob) -> int:
    """Return the number of power limits at which a job was measured.

    The paper's horizon is 2 * batch sizes * power limits.
    """
    return len({row.count("power_limit") for row in _rows_of(job, traces.power[gpu])})


def _target(row: Line) -> float:
    return row.quantity("target_metric", -MAX_QUANTITY)


def _rows_of(job: TracedJob, rows: list[Line]) -> list[Line]:
    names = (job.dataset, job.network, job.optimizer)
    return [row for row in rows if (row["dataset"], row["network"], row["optimizer"]) == names]
