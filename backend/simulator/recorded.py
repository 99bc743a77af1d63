"""A workload from a job's own trials, as `lightning-bso export` writes them: what would another policy have cost?

Only what was tried since the last reset is known. A run that came to `max_epochs` or diverged is one that never
converges. Of one that was stopped by its cost it is known only that it needed more epochs than it had: it stands for
the runs of its batch size that went further (Kaplan and Meier's estimate, by redistribution to the right: Efron, The
two sample problem with censored data, 1967).
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backend.core.gp_ucb.gaussian import Mask, Vector
from backend.core.simulate import SizeRecord, Workload
from backend.core.state import Spec, TrialStatus, VerdictCode
from backend.simulator import tables
from backend.simulator.tables import LARGEST, LEAST, Line, TracesUnusable

SPEC_COLUMNS = (
    *("job_id", "batch_sizes", "default_batch_size", "eta_knob", "beta_knob", "max_power", "max_epochs"),
    *("num_pruning_rounds", "window_size", "mab_prior_mean", "mab_prior_precision", "mab_num_explorations"),
    *("target_metric", "higher_is_better_metric", "warm_start_from"),
)
COLUMNS = (*SPEC_COLUMNS, "exploration", "batch_size", "status", "outcome_code", "time", "energy", "current_epoch")
ENDS = tuple(code for code in VerdictCode if code is not VerdictCode.CONTINUE)
QUANTILES = 1000
"""Equally likely epochs that stand for those of a batch size of which runs were stopped by their cost."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A job as its trials tell it."""

    workload: Workload
    remarks: tuple[str, ...]
    """In what the workload is not the job as it was, in words."""


@dataclass(frozen=True, slots=True)
class _Runs:
    """How runs of one batch size ended. Vectors have one entry per run."""

    had: Vector
    """Epochs that they had."""
    needed: Vector
    """Epochs that they needed; infinity for never, and for those that were"""
    stopped: Mask
    """stopped by their cost."""

    @property
    def outrun(self) -> Mask:
        """Which were stopped by their cost while another one went further."""
        outrun: Mask = self.stopped & (self.had < self.had.max())
        return outrun


def read(file: Path, *, eta: float | None = None) -> Recorded:
    """The job whose trials a CSV file holds.

    Args:
        file: as exported.
        eta: another weight of energy against time than the job's.

    Raises:
        TracesUnusable: the file cannot be read, is something else, or holds no trial that ended.
    """
    lines = tables.read(file, COLUMNS, "write it by lightning-bso export")
    _check_one_job(lines)
    last = max((line.count("exploration", least=0) for line in lines), default=0)
    current = [line for line in lines if line.count("exploration", least=0) == last]
    by_size = defaultdict(list)
    for line in current:
        if line.one_of("status", TrialStatus) == TrialStatus.SUCCEEDED and line.quantity("time") >= LEAST:
            line.one_of("batch_size", line["batch_sizes"].split())
            by_size[line.count("batch_size")].append(line)
    if not by_size:
        raise TracesUnusable(f"{file} holds no trial that ended with a verdict{' since the last reset' * (last > 0)}")
    spec = _spec(lines[0], eta)
    runs = {size: _runs(by_size[size], spec.max_epochs) for size in sorted(by_size)}
    records = {size: _record(by_size[size], runs[size]) for size in runs}
    default = spec.default_batch_size if spec.default_batch_size in records else min(records)
    own = replace(spec, batch_sizes=tuple(records), default_batch_size=default)
    remarks = _remarks(lines, len(lines) - len(current), list(runs.values()), spec, own)
    return Recorded(Workload(lines[0]["job_id"], own, records), tuple(remarks))


def _check_one_job(lines: list[Line]) -> None:
    for line in lines:
        for column in SPEC_COLUMNS:
            if line[column] != lines[0][column]:
                raise line.wrong(column, f"{lines[0][column]!r} as in the first line; simulate one job at a time")


def _spec(line: Line, eta: float | None) -> Spec:
    try:
        sizes = tuple(sorted(map(int, line["batch_sizes"].split())))
    except ValueError as error:
        raise line.wrong("batch_sizes", "whole numbers with spaces between them") from error
    line.one_of("default_batch_size", line["batch_sizes"].split())
    own_eta = line.quantity("eta_knob", most=1)
    return Spec(
        batch_sizes=sizes,
        default_batch_size=line.count("default_batch_size"),
        eta_knob=own_eta if eta is None else eta,
        beta_knob=line.quantity("beta_knob", LEAST) if line["beta_knob"] else None,
        target_metric=1.0,  # that a run converged is on record, at which metric does not matter
        higher_is_better_metric=True,
        max_epochs=line.count("max_epochs"),
        num_pruning_rounds=line.count("num_pruning_rounds", least=0),
        window_size=line.count("window_size", least=0),
        mab_prior_mean=line.quantity("mab_prior_mean", -LARGEST),
        mab_prior_precision=line.quantity("mab_prior_precision"),
        mab_num_explorations=line.count("mab_num_explorations", least=0),
        max_power=line.quantity("max_power", LEAST),
    )


def _runs(lines: list[Line], max_epochs: int) -> _Runs:
    had = [max(line.count("current_epoch", least=0), 1) for line in lines]
    ends = [line.one_of("outcome_code", ENDS) for line in lines]
    needed = [
        # one that reached the target in a validation after max_epochs has converged
        min(count, max_epochs) if end == VerdictCode.CONVERGED else math.inf
        for count, end in zip(had, ends, strict=True)
    ]
    return _Runs(np.array(had, float), np.array(needed, float), np.array(ends) == VerdictCode.COST_BOUND)


def _record(lines: list[Line], runs: _Runs) -> SizeRecord:
    time_s = sum(line.quantity("time") for line in lines)
    energy_j = sum(line.quantity("energy") for line in lines)
    if energy_j < LEAST:
        size = lines[0]["batch_size"]
        raise TracesUnusable(f"{lines[0].file}: the runs of batch size {size} have used no energy, which cannot be")
    return SizeRecord(float(time_s / runs.had.sum()), energy_j / time_s, _epochs(runs))


def _epochs(runs: _Runs) -> tuple[float, ...]:
    """Equally likely epochs to the target: those of the runs, or quantiles once runs were stopped by their cost.

    From the shortest to the longest, each run that was stopped hands its weight on to those that went further.
    """
    if not runs.stopped.any():
        return tuple(runs.needed.tolist())
    weights = np.ones(len(runs.had))
    for at in sorted(np.flatnonzero(runs.outrun), key=lambda at: float(runs.had[at])):
        further = runs.had > runs.had[at]
        weights[further] += weights[at] / further.sum()
        weights[at] = 0
    order = np.argsort(runs.needed, kind="stable")
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    up_to = np.cumsum(weights[order])
    return tuple(runs.needed[order][np.searchsorted(up_to, levels * up_to[-1])].tolist())


def _remarks(lines: list[Line], before: int, runs: Sequence[_Runs], job: Spec, played: Spec) -> Iterator[str]:
    stopped = sum(int(of_size.stopped.sum()) for of_size in runs)
    outrun = sum(int(of_size.outrun.sum()) for of_size in runs)
    if stopped:
        yield (
            f"runs stopped by their cost, which would have needed more epochs: {stopped}; {outrun} of them count as "
            f"those of their batch size that went further, {stopped - outrun}, which none outlasted, as never "
            "converging"
        )
    if before:
        yield f"trials from before the last reset are left out: {before}"
    if left_out := [size for size in job.batch_sizes if size not in played.batch_sizes]:
        yield f"batch sizes of which no run ended are left out: {', '.join(map(str, left_out))}"
    if played.default_batch_size != job.default_batch_size:
        yield f"the default, {job.default_batch_size}, is one of them; {played.default_batch_size} takes its place"
    if donor := lines[0]["warm_start_from"]:
        yield f"the job began with what {donor} knew; here it begins from nothing"
