"""Jobs and trials as plain text, for people: what `lightning-bso jobs` and `show` print."""

import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from lightning_bso.wire import JobBelief, JobListing, JobSavings, JobSummary, TrialRecord

WIDEST_TEXT = 100
"""Characters of a reason that are shown; all of it is in the JSON."""

Cell = str | int | float | None


def table(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Rows as aligned text below the names of their columns, numbers to the right; None is a dash."""
    columns = []
    for name in rows[0]:
        cells = [row[name] for row in rows]
        texts = [name, *map(_text, cells)]
        width = max(map(len, texts))
        number = any(isinstance(cell, (int, float)) for cell in cells)
        columns.append([text.rjust(width) if number else text.ljust(width) for text in texts])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def jobs_table(jobs: Sequence[JobListing]) -> str:
    """One line per job."""
    return table(
        [
            {
                "JOB": job.job_id,
                "GPU": job.gpu_model,
                "POLICY": job.policy,
                "TRIALS": job.trials,
                "RUNNING": job.running,
                "BEST": job.best_batch_size,
                "LAST SEEN (UTC)": None if job.last_seen_at is None else _moment(job.last_seen_at),
                "CREATED (UTC)": _moment(job.created_at),
            }
            for job in jobs
        ]
    )


def job_page(job: JobSummary, belief: JobBelief, savings: JobSavings, latest: Sequence[TrialRecord]) -> str:
    """What the optimizer knows of a job: how it stands, its batch sizes, and the latest of its trials."""
    parts = [_head(job, belief, savings), _batch_sizes(job, belief)]
    if latest:
        parts.append(_trials(latest))
    return "\n\n".join(parts)


def _head(job: JobSummary, belief: JobBelief, savings: JobSavings) -> str:
    spec = job.spec
    relation = "at least" if spec.higher_is_better_metric else "at most"
    bound = "no cost bound" if spec.beta_knob is None else f"cost bound {spec.beta_knob:g} times the cheapest (beta)"
    next_size = "none" if belief.next_batch_size is None else f"batch size {belief.next_batch_size}"
    facts = {
        "job": spec.job_id or "",
        "machine": f"{spec.number_of_gpus} x {spec.gpu_model}, {spec.max_power:g} W together",
        "target": f"a metric of {relation} {spec.target_metric:g} within {spec.max_epochs} epochs",
        "cost": f"energy counts {spec.eta_knob:g} (eta), time {1 - spec.eta_knob:g}; {bound}",
        "policy": spec.policy,
        "stage": f"{job.stage}: {_shown(job.message, WIDEST_TEXT * 3)}",
        "trials": f"{job.trials}, {job.running} of them running; the job is from {_moment(job.created_at)} UTC",
        "best so far": "none has converged yet" if job.best_batch_size is None else f"{job.best_batch_size}",
        "next run": f"{next_size}: {_shown(belief.next_reason, WIDEST_TEXT * 3)}",
        "saved": _saved(savings),
    }
    width = max(map(len, facts))
    return "\n".join(f"{name:{width}}  {fact}" for name, fact in facts.items())


def _saved(savings: JobSavings) -> str:
    default, saved = savings.default_batch_size, savings.against_default
    if saved is None:
        return f"unknown, as the default, {default}, has not converged yet"
    figures = f"cost {_text(saved.cost)} J, energy {_text(saved.energy)} J, time {_text(saved.time)} s"
    return f"{figures}, against always the default, {default}"


def _batch_sizes(job: JobSummary, belief: JobBelief) -> str:
    expected = {size.batch_size: size for size in belief.batch_sizes}
    return table(
        [
            {
                "BATCH SIZE": size.batch_size,
                "RUNS": size.runs,
                "CONVERGED": size.converged,
                "FAILED": size.runs - size.converged,
                "LOST": size.lost,
                "MEAN COST (J)": size.mean_cost,
                "MEAN ENERGY (J)": size.mean_energy,
                "MEAN TIME (s)": size.mean_time,
                "MEAN EPOCHS": size.mean_epochs,
                "EXPECTED COST (J)": expected[size.batch_size].expected_cost,
                "SD (J)": expected[size.batch_size].standard_deviation,
                "RULED OUT": _shown(size.ruled_out or ""),
            }
            for size in job.batch_sizes
        ]
    )


def _trials(trials: Sequence[TrialRecord]) -> str:
    return table(
        [
            {
                "TRIAL": trial.trial_number,
                "BATCH SIZE": trial.batch_size,
                "LAST SEEN (UTC)": _moment(trial.last_seen_at),
                "EPOCHS": trial.current_epoch,
                "COST (J)": trial.cost,
                "OUTCOME": trial.outcome_code or "running",
                "WHY": _shown(trial.outcome or trial.reason),
            }
            for trial in trials
        ]
    )


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return str(cell)


def _shown(text: str, width: int = WIDEST_TEXT) -> str:
    """The text on one line. It may hold the error of a training, so what would steer a terminal is replaced."""
    shortened = textwrap.shorten(text, width, placeholder=" …")
    return "".join(letter if letter.isprintable() else "?" for letter in shortened)


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"
