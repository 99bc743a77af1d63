"""The output for users: values in every logger, and a closing line that compares a run with its job.

`callback.py` decides when they appear, and fills the progress bar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_bso.energy import Reading
from lightning_bso.quantities import J_PER_WH, duration, joules, quantity
from lightning_bso.wire import JobSummary, ReportAnswer

if TYPE_CHECKING:
    import lightning.pytorch as pl


def log_run(
    trainer: pl.Trainer,
    batch_size: int,
    trial_number: int,
    spent: Reading,
    cost_j: float | None,
    *,
    converged: bool | None,
) -> None:
    """Log the costs of a run so far to every logger, as `zeus_bso/…`.

    Args:
        trainer: the trainer in `on_validation_end`, where Lightning refuses a callback's own `log`.
        batch_size: the global batch size.
        trial_number: the number of the run's trial.
        spent: joules and seconds so far.
        cost_j: cost so far in joules, or None before the server has returned one.
        converged: the verdict, or None before it.
    """
    known = {"cost_j": cost_j, "converged": None if converged is None else float(converged)}
    values = {"batch_size": float(batch_size), "trial": float(trial_number)}
    values |= {"energy_j": spent.energy_j, "time_s": spent.time_s}
    values |= {name: value for name, value in known.items() if value is not None}
    step = trainer.fit_loop.epoch_loop._batches_that_stepped  # the step of the validation's own metrics
    for logger in trainer.loggers:
        logger.log_metrics({f"zeus_bso/{name}": value for name, value in values.items()}, step=step)


def closing_line(batch_size: int, result: ReportAnswer, spent: Reading, job: JobSummary | None) -> str:
    """Return a line that compares a run that has a verdict with the job's other runs.

    Args:
        batch_size: batch size of the run.
        result: the verdict.
        spent: joules and seconds of the run.
        job: the job after the run, or None if the server did not return it.
    """
    spent_text = f"{joules(spent.energy_j)} of energy in {duration(spent.time_s)}"
    line = f"Batch-size optimizer: {result.message}. The run used {spent_text}"
    if job is None:
        return line
    sizes = {size.batch_size: size for size in job.batch_sizes}
    if job.best is not None:
        line += f"; {job.best}"
    default = sizes[job.spec.default_batch_size]
    compares = batch_size != default.batch_size and result.converged
    if compares and default.mean_cost is not None and default.mean_energy is not None:
        saved_j = default.mean_energy - spent.energy_j
        line += (
            f". Runs with the default batch size {default.batch_size} cost {joules(default.mean_cost)} on average; "
            f"this run used {joules(abs(saved_j))} ({quantity(abs(saved_j) / J_PER_WH, 'Wh')}) "
            f"{'less' if saved_j >= 0 else 'more'} energy than they do on average"
        )
    return line
