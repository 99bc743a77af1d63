"""A workload from a job's own trials, as `lightning-bso export` writes them: what would another policy have cost?

Only what was tried is known. A run that was stopped by its cost counts as one that never converges.
"""

import csv
import math
from collections import defaultdict
from pathlib import Path

from backend.core.simulate import SizeRecord, Workload
from backend.core.state import Spec
from backend.simulator.traces import TracesUnusable


def workload(file: Path, *, eta: float | None = None) -> Workload:
    """The job whose trials a CSV file holds.

    Args:
        file: as exported.
        eta: another weight of energy against time than the job's.

    Raises:
        TracesUnusable: the file cannot be read, or holds no trial that ended.
    """
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = [row for row in csv.DictReader(lines) if row["status"] == "Succeeded" and float(row["time"]) > 0]
        if rows:
            return _workload(rows, eta)
    except OSError as error:
        raise TracesUnusable(f"{file}: {error.strerror}") from error
    except (KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:  # of a cut-off line, cells are None
        raise TracesUnusable(
            f"{file} is no export of a job's trials: {error}; write it by lightning-bso export"
        ) from error
    raise TracesUnusable(f"{file} holds no trial that ended with a verdict")


def _workload(rows: list[dict[str, str]], eta: float | None) -> Workload:
    by_size = defaultdict(list)
    for row in rows:
        by_size[int(row["batch_size"])].append(row)
    records = {size: _record(by_size[size]) for size in sorted(by_size)}
    job = rows[0]
    default = int(job["default_batch_size"])
    spec = Spec(
        batch_sizes=tuple(records),
        default_batch_size=default if default in records else next(iter(records)),
        eta_knob=float(job["eta_knob"]) if eta is None else eta,
        beta_knob=float(job["beta_knob"]) if job["beta_knob"] else None,
        target_metric=1.0,  # that a run converged is on record, at which metric does not matter
        higher_is_better_metric=True,
        max_epochs=int(job["max_epochs"]),
        max_power=float(job["max_power"]),
    )
    return Workload(job["job_id"], spec, records)


def _record(rows: list[dict[str, str]]) -> SizeRecord:
    time_s = sum(float(row["time"]) for row in rows)
    energy_j = sum(float(row["energy"]) for row in rows)
    epochs = [max(int(row["current_epoch"]), 1) for row in rows]
    converged = [row["converged"].lower() == "true" for row in rows]
    return SizeRecord(
        epoch_time_s=time_s / sum(epochs),
        power_w=energy_j / time_s,
        epochs=tuple(float(count) if done else math.inf for count, done in zip(epochs, converged, strict=True)),
    )
