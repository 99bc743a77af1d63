"""What a person sees of the optimizer: values in every logger and the progress bar, and a line at the end.

When these are shown is in `callback.py`.
"""

import lightning.pytorch as pl

from lightning_bso.energy import Reading
from lightning_bso.wire import JobSummary, ReportAnswer

JOULES_PER_WH = 3600.0


def log_run(trainer: pl.Trainer, batch_size: int, trial_number: int, spent: Reading, cost_j: float | None) -> None:
    """Log to every logger what a run has cost so far, as `zeus_bso/…`.

    Args:
        trainer: the trainer in `on_validation_end`, where a callback's own `log` is refused.
        batch_size: the global one.
        trial_number: the run's.
        spent: joules and seconds so far.
        cost_j: cost so far, None where the server has not told it.
    """
    values = {"batch_size": float(batch_size), "trial": float(trial_number)}
    values |= {"energy_j": spent.energy_j, "time_s": spent.time_s} | ({} if cost_j is None else {"cost_j": cost_j})
    step = trainer.fit_loop.epoch_loop._batches_that_stepped  # that of the validation's own metrics
    for logger in trainer.loggers:
        logger.log_metrics({f"zeus_bso/{name}": value for name, value in values.items()}, step=step)


def closing_line(batch_size: int, result: ReportAnswer, spent: Reading, job: JobSummary | None) -> str:
    """How a run that has a verdict did, beside the job's other runs.

    Args:
        batch_size: the run's.
        result: the verdict.
        spent: what the run took.
        job: the job after the run, None where the server has not told it.
    """
    line = f"Batch-size optimizer: {result.message}. The run took {spent.energy_j:.4g} J and {spent.time_s:.4g} s"
    if job is None:
        return line
    sizes = {size.batch_size: size for size in job.batch_sizes}
    best = sizes.get(job.best_batch_size) if job.best_batch_size is not None else None
    if best is not None and best.mean_cost is not None:
        line += f"; the cheapest batch size so far is {best.batch_size}, with {best.mean_cost:.4g} J on average"
    default = sizes[job.spec.default_batch_size]
    other = batch_size != default.batch_size and result.converged
    if other and default.mean_cost is not None and default.mean_energy is not None:
        saved_j = default.mean_energy - spent.energy_j
        line += (
            f". With the default {default.batch_size} runs cost {default.mean_cost:.4g} J on average; this one "
            f"{'saved' if saved_j >= 0 else 'took'} {abs(saved_j):.4g} J ({abs(saved_j) / JOULES_PER_WH:.3g} Wh) of "
            f"energy {'against' if saved_j >= 0 else 'more than'} that"
        )
    return line
