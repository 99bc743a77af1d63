"""Formats jobs and trials as plain text, for the commands `lightning-bso jobs` and `lightning-bso show`.

Nothing here calls the server. `cli` does, and prints the text.
"""

import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from lightning_bso.quantities import count, duration, joules, number
from lightning_bso.wire import JobBelief, JobListing, JobSavings, JobSummary, TrialRecord

MAX_TEXT_LENGTH = 100
"""Maximum length of a reason in a table on a terminal."""
JOB_WIDTH, GPU_WIDTH = 16, 10
"""Ids of jobs and GPU models are not cut below these lengths."""

Cell = str | int | float | None


def table(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Return rows as a text table with aligned columns. Numbers are aligned right, and None is a dash."""
    columns = []
    for name in rows[0]:
        cells = [row[name] for row in rows]
        texts = [name, *map(_cell_text, cells)]
        width = max(map(len, texts))
        is_numeric = any(isinstance(cell, (int, float)) for cell in cells)
        columns.append([text.rjust(width) if is_numeric else text.ljust(width) for text in texts])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def jobs_table(jobs: Sequence[JobListing], width: int | None) -> str:
    """Return a table with one line per job.

    Args:
        jobs: the jobs.
        width: columns of the terminal. Ids and GPUs are cut in the middle to fit. None: they are not cut.
    """
    rows: list[dict[str, Cell]] = [
        {
            "JOB": job.job_id,
            "GPU": job.gpu_model,
            "TRIALS": job.trials,
            "RUNNING": job.running,
            "RECOMMENDED": job.recommended_batch_size,
            "LAST SEEN (UTC)": None if job.last_seen_at is None else _utc(job.last_seen_at),
        }
        for job in jobs
    ]
    for name, least in (("GPU", GPU_WIDTH), ("JOB", JOB_WIDTH)):
        excess = 0 if width is None else max(map(len, table(rows).splitlines())) - width
        most = max(least, max(len(str(row[name])) for row in rows) - excess)
        if excess > 0:
            rows = [row | {name: _cut(str(row[name]), most)} for row in rows]
    return table(rows)


def job_page(
    job: JobSummary, belief: JobBelief, savings: JobSavings, latest: Sequence[TrialRecord], *, cuts: bool
) -> str:
    """Return the text of a job: its spec and state, its batch sizes, and its latest trials.

    Args:
        job: the job.
        belief: what its policy expects.
        savings: what it has saved.
        latest: its latest trials.
        cuts: whether long reasons are cut, for a terminal.
    """
    most = MAX_TEXT_LENGTH if cuts else None
    parts = [_head(job, belief, savings, most and 3 * most), _batch_sizes_table(job, belief, most)]
    if latest:
        parts.append(_trials_table(latest, most))
    return "\n\n".join(parts)


def _head(job: JobSummary, belief: JobBelief, savings: JobSavings, most: int | None) -> str:
    spec = job.spec
    bound = "no cost bound" if spec.beta_knob is None else f"cost bound {spec.beta_knob:g} times the lowest cost (beta)"
    next_size = "none" if belief.next_batch_size is None else f"batch size {belief.next_batch_size}"
    facts = {
        "job": spec.job_id or "",
        "machine": f"{spec.number_of_gpus} x {spec.gpu_model}, {spec.max_power:g} W in total",
        "target": _target(job),
        "cost": f"weight of energy {spec.eta_knob:g} (eta), of time {1 - spec.eta_knob:g}; {bound}",
        "policy": spec.policy,
        "stage": f"{job.stage}: {_one_line(job.message, most)}",
        "trials": f"{job.trials} in total, {job.running} running; the job was created {_utc(job.created_at)} UTC",
        "best so far": job.best or f"lowest mean so far: {job.best_batch_size or 'none'}",
        "next run": f"{next_size}: {_one_line(belief.next_reason, most)}",
        "saved": _saved(savings),
    }
    if job.attention is not None:
        facts["attention"] = _one_line(job.attention, most)
    if job.max_device_batch_size is not None:
        facts["memory"] = (
            f"a device takes at most {job.max_device_batch_size} at a time, because more ran out of memory; "
            "a reset of the job clears this"
        )
    width = max(map(len, facts))
    return "\n".join(f"{name:{width}}  {fact}" for name, fact in facts.items())


def _target(job: JobSummary) -> str:
    spec, learnt = job.spec, job.learnt_target
    metric = spec.target_metric if learnt is None else learnt.target_metric
    epochs = count(spec.max_epochs, "epoch")
    if metric is None:
        return f"not known yet: it is learnt from {count(spec.calibration_runs, 'run')}; at most {epochs}"
    relation = "at least" if spec.higher_is_better_metric else "at most"
    origin = f", learnt from trials {', '.join(map(str, learnt.trials))}" if learnt is not None else ""
    return f"a metric of {relation} {metric:g} within {epochs}{origin}"


def _saved(savings: JobSavings) -> str:
    default, saved = savings.default_batch_size, savings.against_default
    if saved is None:
        return f"unknown, because the default batch size {default} has not converged yet"
    figures = f"cost {joules(saved.cost)}, energy {joules(saved.energy)}, time {duration(saved.time)}"
    return f"{figures}, compared with always using the default {default}"


def _batch_sizes_table(job: JobSummary, belief: JobBelief, most: int | None) -> str:
    expected = {size.batch_size: size for size in belief.batch_sizes}
    return table(
        [
            {
                "BATCH SIZE": size.batch_size,
                "RUNS": size.runs,
                "CONVERGED": size.converged,
                "FAILED": size.runs - size.converged,
                "PRICED OUT": size.priced_out,
                "LOST": size.lost,
                "MEAN COST (J)": size.mean_cost,
                "MEAN ENERGY (J)": size.mean_energy,
                "MEAN TIME (s)": size.mean_time,
                "MEAN EPOCHS": size.mean_epochs,
                "MEAN BEST METRIC": size.mean_best_metric,
                "EXPECTED COST (J)": expected[size.batch_size].expected_cost,
                "SD (J)": expected[size.batch_size].standard_deviation,
                "RULED OUT": _one_line(size.ruled_out or "", most),
            }
            for size in job.batch_sizes
        ]
    )


def _trials_table(trials: Sequence[TrialRecord], most: int | None) -> str:
    return table(
        [
            {
                "TRIAL": trial.trial_number,
                "BATCH SIZE": trial.batch_size,
                "LAST SEEN (UTC)": _utc(trial.last_seen_at),
                "EPOCHS": trial.current_epoch,
                "COST (J)": trial.cost,
                "STATUS": _status(trial),
                "WHY": _one_line(trial.outcome or trial.reason, most),
            }
            for trial in trials
        ]
    )


def _status(trial: TrialRecord) -> str:
    """Return how a run stands, with the reason for a failure."""
    status = trial.run_status or "unknown"  # the server is of an earlier release
    return (f"{status}: {trial.outcome_code}" if status == "failed" else status).replace("_", " ")


def _cell_text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return number(cell)
    return str(cell)


def _one_line(text: str, most: int | None) -> str:
    """Return the text in one line, of at most so many characters.

    A training's error may contain control characters, which are replaced.
    """
    words = " ".join(text.split()) if most is None else textwrap.shorten(text, most, placeholder=" …")
    return "".join(character if character.isprintable() else "?" for character in words)


def _cut(text: str, most: int) -> str:
    """Return the text with a mark in place of its middle if it is longer than `most` characters."""
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}…{text[-end:]}"


def _utc(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}"
