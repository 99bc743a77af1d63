"""A workload from a job's own trials, from the file that `lightning-bso export` writes.

It estimates what another policy would have cost the job. Only trials since the last reset count. A run that reached
`max_epochs` or diverged counts as a run that never converges. A run that was stopped by its cost bound needed more
epochs than it had, but how many is unknown. It stands for the runs of its batch size that went further (Kaplan and
Meier's estimate, by redistribution to the right: Efron, The two sample problem with censored data, 1967).
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..core.gp_ucb.gaussian import Mask, Vector
from ..core.simulate import SizeRecord, Workload
from ..core.state import Spec, TrialStatus, VerdictCode
from . import tables
from .tables import MAX_QUANTITY, MIN_POSITIVE, Line, TracesUnusable

SPEC_COLUMNS = (
    *("job_id", "batch_sizes", "default_batch_size", "eta_knob", "beta_knob", "max_power", "max_epochs"),
    *("num_pruning_rounds", "window_size", "mab_prior_mean", "mab_prior_precision", "mab_num_explorations"),
    *("target_metric", "higher_is_better_metric", "warm_start_from"),
)
COLUMNS = (*SPEC_COLUMNS, "exploration", "batch_size", "status", "outcome_code", "time", "energy", "current_epoch")
END_CODES = tuple(code for code in VerdictCode if code is not VerdictCode.CONTINUE)
QUANTILES = 1000
"""Number of equally likely epochs that stand for a batch size with runs that were stopped by their cost bound."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A job as a workload, from its trials."""

    workload: Workload
    remarks: tuple[str, ...]
    """The differences between the workload and the real job, as texts."""


@dataclass(frozen=True, slots=True)
class _Runs:
    """The ended runs of one batch size. Vectors have one entry per run."""

    had: Vector
    """Epochs that the run had."""
    needed: Vector
    """Epochs that the run needed; infinity if it never converges or was stopped by its cost bound."""
    stopped: Mask
    """Whether the run was stopped by its cost bound."""

    @property
    def outrun(self) -> Mask:
        """Which runs were stopped by their cost bound while another run went further."""
        outrun: Mask = self.stopped & (self.had < self.had.max())
        return outrun


def read(file: Path, *, eta: float | None = None) -> Recorded:
    """Return the job whose trials a CSV file contains.

    Args:
        file: the exported file.
        eta: weight of energy against time; None: the job's.

    Raises:
        TracesUnusable: the file is missing or wrong, or contains no trial that ended with a verdict.
    """
    lines = tables.read(file, COLUMNS, "write it with lightning-bso export")
    _check_one_job(lines)
    last = max((line.count("exploration", minimum=0) for line in lines), default=0)
    current = [line for line in lines if line.count("exploration", minimum=0) == last]
    by_size = defaultdict(list)
    for line in current:
        has_verdict = line.one_of("status", TrialStatus) == TrialStatus.SUCCEEDED
        has_result = has_verdict and line["outcome_code"] != VerdictCode.PRICED_OUT
        if has_result and line.quantity("time") >= MIN_POSITIVE:
            line.one_of("batch_size", line["batch_sizes"].split())
            by_size[line.count("batch_size")].append(line)
    if not by_size:
        since = " since the last reset" * (last > 0)
        raise TracesUnusable(f"{file} contains no trial that ended with a verdict{since}")
    spec = _spec(lines[0], eta)
    runs = {size: _runs(by_size[size], spec.max_epochs) for size in sorted(by_size)}
    records = {size: _record(by_size[size], runs[size]) for size in runs}
    default = spec.default_batch_size if spec.default_batch_size in records else min(records)
    simulated = replace(spec, batch_sizes=tuple(records), default_batch_size=default)
    remarks = _remarks(lines, len(lines) - len(current), list(runs.values()), spec, simulated)
    return Recorded(Workload(lines[0]["job_id"], simulated, records), tuple(remarks))


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
    job_eta = line.quantity("eta_knob", maximum=1)
    return Spec(
        batch_sizes=sizes,
        default_batch_size=line.count("default_batch_size"),
        eta_knob=job_eta if eta is None else eta,
        beta_knob=line.quantity("beta_knob", MIN_POSITIVE) if line["beta_knob"] else None,
        # The trials say whether a run converged, so the simulation needs no real metric.
        target_metric=1.0,
        higher_is_better_metric=True,
        max_epochs=line.count("max_epochs"),
        num_pruning_rounds=line.count("num_pruning_rounds", minimum=0),
        window_size=line.count("window_size", minimum=0),
        mab_prior_mean=line.quantity("mab_prior_mean", -MAX_QUANTITY),
        mab_prior_precision=line.quantity("mab_prior_precision"),
        mab_num_explorations=line.count("mab_num_explorations", minimum=0),
        max_power=line.quantity("max_power", MIN_POSITIVE),
    )


def _runs(lines: list[Line], max_epochs: int) -> _Runs:
    had = [max(line.count("current_epoch", minimum=0), 1) for line in lines]
    codes = [line.one_of("outcome_code", END_CODES) for line in lines]
    needed = [
        # A run that reached the target in a validation after max_epochs has converged.
        min(count, max_epochs) if code == VerdictCode.CONVERGED else math.inf
        for count, code in zip(had, codes, strict=True)
    ]
    return _Runs(np.array(had, float), np.array(needed, float), np.array(codes) == VerdictCode.COST_BOUND)


def _record(lines: list[Line], runs: _Runs) -> SizeRecord:
    time_s = sum(line.quantity("time") for line in lines)
    energy_j = sum(line.quantity("energy") for line in lines)
    if energy_j < MIN_POSITIVE:
        size = lines[0]["batch_size"]
        raise TracesUnusable(
            f"{lines[0].file}: the runs of batch size {size} have used no energy; check the column energy"
        )
    return SizeRecord(float(time_s / runs.had.sum()), energy_j / time_s, _epochs(runs))


def _epochs(runs: _Runs) -> tuple[float, ...]:
    """Return equally likely epochs to the target.

    These are the epochs of the runs, or quantiles if some runs were stopped by their cost bound. Each stopped run, from
    the shortest to the longest, passes its weight on to the runs that went further.
    """
    if not runs.stopped.any():
        return tuple(runs.needed.tolist())
    weights = np.ones(len(runs.had))
    for i in sorted(np.flatnonzero(runs.outrun), key=lambda i: float(runs.had[i])):
        further = runs.had > runs.had[i]
        weights[further] += weights[i] / further.sum()
        weights[i] = 0
    order = np.argsort(runs.needed, kind="stable")
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    cumulative = np.cumsum(weights[order])
    return tuple(runs.needed[order][np.searchsorted(cumulative, levels * cumulative[-1])].tolist())


def _remarks(lines: list[Line], before: int, runs: Sequence[_Runs], job: Spec, simulated: Spec) -> Iterator[str]:
    stopped = sum(int(of_size.stopped.sum()) for of_size in runs)
    outrun = sum(int(of_size.outrun.sum()) for of_size in runs)
    if stopped:
        yield (
            f"runs stopped by their cost bound, which needed more epochs than they had: {stopped}; {outrun} of them "
            f"count as the runs of their batch size that went further; {stopped - outrun}, with no such run, count as "
            "never converging"
        )
    if before:
        yield f"trials from before the last reset are left out: {before}"
    if left_out := [size for size in job.batch_sizes if size not in simulated.batch_sizes]:
        yield f"batch sizes without an ended run are left out: {', '.join(map(str, left_out))}"
    if simulated.default_batch_size != job.default_batch_size:
        yield (
            f"the default batch size, {job.default_batch_size}, is one of them; {simulated.default_batch_size} "
            "replaces it"
        )
    if donor := lines[0]["warm_start_from"]:
        yield f"the job had a warm start from {donor}; the simulation has none"
